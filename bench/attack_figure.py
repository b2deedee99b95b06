"""Figure of the attack: U-LIRA of every row with its interval and its null band."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .drawing import COLOURS, INK, PAPER, Sketch, extremes, name_rows, rows_figure
from .drawn_rows import METHOD, drawn_rows, left_out_sentence, without
from .leaderboard import Table


def sketch_attack(table: Table) -> Sketch | None:
    """Draw U-LIRA with interval and null band, one line a row; None where there is no figure."""
    if not table.attacked:
        return None
    every = drawn_rows(table)
    every = every[(every["kind"] != "noise floor") & ~_not_run(every)]
    rows, left_out = without(every, {"no U-LIRA": every["acc"].isna()})
    if rows.empty:
        return None
    figure, (axes,) = rows_figure(len(rows))
    _dots(axes, rows)
    name_rows([axes], list(rows["shown"]))
    return Sketch(figure, _alt(table, rows), _caption(rows, left_out), "-ulira")


def _not_run(rows: pd.DataFrame) -> pd.Series:
    """References that the records do not hold."""
    return (rows["kind"] == "reference") & (rows["n_ok"] == 0)


def _dots(axes: Axes, rows: pd.DataFrame) -> None:
    low, high = (100 * rows[f"null_{end}"] for end in ("lo", "hi"))
    places = np.arange(len(rows))
    axes.axvline(50, color=INK, alpha=0.5, linewidth=1)
    # a bar without a band is NaN wide, which draws nothing
    axes.barh(places, high - low, left=low, height=0.7, color=INK, alpha=0.15, linewidth=0)
    counts, method = rows["counts"].to_numpy(bool), (rows["kind"] == METHOD).to_numpy()
    kinds = (
        (counts & method, "o", COLOURS[0], COLOURS[0]),
        (counts & ~method, "o", PAPER, INK),
        (~counts, "x", INK, INK),
    )
    for of_kind, marker, face, edge in kinds:
        axes.errorbar(
            100 * rows.loc[of_kind, "acc"],
            places[of_kind],
            xerr=100 * rows.loc[of_kind, "half"],
            fmt=marker,
            color=face,
            ecolor=edge,
            markeredgecolor=edge,
            markersize=7,
            capsize=2.5,
            alpha=0.5 if marker == "x" else 1,
        )
    axes.use_sticky_edges = False
    axes.margins(x=0.05)
    axes.set(xlabel="U-LIRA: accuracy of the attack, %")


def _alt(table: Table, rows: pd.DataFrame) -> str:
    parts = [f"Dot plot for {table.scenario}: U-LIRA with interval and null band."]
    for row in rows[rows["kind"] == "reference"].to_dict("records"):
        parts.append(f"{row['shown'].capitalize()}: {100 * row['acc']:.1f} %.")
    methods = rows[rows["kind"] == METHOD]
    counted = methods[methods["counts"]]
    if len(counted):
        names = list(counted["shown"])
        parts.append(f"Methods: {extremes(names, list(100 * counted['acc']), '%')}.")
        parts.append(
            f"{int(counted['inside'].sum())} of {len(counted)} are not above their null band."
        )
    if void := len(methods) - len(counted):
        parts.append(f"Of {void} the figure does not count.")
    return " ".join(parts)


def _caption(rows: pd.DataFrame, left_out: list[str]) -> str:
    caption = (
        "How often the attack is right, with its 95 % interval. Grey: the null band, where 95 % "
        "of figures lie without any leak; methods inside it are tied."
    )
    if (rows["kind"] != METHOD).any():
        caption += " Hollow: references and controls."
    if not rows["counts"].all():
        caption += " Crosses do not count; the notes say why."
    return caption + left_out_sentence(left_out)
