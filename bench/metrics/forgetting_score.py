"""The forgetting score of the NeurIPS 2023 unlearning challenge.

For each forgotten example, the privacy budget epsilon at which margins of unlearned models can be
told from those of retrained ones, turned into points that halve with each half unit of epsilon.
Exact unlearning does not score 1 but about 0.19: print the score over `forgetting_null`.

Source: Triantafillou et al., "Are we making progress in unlearning? Findings from the first
NeurIPS unlearning competition", 2024, https://arxiv.org/abs/2406.09073.
Reference code: https://github.com/google-deepmind/unlearning_evaluation @ ffae0ff (`metric.py`).
Differences: rates are counted in sorted margins instead of on a GPU; where no decision rule
survives, which stops the reference code, perfectly separated samples get the cap and others 0;
float64 throughout.

Changes:
    1: first version.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .lrt import FloatArray
from .margin import MarginError, as_array, check_finite

VERSION = 1
DELTA = 1e-5
CAP = 50.0
PER_UNIT = 100  # thresholds per unit of margin
BUFFER = 2.0
NARROW = 0.01
BIN = 0.5


def forgetting_epsilons(
    unlearned: npt.ArrayLike, retrained: npt.ArrayLike, *, intervals: bool = True
) -> FloatArray:
    """Estimate epsilon of each forgotten example.

    Args:
        unlearned: `(n, E)` margins of unlearned models.
        retrained: `(m, E)` margins of retrained models.
        intervals: Whether intervals are tried as decision rules beside single thresholds.

    Returns:
        `(E,)` in [0, 50].

    Raises:
        MarginError: If margins are not finite or shapes do not fit.
    """
    u, r = as_array(unlearned), as_array(retrained)
    if u.ndim != 2 or r.ndim != 2 or u.shape[1] != r.shape[1] or min(len(u), len(r)) < 3:
        raise MarginError(
            f"margins must be `(n, E)` and `(m, E)`, n and m at least 3; got {u.shape}, {r.shape}."
        )
    check_finite(u, "unlearned")
    check_finite(r, "retrained")
    u, r = np.sort(u, axis=0), np.sort(r, axis=0)
    swap = np.median(r, axis=0) > np.median(u, axis=0)
    pairs = ((b, a) if flip else (a, b) for a, b, flip in zip(u.T, r.T, swap, strict=True))
    return np.array([_epsilon(high, low, intervals) for high, low in pairs])


def forgetting_score(
    unlearned: npt.ArrayLike, retrained: npt.ArrayLike, *, intervals: bool = True
) -> float:
    """Mean points of the forgotten examples, the F of the challenge, in [0, 1].

    Args:
        unlearned: `(n, E)` margins of unlearned models.
        retrained: `(m, E)` margins of retrained models.
        intervals: Whether intervals are tried as decision rules.

    Raises:
        MarginError: If margins are not finite or shapes do not fit.
    """
    epsilons = forgetting_epsilons(unlearned, retrained, intervals=intervals)
    return float(_points(epsilons, len(as_array(unlearned))).mean())


def forgetting_null(n: int, *, examples: int = 200, seed: int = 0, intervals: bool = True) -> float:
    """Score of two samples of one standard normal law: what exact unlearning gets.

    Args:
        n: Models on either side.
        examples: Number of simulated examples.
        seed: Of the simulation.
        intervals: As in `forgetting_score`.
    """
    rng = np.random.default_rng(seed)
    u, r = rng.normal(size=(n, examples)), rng.normal(size=(n, examples))
    return forgetting_score(u, r, intervals=intervals)


def _points(epsilons: FloatArray, n: int) -> FloatArray:
    """Points 1, 1/2, 1/4, ... for bins of half a unit, up to what n samples can show."""
    number = np.floor(epsilons / BIN)
    bins = math.ceil(math.log(n - 1)) / BIN
    points: FloatArray = np.where(number < bins, 0.5**number, 0.0)
    return points


def _epsilon(high: FloatArray, low: FloatArray, intervals: bool) -> float:
    """Largest epsilon of all rules; both samples are sorted, `high` has the larger median."""
    spans = high[-1] - high[0], low[-1] - low[0]
    if min(spans) < NARROW * max(spans):
        return CAP
    found = [_single(high, low)]
    if intervals:
        found.append(_double(*((low, high) if spans[0] >= spans[1] else (high, low))))
    best = max(found)
    if best == -math.inf:
        best = math.inf if high[0] > low[-1] else 0.0
    return min(best, CAP)


def _single(high: FloatArray, low: FloatArray) -> float:
    """Rule "above the threshold is `high`", over a grid."""
    bottom, top = min(high[0], low[0]), max(high[-1], low[-1])
    grid = np.linspace(bottom, top, math.ceil((top - bottom) * PER_UNIT))
    fnr = np.searchsorted(high, grid, "left") / len(high)
    fpr = 1 - np.searchsorted(low, grid, "left") / len(low)
    return _largest(fpr, fnr)


def _double(narrow: FloatArray, wide: FloatArray) -> float:
    """Rule "inside the interval is the narrower sample", intervals about as wide as it."""
    width = narrow[-1] - narrow[0]
    bottom, top = narrow[-1] - BUFFER, narrow[-1] + BUFFER
    right = np.linspace(bottom, top, math.ceil((top - bottom) * PER_UNIT))
    offsets = np.linspace(-BUFFER, BUFFER, math.ceil(2 * BUFFER * PER_UNIT))
    left = right[:, None] - width + offsets
    shares = [
        np.maximum(
            np.searchsorted(side, right, "right")[:, None] - np.searchsorted(side, left, "left"), 0
        )
        / len(side)
        for side in (narrow, wide)
    ]
    return _largest(shares[1], 1 - shares[0])


def _largest(fpr: FloatArray, fnr: FloatArray) -> float:
    """Largest epsilon over rules; those that never err on one side alone are dropped."""
    if ((fpr == 0) & (fnr == 0)).any():
        return math.inf
    useful = (fpr > 0) & (fnr > 0)
    if not useful.any():
        return -math.inf
    a, b = fpr[useful], fnr[useful]
    tiny = np.finfo(np.float64).tiny
    either = np.maximum(
        np.log(np.maximum(1 - DELTA - a, tiny) / b), np.log(np.maximum(1 - DELTA - b, tiny) / a)
    )
    return max(float(either.max()), 0.0)
