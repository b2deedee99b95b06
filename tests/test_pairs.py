"""Complementary halves: balance, independence of later pairs, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnbench.bench.errors import InputError
from unlearnbench.bench.metrics.pairs import (
    PairError,
    check_pairs,
    check_seeds,
    pair_design,
    pool_ids,
)


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_halves_are_complementary_and_balanced_in_every_stratum(seed, size, classes, pairs):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    pools = [rng.random(size) < 0.4, rng.permutation(size)[: size // 3 + 1]]
    design = pair_design(labels, pairs, pools, seed)
    check_pairs(design.keep, pairs)
    for stratum in np.unique(design.strata):
        members = design.strata == stratum
        assert len(set(labels[members])) == 1
        odd = design.keep[:, members].sum(1) - members.sum() / 2
        assert np.abs(odd).max() <= 0.5
    for of_both in (pools[0], ~pools[0]):  # with in the other pool or not
        members = of_both & np.isin(np.arange(size), pools[1])
        assert np.abs(design.keep[:, members].sum(1) - members.sum() / 2).max() <= 0.5
    assert np.abs(design.keep.sum(1) - size / 2).max() <= 0.5


def test_forget_sets_of_one_pool_differ_by_one_at_most():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 503)
    pool = rng.permutation(503)[:101]
    design = pair_design(labels, 20, {"hard": pool}, 1)
    sizes = {len(design.forget_ids(model, pool)) for model in range(design.n_models)}
    assert sizes <= {50, 51}
    for model in (0, 7):
        forgotten, controls = design.forget_ids(model, pool), design.control_ids(model, pool)
        assert sorted([*forgotten, *controls]) == sorted(pool)
        assert design.keep[model, forgotten].all()
        assert not design.keep[model, controls].any()


def test_more_pairs_leave_the_first_as_they_are():
    labels = np.arange(90) % 7
    few, many = (pair_design(labels, pairs, [[1, 2, 3]], 5) for pairs in (3, 8))
    np.testing.assert_array_equal(many.keep[:6], few.keep)


def test_halves_vary_with_pair_and_seed_and_are_fair():
    keep = pair_design(np.zeros(40, int), 400, seed=2).keep
    assert len({row.tobytes() for row in keep}) == 800
    assert not np.array_equal(keep, pair_design(np.zeros(40, int), 400, seed=3).keep)
    share = keep[0::2].mean(0)  # of a fair coin: standard error 0.025
    assert np.abs(share - 0.5).max() < 0.025 * 4
    # two examples together: uniform halves have 19 / 39 of their companions with them
    together = (keep[0::2, :1] == keep[0::2, 1:]).mean()
    assert together == pytest.approx(19 / 39, abs=3 * 0.5 / np.sqrt(400 * 39))


@pytest.mark.parametrize(
    ("labels", "pairs", "pools", "seed", "message"),
    [
        ([0, 1], 0, (), 0, "`n_pairs` must be at least 1; got 0"),
        ([[0, 1]], 1, (), 0, "labels"),
        ([0.5, 1], 1, (), 0, "labels"),
        ([], 1, (), 0, "labels"),
        ([0, 1], 1, [[0, 0]], 0, "must differ"),
        ([0, 1], 1, [[2]], 0, r"in \[0, 2\)"),
        ([0, 1], 1, [[True]], 0, "mask of 2"),
        ([0, 1], 1, (), -1, "`seed`"),
    ],
)
def test_bad_designs_are_refused(labels, pairs, pools, seed, message):
    with pytest.raises(PairError, match=message):
        pair_design(labels, pairs, pools, seed)
    assert issubclass(PairError, InputError)


def test_a_keep_matrix_must_be_of_complements():
    keep = pair_design(np.zeros(10, int), 4).keep
    np.testing.assert_array_equal(check_pairs(keep, 4), keep)
    broken = keep.copy()
    broken[5, 3] ^= True
    with pytest.raises(PairError, match="models 4 and 5 are not complementary: 1 of 10"):
        check_pairs(broken)
    with pytest.raises(PairError, match="even number of models; got 7"):
        check_pairs(keep[:7])
    with pytest.raises(PairError, match="at least 10 models; got 8"):
        check_pairs(keep, 5)
    with pytest.raises(PairError, match="bool matrix"):
        check_pairs(keep.astype(int))
    with pytest.raises(PairError, match="not complementary"):
        check_pairs(keep[[0, 2, 1, 3]])


def test_seeds_must_differ_although_halves_may_repeat():
    check_seeds([1, 2, 3], np.array([4, 5]))
    with pytest.raises(PairError, match="must all differ; got 2 2 times"):
        check_seeds([1, 2], [3, 2])
    keep = pair_design([0, 0], 3).keep  # of two examples only two halves exist
    check_pairs(keep, 3)


def test_a_pool_is_ids_in_order_or_a_mask():
    assert pool_ids(None, 3).tolist() == [0, 1, 2]
    assert pool_ids([2, 0], 3).tolist() == [2, 0]
    assert pool_ids([False, True, True], 3).tolist() == [1, 2]
