"""Figure of what a recipe costs before anything is unlearned: accuracy and training time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .drawing import COLOURS, INK, PAPER, Sketch, extremes, file_name, name_rows, rows_figure, short
from .leaderboard import Leaderboard, Table

PANELS = (
    ("test_acc", "Test accuracy of the original, %", 100.0),
    ("original_s", "Seconds of training", 1.0),
)


def costs_by_data(board: Leaderboard) -> dict[tuple[str, str], pd.DataFrame]:
    """What recipes cost, by dataset and model, where there are several recipes.

    Tasks on the same data and model share their originals: the table with the most recipes, and
    of these with the most seeds, speaks for all.
    """
    best: dict[tuple[str, str], Table] = {}
    for table in board.tables:
        key = (table.dataset, table.model)
        if key not in best or _size(table) > _size(best[key]):
            best[key] = table
    found = {key: table.costs[table.costs["n"] > 0] for key, table in best.items()}
    return {key: costs for key, costs in found.items() if len(costs) > 1}


def sketch_recipes(dataset: str, model: str, costs: pd.DataFrame) -> Sketch | None:
    """Draw test accuracy and training seconds of each recipe's originals; None if all unknown.

    Args:
        dataset: Dataset as `name[key=value,…]`.
        model: Architecture as `name[key=value,…]`.
        costs: One row a recipe, as in `Table.costs`.
    """
    if costs["test_acc_mean"].isna().all():
        return None
    panels = [p for p in PANELS if costs[f"{p[0]}_mean"].notna().any()]
    figure, axes_of = rows_figure(len(costs), len(panels))
    for axes, (name, words, scale) in zip(axes_of, panels, strict=True):
        _dots(axes, scale * costs[f"{name}_mean"], scale * costs[f"{name}_std"], bars=scale == 1)
        axes.set(xlabel=words)
    name_rows(axes_of, short(list(costs["recipe"])))
    alt, caption = _alt(dataset, model, costs), _caption(dataset, model, costs)
    return Sketch(figure, alt, caption, f"all-recipes-{file_name(dataset, model)}")


def _size(table: Table) -> tuple[int, int]:
    known = table.costs["n"] > 0 if len(table.costs) else pd.Series(dtype=bool)
    return int(known.sum()), len(table.seeds)


def _dots(axes: Axes, means: pd.Series, spreads: pd.Series, *, bars: bool) -> None:
    """Seconds as bars from 0; accuracies as dots, since only their differences tell."""
    places = np.arange(len(means))
    if bars:
        axes.barh(places, means, height=0.55, color=COLOURS[0])
    axes.errorbar(
        means, places, xerr=spreads.fillna(0), fmt="none" if bars else "o", color=COLOURS[0],
        ecolor=INK, markeredgecolor=PAPER, markersize=9, capsize=2.5, elinewidth=1.2,
    )  # fmt: skip
    if bars:
        axes.set_xlim(left=0)
    else:
        axes.margins(x=0.1)
        low, high = axes.get_xlim()
        if high - low < 1:  # a hundredth of a point must not look like a gulf
            axes.set_xlim(low - 0.5, high + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _alt(dataset: str, model: str, costs: pd.DataFrame) -> str:
    names = list(costs["recipe"])
    said = [f"test accuracy {extremes(names, list(100 * costs['test_acc_mean']), '%')}"]
    if costs["original_s_mean"].notna().any():
        said.append(f"training {extremes(names, list(costs['original_s_mean']), 's')}")
    return f"What {len(costs)} recipes cost on {dataset}, {model}: {'; '.join(said)}."


def _caption(dataset: str, model: str, costs: pd.DataFrame) -> str:
    caption = (
        f"What a recipe costs before anything is unlearned, on {dataset}, {model}: original models "
        "of each recipe."
    )
    if costs["test_acc_std"].notna().any():
        caption += " Whiskers: one standard deviation over the seeds."
    if missing := [str(r) for r in costs.loc[costs["original_s_mean"].isna(), "recipe"]]:
        caption += f" No seconds, or of different machines: {', '.join(missing)}."
    return caption
