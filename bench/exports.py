"""The leaderboard as files for other programs: CSV and Parquet with the same columns."""

from __future__ import annotations

import io

from .leaderboard import Leaderboard


def csv_text(board: Leaderboard) -> str:
    """All rows of all tables; what is not known is empty. Accuracies are fractions."""
    return board.frame().to_csv(index=False, lineterminator="\n")


def parquet_bytes(board: Leaderboard) -> bytes:
    """The same with the types of the columns, for `pandas.read_parquet`; unknown is null."""
    buffer = io.BytesIO()
    board.frame().to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()
