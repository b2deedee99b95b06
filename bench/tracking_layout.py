"""What a record looks like as an MLflow run: the names of parameters, metrics and tags."""

from __future__ import annotations

import hashlib
import json
import re

from .record import Record

# Raise it when anything here changes: every cell is then logged once more.
LAYOUT = 1
# Names by family and quantity, so that the MLflow UI groups them.
# `gap_*_acc` becomes `gap/*`, other times `time/*`, samples `samples/*`; names not known here
# (metrics of a plug-in) stay as they are.
METRIC_NAMES = {
    "retain_acc": "acc/retain",
    "forget_acc": "acc/forget",
    "val_acc": "acc/val",
    "test_acc": "acc/test",
    "test_retain_acc": "acc/test_retain",
    "test_forget_acc": "acc/test_forget",
    "tow": "tow/tow",
    "speedup": "time/rte",
    "peak_memory_bytes": "memory/peak_bytes",
}
_CELL = ("dataset", "model", "recipe", "scenario", "method", "seed")


def cell_params(record: Record) -> dict[str, str]:
    """MLflow parameters of a cell: its hyper-parameters, and what it was run on.

    A hyper-parameter that is called like a part of the cell (`seed`) becomes `method.seed`.
    """
    cell = {name: getattr(record, name) for name in (*_CELL, "forget_size", "retain_size")}
    hyperparameters = {
        f"method.{name}" if name in cell else name: value
        for name, value in record.hyperparameters.items()
    }
    return {mlflow_name(k): _text(v, 6000) for k, v in {**hyperparameters, **cell}.items()}


def cell_metrics(record: Record) -> dict[str, float]:
    """MLflow metrics of a cell, named by `METRIC_NAMES`."""
    values: dict[str, float] = {_metric_name(k): v for k, v in record.metrics.items()}
    values |= {METRIC_NAMES.get(k, f"time/{k}"): v for k, v in record.times.items()}
    values |= {f"samples/{k}": v for k, v in record.samples.items()}
    if record.peak_memory_bytes is not None:
        values[METRIC_NAMES["peak_memory_bytes"]] = record.peak_memory_bytes
    return {mlflow_name(name): float(value) for name, value in values.items()}


def cell_tags(record: Record) -> dict[str, str]:
    """MLflow tags of a cell by which runs are filtered and grouped in the UI."""
    environment = record.environment
    commit = environment.get("git_commit")
    values = {name: getattr(record, name) for name in (*_CELL, "forget_request", "status")} | {
        "reason": record.reason,
        "hardware": environment.get("hardware"),
        "device": environment.get("device"),
        "git_commit": commit,
        "mlflow.source.git.commit": commit,
    }
    return {name: _text(v, 5000) for name, v in values.items() if v is not None}


def digest_of(record: Record) -> str:
    """Return the digest of what a record becomes in MLflow."""
    return hashlib.sha256(f"{LAYOUT}\n{record.to_json()}".encode()).hexdigest()


def mlflow_name(name: str) -> str:
    """Replace what MLflow refuses in the name of a parameter or metric."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _metric_name(name: str) -> str:
    gap = re.fullmatch(r"gap_(.+?)(?:_acc)?", name)
    return f"gap/{gap[1]}" if gap else METRIC_NAMES.get(name, name)


def _text(value: object, limit: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"
