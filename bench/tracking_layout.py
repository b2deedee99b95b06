"""What a record looks like as an MLflow run: the names of parameters, metrics and tags."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .bank_record import BankRecord
from .record import DECORRELATION, Record
from .trial_record import TrialRecord

# Raise it when anything here changes: every cell and bank is then logged once more.
LAYOUT = 4
# Names by family and quantity, so that the MLflow UI groups them.
# `gap_*_acc` becomes `gap/*`, other times `time/*`, samples `samples/*`; names not known here
# (those of the attack, and metrics of a plug-in) stay as they are.
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
# Curves, with the epoch as the step; the figures above are of the end, and have step 0.
CURVE = "course/{}"
# Entries of a record's `attack`, which become `ulira.*`.
ATTACK_PARAMS = {
    "variant": "variant",
    "shadows": "N",
    "examples": "E",
    "views": "views",
    "variance": "variance",
    "tuning_track": "tuning_track",
    "bank": "shadow_bank_hash",
}
ATTACK_TAGS = ("reason", "suspicion", "scores")
ENDED = ("FINISHED", "FAILED")  # a run in any other state was left by a writer that was killed
_STATUS = {"ok": "FINISHED", "skipped": "FINISHED", "failed": "FAILED"}
_CELL = ("dataset", "model", "recipe", "scenario", "method", "seed")
_TRIAL = (
    "study", "trial", "dataset", "model", "recipe", "kind", "method", "track", "development_models",
    "objectives",
)  # fmt: skip
_BANK = ("dataset", "model", "recipe", "shadows", "views", "bank")


@dataclass(frozen=True)
class DatasetUse:
    """Examples that a run used, as MLflow shows them.

    Attributes:
        name: What they are called.
        digest: Of their content; at most 36 characters.
        context: `train`, `forget` or `retain`.
        source: Where they come from, as JSON.
        count: How many they are.
    """

    name: str
    digest: str
    context: str
    source: str
    count: int


@dataclass(frozen=True)
class ChildRun:
    """What one child run of the sweep holds.

    Attributes:
        kind: What it is of: a cell, a shadow bank, or a trial of a search.
        key: Names it among those of its kind: key of the cell, hash of the bank.
        digest: Digest of what it is made from.
        name: Its name in the UI.
        status: MLflow's word for how it ended.
        seconds: How long it took.
        params: Parameters; MLflow never changes one.
        metrics: Metrics.
        tags: Tags, beside those by which runs are found again.
        file: Name of its artifact.
        text: Content of that.
        scores: Key in the store of the score arrays that it stands for; None if there are none.
        curves: Values of metrics epoch by epoch, from step 1.
        datasets: What it used.
        unlearned: The record of the cell whose unlearned model can be logged; None if there is
            none.
    """

    kind: Literal["cell", "bank", "trial"]
    key: str
    digest: str
    name: str
    status: str
    seconds: float
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    file: str
    text: str
    scores: str | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    datasets: tuple[DatasetUse, ...] = ()
    unlearned: Record | None = None

    def extends(self, old: ChildRun) -> bool:
        """Whether it is the old one and more, so that the old one's run need not be replaced."""
        return (
            old.params.items() <= self.params.items()
            and old.tags.items() <= self.tags.items()
            and old.metrics.keys() <= self.metrics.keys()
            and (old.curves, old.datasets) == (self.curves, self.datasets)
        )


def cell_run(record: Record) -> ChildRun:
    """Return the run of a cell; its duration in the UI is that of the cell."""
    parts = ("prepare_s", "unlearn_s", "evaluate_s")
    return ChildRun(
        kind="cell",
        key=record.key,
        digest=digest_of(record),
        name=f"{record.method} seed {record.seed}",
        status=_STATUS[record.status],
        seconds=sum(record.times.get(part, 0) for part in parts),
        params=_cell_params(record),
        metrics=_cell_metrics(record),
        tags=_cell_tags(record),
        file="record.json",
        text=record.to_json() + "\n",
        scores=record.attack.get("scores"),
        curves={CURVE.format(mlflow_name(name)): curve for name, curve in record.course.items()},
        datasets=_datasets(record),
        unlearned=record if record.status == "ok" else None,
    )


def bank_run(bank: BankRecord) -> ChildRun:
    """Return the run of a shadow bank; its duration in the UI is that of all its trainings."""
    params = {name: getattr(bank, name) for name in _BANK}
    tags = {name: params[name] for name in ("dataset", "model", "recipe")}
    return ChildRun(
        kind="bank",
        key=bank.bank,
        digest=digest_of(bank),
        name=f"shadow bank {bank.dataset} {bank.model}",
        status="FINISHED",
        seconds=bank.metrics.get("time/training_s", 0),
        params={name: _text(value, 6000) for name, value in params.items()},
        metrics={mlflow_name(name): float(value) for name, value in bank.metrics.items()},
        tags=_tags(tags | _environment_tags(bank.environment)),
        file="bank.json",
        text=bank.to_json() + "\n",
    )


def trial_run(trial: TrialRecord) -> ChildRun:
    """Return the run of a trial of a hyper-parameter search."""
    about = {name: getattr(trial, name) for name in _TRIAL}
    params = {
        f"method.{name}" if name in about else name: value for name, value in trial.params.items()
    }
    tags = {**about, "state": trial.state, "reason": trial.reason, "chosen": trial.chosen}
    return ChildRun(
        kind="trial",
        key=f"{trial.study}/{trial.trial}",
        digest=digest_of(trial),
        name=f"trial {trial.trial} of {trial.study}",
        status="FAILED" if trial.state == "failed" else "FINISHED",
        seconds=trial.busy_s,
        params={
            mlflow_name(name): _text(value, 6000) for name, value in {**params, **about}.items()
        },
        metrics={
            f"tuning/{mlflow_name(name)}": float(value) for name, value in trial.metrics.items()
        },
        tags=_tags(tags),
        file="trial.json",
        text=trial.to_json() + "\n",
    )


def digest_of(record: Record | BankRecord | TrialRecord) -> str:
    """Return the digest of what a record becomes in MLflow."""
    return hashlib.sha256(f"{LAYOUT}\n{record.to_json()}".encode()).hexdigest()


def mlflow_name(name: str) -> str:
    """Replace what MLflow refuses in the name of a parameter or metric."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _cell_params(record: Record) -> dict[str, str]:
    """Hyper-parameters, what the method was run on, and how it was attacked.

    A hyper-parameter that is called like a part of the cell (`seed`) becomes `method.seed`.
    """
    cell = {name: getattr(record, name) for name in (*_CELL, "forget_size", "retain_size")}
    hyperparameters = {
        f"method.{name}" if name in cell else name: value
        for name, value in record.hyperparameters.items()
    }
    attack = {
        f"ulira.{name}": record.attack[entry]
        for entry, name in ATTACK_PARAMS.items()
        if entry in record.attack
    }
    values = {**hyperparameters, **cell, **attack}
    return {mlflow_name(name): _text(value, 6000) for name, value in values.items()}


def _datasets(record: Record) -> tuple[DatasetUse, ...]:
    """The training set, and its two parts; forget and retain set are of one request."""
    if not record.data_digest:
        return ()
    data = {"dataset": record.dataset, "data_digest": record.data_digest}
    request = {"scenario": record.scenario, "forget_request": record.forget_request}
    size = record.forget_size + record.retain_size
    part = f"{record.dataset} {record.scenario}"
    return (
        _use(record.dataset, record.data_digest, "train", data, size),
        *(
            _use(f"{part} {role}", record.forget_request, role, data | request, count)
            for role, count in (("forget", record.forget_size), ("retain", record.retain_size))
        ),
    )


def _use(name: str, digest: str, context: str, source: object, count: int) -> DatasetUse:
    return DatasetUse(_text(name, 500), digest[:36], context, _text(source, 60_000), count)


def _cell_metrics(record: Record) -> dict[str, float]:
    """Metrics, times, what is known of the original, samples and memory."""
    values: dict[str, float] = {_metric_name(k): v for k, v in record.metrics.items()}
    values |= {METRIC_NAMES.get(k, f"time/{k}"): v for k, v in record.times.items()}
    values |= {
        f"original/{name}": record.model_info[name]
        for name in DECORRELATION
        if name in record.model_info
    }
    values |= {f"samples/{k}": v for k, v in record.samples.items()}
    if record.peak_memory_bytes is not None:
        values[METRIC_NAMES["peak_memory_bytes"]] = record.peak_memory_bytes
    return {mlflow_name(name): float(value) for name, value in values.items()}


def _cell_tags(record: Record) -> dict[str, str]:
    """Tags by which cells are filtered and grouped in the UI."""
    values = {name: getattr(record, name) for name in (*_CELL, "forget_request", "status")}
    values |= {"reason": record.reason}
    values |= {f"ulira.{name}": record.attack.get(name) for name in ATTACK_TAGS}
    return _tags(values | _environment_tags(record.environment))


def _environment_tags(environment: Mapping[str, Any]) -> dict[str, Any]:
    commit = environment.get("git_commit")
    return {
        "hardware": environment.get("hardware"),
        "device": environment.get("device"),
        "git_commit": commit,
        "mlflow.source.git.commit": commit,
    }


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value, 5000) for name, value in values.items() if value is not None}


def _metric_name(name: str) -> str:
    gap = re.fullmatch(r"gap_([^/]+?)(?:_acc)?", name)
    return f"gap/{gap[1]}" if gap else METRIC_NAMES.get(name, name)


def _text(value: object, limit: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"
