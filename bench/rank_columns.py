"""How places are shown: within a table, over tasks, and method against method."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import Any

from .attack_rows import figure
from .gate import FAIL
from .standings import Standings
from .tablecell import FAILS, NONE, Cell, Column, Row, known, number_cell

TIE = "="
MOST_OPPONENTS = 12
LEGEND = {
    "points": (
        "Borda: on each task, the best of k methods gets k - 1 points and the last none; equal "
        "ones share. Methods that fail the gate share the last ranks; a task on which a method has "
        "no place gives it no points."
    ),
    "mean rank": (
        "Mean over tasks of the rank, where a task without a place counts as the last. In "
        "parentheses its 95 % interval, by a bootstrap: every draw redraws the tasks and, in each, "
        "pairs of shadow models and forgotten examples, the same for all methods of a task that "
        "were attacked with the same ones. Null bands and who fails the gate stay as they are. "
        "With one task, the interval is that of the attack alone, not of other tasks. Redraws add "
        "their noise to that of the figures, so that intervals err on the wide side."
    ),
    "wins": (
        "Share in % of comparisons won, ties half: one with every other method on every task that "
        "ranks both."
    ),
}


def place_cell(row: Row) -> Cell:
    """The place of a row, `=` where it is shared, marked where it fails the gate."""
    mark = FAILS if row.get("gate") == FAIL else ""
    place = figure(row, "place")
    if not known(place):
        return Cell(NONE, mark=mark)
    return Cell(f"{TIE if row['tied'] else ''}{int(place)}", place, mark=mark)


def standing_rows(standings: Standings) -> list[dict[str, Any]]:
    """The standings as plain rows, for `standing_columns`."""
    return [asdict(row) for row in standings.rows]


def standing_columns(standings: Standings) -> list[Column]:
    """The columns of the ranking over tasks."""
    recipes = {row.recipe for row in standings.rows}
    recipe = [Column("", "recipe", partial(_word, "recipe"), numeric=False, primary=True)]
    return [
        Column("", "method", partial(_word, "method"), numeric=False, primary=True),
        Column("", "place", place_cell, primary=True),
        *(recipe if len(recipes) > 1 else []),
        Column("", "points", _points_cell, primary=True),
        Column("", "mean rank", _rank_cell, sub="95 % interval", primary=True),
        Column("", "wins %", _wins_cell, primary=True),
        *(
            Column("", head, partial(_count_cell, name), primary=True)
            for name, head in (("tasks", "tasks"), ("failed", "failed"), ("missing", "missing"))
        ),
    ]


def win_table(standings: Standings) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the share of tasks in % on which a row's method is ahead of a column's.

    Columns are numbered by the rows; empty where there are more methods than a page is wide.
    """
    names = [str(name) for name in standings.wins.index]
    if not 2 <= len(names) <= MOST_OPPONENTS:
        return [], []
    heads = ["ahead in % of tasks of", *(str(number + 1) for number in range(len(names)))]
    shares = standings.wins.to_numpy(dtype=float).tolist()
    lines = [
        [f"{number}. {name}", *(f"{100 * share:.0f}" if known(share) else NONE for share in row)]
        for number, (name, row) in enumerate(zip(names, shares, strict=True), start=1)
    ]
    return heads, lines


def _word(name: str, row: Row) -> Cell:
    return Cell(str(row[name]))


def _points_cell(row: Row) -> Cell:
    return Cell(f"{row['borda']:.1f}".removesuffix(".0"), row["borda"])


def _rank_cell(row: Row) -> Cell:
    cell = number_cell(row["mean_rank"], math.nan, 1, 2)
    return cell._replace(beside=f"{row['rank_lo']:.2f} to {row['rank_hi']:.2f}")


def _wins_cell(row: Row) -> Cell:
    return number_cell(row["win_rate"], math.nan, 100, 0)


def _count_cell(name: str, row: Row) -> Cell:
    return Cell(str(row[name]), row[name])
