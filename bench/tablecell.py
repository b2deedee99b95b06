"""What stands in one place of a shown table: a number with its spread, and the column it is in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

NONE = "\u2013"
TIMES_SIGN = "\u00d7"
VOID = "\u2717"
UNSEEN = "?"
FAILS = "\u2193"
FEW = "\u00b0"
MACHINES = "\u2260"
NO_SPREAD = "\u2205"
MARKS = {
    VOID: "does not count; the notes below the table say why",
    UNSEEN: "says nothing: the original model shows nothing to forget either",
    FAILS: "fails the gate and shares the last place; the notes below the table say why",
    FEW: "too few seeds: a spread over fewer than 3 says little",
    MACHINES: "no time: what it is made of ran on different machines",
    NO_SPREAD: (
        "not defined: there is one retrained model, or all have the same accuracy, so that there "
        "is no spread to measure by"
    ),
}

Row = Mapping[str, Any]


class Cell(NamedTuple):
    """What is shown of a number or a word.

    Attributes:
        text: The mean as it is shown.
        value: What is sorted by; None where nothing is known or the number does not count.
        spread: `± …`; empty for a single seed.
        beside: What to compare it with, mostly the retrained model's value.
        mark: One of `MARKS`, or empty.
    """

    text: str
    value: float | None = None
    spread: str = ""
    beside: str = ""
    mark: str = ""

    @property
    def struck(self) -> bool:
        """Whether the number is crossed out."""
        return self.mark == VOID


class Column(NamedTuple):
    """A heading, the group that it stands in, and how a row fills it.

    Attributes:
        group: Heading above several columns; empty for none.
        head: Heading of the column; empty for the value that gives its group the name.
        cell: Makes the cell of a row.
        numeric: Whether it is aligned and sorted as a number.
        sub: What stands beside or below the number, such as `± std`.
        primary: Whether it is shown at once; the others are there on demand.
    """

    group: str
    head: str
    cell: Callable[[Row], Cell]
    numeric: bool = True
    sub: str = ""
    primary: bool = False

    @property
    def flat_head(self) -> str:
        """The heading where groups have no row of their own."""
        group = self.group.removesuffix(" %") if self.head else self.group
        named = " ".join(part for part in (group, self.head) if part)
        return f"{named} ({self.sub})" if self.sub and not self.sub.startswith("±") else named


def known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and not math.isnan(value)


def number_cell(mean: float, spread: float, scale: float, digits: int) -> Cell:
    """A number with its spread, both times a scale."""
    if not known(mean):
        return Cell(NONE)
    shown = f"± {scale * spread:.{digits}f}" if known(spread) else ""
    return Cell(f"{scale * mean:.{digits}f}", mean, shown)


def significant(value: float) -> str:
    """Three significant digits without an exponent; `inf` for what is beyond any number."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return f"{value}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
