"""Records as a frame with one row a cell: what the leaderboard aggregates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

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
LOST = ("lost_retain_acc", "lost_test_acc")  # retrained less own; below 0 where it is better
SCORES = (*PAIRED, *(f"gap_{name}" for name in METRICS), *LOST, "tow")

Label = Callable[[str, dict[str, Any]], str]


class Labels(NamedTuple):
    """How recipes and methods are called: from a name and its parameters to a label."""

    recipes: Label
    methods: Label


def labels_of(records: Iterable[Record]) -> Labels:
    """Labels that mean the same in every task of a leaderboard.

    A name that has one variant in each task, such as a method tuned for each dataset, is not told
    apart between tasks: it stands there bare.
    """
    recipes: list[tuple[Any, str, dict[str, Any]]] = []
    methods: list[tuple[Any, str, dict[str, Any]]] = []
    for r in records:
        task = (r.dataset, r.model, r.scenario)
        recipes.append((task, r.recipe, r.training))
        methods.append((task, r.method, r.hyperparameters))
    return Labels(_labels(recipes), _labels(methods))


def cell_frame(records: list[Record], labels: Labels | None = None) -> pd.DataFrame:
    """One row per cell: what it was, and every number that the leaderboard uses.

    Args:
        records: The cells.
        labels: How recipes and methods are called; without, variants in these records are told
            apart, whatever tasks they are of.
    """
    nan = float("nan")
    recipes, methods = labels or Labels(
        _labels((None, r.recipe, r.training) for r in records),
        _labels((None, r.method, r.hyperparameters) for r in records),
    )
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
                **{name: r.metrics.get(name, nan) for name in SCORES if name not in LOST},
                **{name: r.times.get(name, nan) for name in TIMES},
                "tuning_s": _tuning_s(r),
                **{name: r.model_info.get(name, nan) for name in DECORRELATION},
                "peak_memory_bytes": float(r.peak_memory_bytes or nan),
                "record": r,
            }
            for r in records
        ]
    )


def _labels(named: Iterable[tuple[Any, str, dict[str, Any]]]) -> Label:
    """Name variants by the parameters in which they differ; by its name what is alone in a task.

    A value that more than half of the variants have is not told of them, but of the others; so is
    a parameter that is not recorded, as older versions may not have known it.
    """
    variants: dict[str, dict[str, dict[str, str]]] = {}
    of_task: dict[tuple[Any, str], set[str]] = {}
    for task, name, params in named:
        # a cell that never ran may not say its parameters; it is no variant of its own
        if params:
            texts = {key: as_text(value) for key, value in params.items()}
            variants.setdefault(name, {})[as_text(params)] = texts
            of_task.setdefault((task, name), set()).add(as_text(params))
    several = {name for (_, name), found in of_task.items() if len(found) > 1}
    # how many variants of a name have which value, and which parameter, these in their order
    counts = {
        name: Counter(t for v in variants[name].values() for t in v.items()) for name in several
    }
    keys = {name: Counter(key for v in variants[name].values() for key in v) for name in several}

    def label(name: str, params: dict[str, Any]) -> str:
        differing = {}
        for key in keys.get(name, ()) if params else ():
            if key in params:
                have = counts[name][key, as_text(params[key])]
            else:
                have = len(variants[name]) - keys[name][key]
            if 2 * have <= len(variants[name]):
                differing[key] = params.get(key, NOT_RECORDED)
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
    beside = (*PAIRED, "hardware")
    retrained = retrained.drop_duplicates(same)[[*same, *beside]]
    renamed = retrained.rename(columns={name: f"{name}_retrained" for name in beside})
    both = cells.merge(renamed, on=same, how="left", validate="many_to_one")
    for name in LOST:
        metric = name.removeprefix("lost_")
        both[name] = both[f"{metric}_retrained"] - both[metric]
    return both
