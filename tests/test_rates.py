"""Areas, low rates, intervals and clustered errors against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from unlearnbench.bench.errors import InputError
from unlearnbench.bench.metrics.attack_power import attack_power, plug_in_accuracy
from unlearnbench.bench.metrics.clustering import pigeonhole_bootstrap, two_way_se, weighted_auc
from unlearnbench.bench.metrics.rates import (
    auc,
    calibrated_rates,
    clopper_pearson,
    placements,
    tpr_at_fpr,
)

SCORES = st.lists(st.integers(-4, 4), min_size=1, max_size=30)


@given(SCORES, SCORES)
@settings(max_examples=150, deadline=None)
def test_ties_count_half(inside, outside):
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    assert auc(inside, outside) == pytest.approx(roc_auc_score(truth, np.r_[inside, outside]))


@given(SCORES, SCORES, st.sampled_from([0.0, 0.05, 0.1, 0.29, 0.5]))
@settings(max_examples=150, deadline=None)
def test_low_rates_are_points_of_the_roc_and_the_best_allowed(inside, outside, fpr):
    """T13: never interpolated above the ROC."""
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    fprs, tprs, _ = roc_curve(truth, np.r_[inside, outside], drop_intermediate=False)
    tpr, realised = tpr_at_fpr(inside, outside, fpr)
    assert realised <= fpr + 1e-12
    assert tpr == pytest.approx(tprs[fprs <= fpr + 1e-12].max())
    assert any(np.allclose((realised, tpr), point) for point in zip(fprs, tprs, strict=True))


def test_thresholds_of_a_pair_are_set_on_the_others():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=(2, 5, 60)).round(1)
    for fpr in (0.3, 0.05, 0.01, 0.001):
        hits, alarms = [], []
        for pair in range(5):
            other = np.sort(np.delete(outside, pair, 0), axis=None)[::-1]
            threshold = other[int(fpr * other.size + 1e-9)]
            hits.append((inside[pair] > threshold).mean())
            alarms.append((outside[pair] > threshold).mean())
        assert calibrated_rates(inside, outside, fpr) == pytest.approx(
            (np.mean(hits), np.mean(alarms))
        )


def test_realised_rate_is_near_the_aim():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(size=(2, 16, 2_000)) + np.array([1, 0])[:, None, None]
    tpr, fpr = calibrated_rates(inside, outside, 0.01)
    assert fpr == pytest.approx(0.01, abs=3 * np.sqrt(0.01 * 0.99 / 32_000))
    assert tpr == pytest.approx(0.092362, abs=3 * np.sqrt(0.0924 * 0.908 / 32_000) + 0.003)


@pytest.mark.parametrize(
    ("hits", "trials", "interval"),
    [
        (0, 10, (0, 0.308497)),
        (5, 10, (0.187086, 0.812914)),
        (10, 1000, (0.004806, 0.018313)),
        (10, 10, (1 - 0.308497, 1)),
    ],
)
def test_exact_intervals_have_their_golden_values(hits, trials, interval):
    assert clopper_pearson(hits, trials) == pytest.approx(interval, abs=5e-7)


@pytest.mark.parametrize(
    ("n", "golden"),
    [
        (2, (0.509, 0.534, 0.618, 0.800, 0.909)),
        (4, (0.513, 0.549, 0.653, 0.826, 0.921)),
        (8, (0.519, 0.565, 0.678, 0.834, 0.927)),
        (16, (0.526, 0.582, 0.688, 0.838, 0.930)),
        (32, (0.534, 0.594, 0.690, 0.840, 0.932)),
        (64, (0.542, 0.598, 0.691, 0.840, 0.932)),
        (float("inf"), (0.550, 0.599, 0.691, 0.841, 0.933)),
    ],
)
def test_power_has_its_table(n, golden):
    """T6; the table was simulated, and is off by one in the last place here and there."""
    found = [plug_in_accuracy(d, n) for d in (0.25, 0.5, 1, 2, 3)]
    assert found == pytest.approx(golden, abs=1e-3)
    assert plug_in_accuracy(0.0, n) == 0.5


def test_power_of_a_number_of_models():
    found = [attack_power(n, 1.0) for n in (8, 16, 32, 64)]
    assert found == pytest.approx([0.639, 0.674, 0.687, 0.690], abs=5e-4)
    for bad in (2, 7):
        with pytest.raises(InputError, match="even and at least 4"):
            attack_power(bad)
    with pytest.raises(InputError, match="`n` must be positive"):
        plug_in_accuracy(1.0, 0)


def crossed(rng, pairs=16, examples=60):
    cells = rng.normal(size=(pairs, examples))
    return cells + 0.3 * rng.normal(size=(pairs, 1)) + 0.6 * rng.normal(size=examples)


def test_two_way_error_is_that_of_a_crossed_design():
    """T16, over 2,000 simulated designs; the error of a standard deviation of 2,000 is 1.6 %."""
    rng = np.random.default_rng(2)
    designs = [crossed(rng) for _ in range(2_000)]
    truth = np.std([cells.mean() for cells in designs])
    estimate = np.sqrt(np.mean([two_way_se(cells) ** 2 for cells in designs]))
    assert estimate == pytest.approx(truth, rel=0.05)


def test_two_way_error_is_the_sum_over_cells_that_share_a_row_or_column():
    cells = crossed(np.random.default_rng(3), 40, 30)
    d = cells - cells.mean()
    shared = sum(
        d[p, i] * (d[p].sum() + d[:, i].sum() - d[p, i]) for p in range(40) for i in range(30)
    )
    # by brute force and without divisors of unbiased variances, which are within 1/30
    assert two_way_se(cells) == pytest.approx(np.sqrt(shared) / cells.size, rel=0.04)


def test_two_way_error_of_equal_cells_is_zero():
    assert two_way_se(np.full((3, 4), 0.5)) == 0


def test_clustered_error_of_the_area_agrees_with_the_bootstrap():
    rng = np.random.default_rng(4)
    inside, outside = crossed(rng, 30, 200) + 0.5, crossed(rng, 30, 200)
    draws = pigeonhole_bootstrap(weighted_auc(inside, outside), (30, 200), draws=300, seed=1)
    cells = placements(inside, outside)
    assert cells.mean() == pytest.approx(0, abs=1e-12)
    # the bootstrap counts the cells' own noise three times, which is little here
    assert two_way_se(cells) == pytest.approx(draws.std(), rel=0.2)
    assert draws.mean() == pytest.approx(auc(inside, outside), abs=0.01)
    again = pigeonhole_bootstrap(weighted_auc(inside, outside), (30, 200), draws=5, seed=1)
    np.testing.assert_array_equal(again, draws[:5])


def test_weighted_area_with_equal_weights_is_the_area():
    inside, outside = np.random.default_rng(5).integers(0, 4, (2, 3, 20)).astype(float)
    plain = weighted_auc(inside, outside)(np.ones((3, 20)))
    assert plain == pytest.approx(auc(inside, outside))
