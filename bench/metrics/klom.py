"""KLoM: divergence of the margins of unlearned from those of retrained models, per example.

The estimate is far from zero even where nothing differs, the more so the fewer models there are:
a value means nothing without its floor, and values of different numbers of models nothing at all.

Source: Georgiev, Rinberg, Park, Garg, Ilyas, Madry, Neel, "Attribute-to-delete: machine unlearning
via datamodel matching", 2024, https://arxiv.org/abs/2410.23232.
Reference code: https://github.com/RoyRin/data-unlearning-bench @ 0219930 (`src/eval.py`).
Differences: with the defaults only where the reference code gives nan or drops a whole side. The
top edge of the last bin is open, as there, so that the largest margin of the joint sample is not
counted; `closed=True` counts it, and an example of which a side is all at the top is always
counted so. The published figures are `klom(retrained, unlearned)`.

Changes:
    1: first version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .lrt import FloatArray, fit_prior, variance_floor
from .margin import MarginError, as_array, check_finite

VERSION = 1


@dataclass(frozen=True)
class KlomSummary:
    """KLoM over examples, nats.

    Attributes:
        mean: Mean.
        median: Median.
        p95: 95 % quantile.
    """

    mean: float
    median: float
    p95: float

    @classmethod
    def of(cls, values: FloatArray) -> KlomSummary:
        """Summarise `(E,)` values."""
        middle, high = np.quantile(values, [0.5, 0.95])
        return cls(float(values.mean()), float(middle), float(high))


def klom(
    p: npt.ArrayLike,
    q: npt.ArrayLike,
    *,
    bins: int = 20,
    clip: float = 100.0,
    least: float = 1e-5,
    closed: bool = False,
) -> FloatArray:
    """Divergence KL(p || q) of binned margins, for each example.

    Args:
        p: `(n, E)` margins of one set of models.
        q: `(m, E)` margins of the other.
        bins: Number of equal bins over the joint range of an example.
        clip: Margins are clipped to this absolute value first.
        least: Least share of `q` in a bin where `p` has one.
        closed: Whether the largest margin belongs to the last bin.

    Returns:
        `(E,)` nats, about 11.5 at most; 0 where all margins are equal.

    Raises:
        MarginError: If margins are not finite or shapes do not fit.
    """
    a, b = _two(p, q)
    a, b = np.clip(a, -clip, clip), np.clip(b, -clip, clip)
    low = np.minimum(a.min(0), b.min(0))
    width = np.maximum(a.max(0), b.max(0)) - low
    top = low + width
    close = np.full(a.shape[1], closed) | (a == top).all(0) | (b == top).all(0)
    p_bins, q_bins = (_histogram(side, low, width, bins, close) for side in (a, b))
    q_bins = np.where(p_bins > 0, np.maximum(q_bins, least), q_bins)
    q_bins /= q_bins.sum(0)
    ratio = np.where(p_bins > 0, p_bins, 1.0) / np.where(p_bins > 0, q_bins, 1.0)
    divergence: FloatArray = (p_bins * np.log(ratio)).sum(0)
    return divergence


def klom_gauss(p: npt.ArrayLike, q: npt.ArrayLike) -> FloatArray:
    """Divergence KL(p || q) of two normal laws, with moderated variances; for few models.

    `log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2`

    Args:
        p: `(n, E)` margins of one set of models, n >= 2.
        q: `(m, E)` margins of the other, m >= 2.

    Returns:
        `(E,)` nats.

    Raises:
        MarginError: If margins are not finite or shapes do not fit.
    """
    sides = _two(p, q)
    floor = variance_floor(np.concatenate(sides))
    s2_p, s2_q = (_moderated(side, floor) for side in sides)
    shift2 = np.square(sides[0].mean(0) - sides[1].mean(0))
    divergence: FloatArray = (np.log(s2_q / s2_p) + (s2_p + shift2) / s2_q - 1) / 2
    return divergence


def klom_floor(n: int, m: int | None = None, *, examples: int = 2000, seed: int = 0) -> KlomSummary:
    """KLoM of two samples of one normal law: what exact unlearning scores.

    Args:
        n: Models in `p`.
        m: Models in `q`; None for as many.
        examples: Number of simulated examples.
        seed: Of the simulation.
    """
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(n, examples)), rng.normal(size=(m or n, examples))
    return KlomSummary.of(klom(p, q))


def _two(p: npt.ArrayLike, q: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = as_array(p), as_array(q)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise MarginError(
            f"margins must be `(n, E)` and `(m, E)`, n and m at least 2; got shapes "
            f"{a.shape} and {b.shape}."
        )
    check_finite(a, "p")
    check_finite(b, "q")
    return a, b


def _histogram(
    x: FloatArray, low: FloatArray, width: FloatArray, bins: int, close: npt.NDArray[np.bool_]
) -> FloatArray:
    """Share of each bin among the margins counted, `(bins, E)`."""
    scaled = (x - low) / np.where(width > 0, width, 1.0) * bins
    index = np.minimum(scaled.astype(np.intp), np.where(close, bins - 1, bins))
    examples = x.shape[1]
    flat = index * examples + np.arange(examples)
    # one more bin takes the margins at an open top edge
    counts = np.bincount(flat.ravel(), minlength=(bins + 1) * examples).reshape(bins + 1, examples)
    shares: FloatArray = counts[:bins] / counts[:bins].sum(0)
    return shares


def _moderated(x: FloatArray, floor: FloatArray) -> FloatArray:
    nu = len(x) - 1
    v = np.maximum(x.var(0, ddof=1), floor)
    nu0, s02 = (float(part[0]) for part in fit_prior(v[None], nu))
    if np.isinf(nu0):
        return np.full_like(v, s02)
    moderated: FloatArray = (nu0 * s02 + nu * v) / (nu0 + nu)
    return moderated
