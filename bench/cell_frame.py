"""Records as a frame with one row a cell: what the leaderboard aggregates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from .attack_rows import CELL_ATTACKS
from .probe_columns import PROBE_METRICS
from .record import DECORRELATION, Record
from .spec_string import format_spec

METRICS = ("forget_acc", "retain_acc", "test_acc", "test_forget_acc", "test_retain_acc")
TIMES = (
    "unlearn_s",
    "statistics_s",
    "search_s",
    "prepare_s",
    "tuning_s",
    "speedup",
    "original_s",
    "retrain_s",
)
NOT_RECORDED = "unknown"
PAIRED = (*METRICS, *CELL_ATTACKS, *PROBE_METRICS)  # each is shown beside the retrained model's
SCORES = (*PAIRED, *(f"gap_{name}" for name in METRICS), "tow")


def cell_frame(records: list[Record]) -> pd.DataFrame:
    """One row per cell: what it was, and every number that the leaderboard uses."""
    nan = float("nan")
    recipes = _labels((r.recipe, r.training) for r in records)
    methods = _labels((r.method, r.hyperparameters) for r in records)
    return pd.DataFrame(
        [
            {
                "recipe": recipes(r.recipe, r.training),
                "name": r.method,
                "label": methods(r.method, r.hyperparameters),
                "variant": as_text(r.hyperparameters),
                "seed": r.seed,
                "request": r.forget_request,
                "status": r.status,
                "reason": " ".join((r.reason or "").split()),
                "hardware": hardware_of(r),
                **{name: r.metrics.get(name, nan) for name in SCORES},
                **{name: r.times.get(name, nan) for name in TIMES},
                "tuning_s": _tuning_s(r),
                **{name: r.model_info.get(name, nan) for name in DECORRELATION},
                "peak_memory_bytes": float(r.peak_memory_bytes or nan),
                "record": r,
            }
            for r in records
        ]
    )


def _labels(named: Iterable[tuple[str, dict[str, Any]]]) -> Callable[[str, dict[str, Any]], str]:
    """Name variants by the parameters in which they differ; a single variant by its name.

    A value that more than half of the variants have is not told of them, but of the others; so is
    a parameter that is not recorded, as older versions may not have known it.
    """
    variants: dict[str, dict[str, dict[str, str]]] = {}
    for name, params in named:
        # a cell that never ran may not say its parameters; it is no variant of its own
        if params:
            texts = {key: as_text(value) for key, value in params.items()}
            variants.setdefault(name, {})[as_text(params)] = texts

    def label(name: str, params: dict[str, Any]) -> str:
        others = list(variants.get(name, {}).values()) if params else []
        texts = {key: as_text(value) for key, value in params.items()}
        differing = {
            key: params.get(key, NOT_RECORDED)
            for key in dict.fromkeys(key for other in others for key in other)
            if 2 * sum(other.get(key) == texts.get(key) for other in others) <= len(others)
        }
        return format_spec(name, differing)

    return label


def as_text(value: Any) -> str:  # noqa: ANN401
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _tuning_s(record: Record) -> float:
    """Seconds of tuning; not known where it was done on another machine."""
    same = record.tuning.get("hardware") == record.environment.get("hardware")
    return float(record.tuning.get("seconds", "nan")) if same else float("nan")


def hardware_of(record: Record) -> str:
    """The machine of a record; several are joined by semicolons, so that one has none."""
    return as_text(record.environment.get("hardware") or "").replace(";", ",")


def with_retrained(cells: pd.DataFrame) -> pd.DataFrame:
    """Set beside each cell the numbers of the retrained model that it is compared with."""
    same = ["recipe", "seed", "request"]
    retrained = cells[(cells["name"] == "retrain") & (cells["status"] == "ok")]
    retrained = retrained.drop_duplicates(same)[[*same, *PAIRED]]
    renamed = retrained.rename(columns={name: f"{name}_retrained" for name in PAIRED})
    return cells.merge(renamed, on=same, how="left", validate="many_to_one")
