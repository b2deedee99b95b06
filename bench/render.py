"""Write the leaderboard as Markdown, CSV, one offline HTML page and text for a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import itables.options
import jinja2
from markupsafe import Markup, escape

from .attack_figure import draw_attack
from .attack_notes import attack_notes, ranking
from .attack_rows import plain_rows
from .bank_record import BankRecord
from .columns import columns_of, cost_lines, facts, legend, provenance, reason_head
from .figures import Drawing, draw
from .files import write_bytes_atomically
from .leaderboard import Leaderboard, Table, build
from .record import Record
from .tablecell import MARKS, Cell, Column
from .terminal import grid, terminal_table

__all__ = ["html", "markdown", "terminal_table", "write_leaderboard"]

TITLE = "Unlearning leaderboard"
NO_FIGURE = "No figure: no method has both a speed-up and a retrained model."
REASONS = "What is missing, and why"


def write_leaderboard(
    records: Sequence[Record], out: Path, banks: Sequence[BankRecord] = ()
) -> list[Path]:
    """Write `leaderboard.{md,csv,html}` and `figures/*.{svg,png}` into a folder.

    The same records give the same bytes.

    Args:
        records: The cells of one sweep or several.
        out: The folder; made if it is not there.
        banks: The shadow models that attacked them, where their facts are known.

    Returns:
        The files written.
    """
    board = build(records, banks)
    names = _figure_names(board.tables)
    drawings = [_drawings(table) for table in board.tables]
    files: dict[Path, bytes] = {}
    for name, of_table in zip(names, drawings, strict=True):
        for drawing in of_table:
            files[out / "figures" / f"{name}{drawing.suffix}.svg"] = drawing.svg.encode()
            files[out / "figures" / f"{name}{drawing.suffix}.png"] = drawing.png
    files[out / "leaderboard.md"] = markdown(board, names, drawings).encode()
    files[out / "leaderboard.csv"] = board.frame().to_csv(index=False, lineterminator="\n").encode()
    files[out / "leaderboard.html"] = html(board, drawings).encode()
    for path, content in files.items():
        write_bytes_atomically(path, content)
    return list(files)


def markdown(
    board: Leaderboard, names: Sequence[str], drawings: Sequence[Sequence[Drawing]]
) -> str:
    """The leaderboard as GitHub Markdown; `names` are those of the figure files."""
    parts = [f"# {TITLE}", *(_escape(line) for line in provenance(board)), ranking(board)]
    for table, name, of_table in zip(board.tables, names, drawings, strict=True):
        parts += [f"## {_code(table.scenario)}", _markdown_intro(table)]
        parts.append(_markdown_table(table, board))
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
            alt = _escape(drawing.alt)
            path = f"figures/{name}{drawing.suffix}.svg"
            parts += [f"![{alt}]({path})", _escape(drawing.caption)]
    meanings = "\n".join(f"- **{term}**: {words}" for term, words in legend(board).items())
    return "\n\n".join([*parts, "## What the columns mean", meanings]) + "\n"


def html(board: Leaderboard, drawings: Sequence[Sequence[Drawing]]) -> str:
    """One page that needs no network: styles, script, tables and figures are inside it."""
    blocks = []
    for number, (table, of_table) in enumerate(zip(board.tables, drawings, strict=True), start=1):
        columns = columns_of(table, board)
        groups = list(_groups(columns))
        starts = [
            bool(name) and place == 0 for name, group in groups for place in range(len(group))
        ]
        rows = [
            {
                "kind": row["kind"].replace(" ", "-"),
                "cells": [
                    (column, start, column.cell(row))
                    for column, start in zip(columns, starts, strict=True)
                ],
                # reference rows keep their place however the others are sorted
                "place": len(table.rows) if row["kind"] == "method" else place,
            }
            for place, row in enumerate(plain_rows(table.rows))
        ]
        blocks.append(
            {
                "table": table,
                "facts": facts(table),
                "columns": list(zip(columns, starts, strict=True)),
                "groups": groups,
                "rows": rows,
                "notes": [
                    _code_elements(note) for note in (*table.notes, *attack_notes(table, board))
                ],
                "costs": cost_lines(table),
                "reasons": [
                    (reason_head(reason, table), _code_elements(reason.text))
                    for reason in table.reasons
                ],
                "drawings": [
                    (drawing, drawing.inline_svg(f"figure{number}{drawing.suffix}"))
                    for drawing in of_table
                ],
            }
        )
    template = resources.files(__package__).joinpath("leaderboard_page.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(template).render(
        title=TITLE,
        blocks=blocks,
        provenance=provenance(board),
        ranking=_code_elements(ranking(board)),
        no_figure=NO_FIGURE,
        reasons_title=REASONS,
        legend=legend(board),
        marks=MARKS,
        datatables=_datatables(),
    )
    return page + "\n"


def _drawings(table: Table) -> list[Drawing]:
    return [drawing for drawing in (draw_attack(table), draw(table)) if drawing is not None]


def _groups(columns: Sequence[Column]) -> Iterator[tuple[str, list[Column]]]:
    """Neighbouring columns of one group; a column without a group stands alone."""
    group: list[Column] = []
    for column in columns:
        if group and not (column.group and column.group == group[0].group):
            yield group[0].group, group
            group = []
        group.append(column)
    yield group[0].group, group


def _markdown_intro(table: Table) -> str:
    return f"Dataset {_code(table.dataset)}, model {_code(table.model)}, {_escape(facts(table))}."


def _markdown_table(table: Table, board: Leaderboard) -> str:
    columns = columns_of(table, board)
    lines = []
    for row in plain_rows(table.rows):
        shown = [_markdown_cell(column.cell(row)) for column in columns]
        if row["kind"] != "method":
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


def _code_elements(text: str) -> Markup:
    """The text for HTML, with what stands in backquotes as code."""
    parts = re.split(r"`([^`]*)`", text)
    marked = (
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )
    return Markup("").join(marked)


def _figure_names(tables: Sequence[Table]) -> list[str]:
    """File names from the bare names of the specs, numbered where they repeat."""
    names: list[str] = []
    for table in tables:
        bare = (spec.split("[")[0] for spec in (table.dataset, table.model, table.scenario))
        name = re.sub(r"[^a-z0-9]+", "-", "-".join(bare).lower()).strip("-")
        number = 1
        while (numbered := name if number == 1 else f"{name}-{number}") in names:
            number += 1
        names.append(numbered)
    return names


def _datatables() -> str:
    """The DataTables bundle of itables as a JSON string that cannot end a script element."""
    source = Path(itables.options.dt_bundle).read_text(encoding="utf-8")
    return json.dumps(source).replace("<", "\\u003c")
