"""Write the leaderboard into a folder: page, tables and figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from .attack_figure import draw_attack
from .attack_record import AttackRecord
from .bank_record import BankRecord
from .exports import csv_text, parquet_bytes
from .figures import Drawing, draw
from .files import write_bytes_atomically
from .latex import latex
from .leaderboard import Table, build
from .leaderboard_json import leaderboard_json, leaderboard_schema
from .markdown import markdown
from .page import html
from .record import Record

MOST_DRAWN = 8


def write_leaderboard(
    records: Sequence[Record],
    out: Path,
    banks: Sequence[BankRecord] = (),
    attacks: Sequence[AttackRecord] = (),
    figures: Literal["auto", "all", "none"] = "auto",
) -> list[Path]:
    """Write the leaderboard in every form, and `figures/*.{svg,png}`, into a folder.

    The same records give the same bytes.

    Args:
        records: The cells of one sweep or several.
        out: The folder; made if it is not there.
        banks: The shadow models that attacked them, where their facts are known.
        attacks: What the attacks found pair by pair, where it is known.
        figures: `auto` draws figures of the first 8 tasks, `all` of every task.

    Returns:
        The files written.
    """
    board = build(records, banks, attacks)
    names = _figure_names(board.tables)
    drawn = {"auto": MOST_DRAWN, "all": len(board.tables), "none": 0}[figures]
    drawings = [_drawings(t) if i < drawn else [] for i, t in enumerate(board.tables)]
    files: dict[Path, bytes] = {}
    for name, of_table in zip(names, drawings, strict=True):
        for drawing in of_table:
            files[out / "figures" / f"{name}{drawing.suffix}.svg"] = drawing.svg.encode()
            files[out / "figures" / f"{name}{drawing.suffix}.png"] = drawing.png
    files[out / "leaderboard.md"] = markdown(board, names, drawings).encode()
    files[out / "leaderboard.csv"] = csv_text(board).encode()
    files[out / "leaderboard.parquet"] = parquet_bytes(board)
    files[out / "leaderboard.tex"] = latex(board, names).encode()
    files[out / "leaderboard.json"] = leaderboard_json(board).encode()
    files[out / "leaderboard.schema.json"] = leaderboard_schema().encode()
    files[out / "leaderboard.html"] = html(board, drawings, records).encode()
    for path, content in files.items():
        write_bytes_atomically(path, content)
    return list(files)


def _drawings(table: Table) -> list[Drawing]:
    return [drawing for drawing in (draw_attack(table), draw(table)) if drawing is not None]


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
