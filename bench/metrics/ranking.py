"""Ranks of methods over tasks, and whether they can be told apart.

Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006
(Friedman statistic, Nemenyi's critical difference); Colombo, Noiry, Irurozki, Clémençon, "What are
the best systems? New perspectives on NLP benchmarking", NeurIPS 2022 (Borda over tasks); Conover,
"Practical Nonparametric Statistics", 1999, section 5.8 (Friedman with ties); Holm, "A simple
sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2), 1979.

Changes:
    1: first version.
    2: methods that fail a task, Friedman with ties, Holm and shares of wins; nothing else changed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from .lrt import FloatArray
from .margin import MarginError, as_array

VERSION = 2


def borda(scores: npt.ArrayLike) -> FloatArray:
    """Borda points of each method, summed over tasks.

    On a task, the best of k methods gets k - 1 points and the worst none; equal ones share; one
    that is missing gets none.

    Args:
        scores: `(tasks, methods)`, higher is better, NaN where a method has no score.

    Returns:
        `(methods,)` points.

    Raises:
        MarginError: If the table is not two-dimensional.

    Example:
        >>> borda([[0.9, 0.5, 0.5], [0.2, float("nan"), 0.1]]).tolist()
        [4.0, 0.5, 1.5]
    """
    table = _table(scores)
    ranks = stats.rankdata(-table, method="average", axis=1, nan_policy="omit")
    points: FloatArray = np.where(np.isnan(table), 0.0, table.shape[1] - ranks).sum(0)
    return points


def task_ranks(scores: npt.ArrayLike, failed: npt.ArrayLike) -> FloatArray:
    """Rank of each method on each task; the number of methods less it is its Borda points.

    Of k methods, those with a score have ranks from 1, equal ones their mean. The f that failed
    share the last f of the k ranks. One that is missing has rank k, and so no points; with no
    failure the points are those of `borda`.

    Args:
        scores: `(..., methods)`, higher is better, NaN where a method has none.
        failed: `(..., methods)` bool, whether it failed; its score does not matter.

    Example:
        >>> task_ranks([0.9, 0.5, 0.5, float("nan"), 0.8], [False, False, False, False, True])
        array([1. , 2.5, 2.5, 5. , 5. ])
    """
    table, lost = np.broadcast_arrays(np.asarray(scores, np.float64), np.asarray(failed, bool))
    k = table.shape[-1]
    ranked = ~np.isnan(table) & ~lost
    ranks = stats.rankdata(np.where(ranked, -table, np.inf), method="average", axis=-1)
    last = k - (lost.sum(-1, keepdims=True) - 1) / 2
    result: FloatArray = np.where(ranked, ranks, np.where(lost, last, k))
    return result


def friedman(ranks: npt.ArrayLike) -> float:
    """Friedman's chi-square of mean ranks without ties.

    Args:
        ranks: `(tasks, methods)` ranks, 1 is best.
    """
    table = _table(ranks)
    n, k = table.shape
    return float(12 * n / (k * (k + 1)) * ((table.mean(0) ** 2).sum() - k * (k + 1) ** 2 / 4))


def friedman_test(ranks: npt.ArrayLike) -> tuple[float, float]:
    """Friedman's chi-square, corrected for ties, and its p-value.

    Args:
        ranks: `(tasks, methods)` ranks, 1 is best, equal ones their mean; without missing ones.

    Returns:
        Statistic and p-value; NaN with fewer than 2 tasks or methods. Where all are tied on all
        tasks, 0 and 1.

    Example:
        >>> [round(number, 4) for number in friedman_test([[1, 2, 3], [1, 2.5, 2.5]])]
        [3.7143, 0.1561]
    """
    table = _table(ranks)
    n, k = table.shape
    if n < 2 or k < 2:
        return math.nan, math.nan
    _, sizes = np.unique(
        np.column_stack([np.repeat(np.arange(n), k), table.ravel()]), axis=0, return_counts=True
    )
    untied = 1 - float((sizes.astype(np.float64) ** 3 - sizes).sum()) / (n * k * (k * k - 1))
    if untied < 1e-12:
        return 0.0, 1.0
    statistic = max(0.0, friedman(table) / untied)
    return statistic, float(stats.chi2.sf(statistic, k - 1))


def holm(p: npt.ArrayLike) -> FloatArray:
    """p-values of several tests, each at least as large as if it were one of them alone.

    Args:
        p: `(tests,)` p-values; NaN for a test that could not be made, which does not count.

    Returns:
        `(tests,)` corrected p-values: rejecting those below a level is wrong, even once, with at
        most that probability.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(len(values), math.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return corrected


def win_shares(ranks: npt.ArrayLike) -> FloatArray:
    """Share of tasks on which one method is ahead of another, ties half.

    Args:
        ranks: `(tasks, methods)`, lower is better, NaN where a method is missing.

    Returns:
        `(methods, methods)`, the row ahead of the column, over the tasks that have both; NaN where
        there is none, and on the diagonal.

    Example:
        >>> win_shares([[1, 2], [1.5, 1.5]]).tolist()
        [[nan, 0.75], [0.25, nan]]
    """
    table = _table(ranks)
    wins = np.zeros((table.shape[1], table.shape[1]))
    both = np.zeros_like(wins)
    for task in table:
        there = ~np.isnan(task)
        met = there[:, None] & there
        wins += met * ((task[:, None] < task) + (task[:, None] == task) / 2)
        both += met
    shares = np.divide(wins, both, out=np.full_like(wins, math.nan), where=both > 0)
    np.fill_diagonal(shares, math.nan)
    return shares


def nemenyi_difference(n_methods: int, n_tasks: int, alpha: float = 0.05) -> float:
    """Least difference of mean ranks at which two methods differ.

    Args:
        n_methods: k, at least 2.
        n_tasks: n, at least 1.
        alpha: Level of the test.

    Example:
        >>> [round(nemenyi_difference(10, n), 2) for n in (6, 12, 24)]
        [5.53, 3.91, 2.77]
    """
    if n_methods < 2 or n_tasks < 1:
        raise MarginError(
            f"there must be 2 methods and 1 task at least; got {n_methods} and {n_tasks}."
        )
    q = float(stats.studentized_range.ppf(1 - alpha, n_methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_tasks))


def _table(values: npt.ArrayLike) -> FloatArray:
    table = as_array(values)
    if table.ndim != 2 or not table.size:
        raise MarginError(f"a table must be `(tasks, methods)`; got shape {table.shape}.")
    return table
