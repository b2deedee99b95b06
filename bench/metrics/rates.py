"""Rates of a scored attack: area under the ROC, true positives at few false positives.

Source: Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022,
https://arxiv.org/abs/2112.03570 (low false-positive rates); Clopper, Pearson,
Biometrika 26, 1934 (interval of a proportion).

Changes:
    1: first version.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from .lrt import FloatArray

VERSION = 1


def auc(inside: npt.ArrayLike, outside: npt.ArrayLike) -> float:
    """Compute the area under the ROC: P(in > out), ties counted half.

    Args:
        inside: Scores of positives, any shape.
        outside: Scores of negatives, any shape.

    Example:
        >>> auc([1.0, 2.0], [1.0, 0.0])
        0.875
    """
    a, b = np.sort(np.ravel(inside)), np.sort(np.ravel(outside))
    below, upto = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")
    return float(below.sum() + upto.sum()) / (2 * a.size * b.size)


def placements(inside: FloatArray, outside: FloatArray) -> FloatArray:
    """Each cell's contribution to the AUC, around zero.

    `F_out(in) + 1 - F_in(out) - 2 AUC`, ties half: the influence of one cell. Its clustered
    variance is that of the AUC (DeLong, DeLong, Clarke-Pearson, Biometrics 44, 1988; clustered
    form of Obuchowski, Biometrics 53, 1997).

    Args:
        inside: `(P, E)` scores of positives.
        outside: `(P, E)` scores of negatives of the same pairs and examples.

    Returns:
        `(P, E)`, mean 0.
    """
    cells = _share_below(inside, outside) - _share_below(outside, inside)
    centred: FloatArray = cells - cells.mean()
    return centred


def tpr_at_fpr(inside: npt.ArrayLike, outside: npt.ArrayLike, fpr: float) -> tuple[float, float]:
    """Find the best true positive rate of any threshold with at most a false positive rate.

    A score is called positive if it is above the threshold, strictly. Nothing is interpolated:
    the pair of rates returned is a point that a threshold reaches.

    Args:
        inside: Scores of positives, any shape.
        outside: Scores of negatives, any shape.
        fpr: The false positive rate allowed, in [0, 1).

    Returns:
        True positive rate and realised false positive rate.
    """
    out = np.ravel(outside)
    allowed = _allowed(fpr, out.size)
    threshold = np.partition(out, out.size - 1 - allowed)[out.size - 1 - allowed]
    return float((np.ravel(inside) > threshold).mean()), float((out > threshold).mean())


def calibrated_rates(inside: FloatArray, outside: FloatArray, fpr: float) -> tuple[float, float]:
    """Rates at thresholds that are set, for each pair, on the other pairs' OUT scores.

    Args:
        inside: `(P, E)` scores of positives.
        outside: `(P, E)` scores of negatives.
        fpr: The false positive rate that thresholds aim at, in [0, 1).

    Returns:
        True positive rate and realised false positive rate; the latter is near `fpr`, on either
        side, because a pair has no part in its own threshold.
    """
    pairs, examples = outside.shape
    allowed = _allowed(fpr, (pairs - 1) * examples)
    # the threshold without a pair is among the `allowed` + 1 + examples largest of all
    order = np.argsort(outside, axis=None)[::-1][: allowed + 1 + examples]
    owner, value = order // examples, outside.ravel()[order]
    thresholds = np.array([value[owner != pair][allowed] for pair in range(pairs)])[:, None]
    return float((inside > thresholds).mean()), float((outside > thresholds).mean())


def clopper_pearson(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Compute the exact interval of a proportion, as if trials were independent.

    Example:
        >>> [round(bound, 6) for bound in clopper_pearson(5, 10)]
        [0.187086, 0.812914]
    """
    tail = (1 - level) / 2
    low = special.betaincinv(hits, trials - hits + 1, tail) if hits else 0.0
    high = special.betaincinv(hits + 1, trials - hits, 1 - tail) if hits < trials else 1.0
    return float(low), float(high)


def _allowed(fpr: float, count: int) -> int:
    """Number of false positives allowed; 1e-9 against products like 0.29999999."""
    return min(int(fpr * count + 1e-9), count - 1)


def _share_below(scores: FloatArray, others: FloatArray) -> FloatArray:
    sorted_others = np.sort(others, axis=None)
    below = np.searchsorted(sorted_others, scores, "left")
    upto = np.searchsorted(sorted_others, scores, "right")
    share: FloatArray = (below + upto) / (2 * sorted_others.size)
    return share
