"""Figure of what has to be weighed: privacy or forgetting, utility, and time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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

from .drawing import INK, PAPER, WIDTH, Sketch, add_legend, extremes, listed, short
from .drawn_rows import (
    CONTROL,
    METHOD,
    Look,
    drawn_kinds,
    drawn_rows,
    excess,
    left_out_sentence,
    looks,
    without,
)
from .leaderboard import NOISE_FLOOR, Leaderboard, Table
from .tablecell import TIMES_SIGN

GAP_TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)
CONTROL_MARKERS = ("o", "s", "D", "^", "v")
GAPS = {"gap_forget": "forget accuracy", "gap_test": "test accuracy"}


@dataclass(frozen=True, eq=False)
class TradeOff:
    """What is drawn of one task, or of the mean over tasks.

    Attributes:
        points: One row a method or control: `shown`, `kind`, `look`; `fast`, speed-up or 1 over
            seconds; `leak`, U-LIRA in %; `excess`, percentage points above the null band;
            `gap_forget` and `gap_test`, percentage points; `counts`, whether its figures count;
            `able`, whether it may be on the front.
        by_speedup: Whether `fast` is the speed-up; else times are drawn in seconds.
        floors: Noise floor of each gap, percentage points; NaN where there is none.
        band: Ends of the null band in %; empty where there is none.
        lines: What the original models have, by the words of the legend: `leak` and gaps.
        attacked: Whether U-LIRA is drawn instead of the forget gap.
        left_out: Names with the reason.
    """

    points: pd.DataFrame
    by_speedup: bool
    floors: Mapping[str, float]
    band: tuple[float, ...] = ()
    lines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    attacked: bool = False
    left_out: Sequence[str] = ()


def sketch_pareto(table: Table, board: Leaderboard) -> Sketch | None:
    """Draw time against privacy and test gap; without an attack, against forget and test gap.

    None if no method has both.
    """
    trade = _trade_off(table, board, attacked=True) or _trade_off(table, board, attacked=False)
    if trade is None:
        return None
    return _sketch(trade, table.scenario, "-pareto" if trade.attacked else "-speed")


def sketch_pareto_of_tasks(board: Leaderboard) -> Sketch | None:
    """Draw the same of means over the tasks; None with fewer than two that can be compared."""
    found = {table.title: _trade_off(table, board, attacked=True) for table in board.tables}
    tasks = {title: trade for title, trade in found.items() if trade and trade.by_speedup}
    tasks = {title: trade for title, trade in tasks.items() if trade.points["counts"].any()}
    if len(tasks) < 2:
        return None
    several = len({recipe for table in board.tables for recipe in table.recipes}) > 1
    every = pd.concat(trade.points for trade in tasks.values())
    every = every[(every["kind"] == METHOD) & every["counts"]]
    names, left_out = [], [f"{title} (no U-LIRA that counts)" for title in found.keys() - tasks]
    left_out.sort()
    rows = []
    for (method, recipe), group in every.groupby(["method", "recipe"]):
        name = f"{method} ({recipe})" if several else str(method)
        if len(group) < len(tasks):
            left_out.append(f"{name} ({len(group)} of {len(tasks)} tasks)")
            continue
        names.append(name)
        means = {key: group[key].mean() for key in ("leak", "excess", "gap_forget", "gap_test")}
        fast = float(np.exp(np.log(group["fast"]).mean()))
        able = bool(group["able"].all())
        common = {"kind": METHOD, "look": group["look"].iloc[0], "counts": True, "able": able}
        rows.append({"fast": fast, **means, **common})
    if not rows:
        return None
    points = pd.DataFrame(rows).assign(shown=short(names))
    floors = {gap: float(np.mean([t.floors[gap] for t in tasks.values()])) for gap in GAPS}
    trade = TradeOff(points, by_speedup=True, floors=floors, attacked=True, left_out=left_out)
    sketch = _sketch(trade, f"the mean over {len(tasks)} tasks", "all-pareto")
    means = f"Means over {len(tasks)} tasks, of the speed-up the geometric mean. "
    return Sketch(sketch.figure, sketch.alt, means + sketch.caption, sketch.suffix)


def non_dominated(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The rows than which no other is at most as costly in everything and cheaper in something.

    Args:
        costs: `(N, K)`, the less the better.

    Returns:
        `(N,)` bool.

    Example:
        >>> non_dominated(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])).tolist()
        [True, True, False]
    """
    a, b = costs[:, None], costs[None]
    return ~((b <= a).all(2) & (b < a).any(2)).any(1)


def _trade_off(table: Table, board: Leaderboard, *, attacked: bool) -> TradeOff | None:
    rows = drawn_rows(table)
    look = looks(board)
    hollow = itertools.cycle(CONTROL_MARKERS)
    rows["look"] = [
        look.get((str(method), str(recipe))) or Look(INK, next(hollow) if kind == CONTROL else "*")
        for method, recipe, kind in rows[["method", "recipe", "kind"]].to_numpy()
    ]
    by_speedup = bool((rows.loc[rows["kind"] == METHOD, "speedup_mean"] > 0).any())
    rows["fast"] = rows["speedup_mean"] if by_speedup else 1 / rows["unlearn_s_mean"]
    rows["leak"], rows["excess"] = 100 * rows["acc"], 100 * excess(rows)
    rows["gap_forget"], rows["gap_test"] = (100 * rows[f"gap_{m}_acc"] for m in ("forget", "test"))
    if attacked:
        reasons = {"no U-LIRA": rows["leak"].isna()}
        rows["counts"] = rows["tells"]
    else:
        reasons = {}
        rows["counts"] = True
    timeless = ~((rows["fast"] > 0) & np.isfinite(rows["fast"]))
    reasons |= {
        "no speed-up or no retrained model" if by_speedup else "no time or no retrained model": (
            timeless | rows["gap_test"].isna() | (rows["gap_forget"].isna() & (not attacked))
        )
    }
    rows["able"] = rows["counts"] & (rows["kind"] == METHOD) & ~rows["fails"]
    points, left_out = without(rows[drawn_kinds(rows)], reasons)
    if not (points["kind"] == METHOD).any():
        return None
    floor = rows[rows["method"] == NOISE_FLOOR]
    band: tuple[float, ...] = ()
    if attacked and points["null_hi"].notna().any():
        band = (100 * points["null_lo"].median(), 100 * points["null_hi"].median())
    several = len(table.recipes) > 1
    return TradeOff(
        points,
        by_speedup,
        floors={gap: float(floor[gap].max()) for gap in GAPS},
        band=band,
        lines={
            f"original ({row['recipe']})" if several else "original": {
                name: float(row[name]) for name in ("leak", *GAPS)
            }
            for row in rows[rows["name"] == "identity"].to_dict("records")
            if row["n_ok"] > 0
        },
        attacked=attacked,
        left_out=left_out,
    )


def _sketch(trade: TradeOff, what: str, suffix: str) -> Sketch:
    points = trade.points
    first = "leak" if trade.attacked else "gap_forget"
    beyond = {gap: _beyond(points[gap], trade.floors[gap]) for gap in GAPS}
    costs = {"leak": points["excess"], **beyond}
    able = points["able"].to_numpy(dtype=bool)
    front = np.zeros(len(points), dtype=bool)
    three = np.column_stack([costs[first], -points["fast"], beyond["gap_test"]])
    front[able] = non_dominated(three[able])
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    for axes, name in zip(panels, (first, "gap_test"), strict=True):
        _panel(axes, trade, name, costs[name], front)
    add_legend(figure, bold=list(points.loc[front, "shown"]))
    return Sketch(figure, _alt(trade, what, first, front), _caption(trade, first, front), suffix)


def _beyond(gap: pd.Series, floor: float) -> pd.Series:
    """The part of a gap above the noise floor: inside it methods are tied."""
    return (gap - (0 if np.isnan(floor) else floor)).clip(lower=0)


def _panel(
    axes: Axes, trade: TradeOff, name: str, cost: pd.Series, front: npt.NDArray[np.bool_]
) -> None:
    points = trade.points
    horizontal = points["fast"] if trade.by_speedup else 1 / points["fast"]
    able = points["able"].to_numpy(dtype=bool)
    best = np.zeros(len(points), dtype=bool)
    best[able] = non_dominated(np.column_stack([cost, -points["fast"]])[able])
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
                x, y, look.marker, color=look.colour, markersize=8, markeredgecolor=PAPER,
                markeredgewidth=0.6, alpha=1 if point["able"] else 0.35, zorder=4, label=label,
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
    heights = []
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


def _alt(trade: TradeOff, what: str, first: str, front: npt.NDArray[np.bool_]) -> str:
    points = trade.points
    counted = points[points["counts"] & (points["kind"] == METHOD)]
    subject = "U-LIRA" if trade.attacked else "the forget gap"
    time = "speed-up over retraining" if trade.by_speedup else "seconds of unlearning"
    parts = [f"Scatter plots for {what}: {time} against {subject} and against the test gap"]
    parts[0] += f", of {len(points)} method{'s' if len(points) != 1 else ''}."
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


def _caption(trade: TradeOff, first: str, front: npt.NDArray[np.bool_]) -> str:
    points = trade.points
    subject = "privacy" if trade.attacked else "forget gap"
    time = "speed-up" if trade.by_speedup else "time"
    words = ["A method is good at the lower right."]
    if trade.attacked:
        words.append("50 % is a coin.")
    shaded = ["the null band (left)"] if trade.attacked and trade.band else []
    floored = [gap for gap in (first, "gap_test") if not np.isnan(trade.floors.get(gap, np.nan))]
    if floored:
        shaded.append("the distance between retrained models of different seeds")
    if shaded:
        words.append(f"Grey: {' and '.join(shaded)}; methods inside it are tied.")
    if trade.by_speedup:
        words.append("The star is the retrained model.")
    if trade.lines:
        several = len(trade.lines) > 1
        words.append(f"Broken line{'s: the original models' if several else ': the original'}.")
    if front.any():
        words.append(
            f"In a ring and bold: no other method is at least as good in {subject}, test gap and "
            f"{time}, and better in one of them. The dotted line joins those that are not beaten "
            "in the two that a panel shows."
        )
    if (points["kind"] == CONTROL).any():
        words.append("Hollow: controls, which are no methods.")
    if (~points["counts"]).any():
        words.append(
            f"Crosses do not count: {listed(list(points.loc[~points['counts'], 'shown']))}."
        )
    if len(pale := points[points["counts"] & (points["kind"] == METHOD) & ~points["able"]]):
        words.append(f"Pale: fails the utility gate ({listed(list(pale['shown']))}).")
    words.append("Gaps are linear up to 1 percentage point and logarithmic above.")
    return " ".join(words) + left_out_sentence(list(trade.left_out))
