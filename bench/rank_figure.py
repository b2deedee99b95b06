"""Figure of the ranks over tasks: mean rank of every method with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .drawing import COLOURS, INK, PAPER, Sketch, extremes, name_rows, rows_figure, short
from .standings import Standing, Standings


def sketch_ranks(standings: Standings | None) -> Sketch | None:
    """Draw mean ranks with intervals, the best on top; None with fewer than 2 tasks or methods."""
    if standings is None or len(standings.tasks) < 2:
        return None
    rows = standings.rows
    if len(rows) < 2:
        return None
    names = short([standings.names[row.recipe, row.method] for row in rows])
    places = _places(rows)
    figure, (axes,) = rows_figure(len(rows) + 1)
    _dots(axes, rows)
    _difference(axes, standings, len(rows))
    shown = [f"{place}  {name}" for name, place in zip(names, places, strict=True)]
    name_rows([axes], [*shown, ""])
    return Sketch(figure, _alt(standings, names), _caption(standings), "all-ranks")


def _places(rows: Sequence[Standing]) -> list[str]:
    return [f"{row.place}{'=' if row.tied else ''}" for row in rows]


def _dots(axes: Axes, rows: Sequence[Standing]) -> None:
    heights = np.arange(len(rows))
    low, mean, high = np.array([(r.rank_lo, r.mean_rank, r.rank_hi) for r in rows]).T
    whole = np.array([row.missing == 0 and row.failed == 0 for row in rows])
    axes.hlines(heights, low, high, color=COLOURS[0], linewidth=2.2)
    for which, face in ((whole, COLOURS[0]), (~whole, PAPER)):
        axes.plot(
            mean[which], heights[which], "o", markersize=7, markerfacecolor=face,
            markeredgecolor=COLOURS[0], linestyle="none",
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=2))
    axes.set(xlabel="mean rank over the tasks (1 is best)")


def _difference(axes: Axes, standings: Standings, place: int) -> None:
    """A bar as long as ranks must differ before the test of Nemenyi tells them apart."""
    width = standings.critical_difference
    if np.isnan(width):
        return
    start = min(row.rank_lo for row in standings.rows)
    axes.errorbar(
        start + width / 2, place, xerr=width / 2, color=INK, capsize=4, elinewidth=1.2, fmt="none"
    )
    axes.annotate(
        "critical difference", (start + width, place), xytext=(6, 0), textcoords="offset points",
        va="center", fontsize=9,
    )  # fmt: skip


def _alt(standings: Standings, names: list[str]) -> str:
    best = standings.rows[0]
    said = extremes(names, [row.mean_rank for row in standings.rows])
    return (
        f"Dot plot of mean ranks of {len(names)} methods over {len(standings.tasks)} tasks: "
        f"{said}. First: {names[0]}, 95 % interval {best.rank_lo:.1f} to {best.rank_hi:.1f}."
    )


def _caption(standings: Standings) -> str:
    words = [
        f"Mean rank over {len(standings.tasks)} tasks; line: 95 % interval over redraws of "
        "tasks, shadow models and examples. Before a name its place by points "
        "(Borda); = shares it."
    ]
    if any(row.missing or row.failed for row in standings.rows):
        words.append("Hollow: lacks a task, or failed on one.")
    if not np.isnan(standings.critical_difference):
        words.append(
            "Two methods whose mean ranks differ by less than "
            f"{standings.critical_difference:.1f} (critical difference of Nemenyi, 5 %) cannot be "
            "told apart."
        )
    if standings.left_out:
        told = "; ".join(f"{title} ({why})" for title, why in standings.left_out)
        words.append(f"Tasks that do not count: {told}.")
    return " ".join(words)
