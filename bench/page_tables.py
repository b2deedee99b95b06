"""Small tables of the page that are there without its script: over tasks, and by class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .attack_rows import plain_rows
from .class_breakdown import class_breakdowns
from .class_columns import CLASS_WORDS, class_columns
from .leaderboard import Leaderboard
from .rank_columns import standing_columns, standing_rows, win_table
from .rank_notes import standings_notes
from .tablecell import Cell, Column, Row, known

MEAN_RANK = "mean rank"


def standings_block(board: Leaderboard) -> dict[str, Any] | None:
    """The ranking over tasks, where more than one counts.

    Returns:
        `tasks` (how many), the parts of `static_table` with a `bar` in every line (mean rank and
        its interval as percentages of the way from the best rank to the last, None where not
        known), `notes`, and `wins`, the heads and lines of the table of wins.
    """
    standings = board.standings
    if standings is None or len(standings.tasks) < 2:
        return None
    rows = standing_rows(standings)
    block = static_table(standing_columns(standings), rows)
    for line in block["lines"]:
        line["bar"] = _bar(line["row"], max(len(rows), 2))
    return {
        **block,
        "bars": True,
        "tasks": len(standings.tasks),
        "notes": standings_notes(standings),
        "wins": win_table(standings),
    }


def class_blocks(board: Leaderboard) -> list[dict[str, Any]]:
    """Mean and worst over classes, for each dataset and model of which several are forgotten."""
    return [
        {
            "dataset": found.dataset,
            "model": found.model,
            "classes": found.classes,
            "words": CLASS_WORDS,
            "bars": False,
            **static_table(class_columns(found), plain_rows(found.summary)),
        }
        for found in class_breakdowns(board)
    ]


def static_table(columns: Sequence[Column], rows: Sequence[Row]) -> dict[str, Any]:
    """A table for the template.

    Returns:
        `groups` (name and columns), `columns`, and `lines`: `row` with `cells`, pairs of a column
        and its cell.
    """
    lines: list[dict[str, Any]] = []
    for row in rows:
        cells: list[tuple[Column, Cell]] = [(column, column.cell(row)) for column in columns]
        lines.append({"row": {"recipe": "", "kind": "method", **row}, "cells": cells})
    return {"groups": list(_groups(columns)), "columns": columns, "lines": lines}


def _bar(row: Row, last: int) -> list[float] | None:
    ranks = [row[name] for name in ("rank_lo", "mean_rank", "rank_hi")]
    return [100 * (r - 1) / (last - 1) for r in ranks] if all(map(known, ranks)) else None


def _groups(columns: Sequence[Column]) -> Iterator[tuple[str, list[Column]]]:
    """Neighbouring columns of one group; a column without a group stands alone."""
    group: list[Column] = []
    for column in columns:
        if group and not (column.group and column.group == group[0].group):
            yield group[0].group, group
            group = []
        group.append(column)
    yield group[0].group, group
