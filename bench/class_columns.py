"""How the breakdown by class is shown: for every method the mean over classes, and the worst."""

from __future__ import annotations

import math
from functools import partial

from .attack_rows import ACC, figure, plain_rows
from .class_breakdown import ClassBreakdown
from .tablecell import NONE, Cell, Column, Row, known, number_cell

SHOWN = {
    ACC: ("U-LIRA %", 1),
    "forget_acc": ("forget %", 1),
    "test_forget_acc": ("test, forgotten %", 1),
    "test_retain_acc": ("test, kept %", 1),
    "gap_forget_acc": ("forget gap", 2),
    "gap_test_acc": ("test gap", 2),
}
CLASS_WORDS = (
    "Mean over the classes that were forgotten, one task each, and the worst class with its name: "
    "the highest U-LIRA, the accuracy on what was forgotten that is furthest from the retrained "
    "model's, the least accuracy on kept classes, the largest gap."
)


def class_columns(breakdown: ClassBreakdown) -> list[Column]:
    """Columns for the rows of `ClassBreakdown.summary`: what some row has a number for."""
    rows = plain_rows(breakdown.summary)
    columns = [Column("", "method", partial(_word, "method"), numeric=False, primary=True)]
    if len({row["recipe"] for row in rows}) > 1:
        columns.append(Column("", "recipe", partial(_word, "recipe"), numeric=False, primary=True))
    columns.append(Column("", "classes", _classes_cell, primary=True))
    for name, (head, digits) in SHOWN.items():
        if any(known(figure(row, f"{name}_mean")) for row in rows):
            worst = partial(_worst_cell, name, digits)
            columns += [
                Column(head, "mean", partial(_mean_cell, name, digits), primary=True),
                Column(head, "worst", worst, sub="class", primary=True),
            ]
    return columns


def _word(name: str, row: Row) -> Cell:
    return Cell(str(row[name]))


def _classes_cell(row: Row) -> Cell:
    return Cell(str(row["classes"]), row["classes"]) if row["classes"] else Cell(NONE)


def _mean_cell(name: str, digits: int, row: Row) -> Cell:
    return number_cell(figure(row, f"{name}_mean"), math.nan, 100, digits)


def _worst_cell(name: str, digits: int, row: Row) -> Cell:
    cell = number_cell(figure(row, f"{name}_worst"), math.nan, 100, digits)
    return cell if cell.text == NONE else cell._replace(beside=str(row[f"{name}_worst_class"]))
