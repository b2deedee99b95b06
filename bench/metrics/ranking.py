"""Ranks of methods over tasks, and whether they can be told apart.

Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006
(Friedman statistic, Nemenyi's critical difference); Colombo, Noiry, Irurozki, Clémençon, "What are
the best systems? New perspectives on NLP benchmarking", NeurIPS 2022 (Borda over tasks).

Changes:
    1: first version.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from .lrt import FloatArray
from .margin import MarginError, as_array

VERSION = 1


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


def friedman(ranks: npt.ArrayLike) -> float:
    """Friedman's chi-square of mean ranks without ties.

    Args:
        ranks: `(tasks, methods)` ranks, 1 is best.
    """
    table = _table(ranks)
    n, k = table.shape
    return float(12 * n / (k * (k + 1)) * ((table.mean(0) ** 2).sum() - k * (k + 1) ** 2 / 4))


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
