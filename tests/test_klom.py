"""KLoM and the challenge's forgetting score: what exact unlearning gets, and edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from unlearnbench.bench.metrics.forgetting_score import (
    forgetting_epsilons,
    forgetting_null,
    forgetting_score,
)
from unlearnbench.bench.metrics.klom import KlomSummary, klom, klom_floor, klom_gauss
from unlearnbench.bench.metrics.margin import MarginError


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("n", "golden"),
    [(10, 5.5), (20, 3.1), (50, 0.87), (100, 0.35), (200, 0.15), (500, 0.05), (1000, 0.024)],
)
def test_the_floor_is_far_from_zero(n, golden):
    """T14; the golden values are simulated and rounded to two digits."""
    assert klom_floor(n, examples=1_000).mean == pytest.approx(golden, rel=0.05)


def test_the_floor_has_a_median_and_a_tail():
    floor = klom_floor(100)
    assert floor.median == pytest.approx(0.32, rel=0.06)
    assert floor.p95 == pytest.approx(0.68, rel=0.05)
    assert klom_floor(100, 50, examples=500).mean > floor.mean


@pytest.mark.parametrize(("d", "golden"), [(0.25, 0.42), (0.5, 0.57), (1, 1.19), (2, 3.61)])
def test_a_shift_is_seen_on_top_of_the_floor(d, golden):
    p, q = normal(0, 2, 100, 1_500)
    assert klom(p + d, q).mean() == pytest.approx(golden, rel=0.1)


def test_disjoint_samples_are_near_the_ceiling():
    p, q = normal(1, 2, 100, 200)
    for found in (klom(p + 40, q), klom(q, p + 40), klom(np.full((100, 200), 500.0), q)):
        assert (found > 9.5).all()
        assert (found <= np.log(1e5) + 1e-3).all()


def test_the_top_edge_is_open_unless_closed():
    """The largest margin of both samples is not counted, as in the reference code."""
    p, q = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0], [1.0]])
    open_, closed = (klom(p, q, bins=2, closed=flag)[0] for flag in (False, True))
    # bins [0, 1) and [1, 2): p without its 2 is (1, 1) / 2, q is (1, 2) / 3
    assert open_ == pytest.approx(0.5 * np.log(0.5 / (1 / 3)) + 0.5 * np.log(0.5 / (2 / 3)))
    # closed, p is (1, 2) / 3 as well
    assert closed == pytest.approx(0)


def test_a_side_that_is_all_at_the_top_is_counted():
    q = normal(2, 10, 3) - 5
    assert np.isfinite(klom(np.zeros((4, 3)), q)).all()
    assert np.isfinite(klom(q, np.zeros((4, 3)))).all()
    np.testing.assert_array_equal(klom(np.ones((4, 3)), np.ones((5, 3))), 0)
    assert (klom(np.full((4, 3), 300.0), np.full((5, 3), 200.0)) == 0).all()  # both clipped


def test_it_is_the_binned_divergence():
    p, q = normal(3, 2, 60, 20)
    for i, found in enumerate(klom(p, q, closed=True)):
        both = np.r_[p[:, i], q[:, i]]
        edges = np.linspace(both.min(), both.max(), 21)
        a, b = (np.histogram(side[:, i], edges)[0] / 60 for side in (p, q))
        b = np.where(a > 0, np.maximum(b, 1e-5), b)
        assert found == pytest.approx(stats.entropy(a, b), abs=1e-9)


def test_normal_divergence_is_near_its_closed_form_and_low_at_few_models():
    p, q = normal(4, 2, 16, 4_000)
    assert klom_gauss(p, q).mean() < 0.1 < klom(p, q).mean()
    for d in (0, 1, 2):
        # means of 16 add 1/16 to the squared shift of either sample
        assert klom_gauss(p + d, q).mean() == pytest.approx(d * d / 2 + 1 / 16, abs=0.05)
    wide = klom_gauss(3 * normal(5, 400, 900), normal(6, 400, 900)).mean()
    assert wide == pytest.approx(np.log(1 / 3) + 4.5 - 0.5, abs=0.1)
    np.testing.assert_array_equal(klom_gauss(np.ones((3, 4)), np.ones((3, 4))), 0)


def test_summaries_are_of_examples():
    assert KlomSummary.of(np.array([1.0, 2.0, 6.0])) == KlomSummary(3.0, 2.0, pytest.approx(5.6))


@pytest.mark.parametrize("score", [klom, klom_gauss, forgetting_epsilons])
def test_bad_margins_are_refused(score):
    good = np.zeros((4, 3))
    for bad in (np.zeros((4, 2)), np.zeros(4), np.zeros((1, 3))):
        with pytest.raises(MarginError, match="margins must be"):
            score(good, bad)
    with pytest.raises(MarginError, match="must be finite"):
        score(good + np.nan, good)


# --- forgetting score ---------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "golden"), [(512, 0.19), (256, 0.19), (128, 0.18), (64, 0.17)])
def test_exact_unlearning_does_not_score_one(n, golden):
    """T14; points of an example have a standard deviation of about 0.11."""
    assert forgetting_null(n, examples=60) == pytest.approx(golden, abs=3 * 0.11 / np.sqrt(60))


def test_exact_unlearning_scores_higher_without_intervals():
    assert forgetting_null(512, examples=300, intervals=False) == pytest.approx(0.41, abs=0.05)


@pytest.mark.parametrize(
    ("d", "golden"), [(0.25, 0.121), (0.5, 0.070), (1, 0.015), (2, 0.0014), (4, 0.0003)]
)
def test_a_shift_loses_points(d, golden):
    u, r = normal(7, 2, 512, 40)
    assert forgetting_score(u + d, r) == pytest.approx(golden, rel=0.25)
    assert forgetting_score(r - d, u) == pytest.approx(golden, rel=0.25)


def test_narrow_or_separated_outputs_get_the_cap():
    r = normal(8, 64, 5)
    np.testing.assert_array_equal(forgetting_epsilons(np.full_like(r, 0.3), r), 50)
    np.testing.assert_array_equal(forgetting_epsilons(r + 100, r), 50)
    np.testing.assert_array_equal(forgetting_epsilons(r, r + 100), 50)
    assert forgetting_score(r + 100, r) == 0


def test_rules_are_counted_as_the_definition_says():
    """Single thresholds, by brute force."""
    u, r = normal(9, 2, 40, 6) + np.array([0.5, 0])[:, None, None]
    for i, found in enumerate(forgetting_epsilons(u, r, intervals=False)):
        high, low = u[:, i], r[:, i]
        if np.median(low) > np.median(high):
            high, low = low, high
        both, best = np.r_[high, low], 0.0
        grid = np.linspace(both.min(), both.max(), int(np.ceil(np.ptp(both) * 100)))
        for t in grid:
            fnr, fpr = (high < t).mean(), (low >= t).mean()
            if fnr == fpr == 0:
                best = np.inf
            elif fnr > 0 and fpr > 0:
                odds = [(1 - 1e-5 - a) / b for a, b in ((fpr, fnr), (fnr, fpr))]
                best = max(best, *(np.log(o) for o in odds if o > 0))
        assert found == pytest.approx(min(best, 50))
