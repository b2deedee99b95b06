"""Figures of the leaderboard: speed against forgetting, and speed against utility."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from .leaderboard import NOISE_FLOOR, Table

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
    """

    svg: str
    png: bytes
    alt: str
    caption: str

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
    with _style(salt=table.title):
        figure = Figure(figsize=(9, 4.3), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(PANELS), sharex=True)
        for axes, (metric, words) in zip(panels, PANELS, strict=True):
            _panel(axes, table, points, metric, words)
        _legend(figure, panels[0], table)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    return Drawing(_clean(svg.getvalue()), png.getvalue(), _alt(table, points),
                   _caption(table, left_out))


def _points(table: Table) -> tuple[pd.DataFrame, list[str]]:
    """The methods that have a speed-up and a gap, and sentences on those that have not."""
    methods = table.rows[table.rows["kind"] == "method"].copy()
    several = len(table.recipes) > 1
    methods["shown"] = [f"{label} ({recipe})" if several else label for label, recipe in
                        zip(methods["method"], methods["recipe"], strict=True)]
    ran = methods["n_ok"] > 0
    timed = (methods["speedup_mean"] > 0) & methods["gap_forget_acc"].notna()
    left_out = [f"{row.shown} ({row.status})" for row in methods[~ran].itertuples()]
    left_out += [f"{row.shown} (no speed-up or no retrained model)"
                 for row in methods[ran & ~timed].itertuples()]
    points = methods[ran & timed].copy()
    for metric, _ in PANELS:
        points[metric] = 100 * points[f"gap_{metric}"]
    return points, left_out


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """Set the look for one drawing and put the caller's settings back afterwards."""
    settings = {
        "svg.hashsalt": salt, "svg.fonttype": "none", "font.family": ["DejaVu Sans"],
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
        "ytick.color": INK, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
        "savefig.facecolor": PAPER, "grid.color": INK, "grid.alpha": 0.15, "axes.grid": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        "font.size": 10, "axes.titlesize": 11, "text.parse_math": False,
    }
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def _panel(axes: Axes, table: Table, points: pd.DataFrame, metric: str, words: str) -> None:
    names = list(points["shown"])
    sns.scatterplot(
        data=points, x="speedup_mean", y=metric, hue="shown", style="shown", ax=axes,
        hue_order=names, style_order=names, s=90, linewidth=0.8, edgecolor=PAPER, zorder=3,
        palette=dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True)),
        markers=dict(zip(names, (MARKERS[i % len(MARKERS)] for i in range(len(names))),
                         strict=True)),
    )
    axes.plot(1, 0, marker="*", markersize=15, color=INK, linestyle="", zorder=4,
              clip_on=False, label="retrained")
    _reference_lines(axes, table, metric)
    axes.set_xscale("log")
    low, high = points["speedup_mean"].min(), points["speedup_mean"].max()
    axes.set_xlim(min(low, 1) / 1.5, max(high, 1) * 1.5)
    narrow = max(high, 1) / min(low, 1) < 50
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    # most gaps are below one point and a failure is at a hundred: linear up to 1, then log
    axes.set_yscale("symlog", linthresh=1)
    top = max(1.0, *(line.get_ydata()[0] for line in axes.lines), points[metric].max())  # type: ignore[index]
    axes.set_ylim(0, top * 1.35)
    axes.yaxis.set_major_locator(FixedLocator(GAP_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlabel="speed-up over retraining", title=words.capitalize(),
             ylabel="gap to retrained, percentage points")


def _reference_lines(axes: Axes, table: Table, metric: str) -> None:
    """The noise floor as a band, the gap of the original model as a line for each recipe."""
    rows = table.rows
    floor = 100 * rows.loc[rows["method"] == NOISE_FLOOR, f"gap_{metric}"].max()
    if pd.notna(floor):
        axes.axhspan(0, floor, color=INK, alpha=0.12, linewidth=0, label="noise floor")
    originals = rows[(rows["name"] == "identity") & rows[f"gap_{metric}"].notna()]
    for style, row in zip(("--", ":", "-."), originals.itertuples(), strict=False):
        label = f"original ({row.recipe})" if len(table.recipes) > 1 else "original"
        axes.axhline(100 * getattr(row, f"gap_{metric}"), color=INK, alpha=0.7, linewidth=1.2,
                     linestyle=style, label=label)


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
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=9,
                  ncols=max(1, min(5, 100 // (longest + 6))))


def _clean(svg: str) -> str:
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _alt(table: Table, points: pd.DataFrame) -> str:
    parts = [f"{row.shown}: {row.speedup_mean:.3g} times faster, forget gap {row.forget_acc:.1f}, "
             f"test gap {row.test_acc:.1f}" for row in points.itertuples()]
    return (f"Speed-up over retraining against the gap to the retrained model for {table.title}. "
            + "; ".join(parts) + ". Gaps are in percentage points.")


def _caption(table: Table, left_out: list[str]) -> str:
    caption = ("Speed-up (log scale) against the gap to the retrained model (linear up to 1 "
               "percentage point, logarithmic above). A method is good at the lower right. The "
               "star is the retrained model itself")
    if (table.rows.loc[table.rows["method"] == NOISE_FLOOR, "n_pairs"] > 0).any():
        caption += ", the grey band the distance between retrained models of different seeds"
        caption += " (the largest of the recipes)" if len(table.recipes) > 1 else ""
    if (table.rows.loc[table.rows["name"] == "identity", "n_ok"] > 0).any():
        caption += ", the dashed line the original model"
    return caption + "." + (f" Left out: {', '.join(left_out)}." if left_out else "")
