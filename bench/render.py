"""Write the leaderboard into a folder: page, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .attack_record import AttackRecord
from .bank_record import BankRecord
from .exports import csv_text, parquet_bytes
from .figures import FigureChoice, all_drawings
from .files import write_bytes_atomically
from .latex import latex
from .leaderboard import build
from .leaderboard_json import leaderboard_json, leaderboard_schema
from .markdown import markdown
from .page import html
from .record import Record
from .sweep_files import read_description


def write_leaderboard(
    records: Sequence[Record],
    out: Path,
    banks: Sequence[BankRecord] = (),
    attacks: Sequence[AttackRecord] = (),
    figures: FigureChoice = "auto",
) -> list[Path]:
    """Write the leaderboard in every form, and `figures/*.{svg,png}`, into a folder.

    The same records, and the same `spec.json` if the folder has one, give the same bytes.

    Args:
        records: The cells of one sweep or several.
        out: The folder; made if it is not there.
        banks: The shadow models that attacked them, where their facts are known.
        attacks: What the attacks found pair by pair, where it is known.
        figures: `auto` draws every table, up to 12 of them, and all tables together; where there
            are more, only the latter. `all` draws every table in any case, `none` nothing.

    Returns:
        The files written.
    """
    board = build(records, banks, attacks)
    drawings = all_drawings(board, figures)
    files: dict[Path, bytes] = {}
    for name, drawing in drawings.by_file():
        files[out / "figures" / f"{name}.svg"] = drawing.svg.encode()
        files[out / "figures" / f"{name}.png"] = drawing.png
    names, of_tables, overall = drawings
    files[out / "leaderboard.md"] = markdown(board, names, of_tables, overall).encode()
    files[out / "leaderboard.csv"] = csv_text(board).encode()
    files[out / "leaderboard.parquet"] = parquet_bytes(board)
    files[out / "leaderboard.tex"] = latex(board, names).encode()
    files[out / "leaderboard.json"] = leaderboard_json(board).encode()
    files[out / "leaderboard.schema.json"] = leaderboard_schema().encode()
    spec = read_description(out).get("spec")
    files[out / "leaderboard.html"] = html(board, of_tables, records, overall, spec).encode()
    for path, content in files.items():
        write_bytes_atomically(path, content)
    return list(files)
