"""Figures of the leaderboard: speed against forgetting, and speed against utility."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from .leaderboard import NOISE_FLOOR, Table
from .tablecell import TIMES_SIGN

# Two colours that stand for "text" and "page": the page swaps them for its theme's own.
INK, PAPER = "#1f2933", "#fefefe"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
PANELS = (("forget_acc", "forget accuracy"), ("test_acc", "test accuracy"))
GAP_TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Drawing:
    """One figure as files and as words.

    Attributes:
        svg: A complete SVG document.
        png: The same as PNG.
        alt: What a reader who cannot see it should know.
        caption: How to read it, and what was left out and why.
        suffix: What its file name has behind that of the table.
    """

    svg: str
    png: bytes
    alt: str
    caption: str
    suffix: str = ""

    def inline_svg(self, prefix: str) -> str:
        """The drawing for an HTML page: theme colours, and ids that no other figure has."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
        return svg.replace(INK, "currentColor").replace(PAPER, "none")


def draw(table: Table) -> Drawing | None:
    """Draw speed-up against the gaps to the retrained model; None if no method can be drawn."""
    points, left_out = _points(table)
    if points.empty:
        return None
    with drawing_style(salt=table.title):
        figure = Figure(figsize=(9, 4.3), layout="constrained")
        panels = figure.subplots(1, len(PANELS), sharex=True)
        for axes, (metric, words) in zip(panels, PANELS, strict=True):
            _panel(axes, table, points, metric, words)
        _legend(figure, panels[0], table)
        svg, png = as_files(figure)
    return Drawing(svg, png, _alt(table, points), _caption(table, left_out))


def as_files(figure: Figure) -> tuple[str, bytes]:
    """A figure as SVG and PNG, without the time and the versions that made it."""
    FigureCanvasAgg(figure)
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    clean = "\n".join(line.rstrip() for line in svg.getvalue().splitlines()) + "\n"
    return clean, png.getvalue()


def _points(table: Table) -> tuple[pd.DataFrame, list[str]]:
    """The methods that have a speed-up and a gap, and sentences on those that have not."""
    methods = table.rows[table.rows["kind"] == "method"].copy()
    several = len(table.recipes) > 1
    methods["shown"] = [
        f"{label} ({recipe})" if several else label
        for label, recipe in zip(methods["method"], methods["recipe"], strict=True)
    ]
    # given before any is left out: a method looks the same in every table of a sweep
    methods["colour"] = sns.color_palette("colorblind", len(methods)).as_hex()
    methods["marker"] = list(itertools.islice(itertools.cycle(MARKERS), len(methods)))
    ran = methods["n_ok"] > 0
    timed = (methods["speedup_mean"] > 0) & methods["gap_forget_acc"].notna()
    left_out = [f"{row.shown} ({row.status})" for row in methods[~ran].itertuples()]
    left_out += [
        f"{row.shown} (no speed-up or no retrained model)"
        for row in methods[ran & ~timed].itertuples()
    ]
    points = methods[ran & timed].copy()
    for metric, _ in PANELS:
        points[metric] = 100 * points[f"gap_{metric}"]
    return points, left_out


@contextmanager
def drawing_style(salt: str) -> Iterator[None]:
    """Set the look for one drawing and put the caller's settings back afterwards."""
    settings: dict[str, Any] = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "font.family": ["DejaVu Sans"],
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.facecolor": PAPER,
        "axes.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "grid.color": INK,
        "grid.alpha": 0.15,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "font.size": 10,
        "axes.titlesize": 11,
        "text.parse_math": False,
    }
    with style.context(["default", settings]):
        yield


def _panel(axes: Axes, table: Table, points: pd.DataFrame, metric: str, words: str) -> None:
    names = list(points["shown"])
    sns.scatterplot(
        data=points,
        x="speedup_mean",
        y=metric,
        hue="shown",
        style="shown",
        hue_order=names,
        style_order=names,
        palette=dict(zip(names, points["colour"], strict=True)),
        markers=dict(zip(names, points["marker"], strict=True)),
        s=90,
        linewidth=0.8,
        edgecolor=PAPER,
        zorder=3,
        ax=axes,
    )
    axes.plot(1, 0, "*", markersize=15, color=INK, zorder=4, label="retrained")
    top = max(1.0, points[metric].max(), *_reference_lines(axes, table, metric))
    # most gaps are below one point and a failure is at a hundred: linear up to 1, then log
    axes.set_yscale("symlog", linthresh=1)
    # room below zero for whole markers
    axes.set_ylim(-0.12, top * 1.35)
    axes.yaxis.set_major_locator(FixedLocator(GAP_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = points["speedup_mean"].min(), points["speedup_mean"].max()
    low, high = min(low, 1) / 1.5, max(high, 1) * 1.5
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}{TIMES_SIGN}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(
        xlabel="speed-up over retraining",
        ylabel="gap to retrained, percentage points",
        title=words.capitalize(),
    )


def _reference_lines(axes: Axes, table: Table, metric: str) -> list[float]:
    """The noise floor as a band, each original model as a line; returns their heights."""
    rows = table.rows
    heights = []
    floor = 100 * rows.loc[rows["method"] == NOISE_FLOOR, f"gap_{metric}"].max()
    if pd.notna(floor):
        axes.axhspan(0, floor, color=INK, alpha=0.12, linewidth=0, label="noise floor")
        heights.append(floor)
    originals = rows[(rows["name"] == "identity") & rows[f"gap_{metric}"].notna()]
    broken = itertools.cycle(("--", ":", "-."))
    for line, row in zip(broken, originals.to_dict("records"), strict=False):
        height = 100 * row[f"gap_{metric}"]
        label = f"original ({row['recipe']})" if len(table.recipes) > 1 else "original"
        axes.axhline(height, color=INK, alpha=0.7, linewidth=1.2, linestyle=line, label=label)
        heights.append(height)
    return heights


def _legend(figure: Figure, axes: Axes, table: Table) -> None:
    """One legend for both panels below them, so that no label covers a point."""
    handles, labels = axes.get_legend_handles_labels()
    for panel in figure.axes:
        if panel.get_legend() is not None:
            panel.get_legend().remove()  # type: ignore[union-attr]
    for handle in handles:
        if isinstance(handle, Line2D) and handle.get_marker() not in ("None", "*", ""):
            handle.set_markersize(8)
    longest = max(len(label) for label in labels)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        frameon=False,
        fontsize=9,
        ncols=max(1, min(5, 100 // (longest + 6))),
    )


def _alt(table: Table, points: pd.DataFrame) -> str:
    return (
        f"Scatter plots for {table.scenario}: speed-up over retraining against the forget gap and "
        f"against the test gap, for {', '.join(points['shown'])}. The numbers are in the table."
    )


def _caption(table: Table, left_out: list[str]) -> str:
    caption = (
        "Speed-up (log scale) against the gap to the retrained model (linear up to 1 "
        "percentage point, logarithmic above). A method is good at the lower right. The "
        "star is the retrained model itself"
    )
    if (table.rows.loc[table.rows["method"] == NOISE_FLOOR, "n_pairs"] > 0).any():
        caption += ", the grey band the distance between retrained models of different seeds"
        caption += " (the largest of the recipes)" if len(table.recipes) > 1 else ""
    if (table.rows.loc[table.rows["name"] == "identity", "n_ok"] > 0).any():
        several = len(table.recipes) > 1
        caption += f", the broken line{'s' if several else ''} the original model"
        caption += "s" if several else ""
    return caption + "." + (f" Left out: {', '.join(left_out)}." if left_out else "")
