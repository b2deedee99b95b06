"""Figure of the attack's ROC on log axes: what it finds while it accuses few wrongly."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from .drawing import COLOURS, INK, WIDTH, Sketch, add_legend, listed, short
from .drawn_rows import METHOD, drawn_rows, left_out_sentence, without
from .leaderboard import Leaderboard, Table

# so many methods have a colour of their own; of more, the best and worst ones
COLOURED, EXTREME = 7, 3
REFERENCE_DASHES = {"identity": "--", "retrain": "-"}
PANELS = 3  # side by side


def sketch_roc(table: Table, board: Leaderboard) -> Sketch | None:
    """Draw true against false positive rates, one panel a recipe; None without any ROC."""
    rows = drawn_rows(table)
    if "attack_scores" not in rows:
        return None
    rows = rows[(rows["kind"] != "noise floor") & (rows["n_ok"] > 0)]
    void = rows["acc"].notna() & ~rows["counts"]
    absent = ~rows["attack_scores"].isin(list(board.attacks))
    rows, left_out = without(rows, {"does not count": void, "no ROC": absent})
    if rows.empty:
        return None
    rows["label"] = short(list(rows["method"]))
    rocs = {key: board.attacks[key].roc for key in rows["attack_scores"]}
    bright = _highlighted(rows)
    recipes = [recipe for recipe in table.recipes if (rows["recipe"] == recipe).any()]
    columns = min(PANELS, len(recipes))
    lines = -(-len(recipes) // columns)
    figure = Figure(figsize=(WIDTH, lines * WIDTH / max(2, columns) + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    least = min(_least(roc) for roc in rocs.values())
    titles = short(recipes, 84 // columns)
    for place, (axes, recipe) in enumerate(zip(grid, recipes, strict=False)):
        _panel(axes, rows[rows["recipe"] == recipe], rocs, bright, least)
        axes.set(xlabel="false positive rate, %", title=titles[place] if len(recipes) > 1 else "")
        if place % columns == 0:
            axes.set(ylabel="true positive rate, %")
    for axes in grid[len(recipes) :]:
        axes.set_visible(False)
    add_legend(figure, beside=columns == 1)
    return Sketch(figure, _alt(table, rows, rocs), _caption(rows, rocs, bright, left_out), "-roc")


def tpr_at(roc: dict[str, list[float]], fpr: float) -> float:
    """The true positive rate of the last point whose false positive rate is at most this."""
    place = int(np.searchsorted(roc["fpr"], fpr + 1e-12, side="right")) - 1
    return roc["tpr"][place] if place >= 0 else 0.0


def _highlighted(rows: pd.DataFrame) -> dict[str, str]:
    """Colour by method: all where they are few, else the best and the worst."""
    methods = rows[rows["kind"] == METHOD]
    names = list(dict.fromkeys(methods["method"]))
    if len(names) > COLOURED:
        order = list(methods.groupby("method", sort=False)["acc"].mean().sort_values().index)
        names = [*order[:EXTREME], *order[-EXTREME:]]
    return dict(zip(names, COLOURS, strict=False))


def _least(roc: dict[str, list[float]]) -> float:
    """The least rate that is not 0: a log axis begins there."""
    return float(min(rate for rates in roc.values() for rate in rates if rate > 0))


def _panel(
    axes: Axes,
    rows: pd.DataFrame,
    rocs: dict[str, dict[str, list[float]]],
    bright: dict[str, str],
    least: float,
) -> None:
    axes.plot([least, 1], [least, 1], color=INK, alpha=0.5, linewidth=1, linestyle=":")
    seen_others = False
    order = [*bright]
    for row in sorted(rows.to_dict("records"), key=lambda row: _place(row, order)):
        fpr, tpr = (np.array(rocs[row["attack_scores"]][name]) for name in ("fpr", "tpr"))
        known = fpr > 0
        # below the least false positive rate the curve is flat; what is 0 has no place on log axes
        fpr, tpr = fpr[known], np.maximum(tpr[known], least / 2)
        look: dict[str, Any] = {"label": row["label"], "linewidth": 1.8, "zorder": 4}
        if row["name"] in REFERENCE_DASHES and row["kind"] == "reference":
            look |= {"color": INK, "linestyle": REFERENCE_DASHES[row["name"]], "zorder": 5}
        elif row["method"] in bright:
            look |= {"color": bright[row["method"]]}
        else:
            label = "_" if seen_others else "others"
            seen_others = True
            look |= {"color": INK, "alpha": 0.25, "linewidth": 0.8, "label": label, "zorder": 2}
        axes.plot(fpr, tpr, drawstyle="steps-post", **look)
    axes.set(xscale="log", yscale="log", xlim=(least, 1.05), ylim=(least, 1.05), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        axis.set_minor_locator(NullLocator())


def _place(row: Mapping[Hashable, Any], order: list[str]) -> int:
    """References first, and what has no colour last."""
    if row["kind"] == "reference":
        return -1
    return order.index(row["method"]) if row["method"] in order else len(order)


def _alt(table: Table, rows: pd.DataFrame, rocs: dict[str, dict[str, list[float]]]) -> str:
    found = rows.assign(tpr=[100 * tpr_at(rocs[key], 0.01) for key in rows["attack_scores"]])
    parts = [f"ROC curves on log axes for {table.scenario}, of {len(rows)} rows."]
    parts.append("Found while 1 % of those never seen are accused:")
    said = [
        f"{row['shown']} {row['tpr']:.1f} %"
        for row in found[found["kind"] == "reference"].to_dict("records")
    ]
    methods = found[found["kind"] == METHOD].sort_values("tpr", kind="stable")
    if len(methods):
        ends = methods.iloc[[0, -1]] if len(methods) > 1 else methods
        said += [f"{row['shown']} {row['tpr']:.1f} %" for row in ends.to_dict("records")]
    return f"{' '.join(parts)} {', '.join(said)}."


def _caption(
    rows: pd.DataFrame,
    rocs: dict[str, dict[str, list[float]]],
    bright: dict[str, str],
    left_out: list[str],
) -> str:
    words = [
        "Share of forgotten examples that the attack finds, against the share of never-seen ones "
        "that it wrongly accuses; both on log axes, from the least rate that so many examples can "
        "show. On the dotted diagonal it guesses; the retrained model should be near it."
    ]
    others = (rows["kind"] != "reference") & ~rows["method"].isin(list(bright))
    thin = list(dict.fromkeys(rows.loc[others, "label"]))
    if thin:
        if rows.loc[rows["kind"] == METHOD, "method"].nunique() > COLOURED:
            words.append(f"In colour: the {EXTREME} best and {EXTREME} worst methods by U-LIRA.")
        words.append(f"Thin grey: {listed(thin, 40)}.")
    blind = [row for row in rows.to_dict("records") if len(rocs[row["attack_scores"]]["fpr"]) < 3]
    if blind:
        names = listed([str(row["shown"]) for row in blind])
        words.append(f"Without a line, as all its scores are alike: {names}.")
    return " ".join(words) + left_out_sentence(left_out)
