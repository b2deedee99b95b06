"""Centred kernel alignment: how alike two representations of the same examples are.

With the unbiased estimate of HSIC, independent features score near 0; the biased one scores high
where there are more features than examples, and is here to show that.

Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of neural network representations revisited",
ICML 2019, https://arxiv.org/abs/1905.00414 (linear CKA); Song, Smola, Gretton, Bedo, Borgwardt,
"Feature selection via dependence maximization", JMLR 13, 2012, equation 5 (unbiased HSIC).

Changes:
    1: first version.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .lrt import FloatArray
from .margin import MarginError, as_array, check_finite

VERSION = 1
LEAST = 4


def cka(x: npt.ArrayLike, y: npt.ArrayLike, *, unbiased: bool = True) -> float:
    """Linear CKA of two representations.

    Args:
        x: `(n, p)` features of n examples, n at least 4.
        y: `(n, q)` features of the same examples.
        unbiased: Whether HSIC is estimated without bias; the value can then be slightly negative.

    Returns:
        1 for representations that are equal up to rotation, scale and shift. Change under
        retraining with another seed is the yardstick, not 1.

    Raises:
        MarginError: If shapes do not fit, there are too few examples, values are not finite, or a
            representation is constant.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> round(cka(x, 2 * x[:, ::-1] + 1), 6)
        1.0
    """
    a, b = as_array(x), as_array(y)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < LEAST:
        raise MarginError(
            f"representations must be `(n, p)` and `(n, q)`, n at least {LEAST}; "
            f"got shapes {a.shape} and {b.shape}."
        )
    check_finite(a, "x")
    check_finite(b, "y")
    grams = [(z - z.mean(0)) @ (z - z.mean(0)).T for z in (a, b)]
    hsic = _unbiased if unbiased else _biased
    scale = hsic(grams[0], grams[0]) * hsic(grams[1], grams[1])
    if not scale > 0:
        raise MarginError("a representation is constant: its CKA is not defined.")
    return float(hsic(grams[0], grams[1]) / np.sqrt(scale))


def _biased(k: FloatArray, m: FloatArray) -> float:
    return float((k * m).sum())


def _unbiased(k: FloatArray, m: FloatArray) -> float:
    n = len(k)
    k, m = k.copy(), m.copy()
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    trace = (k * m).sum()
    sums = k.sum() * m.sum() / ((n - 1) * (n - 2))
    cross = 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
    return float((trace + sums - cross) / (n * (n - 3)))
