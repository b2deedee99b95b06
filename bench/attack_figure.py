"""Figure of the attack: U-LIRA of every row with its interval and its null band."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .attack_columns import Z95
from .attack_rows import ACC, PRIVACY
from .figures import INK, PAPER, Drawing, as_files, drawing_style
from .leaderboard import Table

COUNTS = {"ok": True, "nothing to see": True, "suspected": False, "biased": False}


def draw_attack(table: Table) -> Drawing | None:
    """Draw U-LIRA with interval and null band, one line a row; None where there is no figure."""
    if ACC not in table.rows:
        return None
    rows = table.rows[table.rows[ACC].notna()]
    if rows.empty:
        return None
    several = len(table.recipes) > 1
    names = [
        f"{row['method']} ({row['recipe']})" if several else str(row["method"])
        for row in rows.to_dict("records")
    ]
    with drawing_style(salt=f"{table.title} U-LIRA"):
        figure = Figure(figsize=(9, 1.2 + 0.34 * len(rows)), layout="constrained")
        _dots(figure.subplots(), rows, names)
        svg, png = as_files(figure)
    alt = (
        f"Dot plot for {table.scenario}: U-LIRA with interval and null band, for "
        f"{', '.join(names)}. The numbers are in the table."
    )
    return Drawing(svg, png, alt, _caption(rows), suffix="-ulira")


def _dots(axes: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    low, high = (100 * rows[f"{PRIVACY}null_{end}"] for end in ("lo", "hi"))
    places = range(len(rows))
    axes.axvline(50, color=INK, alpha=0.5, linewidth=1)
    # a bar without a band is NaN wide, which draws nothing
    axes.barh(places, high - low, left=low, height=0.7, color=INK, alpha=0.15, linewidth=0)
    half = 100 * Z95 * rows[f"{PRIVACY}se"]
    counts = rows["attack_validity"].map(COUNTS)
    for kind, marker in ((True, "o"), (False, "x")):
        of_kind = (counts == kind).to_numpy()
        axes.errorbar(
            100 * rows.loc[of_kind, ACC],
            [place for place, here in zip(places, of_kind, strict=True) if here],
            xerr=half[of_kind],
            fmt=marker,
            color=INK,
            markeredgecolor=INK if marker == "x" else PAPER,
            markersize=8,
            capsize=3,
            alpha=1 if kind else 0.5,
        )
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.use_sticky_edges = False
    axes.margins(x=0.05)
    axes.set(xlabel="U-LIRA: accuracy of the attack, %")


def _caption(rows: pd.DataFrame) -> str:
    caption = (
        "How often the attack is right, with its 95 % interval. Grey: the null band, where 95 % "
        "of figures lie without any leak; methods inside it are tied."
    )
    if (~rows["attack_validity"].map(COUNTS).astype(bool)).any():
        caption += " Crosses do not count; the notes say why."
    return caption
