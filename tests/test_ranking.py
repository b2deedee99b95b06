"""Borda, Friedman and Nemenyi against known values (T13 of the evaluation specification)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, rankdata

from unlearnbench.bench import InputError
from unlearnbench.bench.metrics.ranking import (
    borda,
    friedman,
    friedman_test,
    holm,
    nemenyi_difference,
    task_ranks,
    win_shares,
)

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


# --- ranks of tasks -------------------------------------------------------------------------------


def test_without_failures_ranks_give_the_points_of_borda():
    scores = np.array([[3, NAN, 1, 1], [3, 2, 1, NAN]])
    ranks = task_ranks(scores, np.zeros_like(scores, dtype=bool))
    assert (4 - ranks).sum(0).tolist() == borda(scores).tolist()


def test_failures_share_the_last_ranks_of_all():
    failed = [False, True, True, False]
    assert task_ranks([9, 9, NAN, 1], failed).tolist() == [1, 3.5, 3.5, 2]
    # one that is missing has no points, and is none for those that failed to stand on
    assert task_ranks([9, 9, 9, NAN], failed).tolist() == [1, 3.5, 3.5, 4]
    assert task_ranks([NAN, NAN], [True, True]).tolist() == [1.5, 1.5]


def test_ranks_of_many_tables_at_once_are_those_of_each():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, (5, 3, 6)).astype(float)
    scores[rng.random(scores.shape) < 0.2] = NAN
    failed = rng.random((3, 6)) < 0.2
    together = task_ranks(scores, failed)
    for table, ranks in zip(scores, together, strict=True):
        for row, lost, of_row in zip(table, failed, ranks, strict=True):
            there = [i for i in range(6) if not lost[i] and not np.isnan(row[i])]
            for i in there:
                ahead = sum(row[j] > row[i] for j in there)
                tied = sum(row[j] == row[i] for j in there)
                assert of_row[i] == ahead + (tied + 1) / 2


def test_friedman_with_ties_agrees_with_scipy():
    rng = np.random.default_rng(2)
    for shape in ((5, 3), (9, 4), (12, 7)):
        ranks = rankdata(rng.integers(0, 4, shape), axis=1)
        expected = friedmanchisquare(*ranks.T)
        assert friedman_test(ranks) == pytest.approx((expected.statistic, expected.pvalue))


def test_friedman_of_hand_worked_tables():
    # one order on all of n tasks: chi-square is n (k - 1)
    statistic, p = friedman_test([[1, 2, 3]] * 4)
    assert (statistic, p) == (pytest.approx(8), pytest.approx(math.exp(-4)))
    assert friedman_test([[1.5, 1.5]] * 3) == (0, 1)
    assert all(math.isnan(value) for value in (*friedman_test([[1, 2]]), *friedman_test([[1]] * 3)))


def test_holm_by_hand():
    # 0.01 * 4; 0.02 * 3; 0.03 * 2 = 0.06, not less than the one before; 0.5
    assert holm([0.5, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.9]).tolist() == pytest.approx([0.8, 0.9])
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert holm([]).tolist() == []
    corrected = holm([NAN, 0.02, 0.03])
    assert math.isnan(corrected[0])
    assert corrected[1:].tolist() == pytest.approx([0.04, 0.04])


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(3)
    for _ in range(50):
        p = rng.random(8) ** 3
        rejected = []
        for step, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (8 - step):
                break
            rejected.append(index)
        assert sorted(rejected) == np.flatnonzero(holm(p) <= 0.05).tolist()


def test_shares_of_wins_by_hand():
    shares = win_shares([[1, 2, NAN], [2, 1, 3], [1.5, 1.5, 3]])
    assert shares[0, 1] == shares[1, 0] == 0.5
    assert shares[0, 2] == 1
    assert shares[2, 0] == 0
    assert np.isnan(np.diag(shares)).all()
    assert np.isnan(win_shares([[1, NAN], [NAN, 1]])).all()
