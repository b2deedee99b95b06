"""Figure of the attack example by example: an average hides the few who are exposed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from .attack_record import AttackRecord
from .drawing import COLOURS, INK, PAPER, Sketch, extremes, name_rows, rows_figure
from .drawn_rows import METHOD, drawn_rows, left_out_sentence, without
from .leaderboard import Leaderboard, Table

QUANTILES = (0.05, 0.5, 0.95)
BINS = 24
UP, DOWN = 0.46, 0.36  # of the height of a row


def sketch_leakage(table: Table, board: Leaderboard) -> Sketch | None:
    """Draw how often the attack is right on each example, one line a row; None without any."""
    rows = drawn_rows(table)
    if "attack_scores" not in rows:
        return None
    rows = rows[(rows["kind"] != "noise floor") & (rows["n_ok"] > 0)]
    void = rows["acc"].notna() & ~rows["counts"]
    absent = ~rows["attack_scores"].isin(list(board.attacks))
    rows, left_out = without(rows, {"does not count": void, "no figures by example": absent})
    if rows.empty:
        return None
    found = [board.attacks[key] for key in rows["attack_scores"]]
    quantiles = np.array([np.quantile(attack.per_example(), QUANTILES) for attack in found])
    retrained = rows[(rows["name"] == "retrain") & (rows["kind"] == "reference")]
    beside = {
        str(recipe): board.attacks[key]
        for recipe, key in zip(retrained["recipe"], retrained["attack_scores"], strict=True)
    }
    figure, (axes,) = rows_figure(len(rows))
    for place, (row, attack) in enumerate(zip(rows.to_dict("records"), found, strict=True)):
        method = row["kind"] == METHOD
        _hump(axes, place, attack, COLOURS[0] if method else INK, 0.75 if method else 0.45, -UP)
        if method and row["recipe"] in beside:
            _hump(axes, place, beside[row["recipe"]], INK, 0.25, DOWN)
    _marks(axes, quantiles)
    axes.set_xlim(-2, 102)
    axes.xaxis.set_major_locator(MultipleLocator(10))
    axes.set(xlabel="accuracy of the attack on one example, %")
    name_rows([axes], list(rows["shown"]))
    caption = _caption(found, bool(beside), left_out)
    return Sketch(figure, _alt(table, rows, quantiles), caption, "-leakage")


def histogram(attack: AttackRecord) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Shares of examples by how often the attack is right on them.

    An accuracy is a multiple of 1 / 2P. Bins hold equally many of these multiples, else a smooth
    distribution would look like a comb.

    Returns:
        Edges `(B + 1,)` as fractions, and shares `(B,)`, which sum to 1.
    """
    step = 1 / (2 * attack.pairs)
    width = -(-(2 * attack.pairs + 1) // BINS)
    # odd, so that one bin has its middle at one half
    width += 1 - width % 2
    half = -(-(attack.pairs - width // 2) // width) + 0.5
    edges = 0.5 + step * width * np.arange(-half, half + 0.75)
    counts, _ = np.histogram(attack.per_example(), edges)
    return edges, counts / attack.examples


def _hump(
    axes: Axes, place: int, attack: AttackRecord, colour: str, alpha: float, height: float
) -> None:
    edges, shares = histogram(attack)
    tops = place + height * shares / shares.max()
    axes.stairs(
        tops, np.clip(100 * edges, 0, 100), baseline=place, fill=True, color=colour, alpha=alpha,
        linewidth=0,
    )  # fmt: skip


def _marks(axes: Axes, quantiles: npt.NDArray[np.float64]) -> None:
    """A line from the 5 % to the 95 % quantile and a dot at the median."""
    places = np.arange(len(quantiles))
    low, middle, high = 100 * quantiles.T
    axes.axvline(50, color=INK, alpha=0.5, linewidth=1, zorder=0.5)
    axes.hlines(places, low, high, color=INK, linewidth=1.4)
    axes.plot(
        middle, places, "o", markersize=5, markerfacecolor=PAPER, markeredgecolor=INK,
        linestyle="none",
    )  # fmt: skip


def _alt(table: Table, rows: pd.DataFrame, quantiles: npt.NDArray[np.float64]) -> str:
    parts = [
        f"Distributions for {table.scenario}: how often the attack is right on each example, of "
        f"{len(rows)} rows."
    ]
    for row, (low, middle, high) in zip(rows.to_dict("records"), 100 * quantiles, strict=True):
        if row["kind"] == "reference":
            parts.append(
                f"{row['shown'].capitalize()}: median {middle:.1f} %, 5 % to 95 % quantile "
                f"{low:.1f} to {high:.1f} %."
            )
    method = (rows["kind"] == METHOD).to_numpy()
    if method.any():
        names = list(rows.loc[method, "shown"])
        said = extremes(names, list(100 * quantiles[method, 2]), "%")
        parts.append(f"95 % quantile of methods {said}.")
    return " ".join(parts)


def _caption(found: list[AttackRecord], beside: bool, left_out: list[str]) -> str:
    pairs = sorted({attack.pairs for attack in found})
    said = " or ".join(str(number) for number in pairs)
    caption = (
        "How often the attack is right on one and the same example, over "
        f"{said} pair{'s' if pairs != [1] else ''} of shadow models. Humps: share of the "
        "examples, each as high as its highest bin. Dot: the median example; line: 5 % to 95 % "
        "of the examples."
    )
    if beside:
        caption += (
            " Grey below a method: the retrained model, which shows how far chance alone spreads "
            "the examples with so few pairs; what reaches further to the right is exposed."
        )
    return caption + left_out_sentence(left_out)
