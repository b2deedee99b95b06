"""The null law of the attack, exactly, from cached margins.

If what a model says about an example does not depend on whether it was trained on it, then which
member of a pair is called IN is a coin, and tossing it again changes nothing in law. Scoring many
such redraws of the same margins gives the null law of every statistic without training anything,
with all the dependence between pairs and examples that the margins have.

Source: evaluation specification, section 4 ("Re-randomisation null"); Fisher, "The design of
experiments", 1935; Phipson, Smyth, "Permutation p-values should never be zero", Stat.
Appl. Genet. Mol. Biol. 9(1), 2010 (the p-value).

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .folds import Cells, privacy_cells, select
from .lrt import Centre, FloatArray, Variance, check_choice
from .margin import Values
from .pairs import BoolArray, PairError, pool_ids
from .rates import auc

VERSION = 1
STREAM = 2  # keeps these random numbers apart from those of a design with the same seed
SLACK = 1e-12  # statistics are means of halves: equal ones may differ in the last digits
Redraw = Callable[[np.random.Generator], BoolArray]


@dataclass(frozen=True, eq=False)
class NullBand:
    """Where a statistic lies if membership leaves no trace.

    Attributes:
        mean: Mean of the redraws.
        sd: Their standard deviation.
        lo: Their 2.5 % quantile.
        hi: Their 97.5 % quantile.
        p: One-sided p-value of the observed value, (1 + redraws not below it) / (1 + redraws).
        values: `(B,)` the redraws.
    """

    mean: float
    sd: float
    lo: float
    hi: float
    p: float
    values: FloatArray = field(repr=False)

    @classmethod
    def of(cls, values: FloatArray, observed: float) -> NullBand:
        """Summarise redraws, two at least, of a statistic that was observed."""
        lo, hi = np.quantile(values, [0.025, 0.975])
        above = int((values >= observed - SLACK).sum())
        return cls(
            mean=float(values.mean()),
            sd=float(values.std(ddof=1)),
            lo=float(lo),
            hi=float(hi),
            p=(1 + above) / (1 + values.size),
            values=values,
        )


def rerandomised_null(
    margins: Values,
    keep: npt.ArrayLike,
    pool: npt.ArrayLike | None = None,
    *,
    redraws: int = 200,
    seed: int = 0,
    strata: npt.ArrayLike | None = None,
    variance: Variance = "eb_t",
    centre: Centre = "mean",
) -> tuple[FloatArray, FloatArray]:
    """Redraw which member of each pair was trained on an example, and score again.

    Args:
        margins: `(2P, D)` or `(2P, V, D)` margins of all models.
        keep: `(2P, D)` bool, whether a model was trained on an example.
        pool: Ids or mask of the E target examples; None is all D.
        redraws: B, number of redraws; more of them leave the first ones as they are.
        seed: A non-negative integer.
        strata: `(D,)` integers, usually classes; within each the number that a model was trained
            on stays as it is. None is one stratum.
        variance: How variances are estimated; see `lrt`.
        centre: How locations are estimated.

    Returns:
        Balanced accuracy and AUC of every redraw, each `(B,)`.

    Raises:
        InputError: If margins, `keep`, `pool` or `strata` are bad; see `leave_pair_out`.
    """
    check_choice(variance, centre)
    values, matrix = select(margins, keep, pool)
    groups = pool_strata(strata, pool, np.shape(keep)[1])
    redraw = shuffled(matrix[0::2], groups)
    return null_statistics(privacy_cells(values), redraw, redraws, seed, variance, centre)


def null_statistics(
    cells: Cells, redraw: Redraw, redraws: int, seed: int, variance: Variance, centre: Centre
) -> tuple[FloatArray, FloatArray]:
    """Accuracy and AUC, each `(B,)`, over redraws of which cell is IN."""
    if redraws < 0 or redraws == 1:
        raise InputError(f"`redraws` must be 0 or at least 2; got {redraws}.")
    if seed < 0:
        raise InputError(f"`seed` must not be negative; got {seed}.")
    accs, aucs = np.empty(redraws), np.empty(redraws)
    for number in range(redraws):
        rng = np.random.default_rng((seed, number, STREAM))
        inside, outside = cells.score(redraw(rng), variance, centre)
        accs[number] = float((inside > 0).mean() + (outside <= 0).mean()) / 2
        aucs[number] = auc(inside, outside)
    return accs, aucs


def pool_strata(
    strata: npt.ArrayLike | None, pool: npt.ArrayLike | None, n_examples: int
) -> npt.NDArray[np.int64]:
    """Give the stratum of each example of a pool, `(E,)`; those alone in theirs share one.

    A stratum of one cannot be shuffled: a pool with one example a class would be its own null.

    Raises:
        PairError: If `strata` are not `(D,)` integers.
    """
    ids = pool_ids(pool, n_examples)
    if strata is None:
        return np.zeros(len(ids), dtype=np.int64)
    groups = np.asarray(strata)
    if groups.shape != (n_examples,) or groups.dtype.kind not in "iu":
        raise PairError(
            f"`strata` must be `({n_examples},)` integers; got {groups.dtype} "
            f"of shape {groups.shape}."
        )
    _, index, counts = np.unique(groups[ids], return_inverse=True, return_counts=True)
    index = index.reshape(-1).astype(np.int64)
    return np.where(counts[index] > 1, index, len(counts))


def shuffled(first: BoolArray, groups: npt.NDArray[np.int64]) -> Redraw:
    """Redraw for privacy: each pair anew, within strata, independently for every example."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)

    def redraw(rng: np.random.Generator) -> BoolArray:
        drawn = np.empty_like(first)
        for part in parts:
            drawn[:, part] = rng.permuted(first[:, part], axis=1)
        return drawn

    return redraw


def swapped_models(first: BoolArray) -> Redraw:
    """Redraw for efficacy: a coin for each model says if it trades places with its retrained one.

    Examples of one model trade together: an unlearned and a retrained model are exchangeable as
    wholes only.
    """

    def redraw(rng: np.random.Generator) -> BoolArray:
        coins = rng.random((2, len(first), 1)) < 0.5
        swapped: BoolArray = np.where(first, coins[0], coins[1])
        return swapped

    return redraw
