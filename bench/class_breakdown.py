"""Methods class by class: tasks that forget one class each, of one dataset and architecture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .attack_rows import ACC, figure, plain_rows
from .errors import InputError
from .leaderboard import Leaderboard, Table
from .spec_string import parse_spec
from .tablecell import Row, known

NUMBERS = (
    "forget_acc",
    "test_acc",
    "test_forget_acc",
    "test_retain_acc",
    "gap_forget_acc",
    "gap_test_acc",
    ACC,
    "excess",
)
OF_ATTACK = (ACC, "excess")
VOID = ("suspected", "biased")
TO_RETRAINED = ("forget_acc", "test_forget_acc")  # ideal is the retrained model's, on either side
HIGHEST_IS_BEST = ("test_acc", "test_retain_acc")
KINDS = ("reference", "control", "method")


@dataclass(frozen=True, eq=False)
class ClassBreakdown:
    """What each method does on each forgotten class.

    Attributes:
        dataset: Dataset as `name[key=value,…]`.
        model: Architecture as `name[key=value,…]`.
        classes: The forgotten classes, by number or name; numbers in their order.
        rows: One row a (recipe, method, class): `recipe`, `method`, `kind`, `class`, the columns
            `NUMBERS` (means over seeds, fractions, NaN where unknown or where a figure of the
            attack does not count) and `status`.
        summary: One row a (recipe, method): `recipe`, `method`, `kind`, `classes` (how many have a
            cell that is ok), and of every number `<name>_mean` and `<name>_worst` over them, with
            `<name>_worst_class`. The worst is furthest from the ideal: from the retrained model's
            of the same class for accuracies on what was forgotten, the least for those on the test
            set, else the highest. Of equals the first.
    """

    dataset: str
    model: str
    classes: tuple[str, ...]
    rows: pd.DataFrame
    summary: pd.DataFrame


def class_breakdowns(board: Leaderboard) -> list[ClassBreakdown]:
    """One breakdown for each dataset and architecture of which 2 classes or more are forgotten.

    Tables of one class are joined: a method has one row there, the first with a cell that is ok.
    """
    groups: dict[tuple[str, str], dict[str, list[Table]]] = {}
    for table in board.tables:
        if (forgotten := single_class(table.scenario)) is not None:
            of_class = groups.setdefault((table.dataset, table.model), {})
            of_class.setdefault(forgotten, []).append(table)
    return [_breakdown(*names, tables) for names, tables in groups.items() if len(tables) >= 2]


def single_class(scenario: str) -> str | None:
    """The class that a scenario forgets; None if it is of another kind or has several classes."""
    try:
        name, params = parse_spec(scenario)
    except InputError:  # a record may say anything
        return None
    classes = params.get("classes", [0])  # `class` alone is class 0
    classes = classes if isinstance(classes, list) else [classes]
    return str(classes[0]) if name == "class" and len(classes) == 1 else None


def _breakdown(dataset: str, model: str, tables: dict[str, list[Table]]) -> ClassBreakdown:
    classes = sorted(tables, key=lambda c: (not c.isdecimal(), int(c) if c.isdecimal() else 0, c))
    found = [
        _numbers(row) | {"class": name}
        for name in classes
        for row in _rows_of_class(tables[name])
        if row["kind"] in KINDS
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["recipe"], row["method"]), []).append(row)
    # references before controls before methods, each in the order of the first table it is in
    order = sorted(groups, key=lambda key: KINDS.index(groups[key][0]["kind"]))
    columns = ["recipe", "method", "kind", "class", *NUMBERS, "status"]
    ordered = [row for key in order for row in groups[key]]
    return ClassBreakdown(
        dataset=dataset,
        model=model,
        classes=tuple(classes),
        rows=pd.DataFrame(ordered, columns=pd.Index(columns)),
        summary=pd.DataFrame([_summary(groups[key]) for key in order]),
    )


def _rows_of_class(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The rows on one class, which two scenarios may forget, as `class` and `class[classes=[0]]`.

    Of a method in several tables the first row with a cell that is ok counts, else the first.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (row for table in tables for row in plain_rows(table.rows)):
        where = row["recipe"], row["method"]
        if where not in found or (row["n_ok"] and not found[where]["n_ok"]):
            found[where] = row
    return list(found.values())


def _numbers(row: Row) -> dict[str, Any]:
    """A row as it stands in the breakdown, and how far it is from the ideal, by `from <name>`."""
    kept = {name: row[name] for name in ("recipe", "method", "kind", "status", "n_ok")}
    for name in NUMBERS:
        value = figure(row, name if name in OF_ATTACK or "gap" in name else f"{name}_mean")
        if name in OF_ATTACK and row.get("attack_validity") in VOID:
            value = float("nan")
        kept[name], kept[f"from {name}"] = value, value
        if name in HIGHEST_IS_BEST:
            kept[f"from {name}"] = -value
        elif name in TO_RETRAINED and known(ideal := figure(row, f"{name}_retrained")):
            kept[f"from {name}"] = abs(value - ideal)
    return kept


def _summary(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    rows = list(rows)
    told = {name: rows[0][name] for name in ("recipe", "method", "kind")}
    told["classes"] = sum(row["n_ok"] > 0 for row in rows)
    for name in NUMBERS:
        there = [row for row in rows if known(row[name])]
        worst = max(there, key=lambda row: row[f"from {name}"], default=None)
        told[f"{name}_mean"] = (
            sum(row[name] for row in there) / len(there) if there else float("nan")
        )
        told[f"{name}_worst"] = worst[name] if worst else float("nan")
        told[f"{name}_worst_class"] = worst["class"] if worst else ""
    return told
