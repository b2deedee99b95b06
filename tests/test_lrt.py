"""Likelihood ratios and moderated variances against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from unlearnbench.bench.errors import UnknownNameError
from unlearnbench.bench.metrics.lrt import VARIANCES, fit_prior, lrt, trigamma_inverse
from unlearnbench.bench.metrics.margin import MarginError
from unlearnbench.bench.metrics.rates import auc, tpr_at_fpr

GRID = special.ndtri((np.arange(40_000) + 0.5) / 40_000)  # a normal law, without chance


def scores(d, s, variance="per_example"):
    """Score two normal laws, N(d, s^2) and N(0, 1), by references that give them away."""
    inside, outside = d + s * GRID, GRID.copy()
    refs = inside[:, None], outside[:, None]
    x = np.concatenate([inside, outside])[:, None]
    both = lrt(x, *refs, variance=variance)[:, 0]
    return both[: len(GRID)], both[len(GRID) :]


def accuracy(inside, outside):
    return ((inside > 0).mean() + (outside <= 0).mean()) / 2


@pytest.mark.parametrize("variance", ["eb_t", "pooled", "per_example"])
@pytest.mark.parametrize(
    ("d", "acc", "area", "tpr_1", "tpr_01"),
    [(1, 0.691462, 0.760250, 0.092362, 0.018298), (2, 0.841345, 0.921350, 0.372081, 0.137805)],
)
def test_equal_variances_have_their_closed_form(d, acc, area, tpr_1, tpr_01, variance):
    """T2; a grid of n points is 1/n away from the law."""
    inside, outside = scores(d, 1, variance)
    assert accuracy(inside, outside) == pytest.approx(acc, abs=1e-4)
    assert auc(inside, outside) == pytest.approx(area, abs=1e-4)
    assert tpr_at_fpr(inside, outside, 0.01)[0] == pytest.approx(tpr_1, abs=5e-4)
    assert tpr_at_fpr(inside, outside, 0.001)[0] == pytest.approx(tpr_01, abs=1e-3)


@pytest.mark.parametrize(
    ("s", "acc", "area"),
    [(1.5, 0.596790, 0.625666), (2, 0.661337, 0.704833), (3, 0.742164, 0.795167)],
)
def test_equal_means_leak_by_their_spread_alone(s, acc, area):
    """T3: the ratio sees what no one-sided score can."""
    inside, outside = scores(0, s)
    assert accuracy(inside, outside) == pytest.approx(acc, abs=1e-4)
    assert auc(inside, outside) == pytest.approx(area, abs=1e-4)
    assert auc(s * GRID, GRID) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("n", "golden"), [(8, 0.5831), (32, 0.5402), (128, 0.5199)])
def test_a_score_that_is_in_its_own_reference_looks_like_a_member(n, golden):
    """T8: what `lrt` gives if it is misused; leave-pair-out is the guard."""
    rng = np.random.default_rng(n)
    examples = 400_000 // n
    inside, outside = rng.normal(size=(2, n, examples))
    a = lrt(inside, inside, outside, "pooled")
    b = lrt(outside, inside, outside, "pooled")
    rho = (1 / n) / np.sqrt((2 / n) * (1 - 1 / (2 * n)))
    assert 0.5 + np.arcsin(rho) / np.pi == pytest.approx(golden, abs=5e-5)
    error = 0.68 / np.sqrt(2 * n * examples)
    assert accuracy(a, b) == pytest.approx(golden, abs=3 * error)


@pytest.mark.parametrize("variance", ["eb_t", "pooled", "per_example"])
def test_swapping_sides_flips_every_sign(variance):
    rng = np.random.default_rng(0)
    x, inside, outside = rng.normal(size=(3, 6, 40)) * rng.gamma(2, 1, 40)
    forth, back = lrt(x, inside, outside, variance), lrt(x, outside, inside, variance)
    np.testing.assert_array_equal(forth, -back)


@pytest.mark.parametrize("centre", ["mean", "median"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_scale_and_shift_do_not_matter(variance, centre):
    rng = np.random.default_rng(1)
    x, inside, outside = rng.normal(size=(3, 9, 40)) * rng.gamma(2, 1, 40)
    plain = lrt(x, inside, outside, variance, centre)
    moved = lrt(*(3.7 * part + 11 for part in (x, inside, outside)), variance, centre)
    np.testing.assert_allclose(moved, plain, atol=1e-9, rtol=0)


def test_per_example_is_two_plain_normals():
    rng = np.random.default_rng(2)
    x, inside, outside = rng.normal(size=(3, 7, 5))
    expected = stats.norm.logpdf(x, inside.mean(0), inside.std(0, ddof=1))
    expected -= stats.norm.logpdf(x, outside.mean(0), outside.std(0, ddof=1))
    np.testing.assert_allclose(lrt(x, inside, outside, "per_example"), expected, atol=1e-12)


def test_reference_fixed_is_the_released_code_with_its_medians():
    rng = np.random.default_rng(3)
    x, inside, outside = rng.normal(size=(3, 7, 5)) + rng.normal(size=5) * 4
    expected = stats.norm.logpdf(x, np.median(inside, 0), inside.std())
    expected -= stats.norm.logpdf(x, np.median(outside, 0), inside.std())
    np.testing.assert_allclose(
        lrt(x, inside, outside, "reference_fixed", "median"), expected, atol=1e-12
    )


def test_moderated_scores_are_two_student_laws():
    rng = np.random.default_rng(4)
    spread = np.sqrt(4 * 1.5 / rng.chisquare(4, 300))
    x, inside, outside = rng.normal(size=(3, 6, 300)) * spread
    expected = np.zeros_like(x)
    for side, sign in ((inside, 1), (outside, -1)):
        v, nu = side.var(0, ddof=1), 5
        nu0, s02 = (float(part[0]) for part in fit_prior(v[None], nu))
        s2 = (nu0 * s02 + nu * v) / (nu0 + nu)
        expected += sign * stats.t.logpdf(x, nu0 + nu, side.mean(0), np.sqrt(s2 * (1 + 1 / 6)))
    np.testing.assert_allclose(lrt(x, inside, outside, "eb_t"), expected, atol=1e-10)


@pytest.mark.parametrize(("nu0", "s02", "nu"), [(4, 2.0, 7), (10, 0.5, 15), (3, 1.0, 31)])
def test_the_prior_is_recovered(nu0, s02, nu):
    """T12, within 10 % at 20,000 examples."""
    rng = np.random.default_rng(5)
    truth = nu0 * s02 / rng.chisquare(nu0, (1, 20_000))
    found = fit_prior(truth * rng.chisquare(nu, truth.shape) / nu, nu)
    assert found[0][0] == pytest.approx(nu0, rel=0.1)
    assert found[1][0] == pytest.approx(s02, rel=0.1)


def test_variances_that_vary_no_more_than_chance_are_pooled():
    """T12: the prior is infinitely sure, and the answer that of `pooled`."""
    v = 2 * np.random.default_rng(6).chisquare(7, (60, 2_000)) / 7
    nu0, s02 = fit_prior(v, 7)
    sure = np.isinf(nu0)
    assert 0.3 < sure.mean() < 0.8  # of chance's excess half is negative
    np.testing.assert_allclose(s02[sure], v.mean(1)[sure], rtol=1e-12)
    assert (nu0[~sure] > 50).all()
    side = np.array([[-1.0], [0.0], [1.0]]) + np.arange(4)  # one variance for all
    x = np.linspace(-3, 3, 4)
    np.testing.assert_array_equal(lrt(x, side + 1, side, "eb_t"), lrt(x, side + 1, side, "pooled"))


def test_the_inverse_of_trigamma_is_one():
    x = np.logspace(-9, 9, 200)
    np.testing.assert_allclose(special.polygamma(1, trigamma_inverse(x)), x, rtol=2e-7)


@pytest.mark.parametrize("variance", VARIANCES)
def test_constant_margins_score_zero(variance):
    constant = np.full((5, 4), 0.1)
    np.testing.assert_array_equal(lrt(constant, constant, constant, variance), 0)


@pytest.mark.parametrize("variance", VARIANCES)
def test_single_constant_examples_do_no_harm(variance):
    rng = np.random.default_rng(7)
    x, inside, outside = rng.normal(size=(3, 8, 50))
    for part in (x, inside, outside):
        part[:, :3] = 0.3
    assert np.isfinite(lrt(x, inside, outside, variance)).all()


def test_bad_input_is_refused():
    good = np.zeros((3, 4))
    with pytest.raises(MarginError, match=r"`ref_in` must be `\(n, E\)` with n >= 2"):
        lrt(good, good[:1], good)
    with pytest.raises(MarginError, match="`ref_out` must have 4 examples"):
        lrt(good, good, np.zeros((3, 5)))
    with pytest.raises(MarginError, match="`x` must be finite"):
        lrt(good + np.nan, good, good)
    with pytest.raises(UnknownNameError, match="unknown variance `eb`; did you mean"):
        lrt(good, good, good, "eb")
    with pytest.raises(UnknownNameError, match="unknown centre `mode`"):
        lrt(good, good, good, "eb_t", "mode")
