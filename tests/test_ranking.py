"""Borda, Friedman and Nemenyi against known values (T13 of the evaluation specification)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from unlearnbench.bench import InputError
from unlearnbench.bench.metrics.ranking import borda, friedman, nemenyi_difference

NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "points"),
    [
        ([[3, 2, 1]], [2, 1, 0]),
        ([[1, 1, 1]], [1, 1, 1]),
        ([[2, 2, 1], [1, 2, 3]], [1.5, 2.5, 2]),
        ([[3, NAN, 1], [3, 2, 1]], [4, 1, 1]),
        ([[NAN, NAN, 1]], [0, 0, 2]),
    ],
)
def test_borda_with_ties_and_missing_tasks(scores, points):
    assert borda(scores).tolist() == points


def test_friedman_agrees_with_scipy():
    rng = np.random.default_rng(0)
    ranks = np.array([rng.permutation(5) + 1 for _ in range(12)])
    assert friedman(ranks) == pytest.approx(friedmanchisquare(*ranks.T).statistic)


@pytest.mark.parametrize(
    ("k", "q"), [(3, 2.3437), (5, 2.7278), (10, 3.1637), (15, 3.3912), (20, 3.5438)]
)
def test_nemenyi_constants(k, q):
    assert nemenyi_difference(k, 1) / math.sqrt(k * (k + 1) / 6) == pytest.approx(q, abs=5e-5)


@pytest.mark.parametrize(("n", "difference"), [(6, 5.53), (12, 3.91), (24, 2.77)])
def test_the_critical_difference_of_ten_methods(n, difference):
    assert nemenyi_difference(10, n) == pytest.approx(difference, abs=0.005)


def test_tables_that_are_none_are_refused():
    for call in (lambda: borda([1, 2]), lambda: nemenyi_difference(1, 3)):
        with pytest.raises(InputError):
            call()
