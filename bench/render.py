"""Write the leaderboard as Markdown, CSV, one offline HTML page and text for a terminal."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import itables.options
import jinja2
import pandas as pd
from markupsafe import Markup, escape

from .columns import (
    HEADS,
    LEGEND,
    NO_RANK,
    NONE,
    Cell,
    Column,
    accuracy_cell,
    columns_of,
    cost_lines,
    facts,
    gap_cell,
    provenance,
    reason_head,
    rows_of,
    seconds_cell,
    speedup_cell,
)
from .figures import Drawing, draw
from .files import write_bytes_atomically
from .leaderboard import NOT_RUN, Leaderboard, Table, build
from .record import Record

TITLE = "Unlearning leaderboard"
NO_FIGURE = "No figure: no method has both a speed-up and a retrained model."
WIDTH = 110


def write_leaderboard(records: Sequence[Record], out: Path) -> list[Path]:
    """Write `leaderboard.{md,csv,html}` and `figures/*.{svg,png}` into a folder.

    The same records give the same bytes.

    Returns:
        The files written.
    """
    board = build(records)
    names = _figure_names(board.tables)
    drawings = [draw(table) for table in board.tables]
    files: dict[Path, bytes] = {}
    for name, drawing in zip(names, drawings, strict=True):
        if drawing is not None:
            files[out / "figures" / f"{name}.svg"] = drawing.svg.encode()
            files[out / "figures" / f"{name}.png"] = drawing.png
    files[out / "leaderboard.md"] = markdown(board, names, drawings).encode()
    files[out / "leaderboard.csv"] = board.frame().to_csv(index=False, lineterminator="\n").encode()
    files[out / "leaderboard.html"] = html(board, drawings).encode()
    for path, content in files.items():
        write_bytes_atomically(path, content)
    return list(files)


def markdown(board: Leaderboard, names: Sequence[str], drawings: Sequence[Drawing | None]) -> str:
    """The leaderboard as GitHub Markdown; `names` are those of the figure files."""
    parts = [f"# {TITLE}", *(_escape(line) for line in provenance(board)), NO_RANK]
    for table, name, drawing in zip(board.tables, names, drawings, strict=True):
        parts += [f"## {_code(table.scenario)}", _markdown_intro(table)]
        parts += [_markdown_table(table, board), *map(_escape, cost_lines(table))]
        if table.reasons:
            parts.append("Failed and not applicable:")
            parts.append(
                "\n".join(
                    f"- {reason_head(reason, table, _code)}: {_escape(reason.text)}"
                    for reason in table.reasons
                )
            )
        if drawing is None:
            parts.append(NO_FIGURE)
        else:
            alt = _escape(drawing.alt)
            parts += [f"![{alt}](figures/{name}.svg)", _escape(drawing.caption)]
    legend = "\n".join(f"- **{term}**: {words}" for term, words in LEGEND.items())
    return "\n\n".join([*parts, "## What the columns mean", legend]) + "\n"


def html(board: Leaderboard, drawings: Sequence[Drawing | None]) -> str:
    """One page that needs no network: styles, script, tables and figures are inside it."""
    blocks = []
    for number, (table, drawing) in enumerate(zip(board.tables, drawings, strict=True), start=1):
        columns = columns_of(table, board)
        rows = [
            {
                "kind": row["kind"].replace(" ", "-"),
                "cells": [(column, column.cell(row)) for column in columns],
                # reference rows keep their place however the others are sorted
                "place": len(table.rows) if row["kind"] == "method" else place,
            }
            for place, row in enumerate(rows_of(table))
        ]
        blocks.append(
            {
                "table": table,
                "facts": facts(table),
                "columns": columns,
                "groups": list(_groups(columns)),
                "rows": rows,
                "costs": cost_lines(table),
                "reasons": [
                    (reason_head(reason, table), _code_elements(reason.text))
                    for reason in table.reasons
                ],
                "drawing": drawing,
                "svg": drawing.inline_svg(f"figure{number}") if drawing else "",
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
        no_rank=NO_RANK,
        no_figure=NO_FIGURE,
        legend=LEGEND,
        datatables=_datatables(),
    )
    return page + "\n"


def terminal_table(records: Sequence[Record]) -> str:
    """The leaderboard as plain text of about 110 columns, one block a table."""
    board = build(records)
    notes = (
        "forget, retain, test: accuracy in %, mean ± std over seeds. gap: percentage points to the "
        "retrained model of the same seed. "
        f"n: seeds ok/all. {NONE}: not known. Not ranked: ranks wait for U-LIRA."
    )
    parts = [_terminal_block(table) for table in board.tables]
    parts.append("\n".join(map(_fill, [*provenance(board)[1:], notes])))
    return "\n\n".join(parts)


def _terminal_block(table: Table) -> str:
    metrics = table.metrics[:3]
    heads = ["method", "n"]
    for metric in metrics:
        heads += [HEADS[metric], "gap"]
    heads += ["unlearn s", "speed-up"]
    lines: list[list[str]] = []
    for recipe in table.recipes:
        if len(table.recipes) > 1:
            lines.append([f"recipe {recipe}:", *[""] * (len(heads) - 1)])
        for row in (row for row in rows_of(table) if row["recipe"] == recipe):
            total = row["n_ok"] + row["n_failed"] + row["n_skipped"]
            name = re.sub(r",(?=\S)", ", ", row["method"])
            name += f" ({NOT_RUN})" if row["status"] == NOT_RUN else ""
            line = [
                textwrap.fill(name, 24 if "[" in name else 30, break_on_hyphens=False),
                f"{row['n_ok']}/{total}" if total else NONE,
            ]
            for metric in metrics:
                accuracy = accuracy_cell(metric, row)
                spread = accuracy.spread.replace(" ", "")
                line += [accuracy.text + spread, gap_cell(metric, row).text]
            lines.append([*line, seconds_cell("unlearn_s", row).text, speedup_cell(row).text])
    grid = _grid(lines, heads, ["left", *["right"] * (len(heads) - 1)], "simple")
    title = f"{table.scenario}  ({table.dataset}, {table.model}; {facts(table)})"
    reasons = [
        textwrap.shorten(
            f"{reason_head(reason, table)}: {reason.text}", 3 * WIDTH, placeholder=" …"
        )
        for reason in table.reasons
    ]
    return "\n".join([_fill(title), grid, *map(_fill, reasons)])


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _grid(lines: list[list[str]], heads: list[str], align: list[str], style: str) -> str:
    frame = pd.DataFrame(lines, columns=pd.Index(heads))
    return str(
        frame.to_markdown(index=False, tablefmt=style, disable_numparse=True, colalign=align)
    )


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
    for row in rows_of(table):
        shown = [_markdown_cell(column.cell(row)) for column in columns]
        if row["kind"] != "method":
            shown[0] = f"**{shown[0]}**"
        lines.append(shown)
    heads = [
        column.group.replace("%", column.head or "% (retrained)") if column.group else column.head
        for column in columns
    ]
    align = ["right" if column.numeric else "left" for column in columns]
    return _grid(lines, heads, align, "pipe")


def _markdown_cell(cell: Cell) -> str:
    text = _code(cell.text).replace("|", "\\|") if "[" in cell.text else _escape(cell.text)
    beside = f"({cell.beside})" if cell.beside else ""
    return " ".join(part for part in (text, cell.spread, beside) if part)


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
