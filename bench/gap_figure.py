"""Figure of the gaps: how far every row is from the retrained model, and what chance gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .drawing import COLOURS, INK, Sketch, extremes, name_rows, rows_figure
from .drawn_rows import METHOD, drawn_rows, left_out_sentence, without
from .leaderboard import NOISE_FLOOR, Table

# the retain gap is shown where it is worth the room: some row has one of so many points
VISIBLE = 1.0
TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)
FEW_TICKS = (0, 1, 10, 100)


def sketch_gaps(table: Table) -> Sketch | None:
    """Draw the gaps of every row as bars with the noise floor; None where there is no gap."""
    every = drawn_rows(table)
    # the retrained model is at 0 by definition, and the noise floor is the band
    rows = every[every["name"] != "retrain"]
    wanted = (rows["kind"] != "reference") | (rows["n_ok"] > 0)
    names = ["gap_forget_acc", "gap_test_acc"]
    gapless = rows[names].isna().all(axis=1)
    rows, left_out = without(rows[wanted], {"no retrained model": gapless})
    if rows.empty:
        return None
    if 100 * rows["gap_retain_acc"].max() >= VISIBLE:
        names.insert(1, "gap_retain_acc")
    figure, panels = rows_figure(len(rows), len(names))
    floors = every[every["method"] == NOISE_FLOOR].set_index("recipe")
    for axes, name in zip(panels, names, strict=True):
        _bars(axes, rows, name, floors[name], few=len(names) > 2)
    name_rows(panels, list(rows["shown"]))
    caption = _caption(rows, floors, left_out)
    return Sketch(figure, _alt(table, rows, names, floors), caption, "-gaps")


def _bars(axes: Axes, rows: pd.DataFrame, name: str, floors: pd.Series, *, few: bool) -> None:
    places = np.arange(len(rows))
    means, spreads = 100 * rows[name].to_numpy(float), 100 * rows[f"{name}_std"].to_numpy(float)
    floor = 100 * rows["recipe"].map(floors).astype(float)
    # a bar that is NaN wide draws nothing
    axes.barh(places, floor, height=1, color=INK, alpha=0.13, linewidth=0, label="noise floor")
    method = (rows["kind"] == METHOD).to_numpy()
    for of_kind, face, edge in ((method, COLOURS[0], COLOURS[0]), (~method, "none", INK)):
        axes.barh(
            places[of_kind], means[of_kind], height=0.62, color=face, edgecolor=edge, linewidth=1
        )
    known = ~np.isnan(spreads) & ~np.isnan(means)
    below = np.minimum(spreads, means)[known]
    axes.errorbar(
        means[known], places[known], xerr=np.array([below, spreads[known]]), fmt="none",
        ecolor=INK, elinewidth=1.2, capsize=2.5,
    )  # fmt: skip
    top = np.nanmax([1.0, *(means + np.nan_to_num(spreads)), *floor.dropna()])
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(0, top * 1.15)
    axes.xaxis.set_major_locator(FixedLocator(FEW_TICKS if few and top > 5 else TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(labelsize=9)
    axes.set(xlabel="percentage points", title=f"{_word(name).capitalize()} gap")


def _word(name: str) -> str:
    return name.removeprefix("gap_").removesuffix("_acc")


def _alt(table: Table, rows: pd.DataFrame, names: list[str], floors: pd.DataFrame) -> str:
    parts = []
    for name in names:
        known = rows[rows[name].notna()]
        if known.empty:
            continue
        said = extremes(list(known["shown"]), list(100 * known[name]), "points", 2)
        floor = 100 * floors[name].max()
        beside = f"; noise floor {floor:.2f}" if not np.isnan(floor) else ""
        parts.append(f"{_word(name).capitalize()} gap {said}{beside}.")
    rows_of = f"{len(rows)} row{'s' if len(rows) != 1 else ''}"
    return f"Bars for {table.scenario}: gaps to the retrained model of {rows_of}. {' '.join(parts)}"


def _caption(rows: pd.DataFrame, floors: pd.DataFrame, left_out: list[str]) -> str:
    words = ["Distance to the retrained model, linear up to 1 percentage point, logarithmic above."]
    spreads = rows[["gap_forget_acc_std", "gap_test_acc_std"]].notna().any(axis=1)
    if spreads.any():
        words.append("Whiskers: one standard deviation over the seeds.")
    if not spreads.all():
        words.append("A bar without whiskers is of one seed.")
    if floors["gap_forget_acc"].notna().any():
        words.append(
            "Grey: the distance between retrained models of different seeds; a bar inside it is "
            "what chance alone gives."
        )
    if (rows["kind"] != METHOD).any():
        words.append("Hollow: the original model and controls, which are no methods.")
    return " ".join(words) + left_out_sentence(left_out)
