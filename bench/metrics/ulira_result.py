"""The result of U-LIRA: a summary with its null law, its power and its setting.

Source: evaluation specification, sections 2.6 and 4 (4.9 for the Streisand indicators).

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .attack_power import attack_power
from .folds import Cells, fit_others
from .lrt import Centre, Variance
from .pairs import BoolArray, IntArray, PairError
from .rerandomise import NullBand, Redraw, null_statistics
from .summary import Summary, summarise

VERSION = 1
POWER_D = 0.5
LOW_SHARE = 0.01
BAND = ("mean", "sd", "lo", "hi")


@dataclass(frozen=True, eq=False, kw_only=True)
class UliraResult(Summary):
    """A summary with its null law, its power and its setting.

    Attributes:
        kind: `privacy` (forgotten against never trained) or `efficacy` (against retrained).
        variance: How variances were estimated.
        centre: How locations were estimated.
        n_models: N, number of shadow models scored, twice the number of pairs.
        n_examples: E, number of target examples.
        n_views: Number of views whose log likelihood ratios were averaged.
        ids: `(E,)` the target examples, as columns of the margins given.
        null: Accuracy if membership left no trace: mean, sd, 95 % band, p-value; None without
            redraws.
        null_auc: The same of the AUC.
        power: Accuracy that this many models would show for a leak of half a standard deviation;
            unlimited models would show 0.599.
        low_share: Streisand indicator: share of IN margins below the 1 % quantile of the OUT
            fit of the other pairs; 0.01 if nothing is amiss.
        spread_ratio: Streisand indicator: geometric mean over examples of the standard deviation
            of IN margins over that of OUT margins; 1 if nothing is amiss.
    """

    kind: Literal["privacy", "efficacy"]
    variance: Variance
    centre: Centre
    n_models: int
    n_examples: int
    n_views: int
    ids: IntArray = field(repr=False)
    null: NullBand | None
    null_auc: NullBand | None
    power: float
    low_share: float
    spread_ratio: float

    def check_alike(self, other: Summary) -> None:
        """Make sure that another result is of the same pairs and examples.

        Raises:
            PairError: If it is not.
        """
        super().check_alike(other)
        if isinstance(other, UliraResult) and not np.array_equal(self.ids, other.ids):
            raise PairError("only results of the same examples can be compared; their ids differ.")

    def share_above(self, identity: UliraResult) -> float:
        """Streisand indicator: share of examples more exposed than in another result.

        Args:
            identity: The result of the models before unlearning, on the same examples. Even a
                harmless method exceeds it on some, by chance.

        Raises:
            PairError: If the results are not of the same examples.
        """
        self.check_alike(identity)
        return float((self.per_example > identity.per_example).mean())

    def metrics(self) -> dict[str, float]:
        """Give all numbers by flat names, for a record; those that were not computed are absent."""
        named = {
            name: float(getattr(self, name))
            for name in ("acc", "se", "auc", "auc_se", "low_share", "spread_ratio")
        }
        for rate in self.tpr:
            named |= {f"tpr_{rate:g}": self.tpr[rate], f"fpr_{rate:g}": self.fpr[rate]}
        for percent in ("p5", "p50", "p95"):
            named[f"per_example_{percent}"] = getattr(self, f"per_example_{percent}")
        for prefix, band in (("", self.null), ("auc_", self.null_auc)):
            if band is not None:
                part = {f"{prefix}null_{key}": getattr(band, key) for key in BAND}
                named |= part | {f"{prefix}p": band.p}
        return named | {f"power_d{POWER_D}": self.power}


def attack(
    kind: Literal["privacy", "efficacy"],
    cells: Cells,
    take_x: BoolArray,
    redraw: Redraw,
    ids: IntArray,
    variance: Variance,
    centre: Centre,
    fprs: Sequence[float],
    redraws: int,
    seed: int,
) -> UliraResult:
    """Score, summarise and redraw cells; see `ulira` for the arguments."""
    summary = summarise(*cells.score(take_x, variance, centre), fprs)
    accs, aucs = null_statistics(cells, redraw, redraws, seed, variance, centre)
    low_share, spread_ratio = _streisand(cells, take_x)
    return UliraResult(
        **vars(summary),
        kind=kind,
        variance=variance,
        centre=centre,
        n_models=2 * len(take_x),
        n_examples=len(ids),
        n_views=len(cells.x),
        ids=ids,
        null=NullBand.of(accs, summary.acc) if redraws else None,
        null_auc=NullBand.of(aucs, summary.auc) if redraws else None,
        power=attack_power(2 * len(take_x), POWER_D),
        low_share=low_share,
        spread_ratio=spread_ratio,
    )


def _streisand(cells: Cells, take_x: BoolArray) -> tuple[float, float]:
    """Share of IN margins that are lower than never-trained ones are, and ratio of spreads."""
    low, ratio = [], []
    for x, y, floor in zip(cells.x, cells.y, cells.floor, strict=True):
        inside, outside = np.where(take_x, x, y), np.where(take_x, y, x)
        fit = fit_others(outside, "eb_t", "mean", floor=floor)
        low.append((inside < fit.quantile(LOW_SHARE)).mean())
        spread = [np.log(np.maximum(side.var(0, ddof=1), floor)) for side in (inside, outside)]
        ratio.append(np.mean(spread[0] - spread[1]) / 2)
    return float(np.mean(low)), float(np.exp(np.mean(ratio)))
