"""The leaderboard as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .attack_notes import attack_notes, ranking
from .attack_rows import plain_rows
from .class_breakdown import class_breakdowns
from .class_columns import CLASS_WORDS, class_columns
from .columns import columns_of, cost_lines, facts, legend, provenance, reason_head
from .figures import Drawing
from .leaderboard import Leaderboard, Table
from .rank_columns import LEGEND as RANK_LEGEND
from .rank_columns import standing_columns, standing_rows, win_table
from .rank_notes import standings_notes
from .tablecell import Cell, Column, Row
from .terminal import grid

TITLE = "Unlearning leaderboard"
NO_FIGURE = (
    "No figure: nothing here can be drawn, or there are so many tables that each is drawn only on "
    "request (`--figures all`)."
)
REASONS = "What is missing, and why"
OVER_TASKS = "Ranking over tasks"
BY_CLASS = "By forgotten class"


def markdown(
    board: Leaderboard,
    names: Sequence[str],
    drawings: Sequence[Sequence[Drawing]],
    overall: Sequence[Drawing] = (),
) -> str:
    """The leaderboard as GitHub Markdown.

    Args:
        board: The tables.
        names: What the names of figure files begin with, for each table.
        drawings: Figures of each table.
        overall: Figures of all tables together.
    """
    parts = [f"# {TITLE}", *(_escape(line) for line in provenance(board)), ranking(board)]
    parts += _over_tasks(board)
    for table, name, of_table in zip(board.tables, names, drawings, strict=True):
        parts += [f"## {_code(table.scenario)}", _markdown_intro(table)]
        parts.append(_table(columns_of(table, board), plain_rows(table.rows)))
        if notes := [*table.notes, *attack_notes(table, board)]:
            parts.append("\n".join(f"- {_escape(note)}" for note in notes))
        parts += map(_escape, cost_lines(table))
        if table.reasons:
            parts.append(f"{REASONS}:")
            parts.append(
                "\n".join(
                    f"- {reason_head(reason, table, _code)}: {_escape(reason.text)}"
                    for reason in table.reasons
                )
            )
        if not of_table:
            parts.append(NO_FIGURE)
        for drawing in of_table:
            parts += _figure(drawing, f"{name}{drawing.suffix}")
    parts += _by_class(board)
    if overall:
        parts.append("## All tables together")
        for drawing in overall:
            parts += _figure(drawing, drawing.suffix)
    meanings = "\n".join(f"- **{term}**: {words}" for term, words in legend(board).items())
    return "\n\n".join([*parts, "## What the columns mean", meanings]) + "\n"


def _figure(drawing: Drawing, name: str) -> list[str]:
    return [f"![{_escape(drawing.alt)}](figures/{name}.svg)", _escape(drawing.caption)]


def _over_tasks(board: Leaderboard) -> list[str]:
    """The ranking over tasks, where more than one counts."""
    standings = board.standings
    if standings is None or len(standings.tasks) < 2:
        return []
    parts = [f"## {OVER_TASKS}"]
    parts.append(_table(standing_columns(standings), standing_rows(standings)))
    parts.append("\n".join(f"- {_escape(note)}" for note in standings_notes(standings)))
    heads, lines = win_table(standings)
    if lines:
        shown = [[_markdown_cell(Cell(text)) for text in line] for line in lines]
        parts.append(grid(shown, heads, ["left", *["right"] * (len(heads) - 1)], "pipe"))
    parts.append("\n".join(f"- **{term}**: {words}" for term, words in RANK_LEGEND.items()))
    return parts


def _by_class(board: Leaderboard) -> list[str]:
    """Mean and worst over classes, where more than one class is forgotten by itself."""
    parts = []
    for breakdown in class_breakdowns(board):
        parts.append(f"## {BY_CLASS}: {_code(breakdown.dataset)}, {_code(breakdown.model)}")
        parts += [f"Classes {', '.join(map(_escape, breakdown.classes))}. {CLASS_WORDS}"]
        parts.append(_table(class_columns(breakdown), plain_rows(breakdown.summary)))
    return parts


def _markdown_intro(table: Table) -> str:
    return f"Dataset {_code(table.dataset)}, model {_code(table.model)}, {_escape(facts(table))}."


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Rows in Markdown; those that are no methods in bold."""
    lines = []
    for row in rows:
        shown = [_markdown_cell(column.cell(row)) for column in columns]
        if row.get("kind", "method") != "method":
            shown[0] = f"**{shown[0]}**"
        lines.append(shown)
    heads = [column.flat_head for column in columns]
    align = ["right" if column.numeric else "left" for column in columns]
    return grid(lines, heads, align, "pipe")


def _markdown_cell(cell: Cell) -> str:
    text = _code(cell.text).replace("|", "\\|") if "[" in cell.text else _escape(cell.text)
    shown = " ".join(part for part in (text, cell.spread) if part)
    shown = f"~~{shown}~~" if cell.struck else shown
    beside = f"({cell.beside})" if cell.beside else ""
    return " ".join(part for part in (shown, cell.mark, beside) if part)


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _escape(text: str) -> str:
    """Make Markdown show a text as it is; what stands in backquotes stays code."""
    special = re.compile(r"[\\<>*\[\]|~#]|(?<!\w)_|_(?!\w)")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if i % 2 else special.sub(r"\\\g<0>", part) for i, part in enumerate(parts))
