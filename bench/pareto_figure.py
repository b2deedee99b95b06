"""Figure of what has to be weighed: privacy or forgetting, utility, and time."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from .drawing import INK, PAPER, WIDTH, Sketch, add_legend, extremes, listed
from .drawn_rows import CONTROL, METHOD, left_out_sentence, looks
from .leaderboard import Leaderboard, Table
from .tablecell import TIMES_SIGN
from .trade_off import GAPS, TradeOff, mean_trade_off, trade_off

GAP_TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)


def sketch_pareto(table: Table, board: Leaderboard) -> Sketch | None:
    """Draw time against privacy and test gap; without an attack, against forget and test gap.

    None if no method has both.
    """
    look = looks(board)
    trade = trade_off(table, look, attacked=True) or trade_off(table, look, attacked=False)
    if trade is None:
        return None
    return _sketch(trade, table.scenario, "-pareto" if trade.attacked else "-speed")


def sketch_pareto_of_tasks(board: Leaderboard) -> Sketch | None:
    """Draw the same of means over the tasks; None with fewer than two that can be compared."""
    found = mean_trade_off(board)
    if found is None:
        return None
    trade, tasks = found
    sketch = _sketch(trade, f"the mean over {tasks} tasks", "all-pareto")
    means = f"Means over {tasks} tasks, of the speed-up the geometric mean. "
    return Sketch(sketch.figure, sketch.alt, means + sketch.caption, sketch.suffix)


def _sketch(trade: TradeOff, what: str, suffix: str) -> Sketch:
    points, first = trade.points, trade.first
    front = trade.best(first, "gap_test")
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for axes, name in zip(panels, (first, "gap_test"), strict=True):
        _panel(axes, trade, name, front)
    add_legend(figure, bold=list(points.loc[front, "shown"]))
    return Sketch(figure, _alt(trade, what, front), _caption(trade, front), suffix)


def _panel(axes: Axes, trade: TradeOff, name: str, front: npt.NDArray[np.bool_]) -> None:
    points = trade.points
    horizontal = points["fast"] if trade.by_speedup else 1 / points["fast"]
    best = trade.best(name)
    line = points[best].assign(x=horizontal[best]).sort_values(["x", name])
    axes.plot(line["x"], line[name], color=INK, alpha=0.45, linewidth=1.2, linestyle=":", zorder=2)
    for i, point in enumerate(points.to_dict("records")):
        x, y, look = horizontal.iloc[i], point[name], point["look"]
        label = point["shown"]
        if not point["counts"]:
            axes.plot(x, y, "x", color=INK, alpha=0.5, markersize=7, zorder=3, label=label)
        elif point["kind"] == CONTROL:
            axes.plot(
                x, y, look.marker, markersize=8, markerfacecolor=PAPER, markeredgecolor=INK,
                alpha=0.6, zorder=3, label=label, linestyle="none",
            )  # fmt: skip
        else:
            axes.plot(
                x, y, look.marker, color=look.colour, markersize=8 if point["able"] else 7,
                markeredgecolor=PAPER if point["able"] else look.colour,
                markerfacecolor=look.colour if point["able"] else PAPER,
                markeredgewidth=0.6 if point["able"] else 1.3, zorder=4, label=label,
                linestyle="none",
            )  # fmt: skip
        if front[i]:
            axes.plot(
                x, y, "o", markersize=14, markerfacecolor="none", markeredgecolor=INK, zorder=3
            )
    heights = [*points[name].dropna(), *_lines(axes, trade, name)]
    _time_axis(axes, horizontal, by_speedup=trade.by_speedup)
    if name == "leak":
        axes.axhline(50, color=INK, alpha=0.5, linewidth=1)
        low, high = min(48, *heights, *trade.band), max(52, *heights, *trade.band)
        axes.set_ylim(low - 0.06 * (high - low), high + 0.08 * (high - low))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set(ylabel="U-LIRA: accuracy of the attack, %", title="Privacy")
        return
    # most gaps are below one point and a failure is at a hundred: linear up to 1, then log
    axes.set_yscale("symlog", linthresh=1)
    # room below zero for whole markers
    axes.set_ylim(-0.12, max(1.0, *heights) * 1.35)
    axes.yaxis.set_major_locator(FixedLocator(GAP_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(ylabel="gap to retrained, percentage points", title=GAPS[name].capitalize())


def _lines(axes: Axes, trade: TradeOff, name: str) -> list[float]:
    """Retrained model, null band or noise floor, and original models; returns their heights."""
    heights: list[float] = []
    shade = "null band, noise floor" if trade.attacked and trade.band else "noise floor"
    if name == "leak" and trade.band:
        axes.axhspan(*trade.band, color=INK, alpha=0.12, linewidth=0, label=shade)
        heights += trade.band
    if name != "leak":
        if trade.by_speedup:
            axes.plot(
                1, 0, "*", markersize=13, color=INK, zorder=5, label="retrained", linestyle="none"
            )
        floor = trade.floors[name]
        if not np.isnan(floor):
            axes.axhspan(0, floor, color=INK, alpha=0.12, linewidth=0, label=shade)
            heights.append(floor)
    broken = itertools.cycle(("--", "-.", (0, (1, 1))))
    for (label, values), dashes in zip(trade.lines.items(), broken, strict=False):
        if not np.isnan(values[name]):
            axes.axhline(
                values[name], color=INK, alpha=0.7, linewidth=1.2, linestyle=dashes, label=label
            )
            heights.append(values[name])
    return heights


def _time_axis(axes: Axes, values: pd.Series, *, by_speedup: bool) -> None:
    low, high = float(values.min()), float(values.max())
    if by_speedup:
        low, high = min(low, 1.0), max(high, 1.0)
        axes.set(xlabel="speed-up over retraining")
        sign = TIMES_SIGN
    else:
        axes.set(xlabel="seconds of unlearning (faster to the right)")
        sign = ""
    low, high = low / 1.5, high * 1.5
    axes.set_xscale("log")
    axes.set_xlim(*((low, high) if by_speedup else (high, low)))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}{sign}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _alt(trade: TradeOff, what: str, front: npt.NDArray[np.bool_]) -> str:
    points, first = trade.points, trade.first
    counted = points[points["counts"] & (points["kind"] == METHOD)]
    subject = "U-LIRA" if trade.attacked else "the forget gap"
    time = "speed-up over retraining" if trade.by_speedup else "seconds of unlearning"
    parts = [f"Scatter plots for {what}: {time} against {subject} and against the test gap"]
    methods = int((points["kind"] == METHOD).sum())
    parts[0] += f", of {methods} method{'s' if methods != 1 else ''}."
    if len(counted):
        names = list(counted["shown"])
        fast = counted["fast"] if trade.by_speedup else 1 / counted["fast"]
        unit, digits = (TIMES_SIGN, 1) if trade.by_speedup else ("s", 2)
        parts.append(f"{time.capitalize()} {extremes(names, list(fast), unit, digits)}")
        unit = "%" if trade.attacked else "points"
        parts[-1] += f"; {subject} {extremes(names, list(counted[first]), unit)}"
        parts[-1] += f"; test gap {extremes(names, list(counted['gap_test']), 'points')}."
    for label, values in trade.lines.items():
        if not np.isnan(values[first]):
            said = f"{values[first]:.1f} {'%' if trade.attacked else 'points'}"
            parts.append(f"{label.capitalize()}: {said}.")
    if front.any():
        parts.append(f"Not beaten: {listed(list(points.loc[front, 'shown']))}.")
    return " ".join(parts)


def _caption(trade: TradeOff, front: npt.NDArray[np.bool_]) -> str:
    points, first = trade.points, trade.first
    subject = "privacy" if trade.attacked else "forget gap"
    time = "speed-up" if trade.by_speedup else "time"
    words = ["A method is good at the lower right."]
    if trade.attacked:
        words.append("50 % is a coin.")
    shaded = ["the null band (left)"] if trade.attacked and trade.band else []
    floored = [gap for gap in (first, "gap_test") if not np.isnan(trade.floors.get(gap, np.nan))]
    if floored:
        several = points["recipe"].nunique() > 1 if "recipe" in points else False
        shaded.append(
            "the distance between retrained models of different seeds"
            + (" (of the recipe where it is largest)" if several else "")
        )
    if shaded:
        words.append(f"Grey: {' and '.join(shaded)}; methods inside it are tied.")
    if trade.by_speedup:
        words.append("The star is the retrained model.")
    if trade.lines:
        originals = "s: the original models" if len(trade.lines) > 1 else ": the original model"
        words.append(f"Broken line{originals}.")
    if front.any():
        words.append(
            f"In a ring and bold: no other method is at least as good in {subject}, test gap and "
            f"{time}, and better in one of them. The dotted line joins those that are not beaten "
            "in the two that a panel shows."
        )
    if (points["kind"] == CONTROL).any():
        words.append("Grey outline: controls, which are no methods.")
    if (~points["counts"]).any():
        words.append(
            f"Crosses do not count: {listed(list(points.loc[~points['counts'], 'shown']))}."
        )
    if len(failed := points[points["counts"] & (points["kind"] == METHOD) & ~points["able"]]):
        words.append(f"Outline only: fails the utility gate ({listed(list(failed['shown']))}).")
    words.append("Gaps are linear up to 1 percentage point and logarithmic above.")
    return " ".join(words) + left_out_sentence(list(trade.left_out))
