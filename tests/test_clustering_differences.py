"""Errors and redraws of many paired matrices at once, against one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from unlearnbench.bench.metrics.clustering import (
    pigeonhole_bootstrap,
    redrawn_means,
    two_way_se,
    two_way_se_of_differences,
)

RNG = np.random.default_rng(0)
HARD = RNG.random((7, 11))
HITS = np.stack([np.round(2 * np.clip(HARD + RNG.normal(0, s, (7, 11)), 0, 1)) / 2
                 for s in (0.1, 0.5, 1.0, 0.0)])  # fmt: skip


def test_errors_of_differences_are_those_of_the_differences():
    errors = two_way_se_of_differences(HITS)
    for i, one in enumerate(HITS):
        for j, other in enumerate(HITS):
            assert errors[i, j] == pytest.approx(two_way_se(one - other), abs=1e-12)


def test_a_copy_differs_by_nothing_at_all():
    assert (two_way_se_of_differences(np.stack([HITS[0]] * 3)) == 0).all()


def test_errors_where_the_sum_of_variances_is_negative():
    small = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    error = two_way_se_of_differences(small)[0, 1]
    assert error == pytest.approx(two_way_se(small[0] - small[1]), abs=1e-12)


def test_redrawn_means_spread_as_the_clustered_error_says():
    big = (RNG.random((1, 40, 1)) + RNG.random((1, 1, 90)) + RNG.random((1, 40, 90))) / 3
    means = redrawn_means(big, draws=4000)[:, 0]
    assert means.mean() == pytest.approx(big.mean(), abs=0.002)
    # the bootstrap errs on the wide side by the variance of the cells, 1/12/9/3600 twice here
    assert means.std() == pytest.approx(two_way_se(big[0]), rel=0.05)
    slow = pigeonhole_bootstrap(lambda w: float((w * big[0]).sum() / w.sum()), (40, 90), draws=2000)
    assert means.std() == pytest.approx(slow.std(), rel=0.06)


def test_redraws_are_those_of_the_weights_and_alike_for_all_methods():
    means = redrawn_means(np.stack([HITS[0], HITS[1], HITS[0]]), draws=50, seed=3)
    assert (means[:, 0] == means[:, 2]).all()
    assert (means == redrawn_means(np.stack([HITS[0], HITS[1], HITS[0]]), draws=50, seed=3)).all()
    assert (means != redrawn_means(HITS[:3], draws=50, seed=4)).any()
    # a mean of a matrix of ones is one, whatever is drawn
    assert redrawn_means(np.ones((1, 5, 6)), draws=9).ravel().tolist() == [1.0] * 9
    # differences of one redraw are redraws of the difference
    paired = redrawn_means(np.stack([HITS[0], HITS[1], HITS[0] - HITS[1]]), draws=50)
    assert paired[:, 0] - paired[:, 1] == pytest.approx(paired[:, 2], abs=1e-6)
