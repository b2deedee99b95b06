"""The tables of the leaderboard as data for the page: columns of texts, and values to sort by."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from .attack_columns import Z95
from .attack_notes import attack_notes
from .attack_rows import ACC, PRIVACY, figure, plain_rows
from .columns import columns_of, cost_lines, facts, reason_head
from .figures import Drawing
from .keys import content_key
from .leaderboard import Leaderboard, Table
from .published import published_columns
from .record import Record
from .row_evidence import Evidence
from .shared_values import SharedValues, rounded
from .tablecell import MARKS, Cell, Column, Row

_PARTS = ("spread", "beside", "mark")


def page_data(
    board: Leaderboard,
    drawings: Sequence[Sequence[Drawing]],
    records: Sequence[Record],
    overall: Sequence[Drawing] = (),
    spec: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All that the script of the page shows, as JSON values.

    Args:
        board: The tables.
        drawings: Figures of each table.
        records: What the tables were made from; rows open what was found for each seed.
        overall: Figures of all tables together.
        spec: The sweep as it was asked for, where it is known.

    Returns:
        `columns`, each once; `tables` with `columns` (places in that list), `cells` (for each
        column, lists over rows) and `rows`; `shared`, values that rows name by their place;
        `attacks`; `figures` of all tables together; and `marks`, what the marks mean.
    """
    shared = SharedValues()
    evidence = Evidence(board, records, shared, spec)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    tables = [
        _table(table, board, of_table, evidence, found)
        for table, of_table in zip(board.tables, drawings, strict=True)
    ]
    return {
        "columns": list(found.values()),
        "tables": tables,
        "shared": shared.values,
        "attacks": evidence.attacks,
        "classes": evidence.classes,
        "figures": [_figure(drawing, f"all{i}") for i, drawing in enumerate(overall)],
        "marks": MARKS,
    }


def packed(data: Mapping[str, Any] | str) -> str:
    """JSON or a text, deflated and as base64, which cannot end a script element."""
    if not isinstance(data, str):
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(data.encode(), 9)).decode("ascii")


def table_id(table: Table) -> str:
    """A short name that stays the same when tables are added."""
    return content_key("table", task=[table.dataset, table.model, table.scenario])[:8]


def _table(
    table: Table,
    board: Leaderboard,
    drawings: Sequence[Drawing],
    evidence: Evidence,
    found: dict[tuple[str, str], dict[str, Any]],
) -> dict[str, Any]:
    columns = [*columns_of(table, board), *published_columns(table)]
    rows, name = plain_rows(table.rows), table_id(table)
    for column in columns:
        key = (column.group, column.head)
        if key not in found:
            found[key] = {"id": _unused(_slug(" ".join(key)), found), **_column(column)}
    places = {key: place for place, key in enumerate(found)}
    opened = evidence.of_table(table)
    return {
        "id": name,
        "dataset": table.dataset,
        "model": table.model,
        "scenario": table.scenario,
        "facts": facts(table),
        "columns": [places[column.group, column.head] for column in columns],
        "cells": [_cells(column, rows) for column in columns],
        "rows": [
            {
                "id": content_key("row", table=name, of=[row["recipe"], row["method"]])[:8],
                "kind": row["kind"],
                "method": row["method"],
                "recipe": row["recipe"],
                **({"gate": row["gate_reason"]} if row["gate"] == "fail" else {}),
                **({"evidence": found} if found else {}),
            }
            for row, found in zip(rows, opened, strict=True)
        ],
        "notes": [*table.notes, *attack_notes(table, board), *cost_lines(table)],
        "reasons": [[reason_head(r, table), r.text] for r in table.reasons],
        "figures": [_figure(drawing, f"figure-{name}-{i}") for i, drawing in enumerate(drawings)],
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "group": column.group,
        "head": column.head,
        "sub": column.sub,
        "numeric": column.numeric,
        "primary": column.primary,
    }


def _cells(column: Column, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The cells of one column as lists over rows; parts that no cell has are left out."""
    cells = [column.cell(row) for row in rows]
    lists: dict[str, list[Any]] = {"text": [cell.text for cell in cells]}
    if column.numeric:
        lists["value"] = [rounded(cell.value, 6) for cell in cells]
    for part in _PARTS:
        if any(getattr(cell, part) for cell in cells):
            lists[part] = [getattr(cell, part) for cell in cells]
    if (column.group, column.head) == ("U-LIRA %", ""):
        lists["strip"] = [_strip(row, cell) for row, cell in zip(rows, cells, strict=True)]
    return lists


def _strip(row: Row, cell: Cell) -> list[Any] | None:
    """U-LIRA, half of its interval, and the null band, in %: what is drawn beside the number."""
    names = (ACC, f"{PRIVACY}se", f"{PRIVACY}null_lo", f"{PRIVACY}null_hi")
    acc, se, low, high = (figure(row, name) for name in names)
    if rounded(acc) is None or cell.struck:
        return None
    return [rounded(100 * value, 4) for value in (acc, Z95 * se, low, high)]


def _figure(drawing: Drawing, prefix: str) -> dict[str, str]:
    return {"svg": drawing.inline_svg(prefix), "alt": drawing.alt, "caption": drawing.caption}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "column"


def _unused(slug: str, found: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    taken, number, name = {column["id"] for column in found.values()}, 1, slug
    while name in taken:
        number += 1
        name = f"{slug}-{number}"
    return name
