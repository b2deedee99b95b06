"""The leaderboard as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import itables.options
import jinja2

from .attack_notes import ranking
from .code_marks import code_elements
from .columns import facts, legend, provenance
from .figures import Drawing
from .leaderboard import Leaderboard
from .markdown import BY_CLASS, OVER_TASKS, REASONS, TITLE
from .page_data import packed, page_data, table_id
from .page_tables import MEAN_RANK, class_blocks, standings_block
from .published import published_columns, published_legend
from .rank_columns import LEGEND as RANK_LEGEND
from .record import Record
from .reproduce import FILE
from .tablecell import MARKS

# in this order they are one script
SCRIPTS = tuple(
    f"leaderboard_{part}.js" for part in ("chart", "evidence", "state", "table", "controls", "page")
)


def html(
    board: Leaderboard,
    drawings: Sequence[Sequence[Drawing]],
    records: Sequence[Record] = (),
    overall: Sequence[Drawing] = (),
    spec: Mapping[str, Any] | None = None,
) -> str:
    """One page that needs no network: styles, script, tables and figures are inside it.

    Args:
        board: The tables.
        drawings: Figures of each table.
        records: What the tables were made from; without them rows open no evidence.
        overall: Figures of all tables together.
        spec: The sweep as it was asked for, `spec.json` beside the records, where it is known.
    """
    tables = [
        {"id": table_id(t), "place": i, "rows": len(t.rows), "facts": facts(t), "table": t}
        for i, t in enumerate(board.tables)
    ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = code_elements
    columns = [column for table in board.tables for column in published_columns(table)]
    page = environment.from_string(_file("leaderboard_page.html")).render(
        title=TITLE,
        style=_file("leaderboard_page.css"),
        script="\n".join(map(_file, SCRIPTS)),
        numbers=_numbers(board, records),
        provenance=provenance(board),
        ranking=code_elements(ranking(board)),
        standings=standings_block(board),
        classes=class_blocks(board),
        rank_legend=RANK_LEGEND,
        mean_rank=MEAN_RANK,
        marks=MARKS,
        heads={"over_tasks": OVER_TASKS, "by_class": BY_CLASS},
        tables=tables,
        contents=_contents(tables),
        legend=legend(board) | published_legend(columns),
        words={"reasons": REASONS, "sweep_file": FILE},
        datatables=packed(Path(itables.options.dt_bundle).read_text(encoding="utf-8")),
        data=packed(page_data(board, drawings, records, overall, spec)),
    )
    return page + "\n"


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _numbers(board: Leaderboard, records: Sequence[Record]) -> list[tuple[str, str]]:
    """What was measured, as numbers with their names."""
    methods = {
        name
        for table in board.tables
        for name in table.rows.loc[table.rows["kind"] == "method", "name"]
    }
    shadows = sorted({bank.shadows for bank in board.banks.values()})
    counted = [
        ("methods", len(methods)),
        ("tasks", len(board.tables)),
        ("datasets", len({table.dataset for table in board.tables})),
        ("architectures", len({table.model for table in board.tables})),
        ("seeds", len({seed for table in board.tables for seed in table.seeds})),
        ("cells", len(records)),
    ]
    shown = [(name if n != 1 else _one(name), f"{n:,}") for name, n in counted if n]
    if shadows:
        ends = sorted({shadows[0], shadows[-1]})
        shown.append(("shadow models per attack", "\u2013".join(map(str, ends))))
    return shown


def _contents(tables: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The tables by dataset and model, in order of first appearance."""
    found: dict[str, list[dict[str, Any]]] = {}
    for block in tables:
        found.setdefault(f"{block['table'].dataset} · {block['table'].model}", []).append(block)
    return list(found.items())


def _one(name: str) -> str:
    return name.removesuffix("s")
