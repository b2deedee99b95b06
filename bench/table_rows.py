"""Cells as the rows of a table: means and spreads over seeds, references first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from .attack_rows import CELL_ATTACKS, attack_figures, plain_rows
from .cell_frame import LOST, METRICS, PAIRED, SCORES, TIMES
from .probe_columns import PROBE_METRICS

REFERENCES = {"identity": "original (identity)", "retrain": "retrained"}
# shown beside the methods, not ranked: a masked head is perfect for whoever sees outputs only
CONTROLS = ("head-mask", "random-channels")
NOISE_FLOOR = "retrained, other seed"
NOT_RUN = "not run"
NOT_APPLICABLE = "not applicable"

_WORDS = {"ok": "ok", "failed": "failed", "skipped": NOT_APPLICABLE}
_NUMBERS = (*SCORES, *TIMES)


def table_rows(cells: pd.DataFrame, recipes: Sequence[str]) -> pd.DataFrame:
    """One row a (recipe, method variant): references of every recipe, then the others.

    Args:
        cells: As `cell_frame` gives them, with the retrained models' numbers.
        recipes: Those whose references are shown, run or not.
    """
    # sorted, so that sums do not depend on the order of the records to the last digit
    ok = cells[cells["status"] == "ok"].sort_values("seed", kind="stable")
    columns = [*_NUMBERS, *(f"{name}_retrained" for name in PAIRED)]
    grouped = ok.groupby(["recipe", "label"], sort=False)
    means, spreads = grouped[columns].mean(), grouped[list(_NUMBERS)].std()
    means.columns = pd.Index([*(_columns(name)[0] for name in _NUMBERS), *columns[len(_NUMBERS) :]])
    spreads.columns = pd.Index([_columns(name)[1] for name in _NUMBERS])
    both = pd.concat([means, spreads.drop(columns="")], axis=1)
    numbers = dict(zip(both.index, plain_rows(both), strict=True))
    groups = {where: group for where, group in cells.groupby(["recipe", "label"], sort=False)}
    made = {where: _row(group, numbers.get(where, {})) for where, group in groups.items()}
    rows = [row for recipe in recipes for row in _reference_rows(recipe, cells, made)]
    rows += [row for row in made.values() if row["name"] not in REFERENCES]
    frame = pd.DataFrame(rows)
    counts = [name for name in frame.columns if name.startswith("n_")]
    return frame.astype(dict.fromkeys(counts, "int64"))


def shown_name(name: str, variant: str) -> str:
    """The name of a row: references have names of their own."""
    return REFERENCES.get(name, name) + variant.removeprefix(name)


def _reference_rows(
    recipe: str, cells: pd.DataFrame, made: dict[Any, dict[str, Any]]
) -> list[dict[str, Any]]:
    rows = []
    of_recipe = [row for (where, _), row in made.items() if where == recipe]
    for name, label in REFERENCES.items():
        found = [
            {**row, "method": shown_name(name, row["method"])}
            for row in of_recipe
            if row["name"] == name
        ]
        rows += found or [_empty_row(recipe, name, label, "reference", NOT_RUN)]
    return [*rows, _noise_floor(recipe, cells[cells["recipe"] == recipe])]


def _row(group: pd.DataFrame, numbers: dict[str, float]) -> dict[str, Any]:
    """The row of one method variant; `numbers` are its means and spreads over seeds."""
    name, recipe, label = (group[column].iloc[0] for column in ("name", "recipe", "label"))
    status = group["status"].to_numpy()
    ok = status == "ok"
    machines = _distinct(group["hardware"].to_numpy()[ok])
    counts = {word: int((status == word).sum()) for word in _WORDS}
    kind = "reference" if name in REFERENCES else "control" if name in CONTROLS else "method"
    row = _empty_row(recipe, name, label, kind, _status(counts))
    row.update({f"n_{word}": count for word, count in counts.items()})
    row["hyperparameters"] = max(group["variant"], key=len)
    row["seeds"] = " ".join(str(seed) for seed in sorted(group["seed"].to_numpy()[ok]))
    row["hardware"] = "; ".join(machines)
    row["hardware_retrained"] = "; ".join(_distinct(group["hardware_retrained"].to_numpy()[ok]))
    row |= numbers
    if len(machines) > 1:
        # a mean of times from different machines is a time of no machine
        for time in TIMES:
            row |= dict.fromkeys((f"{time}_mean", f"{time}_std"), float("nan"))
    elif ok.any():
        row["peak_memory_bytes"] = group["peak_memory_bytes"].to_numpy()[ok].max()
    return row | attack_figures(group["record"])


def _distinct(names: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def _columns(name: str) -> tuple[str, str]:
    """Column names of mean and spread; a gap is a mean already by its name, a loss has no other."""
    if name in LOST:
        return name, ""
    return (name if name.startswith("gap_") else f"{name}_mean"), f"{name}_std"


def _empty_row(recipe: str, name: str, label: str, kind: str, status: str) -> dict[str, Any]:
    """A row in which no number is known, with its columns in their final order."""
    nan = float("nan")
    row: dict[str, Any] = {
        "recipe": recipe,
        "method": label,
        "name": name,
        "kind": kind,
        "hyperparameters": "",
        "status": status,
        "seeds": "",
        "n_ok": 0,
        "n_failed": 0,
        "n_skipped": 0,
        "n_pairs": 0,
    }
    for metric in METRICS:
        names = (*_columns(metric), f"{metric}_retrained", *_columns(f"gap_{metric}"))
        row |= dict.fromkeys(names, nan)
    row |= dict.fromkeys(LOST, nan)
    for number in ("tow", *TIMES):
        row |= dict.fromkeys(_columns(number), nan)
    for name in (*CELL_ATTACKS, *PROBE_METRICS):
        row |= dict.fromkeys((*_columns(name), f"{name}_retrained"), nan)
    return row | {"peak_memory_bytes": nan, "hardware": "", "hardware_retrained": ""}


def _status(counts: dict[str, int]) -> str:
    """`3 ok`, `2 ok, 1 failed`, or `not applicable` where every cell was skipped."""
    shown = {status: count for status, count in counts.items() if count}
    if list(shown) == ["skipped"]:
        return NOT_APPLICABLE
    return ", ".join(f"{count} {_WORDS[status]}" for status, count in shown.items())


def _noise_floor(recipe: str, cells: pd.DataFrame) -> dict[str, Any]:
    """How far two retrained models of different seeds lie apart: mean |a_i - a_j| over pairs.

    Pairs share their forget request, else the distance would also hold the difference of sets.
    """
    retrained = cells[(cells["name"] == "retrain") & (cells["status"] == "ok")]
    retrained = retrained.sort_values("seed", kind="stable")
    pairs = [
        pair
        for _, group in retrained.groupby(["request", "label"], sort=False)
        for pair in combinations(group[["seed", *METRICS]].to_dict("records"), 2)
    ]
    if not pairs:
        why = "needs 2 seeds" if len(retrained) < 2 else "no two seeds share a forget set"
        wanted = cells.loc[cells["name"] == "retrain", "status"]
        if len(wanted) and (wanted == "skipped").all():
            why = NOT_APPLICABLE
        return _empty_row(recipe, "retrain", NOISE_FLOOR, "noise floor", why)
    status = f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of seeds"
    row = _empty_row(recipe, "retrain", NOISE_FLOOR, "noise floor", status)
    used = sorted({int(cell["seed"]) for pair in pairs for cell in pair})
    row |= {"n_ok": len(used), "n_pairs": len(pairs), "seeds": " ".join(map(str, used))}
    for name in METRICS:
        row[f"gap_{name}"] = sum(abs(a[name] - b[name]) for a, b in pairs) / len(pairs)
    return row
