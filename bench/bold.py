"""Which methods of a table may be called the best in a column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .attack_rows import ACC, PRIVACY, figure
from .tablecell import Row, known

ERRORS = 2.0  # two methods are tied that lie within so many standard errors


@dataclass(frozen=True)
class Score:
    """A number of a row of which less is better.

    Attributes:
        name: Column of the number.
        spread: Column of its standard deviation over seeds, or of its standard error.
        of_seeds: Whether the spread is over seeds.
        floor: Column of a value from which on up is counted; below, all are equally good.
    """

    name: str
    spread: str
    of_seeds: bool = True
    floor: str = ""

    @classmethod
    def of_attack(cls) -> Score:
        """U-LIRA: below the upper end of the null band no method is better than another."""
        return cls(ACC, f"{PRIVACY}se", of_seeds=False, floor=f"{PRIVACY}null_hi")

    def value(self, row: Row) -> float:
        """The number, or how far it is above the floor."""
        value = figure(row, self.name)
        return max(0.0, value - figure(row, self.floor)) if self.floor else value

    def error(self, row: Row) -> float:
        """Standard error of the number; NaN for a single seed."""
        spread = figure(row, self.spread)
        return spread / math.sqrt(row["n_ok"]) if self.of_seeds and row["n_ok"] else spread


def best_rows(rows: Sequence[Row], score: Score) -> set[int]:
    """Places of the methods that are best in a column and not tied with a worse one.

    The group of the best is the best and all that are tied with it; of these, one that is also
    tied with a method outside the group does not stand out. None does where all are tied, or where
    a standard error is not known. Rows that fail the utility gate, or whose attack does not count,
    do not compete.
    """
    competing = [i for i, row in enumerate(rows) if _competes(row, score)]
    if len(competing) < 2 or any(not known(score.error(rows[i])) for i in competing):
        return set()
    values = {i: score.value(rows[i]) for i in competing}

    def tied(i: int, j: int) -> bool:
        noise = math.hypot(score.error(rows[i]), score.error(rows[j]))
        return values[i] == values[j] or abs(values[i] - values[j]) <= ERRORS * noise

    first = min(competing, key=values.__getitem__)
    group = {i for i in competing if tied(i, first)}
    others = set(competing) - group
    return {i for i in group if others and not any(tied(i, other) for other in others)}


def _competes(row: Row, score: Score) -> bool:
    numbers = [figure(row, name) for name in (score.name, score.floor) if name]
    if row["kind"] != "method" or row.get("gate") == "fail" or not all(map(known, numbers)):
        return False
    return score.of_seeds or row.get("attack_validity") == "ok"
