"""Standard errors and intervals of means over model pairs crossed with examples.

Scores of one pair share two models and scores of one example share its difficulty, so that they
are not independent: errors that ignore either are too small.

Source: Cameron, Gelbach, Miller, "Robust inference with multiway clustering", Journal of Business
& Economic Statistics 29(2), 2011 (variance by rows, plus by columns, less by cells); Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007 (intervals).

Changes:
    1: first version.
    2: errors of differences and redraws of means, of many matrices at once; nothing else changed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import numpy.typing as npt

from .lrt import FloatArray

VERSION = 2
STREAM = 3  # keeps these random numbers apart from others with the same seed


def two_way_se(cells: npt.ArrayLike) -> float:
    """Standard error of the mean of a matrix, clustered by rows and by columns.

    Each of the three variances has the divisor of an unbiased one. Where their sum is negative,
    which chance allows in small matrices, the larger one-way variance is taken.

    Args:
        cells: `(P, E)`, P >= 2 and E >= 2.
    """
    d = np.asarray(cells, dtype=np.float64)
    d = d - d.mean()
    pairs, examples = d.shape
    by_pair = np.square(d.sum(1)).sum() * pairs / (pairs - 1)
    by_example = np.square(d.sum(0)).sum() * examples / (examples - 1)
    by_cell = np.square(d).sum() * d.size / (d.size - 1)
    total = float(by_pair + by_example - by_cell)
    if total < 0:
        total = float(max(by_pair, by_example))
    return sqrt(total) / float(d.size)


def two_way_se_of_differences(cells: npt.ArrayLike) -> FloatArray:
    """Standard errors of the differences of the means of paired matrices, as `two_way_se`.

    Sums of squares of a difference are those of its two parts less twice their product, so that
    no difference is formed. Of halves, as hits are, all sums are exact: a copy differs by 0 ± 0.

    Args:
        cells: `(M, P, E)`, one matrix a method, of the same pairs and examples; P, E >= 2.

    Returns:
        `(M, M)`; 0 on the diagonal.
    """
    d = np.asarray(cells, dtype=np.float64)
    methods, pairs, examples = d.shape
    size = pairs * examples
    parts = []
    centre = _squares(d.sum((1, 2)).reshape(methods, 1)) / size
    for sums, n, each in (
        (d.sum(2), pairs, examples),
        (d.sum(1), examples, pairs),
        (d.reshape(methods, size), size, 1),
    ):
        parts.append((_squares(sums) - each * centre) * n / (n - 1))
    by_pair, by_example, by_cell = parts
    total = by_pair + by_example - by_cell
    total = np.where(total < 0, np.maximum(by_pair, by_example), total)
    errors: FloatArray = np.sqrt(np.maximum(total, 0)) / size
    return errors


def _squares(sums: FloatArray) -> FloatArray:
    """`(M, M)` sums of squares of the differences of the rows of `(M, n)`."""
    products = sums @ sums.T
    own = np.diag(products)
    squares: FloatArray = own[:, None] + own - 2 * products
    return squares


def redrawn_means(cells: npt.ArrayLike, *, draws: int = 1000, seed: int = 0) -> FloatArray:
    """Means of paired matrices over redrawn pairs and examples: a pigeonhole bootstrap at once.

    Args:
        cells: `(M, P, E)`, one matrix a method, of the same pairs and examples.
        draws: Number of redraws.
        seed: A non-negative integer.

    Returns:
        `(draws, M)`. Of one redraw, all methods have the same pairs and examples.
    """
    matrices = np.asarray(cells, dtype=np.float32)
    _, pairs, examples = matrices.shape
    rng = np.random.default_rng((seed, STREAM))
    rows = rng.multinomial(pairs, np.full(pairs, 1 / pairs), draws).astype(np.float32)
    columns = rng.multinomial(examples, np.full(examples, 1 / examples), draws).astype(np.float32)
    sums = [np.einsum("be,be->b", rows @ m, columns, dtype=np.float64) for m in matrices]
    means: FloatArray = np.stack(sums, axis=1) / (pairs * examples)
    return means


def pigeonhole_bootstrap(
    statistic: Callable[[FloatArray], float],
    shape: tuple[int, int],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> FloatArray:
    """Redraw pairs and examples with replacement, and compute a statistic of weighted cells.

    Args:
        statistic: Gets `(P, E)` weights, products of how often a pair and an example were drawn.
        shape: P and E.
        draws: Number of redraws.
        seed: A non-negative integer.

    Returns:
        `(draws,)` values; their 2.5 % and 97.5 % quantiles bound an interval that errs on the
        wide side. With the same seed two statistics are redrawn alike: a difference is paired.
    """
    pairs, examples = shape
    values = np.empty(draws)
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw, STREAM))
        rows = rng.multinomial(pairs, np.full(pairs, 1 / pairs)).astype(np.float64)
        columns = rng.multinomial(examples, np.full(examples, 1 / examples)).astype(np.float64)
        values[draw] = statistic(np.outer(rows, columns))
    return values


def weighted_auc(inside: FloatArray, outside: FloatArray) -> Callable[[FloatArray], float]:
    """Give the AUC as a function of `(P, E)` weights, ties half; it sorts once, not at each call.

    Args:
        inside: `(P, E)` scores of positives.
        outside: `(P, E)` scores of negatives.
    """
    scores = np.concatenate([inside.ravel(), outside.ravel()])
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    positive = order < inside.size
    cell = order % inside.size

    def weigh(weights: FloatArray) -> float:
        weight = weights.ravel()[cell]
        ins = np.add.reduceat(np.where(positive, weight, 0.0), starts)
        outs = np.add.reduceat(np.where(positive, 0.0, weight), starts)
        below = np.cumsum(outs) - outs / 2
        return float((ins * below).sum() / (ins.sum() * outs.sum()))

    return weigh
