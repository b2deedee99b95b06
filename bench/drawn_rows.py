"""Rows of a table as figures name, mark and judge them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from .attack_columns import Z95
from .attack_rows import ACC, PRIVACY
from .drawing import COLOURS, MARKERS, listed, short
from .leaderboard import Leaderboard, Table

METHOD, CONTROL = "method", "control"
# validities of the attack on a row; see `attack_rows.judged`
VOID = ("suspected", "biased")
UNSEEN = "nothing to see"


class Look(NamedTuple):
    """How one row is marked wherever it is drawn."""

    colour: str
    marker: str


def looks(board: Leaderboard) -> dict[tuple[str, str], Look]:
    """Colour and shape by method and recipe: the same in every figure of a leaderboard."""
    named = {
        (str(method), str(recipe))
        for table in board.tables
        for method, recipe, kind in table.rows[["method", "recipe", "kind"]].to_numpy()
        if kind == METHOD
    }
    cycles = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    return {key: Look(*look) for key, look in zip(sorted(named), cycles, strict=False)}


def drawn_rows(table: Table) -> pd.DataFrame:
    """The rows with what figures need of them.

    Returns:
        The rows of the table and: `shown`, the name in figures; `acc`, `se`, `null_lo` and
        `null_hi` of U-LIRA, fractions; `half`, half of its 95 % interval; `counts`, whether its
        U-LIRA counts; `tells`, whether it says something, too; `inside`, whether it is not above
        its null band; `fails`, whether it fails the utility gate.
    """
    rows = table.rows.reset_index(drop=True).copy()
    several = len(table.recipes) > 1
    rows["shown"] = short(
        [
            f"{method} ({recipe})" if several else str(method)
            for method, recipe in zip(rows["method"], rows["recipe"], strict=True)
        ]
    )
    rows["acc"] = _numbers(rows, ACC)
    for name in ("se", "null_lo", "null_hi"):
        rows[name] = _numbers(rows, f"{PRIVACY}{name}")
    rows["half"] = Z95 * rows["se"]
    validity = _texts(rows, "attack_validity")
    rows["counts"] = rows["acc"].notna() & ~validity.isin(VOID)
    rows["tells"] = rows["counts"] & (validity != UNSEEN)
    rows["inside"] = rows["acc"] <= rows["null_hi"]
    rows["fails"] = _texts(rows, "gate") == "fail"
    return rows


def excess(rows: pd.DataFrame) -> pd.Series:
    """How far U-LIRA is above its null band, a fraction; 0 inside it and below.

    Without a band it is how far it is above one half.
    """
    over = rows["acc"] - rows["null_hi"].fillna(0.5)
    return over.clip(lower=0)


def drawn_kinds(rows: pd.DataFrame) -> pd.Series:
    """Whether a row is a method or control: not one of the references."""
    return rows["kind"].isin([METHOD, CONTROL])


def without(rows: pd.DataFrame, reasons: Mapping[str, pd.Series]) -> tuple[pd.DataFrame, list[str]]:
    """Take rows out, with the reason: their own status where no cell is ok.

    Args:
        rows: Rows with `shown`, `n_ok` and `status`.
        reasons: For each reason which rows it takes out; the first one counts.

    Returns:
        The rows that stay, and for each of the others its name with the reason.
    """
    left_out = []
    stays = pd.Series(data=True, index=rows.index)
    for why, which in {"": rows["n_ok"] == 0, **reasons}.items():
        taken = which.reindex(rows.index)
        for row in rows[stays & taken].to_dict("records"):
            left_out.append(f"{row['shown']} ({why or row['status']})")
        stays &= ~taken
    return rows[stays].copy(), left_out


def left_out_sentence(left_out: list[str]) -> str:
    """What is not in the figure, for the end of a caption."""
    return f" Left out: {listed(left_out, 40)}." if left_out else ""


def _numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows[name] if name in rows else pd.Series(float("nan"), index=rows.index)


def _texts(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows[name].fillna("") if name in rows else pd.Series("", index=rows.index)
