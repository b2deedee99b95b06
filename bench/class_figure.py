"""Figure of single classes: how well each method forgets each class of a dataset."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from seaborn.utils import relative_luminance

from .attack_rows import ACC
from .class_breakdown import ClassBreakdown, single_class
from .drawing import PAPER, WIDTH, Sketch, extremes, file_name, row_height, short
from .drawn_rows import VOID
from .leaderboard import Leaderboard

# wider than this a number has no room in its cell
NUMBERED = 12
LABELLED = 30
ROOM = 62  # letters that stand side by side below the classes
MIDDLE = 0.18  # luminance on which black and white are read equally well
QUANTITIES = (
    (ACC, "U-LIRA, %", "U-LIRA"),
    ("test_forget_acc", "accuracy on its test images, %", "accuracy on its test images"),
    ("forget_acc", "forget accuracy, %", "forget accuracy"),
)


def sketch_classes(breakdown: ClassBreakdown, board: Leaderboard) -> Sketch | None:
    """Draw methods by classes as a heat map of U-LIRA; None where nothing is known.

    Where nothing was attacked it is the accuracy on test images of the forgotten class.

    Args:
        breakdown: What each method does on each class.
        board: Its leaderboard, which says what figures of the attack do not count.
    """
    rows = breakdown.rows.copy()
    void = _void(breakdown, board)
    keys = zip(rows["class"], rows["recipe"], rows["method"], strict=True)
    rows.loc[[key in void for key in keys], ACC] = np.nan
    known = [q for q in QUANTITIES if q[0] in rows and rows[q[0]].notna().any()]
    if not known:
        return None
    name, words, subject = known[0]
    several = rows["recipe"].nunique() > 1
    labels = {
        key: f"{key[1]} ({key[0]})" if several else str(key[1])
        for key in dict.fromkeys(zip(rows["recipe"], rows["method"], strict=True))
    }
    values = _matrix(rows, name, list(labels), breakdown.classes)
    above = _matrix(rows, "excess", list(labels), breakdown.classes) > 0
    names = short(list(labels.values()))
    attacked = name == ACC
    figure = _figure(values, above & attacked, names, breakdown.classes, words, attacked=attacked)
    alt = _alt(breakdown, values, names, subject)
    caption = _caption(values, attacked=attacked, subject=subject)
    data = file_name(breakdown.dataset, breakdown.model)
    return Sketch(figure, alt, caption, f"all-classes-{data}")


def _void(breakdown: ClassBreakdown, board: Leaderboard) -> set[tuple[str, str, str]]:
    """Class, recipe and method of the rows whose U-LIRA does not count."""
    return {
        (forgotten, str(row["recipe"]), str(row["method"]))
        for table in board.tables
        if (table.dataset, table.model) == (breakdown.dataset, breakdown.model)
        and (forgotten := single_class(table.scenario)) is not None
        for row in table.rows.to_dict("records")
        if row.get("attack_validity") in VOID
    }


def _matrix(
    rows: pd.DataFrame, name: str, keys: list[tuple[str, str]], classes: tuple[str, ...]
) -> npt.NDArray[np.float64]:
    """`(rows, classes)` of one quantity; NaN where it is not known."""
    if name not in rows:
        return np.full((len(keys), len(classes)), np.nan)
    wide = rows.assign(**{"class": rows["class"].astype(str)}).pivot_table(
        index=["recipe", "method"], columns="class", values=name, aggfunc="first", dropna=False
    )
    matrix: npt.NDArray[np.float64] = wide.reindex(index=keys, columns=list(classes)).to_numpy(
        float
    )
    return matrix


def _figure(
    values: npt.NDArray[np.float64],
    above: npt.NDArray[np.bool_],
    names: list[str],
    classes: tuple[str, ...],
    words: str,
    *,
    attacked: bool,
) -> Figure:
    known = 100 * values[~np.isnan(values)]
    low, high = (min(50.0, known.min()), max(60.0, known.max())) if attacked else (0.0, 100.0)
    colours = ScalarMappable(Normalize(low, high), "cividis")
    figure = Figure(
        figsize=(WIDTH, 1.5 + row_height(len(names)) * len(names)), layout="constrained"
    )
    # mean and worst stand beside the classes: of a hundred classes each is a thin stripe
    panels = figure.subplots(1, 2, sharey=True, width_ratios=(max(5, min(len(classes), 10)), 2))
    summed = np.column_stack([_mean(values), _worst(values)])
    numbered = len(classes) <= NUMBERED
    for axes, matrix in zip(panels, (values, summed), strict=True):
        sns.heatmap(
            100 * matrix, ax=axes, cmap="cividis", vmin=low, vmax=high, cbar=False,
            yticklabels=False, xticklabels=False, linecolor=PAPER,
            linewidths=0.6 if matrix.shape[1] <= LABELLED else 0,
            # a picture inside the SVG: its size does not grow with the number of cells
            rasterized=True,
        )  # fmt: skip
        axes.grid(visible=False)
    bold = [above, np.zeros(summed.shape, dtype=bool)]
    for axes, matrix, heavy in zip(panels, (values, summed), bold, strict=True):
        if numbered or axes is panels[1]:
            _numbers(axes, 100 * matrix, heavy, colours)
    panels[0].set_yticks(np.arange(len(names)) + 0.5, names, rotation=0)
    panels[0].set(xlabel="forgotten class")
    _name_classes(panels[0], short(list(classes), 14))
    panels[1].set_xticks([0.5, 1.5], ["mean", "highest"])
    for axes in panels:
        axes.tick_params(labelsize=9, length=0)
    figure.colorbar(colours, ax=panels, label=words, fraction=0.03, pad=0.02)
    return figure


def _name_classes(axes: Axes, names: list[str]) -> None:
    """All names where they have room, else every so many."""
    step = -(-len(names) // LABELLED)
    kept = range(0, len(names), step)
    upright = step > 1 or max(map(len, names)) * len(names) > ROOM
    shown = [names[place] for place in kept]
    axes.set_xticks([place + 0.5 for place in kept], shown, rotation=90 if upright else 0)


def _numbers(
    axes: Axes,
    shown: npt.NDArray[np.float64],
    heavy: npt.NDArray[np.bool_],
    colours: ScalarMappable,
) -> None:
    """The numbers in their cells, dark on bright ones; some in bold."""
    for (row, column), value in np.ndenumerate(shown):
        if np.isnan(value):
            continue
        bright = relative_luminance(colours.to_rgba(np.asarray(value))) > MIDDLE
        axes.text(
            column + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center", fontsize=8,
            color="#000000" if bright else "#ffffff",
            fontweight="bold" if heavy[row, column] else "normal",
        )  # fmt: skip


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the known classes; NaN where there is none."""
    return pd.DataFrame(values).mean(axis=1).to_numpy()


def _worst(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The highest over the known classes; NaN where there is none."""
    return pd.DataFrame(values).max(axis=1).to_numpy()


def _alt(
    breakdown: ClassBreakdown, values: npt.NDArray[np.float64], names: list[str], subject: str
) -> str:
    row, column = np.unravel_index(int(np.nanargmax(values)), values.shape)
    means = _mean(values)
    known = ~np.isnan(means)
    named = [name for name, is_known in zip(names, known, strict=True) if is_known]
    said = extremes(named, list(100 * means[known]), "%")
    return (
        f"Heat map for {breakdown.dataset}, {breakdown.model}: {subject} of {len(names)} rows on "
        f"{len(breakdown.classes)} forgotten classes. Mean over the classes {said}. Highest: "
        f"{100 * values[row, column]:.1f} % ({names[row]}, class {breakdown.classes[column]})."
    )


def _caption(values: npt.NDArray[np.float64], *, attacked: bool, subject: str) -> str:
    caption = f"{subject[:1].upper()}{subject[1:]} after one class was forgotten, and "
    caption += "behind the classes the mean over them and the highest."
    if attacked:
        caption += " 50 % is a coin."
        if values.shape[1] <= NUMBERED:
            caption += " Bold: above the null band."
    else:
        caption += " The lower the less is left of the class; compare with the retrained model."
    if np.isnan(values).any():
        caption += " Blank: not known, or it does not count."
    return caption
