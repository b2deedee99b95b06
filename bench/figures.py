"""Figures of the leaderboard: which there are of a table, and which of all tables together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

from .attack_figure import sketch_attack
from .class_breakdown import class_breakdowns
from .class_figure import sketch_classes
from .drawing import Drawing, Sketch, drawing_style, file_name, numbered
from .gap_figure import sketch_gaps
from .leaderboard import Leaderboard, Table
from .leakage_figure import sketch_leakage
from .pareto_figure import sketch_pareto, sketch_pareto_of_tasks
from .rank_figure import sketch_ranks
from .recipe_figure import costs_by_data, sketch_recipes
from .roc_figure import sketch_roc

__all__ = [
    "Drawing",
    "Drawings",
    "FigureChoice",
    "all_drawings",
    "board_drawings",
    "table_drawings",
]
FigureChoice = Literal["auto", "all", "none"]
# figures of one table take a second or two; a leaderboard may have a hundred tables
TABLES = 12


class Drawings(NamedTuple):
    """All figures of a leaderboard.

    Attributes:
        names: What their file names begin with, for each table.
        of_tables: Those of each table.
        overall: Those of all tables together; `suffix` is their whole name.
    """

    names: list[str]
    of_tables: list[list[Drawing]]
    overall: list[Drawing]

    def by_file(self) -> Iterator[tuple[str, Drawing]]:
        """Every drawing with the name of its files, without an ending."""
        for name, drawings in zip(self.names, self.of_tables, strict=True):
            for drawing in drawings:
                yield f"{name}{drawing.suffix}", drawing
        for drawing in self.overall:
            yield drawing.suffix, drawing


def all_drawings(board: Leaderboard, figures: FigureChoice = "auto") -> Drawings:
    """Draw a leaderboard.

    Args:
        board: The leaderboard.
        figures: `auto` draws every table, up to 12 of them, and all tables together; where there
            are more, only the latter. `all` draws every table in any case, `none` nothing.
    """
    names = numbered([file_name(t.dataset, t.model, t.scenario) for t in board.tables])
    each = figures == "all" or (figures == "auto" and len(board.tables) <= TABLES)
    of_tables = [table_drawings(table, board) if each else [] for table in board.tables]
    return Drawings(names, of_tables, [] if figures == "none" else board_drawings(board))


def table_drawings(table: Table, board: Leaderboard) -> list[Drawing]:
    """Draw a table: what has to be weighed first, then gaps, attack, its ROC and its examples.

    Args:
        table: The table.
        board: Its leaderboard, which holds the attacks and by which methods have their colours.
    """

    def sketches() -> Iterator[Sketch | None]:
        yield sketch_pareto(table, board)
        yield sketch_attack(table)
        yield sketch_gaps(table)
        yield sketch_roc(table, board)
        yield sketch_leakage(table, board)

    return _finished(sketches(), table.title)


def board_drawings(board: Leaderboard) -> list[Drawing]:
    """Draw what tables have in common: ranks, means over tasks, classes, and recipes.

    `suffix` of each is the whole name of its files.
    """

    def sketches() -> Iterator[Sketch | None]:
        yield sketch_ranks(board.standings)
        yield sketch_pareto_of_tasks(board)
        for breakdown in class_breakdowns(board)[:TABLES]:
            yield sketch_classes(breakdown, board)
        for (dataset, model), costs in list(costs_by_data(board).items())[:TABLES]:
            yield sketch_recipes(dataset, model, costs)

    drawings = _finished(sketches(), "all")
    suffixes = numbered([drawing.suffix for drawing in drawings])
    return [replace(d, suffix=suffix) for d, suffix in zip(drawings, suffixes, strict=True)]


def _finished(sketches: Iterable[Sketch | None], salt: str) -> list[Drawing]:
    with drawing_style():
        return [sketch.finished(salt) for sketch in sketches if sketch is not None]
