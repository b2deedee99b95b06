"""The leaderboard as one HTML page that needs no network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import itables.options
import jinja2
from markupsafe import Markup, escape

from .attack_notes import attack_notes, ranking
from .attack_rows import plain_rows
from .columns import columns_of, cost_lines, facts, legend, provenance, reason_head
from .figures import Drawing
from .leaderboard import Leaderboard
from .markdown import NO_FIGURE, REASONS, TITLE
from .tablecell import MARKS, Column


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


def _groups(columns: Sequence[Column]) -> Iterator[tuple[str, list[Column]]]:
    """Neighbouring columns of one group; a column without a group stands alone."""
    group: list[Column] = []
    for column in columns:
        if group and not (column.group and column.group == group[0].group):
            yield group[0].group, group
            group = []
        group.append(column)
    yield group[0].group, group


def _code_elements(text: str) -> Markup:
    """The text for HTML, with what stands in backquotes as code."""
    parts = re.split(r"`([^`]*)`", text)
    marked = (
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )
    return Markup("").join(marked)


def _datatables() -> str:
    """The DataTables bundle of itables as a JSON string that cannot end a script element."""
    source = Path(itables.options.dt_bundle).read_text(encoding="utf-8")
    return json.dumps(source).replace("<", "\\u003c")
