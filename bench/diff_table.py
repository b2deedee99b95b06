"""A comparison of two sets of records as text for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from .attack_rows import ACC
from .columns import HEADS
from .comparison import Compared, Comparison, RowChange, RowName
from .diff import LEAST_RATIO
from .noise import LEAST, LEVEL
from .tablecell import NONE, TIMES_SIGN, significant
from .terminal import WIDTH, grid

_NUMBERS = ["what", "old", "new", "difference", "± SE", ""]


def diff_table(found: Comparison) -> str:
    """What moved, is gone, appeared, fails or no longer fails; and what could not be judged."""
    parts = [
        *_section("Moved beyond noise", _NUMBERS, _compared(found, "moved")),
        *_section(
            "Different, but one seed tells nothing about noise",
            _NUMBERS,
            _compared(found, "not judged"),
        ),
        *_section("Vanished", ["cells"], [(row, [row.status]) for row in found.vanished]),
        *_section("Appeared", ["cells"], [(row, [row.status]) for row in found.appeared]),
        *_section("No longer ok", ["seeds"], _seeds(found, "newly_failed")),
        *_section("Ok again", ["seeds"], _seeds(found, "mended")),
        "\n".join(_fill(line) for line in _sentences(found)),
    ]
    return "\n\n".join(parts)


def _section(
    title: str, heads: list[str], lines: Sequence[tuple[RowChange | RowName, list[str]]]
) -> Iterator[str]:
    """A heading and a table for each task; nothing if there is nothing to tell."""
    several = len({row.recipe for row, _ in lines}) > 1
    named = ["method", *(["recipe"] if several else [])]
    align = ["left"] * len(named) + ["left", *["right"] * (len(heads) - 1)]
    for number, (task, of_task) in enumerate(groupby(lines, key=lambda line: line[0].task)):
        shown = [
            [
                textwrap.fill(re.sub(r",(?=\S)", ", ", row.method), 34, break_on_hyphens=False),
                *([row.recipe] if several else []),
                *cells,
            ]
            for row, cells in of_task
        ]
        above = f"{title}\n" if number == 0 else ""
        yield f"{above}{_fill(task)}\n{grid(shown, [*named, *heads], align, 'simple')}"


def _compared(found: Comparison, verdict: str) -> list[tuple[RowChange | RowName, list[str]]]:
    return [
        (row, _numbers(compared))
        for row in found.rows
        for compared in row.compared
        if compared.verdict == verdict
    ]


def _seeds(found: Comparison, name: str) -> list[tuple[RowChange | RowName, list[str]]]:
    return [
        (row, [", ".join(map(str, getattr(row, name)))]) for row in found.rows if getattr(row, name)
    ]


def _numbers(compared: Compared) -> list[str]:
    if compared.quantity == "unlearn_s":
        se = f"{100 * compared.se:.1f} %" if compared.se is not None else NONE
        shown = [significant(value) for value in (compared.old, compared.new)]
        return ["unlearn s", *shown, f"{compared.difference:.2f}{TIMES_SIGN}", se, compared.how]
    digits = 2 if compared.quantity.startswith("gap_") else 1
    old, new = (f"{100 * value:.{digits}f}" for value in (compared.old, compared.new))
    se = f"{100 * compared.se:.2f}" if compared.se is not None else NONE
    return [
        _word(compared.quantity),
        old,
        new,
        f"{100 * compared.difference:+.2f}",
        se,
        compared.how,
    ]


def _word(quantity: str) -> str:
    if quantity == ACC:
        return "U-LIRA %"
    name = quantity.removeprefix("gap_")
    return f"{HEADS[name]} gap" if name != quantity else f"{HEADS[name]} %"


def _sentences(found: Comparison) -> Iterator[str]:
    compared = [c for row in found.rows for c in row.compared]
    moved = [row for row in found.rows if any(c.verdict == "moved" for c in row.compared)]
    yield (
        f"{len(found.rows)} rows in both, {len(compared)} numbers compared: {len(moved)} rows "
        f"moved, {len(found.vanished)} vanished, {len(found.appeared)} appeared."
    )
    least = f"{100 * LEAST:g} percentage points (seconds: {100 * (LEAST_RATIO - 1):.0f} %)"
    tested = sum(c.p is not None for c in compared)
    yield (
        f"Moved: the difference is more than {least}, and its two-sided p-value (Student's t over "
        f"seeds; normal law for U-LIRA) is below {LEVEL:.0%} after Holm's correction for the "
        f"{tested} numbers that have one; where all seeds differ by exactly the same there is no "
        "noise, and the amount alone decides. With few seeds only large changes are found. "
        "Accuracies, gaps and U-LIRA in %, differences in percentage points; seconds as new over "
        "old, on the same machine only."
    )
    apart = [
        row
        for row in found.rows
        if any(c.how == "apart" and c.quantity != ACC for c in row.compared)
    ]
    if apart:
        yield (
            f"{len(apart)} rows do not have the same seeds and forget sets on both sides: their "
            "means are compared as those of independent samples (apart)."
        )
    for row in found.rows:
        if row.settings:
            yield f"{_where(row)} was compared with other settings: {row.settings}."
    yield from found.notes


def _where(row: RowChange) -> str:
    return f"{row.method} on {row.recipe} ({row.task})"


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
