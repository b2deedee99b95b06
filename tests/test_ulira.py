"""U-LIRA on simulated margins: null, closed forms, symmetries, guards, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unlearnbench.bench.errors import InputError, UnknownNameError
from unlearnbench.bench.metrics.attack_power import attack_power
from unlearnbench.bench.metrics.folds import held_out, leave_pair_out
from unlearnbench.bench.metrics.lrt import VARIANCES, lrt
from unlearnbench.bench.metrics.margin import MarginError
from unlearnbench.bench.metrics.pairs import LeakyReferenceError, PairError, pair_design
from unlearnbench.bench.metrics.rates import auc
from unlearnbench.bench.metrics.rerandomise import rerandomised_null
from unlearnbench.bench.metrics.summary import compare, summarise
from unlearnbench.bench.metrics.ulira import efficacy, retain_privacy, ulira


def design(n_models, examples, seed=0, classes=1):
    return pair_design(np.arange(examples) % classes, n_models // 2, seed=seed).keep


def noise(keep, seed, *, even=False):
    """Margins that do not depend on membership: examples differ in level and spread."""
    rng = np.random.default_rng((seed, 99))
    spread = 1.0 if even else np.sqrt(5 / rng.chisquare(5, keep.shape[1]))
    level = 0.0 if even else 3 * rng.normal(size=keep.shape[1])
    model = 0.0 if even else 0.2 * rng.normal(size=(len(keep), 1))
    return level + spread * (rng.normal(size=keep.shape) + model)


def accuracy(inside, outside):
    return ((inside > 0).mean() + (outside <= 0).mean()) / 2


# --- the null -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("n_models", [6, 8, 16, 32, 64])
def test_nothing_is_found_where_nothing_is(n_models, variance):
    """T7: mean of 40 banks, within three of its own standard errors."""
    found = []
    for seed in range(40):
        keep = design(n_models, 300, seed)
        scores = leave_pair_out(noise(keep, seed), keep, variance=variance)
        found.append((accuracy(*scores), auc(*scores)))
    error = np.std(found, axis=0, ddof=1) / np.sqrt(40)
    assert (np.abs(np.mean(found, axis=0) - 0.5) < 3 * error).all()
    assert (error < 0.01).all()


def test_leaving_out_the_model_alone_would_be_biased():
    """T9: why the partner must go too; sides of three and four scores."""
    areas = []
    for seed in range(5):
        keep = design(8, 2_000, seed)
        margins, scores = noise(keep, seed, even=True), np.empty(keep.shape)
        for model in range(8):
            others = np.delete(np.arange(8), model)
            for own in (True, False):
                columns = np.flatnonzero(keep[model] == own)
                kept = keep[np.ix_(others, columns)]
                order = np.argsort(~kept, axis=0, kind="stable")
                refs = np.take_along_axis(margins[np.ix_(others, columns)], order, 0)
                n_in = int(kept[:, 0].sum())
                scores[model, columns] = lrt(margins[model, columns], refs[:n_in], refs[n_in:])
        areas.append(auc(scores[keep], scores[~keep]))
    assert 0.44 < np.mean(areas) < 0.47


def test_redraws_have_the_spread_of_banks():
    """T16: 500 simulated banks; either standard deviation is known to 3 % or better."""
    accs, sds = [], []
    for seed in range(500):
        keep = design(16, 100, seed, classes=4)
        margins = noise(keep, seed)
        accs.append(accuracy(*leave_pair_out(margins, keep)))
        if seed < 20:
            null, _ = rerandomised_null(
                margins, keep, redraws=100, seed=seed, strata=np.arange(100) % 4
            )
            assert null.mean() == pytest.approx(0.5, abs=4 * null.std() / 10)
            sds.append(null.std())
    assert np.sqrt(np.mean(np.square(sds))) == pytest.approx(np.std(accs), rel=0.1)


def test_p_values_are_uniform_under_the_null():
    """200 banks: 5 % are called a leak at level 0.05, up to three standard errors."""
    p = []
    for seed in range(200):
        keep = design(8, 40, seed)
        result = ulira(noise(keep, seed), keep, redraws=39, seed=seed)
        p.append(result.null.p)
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 200))
    assert np.mean(p) == pytest.approx(0.5125, abs=3 * np.sqrt(1 / 12 / 200))


def test_redraws_are_appended_and_keep_the_number_in_each_class():
    keep, strata = design(8, 30, classes=3), np.arange(30) % 3
    margins = noise(keep, 1)
    few, many = (rerandomised_null(margins, keep, redraws=n, strata=strata)[0] for n in (3, 6))
    np.testing.assert_array_equal(many[:3], few)
    # with every class trained on as a whole or not at all, nothing can be shuffled
    whole = np.stack([strata == 0, strata != 0] * 4)
    null, _ = rerandomised_null(margins, whole, redraws=4, strata=strata)
    assert set(null) == {accuracy(*leave_pair_out(margins, whole))}


def test_classes_of_one_example_are_shuffled_together():
    keep = design(8, 30)
    null, _ = rerandomised_null(noise(keep, 1), keep, redraws=5, strata=np.arange(30))
    assert len(set(null)) > 1


# --- closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_models", [8, 16, 32, 64])
def test_pooled_variances_reach_the_closed_form(n_models):
    """T6; standard error 0.68 / sqrt(N E)."""
    examples = 160_000 // n_models
    keep = design(n_models, examples)
    margins = noise(keep, n_models, even=True) + keep
    found = accuracy(*leave_pair_out(margins, keep, variance="pooled"))
    error = 0.68 / np.sqrt(n_models * examples)
    assert found == pytest.approx(attack_power(n_models, 1.0), abs=3 * error)


@pytest.mark.parametrize("delta", [0, 0.5, 1, 2])
def test_a_leak_of_known_size_is_measured(delta):
    """T24: forgotten margins are raised by delta standard deviations of their example."""
    keep = design(64, 600)
    rng = np.random.default_rng(5)
    spread, level = np.sqrt(5 / rng.chisquare(5, 600)), 3 * rng.normal(size=600)
    margins = level + spread * (rng.normal(size=keep.shape) + delta * keep)
    result = ulira(margins, keep, redraws=20)
    assert result.acc == pytest.approx(attack_power(64, float(delta)), abs=0.02)
    assert (result.null.p < 0.05) == (delta > 0)


def test_full_example_spreads_leak_without_a_shift():
    """T3 by leave-pair-out: twice the spread, equal means."""
    keep = design(64, 1_500)
    rng = np.random.default_rng(6)
    margins = rng.normal(size=keep.shape) * np.where(keep, 2, 1)
    result = ulira(margins, keep, redraws=0)
    assert result.spread_ratio == pytest.approx(2, rel=0.01)
    assert result.acc == pytest.approx(0.661337, abs=0.01)
    assert result.null is None
    assert result.null_auc is None


# --- unlearners ---------------------------------------------------------------------------------


def bank(seed=0, n_models=32, examples=400):
    """Simulated margins of originals and of two sets of retrained models."""
    keep = design(n_models, examples, seed)
    memory = np.random.default_rng((seed, 7)).gamma(0.7, 1.5, examples)
    original = noise(keep, seed) + 1.5 * memory * keep
    return keep, original, noise(keep, seed + 1), noise(keep, seed + 2)


def fresh(keep, seed, like):
    """Retrained margins that share levels and spreads of examples with `like`."""
    rng = np.random.default_rng((seed, 98))
    picks = np.argsort(rng.random(like.shape), axis=0)
    return np.take_along_axis(like, picks, 0)


def test_identity_leaks_and_a_retrained_bank_does_not():
    """T20, T21."""
    keep, original, retrained, _ = bank()
    identity = ulira(original, keep, redraws=40)
    harmless = ulira(retrained, keep, redraws=40)
    assert identity.acc > 0.6 > identity.null.hi
    assert identity.null.p == 1 / 41
    assert harmless.null.lo <= harmless.acc <= harmless.null.hi
    assert harmless.null_auc.lo <= harmless.auc <= harmless.null_auc.hi
    assert harmless.low_share == pytest.approx(0.01, abs=0.005)
    again = ulira(original.copy(), keep, redraws=40)
    np.testing.assert_array_equal(again.in_scores, identity.in_scores)
    assert again.metrics() == identity.metrics()
    difference = compare(identity, harmless)
    assert difference.acc == pytest.approx(identity.acc - harmless.acc)
    assert difference.acc > 3 * difference.acc_se > 0


def test_a_constant_output_is_private_but_not_retrained():
    """T22."""
    keep, _, retrained, _ = bank()
    constant = np.full(keep.shape, 0.1)
    for variance in VARIANCES:
        result = ulira(constant, keep, variance=variance, redraws=3)
        assert (result.acc, result.auc, result.se, result.null.p) == (0.5, 0.5, 0, 1)
        assert set(result.tpr.values()) == {0}
    assert efficacy(constant, retrained, keep, redraws=20).acc > 0.99


def test_a_constant_on_one_logit_changes_nothing():
    """T23, T10: a bias on the forgotten class, through logits."""
    from unlearnbench.bench.metrics.margin import logit_margin

    keep = design(16, 120)
    rng = np.random.default_rng(8)
    logits = 4 * rng.normal(size=(*keep.shape, 5))
    logits[..., 2] += 2 * keep
    labels = np.full(keep.shape, 2)
    results = []
    for bias in (0, -40):
        shifted = logits + bias * (np.arange(5) == 2)
        results.append(ulira(logit_margin(shifted, labels), keep, redraws=0))
    np.testing.assert_allclose(results[1].in_scores, results[0].in_scores, atol=1e-9, rtol=0)
    assert results[1].acc == pytest.approx(results[0].acc, abs=1e-9)
    assert results[1].auc == pytest.approx(results[0].auc, abs=1e-9)


def test_forgetting_too_much_is_a_leak_and_flagged():
    """T25: forgotten margins four standard deviations below never-trained ones."""
    from unlearnbench.bench.metrics.population import margin_auc

    keep = design(64, 500)
    margins = noise(keep, 9, even=True) - 4 * keep
    result = ulira(margins, keep, redraws=0)
    assert result.acc == pytest.approx(0.977, abs=0.005)
    assert margin_auc(margins, keep) < 0.5
    assert result.low_share > 0.9


def test_the_way_from_identity_to_retrained_is_downhill():
    """T28; each step is larger than chance."""
    keep, original, retrained, _ = bank(3)
    accs = [
        ulira(w * original + (1 - w) * retrained, keep, redraws=0).acc
        for w in (1, 0.75, 0.5, 0.25, 0)
    ]
    assert accs == sorted(accs, reverse=True)


def test_efficacy_sees_a_fingerprint_that_privacy_does_not():
    keep, _, retrained, _ = bank(4)
    # the same examples, other models: shuffled over models, as membership does not matter here
    shifted, reference = fresh(keep, 1, retrained) + 3, fresh(keep, 2, retrained)
    assert ulira(shifted, keep, redraws=0).acc < 0.53
    result = efficacy(shifted, reference, keep, redraws=40)
    assert result.kind == "efficacy"
    assert result.acc > 0.75
    assert result.null.p == 1 / 41


def test_efficacy_of_retrained_models_is_in_its_band():
    """T21: twenty banks; the band holds 95 % of them, so that 16 or more are in."""
    inside = 0
    for seed in range(20):
        keep = design(16, 150, seed)
        rng = np.random.default_rng((seed, 5))
        level = rng.normal(size=150)
        # models differ as wholes: some are surer of everything than others
        draws = [level + rng.normal(size=keep.shape) + rng.normal(size=(16, 1)) for _ in "uv"]
        result = efficacy(*draws, keep, redraws=100, seed=seed)
        inside += result.null.lo <= result.acc <= result.null.hi
    assert inside >= 16


def test_efficacy_with_fewer_retrained_models_scores_their_pairs():
    keep, original, retrained, _ = bank(5)
    part = efficacy(original, retrained[:8], keep, redraws=0)
    alone = efficacy(original[:8], retrained[:8], keep[:8], redraws=0)
    assert part.n_models == 8
    np.testing.assert_array_equal(part.in_scores, alone.in_scores)


def test_retain_privacy_is_the_change_of_area():
    keep, original, retrained, _ = bank(6)
    targets = np.arange(100, 300)
    same = retain_privacy(original, original, keep, targets)
    assert (same.auc, same.auc_se, same.acc) == (0, 0, 0)
    better = retain_privacy(retrained, original, keep, targets)
    assert better.auc < -3 * better.auc_se < 0


def test_share_above_compares_example_by_example():
    keep, original, retrained, _ = bank(7)
    identity, harmless = (ulira(m, keep, redraws=0) for m in (original, retrained))
    assert identity.share_above(identity) == 0
    assert harmless.share_above(identity) < 0.4 < identity.share_above(harmless)


# --- symmetries ---------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", ["mean", "median"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_scale_and_shift_do_not_matter(variance, centre):
    """T10."""
    keep = design(16, 80)
    margins = noise(keep, 10) + keep
    options = {"variance": variance, "centre": centre}
    plain = leave_pair_out(margins, keep, **options)
    moved = leave_pair_out(0.37 * margins - 21, keep, **options)
    np.testing.assert_allclose(moved, plain, atol=1e-9, rtol=0)


@pytest.mark.parametrize("variance", ["eb_t", "pooled", "per_example"])
def test_swapping_the_sides_flips_every_sign(variance):
    """T10; exact, but for `reference_fixed`, whose spread is of one side."""
    keep = design(10, 80)
    margins = noise(keep, 11) + keep
    inside, outside = leave_pair_out(margins, keep, variance=variance)
    swapped = leave_pair_out(margins, ~keep, variance=variance)
    np.testing.assert_array_equal(swapped[0], -outside)
    np.testing.assert_array_equal(swapped[1], -inside)


@pytest.mark.parametrize("variance", VARIANCES)
def test_order_of_pairs_members_and_examples_does_not_matter(variance):
    keep = design(12, 80)
    margins = noise(keep, 12) + keep
    plain = leave_pair_out(margins, keep, variance=variance)
    rng = np.random.default_rng(0)
    pairs, examples = rng.permutation(6), rng.permutation(80)
    rows = np.column_stack([2 * pairs, 2 * pairs + 1])
    rows[::2] = rows[::2, ::-1]
    shuffled = margins[rows.ravel()][:, examples], keep[rows.ravel()][:, examples]
    moved = leave_pair_out(*shuffled, variance=variance)
    expected = [scores[pairs][:, examples] for scores in plain]
    np.testing.assert_allclose(moved, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("centre", ["mean", "median"])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("n_models", [6, 8, 10])
def test_leave_pair_out_is_a_fit_to_the_other_pairs(n_models, variance, centre):
    """The rank-one updates against plain fits, pair by pair."""
    keep = design(n_models, 50)
    margins = noise(keep, 13) + keep
    inside, outside = leave_pair_out(margins, keep, variance=variance, centre=centre)
    for pair in range(n_models // 2):
        mine = [2 * pair, 2 * pair + 1]
        others = [model for model in range(n_models) if model not in mine]
        plain = held_out(margins, keep, mine, others, variance=variance, centre=centre)
        first = keep[mine[0]]
        np.testing.assert_allclose(inside[pair], np.where(first, *plain), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(
            outside[pair], np.where(first, plain[1], plain[0]), rtol=1e-7, atol=1e-9
        )


def test_a_pair_has_no_part_in_its_own_fit():
    """T8: whatever the left-out pair says, the scores of a probe do not move."""
    keep = design(12, 60)
    margins = noise(keep, 14)
    margins[:2] = 1.0
    before = leave_pair_out(margins, keep)[0][1:]
    margins[:2] = 50.0
    after = leave_pair_out(margins, keep)
    assert not np.allclose(after[0][1:], before)  # others do see it
    fits = [held_out(np.r_[margins[:2] * 0 + x, margins[2:]], keep, [0], range(2, 12))
            for x in (0.0, 7.0)]  # fmt: skip
    expected = lrt(np.zeros(60), *sides(margins[2:], keep[2:]))
    np.testing.assert_allclose(fits[0][0], expected, atol=1e-12)
    np.testing.assert_allclose(fits[1][0], lrt(np.full(60, 7.0), *sides(margins[2:], keep[2:])))


def sides(margins, keep):
    """IN and OUT margins of pairs, `(P, E)` each."""
    first = keep[0::2]
    even, odd = margins[0::2], margins[1::2]
    return np.where(first, even, odd), np.where(first, odd, even)


def test_views_are_averaged_over_their_ratios():
    keep = design(10, 70)
    views = np.stack([noise(keep, seed) + keep for seed in (15, 16)], axis=1)
    both = leave_pair_out(views, keep)
    single = [leave_pair_out(views[:, v], keep) for v in (0, 1)]
    np.testing.assert_allclose(both, np.mean(single, axis=0), atol=1e-12)
    result = ulira(views, keep, redraws=3)
    assert result.n_views == 2
    twice = ulira(views[:, [0, 0]], keep, redraws=0)
    assert twice.acc == ulira(views[:, 0], keep, redraws=0).acc


def test_a_pool_is_scored_by_itself():
    keep = design(8, 90)
    margins = noise(keep, 17) + keep
    pool = np.array([80, 3, 41, 7, 12])
    margins[:, 50] = np.nan  # outside the pool
    result = ulira(margins, keep, pool, redraws=0)
    alone = ulira(margins[:, pool], keep[:, pool], redraws=0)
    np.testing.assert_array_equal(result.in_scores, alone.in_scores)
    np.testing.assert_array_equal(result.ids, pool)
    keep[:, 50] = True  # complements are needed in the pool only (design `pool_only`)
    np.testing.assert_array_equal(ulira(margins, keep, pool, redraws=0).acc, result.acc)


def test_input_is_not_changed_and_may_be_single_precision_or_torch():
    keep = design(8, 40)
    margins = (noise(keep, 18) + keep).astype(np.float32)
    before = margins.copy()
    result = ulira(margins, keep, redraws=2)
    np.testing.assert_array_equal(margins, before)
    tensor = ulira(torch.from_numpy(margins), keep, redraws=2)
    np.testing.assert_array_equal(tensor.in_scores, result.in_scores)
    assert result.in_scores.dtype == np.float64


# --- the result ---------------------------------------------------------------------------------


def test_a_result_says_all_there_is_to_say():
    keep = design(16, 200)
    result = ulira(noise(keep, 19, even=True) + keep, keep, redraws=20, fprs=(0.05, 0.01))
    named = result.metrics()
    assert all(isinstance(value, float) for value in named.values())
    assert {"acc", "auc", "se", "tpr_0.01", "fpr_0.05", "null_lo", "null_hi", "p"} <= set(named)
    assert {"auc_p", "per_example_p95", "power_d0.5", "low_share", "spread_ratio"} <= set(named)
    assert result.per_example.shape == (200,)
    assert result.per_example.mean() == pytest.approx(result.acc)
    assert result.per_example_p5 <= result.per_example_p50 <= result.per_example_p95
    assert result.power == attack_power(16)
    assert result.tpr_supported == {0.05: True, 0.01: True}
    assert not summarise(result.in_scores, result.out_scores, [0.001]).tpr_supported[0.001]
    assert (result.n_models, result.n_examples, result.n_views) == (16, 200, 1)
    assert result.tpr[0.05] > 1.1 * result.fpr[0.05]


# --- refusals -----------------------------------------------------------------------------------


def test_a_target_whose_partner_is_in_the_fit_is_refused():
    """T9."""
    keep = design(10, 20)
    margins = noise(keep, 20)
    with pytest.raises(LeakyReferenceError, match="target model 1 is in pair 0"):
        held_out(margins, keep, [1], [0, 2, 3, 4, 5])
    with pytest.raises(LeakyReferenceError, match="target model 4 is in pair 2"):
        held_out(margins, keep, [0, 4], range(4, 10))
    with pytest.raises(PairError, match="whole pairs, each model once"):
        held_out(margins, keep, [0], [2, 3, 4])
    with pytest.raises(PairError, match="at least 2 pairs"):
        held_out(margins, keep, [0], [2, 3])
    with pytest.raises(PairError, match=r"models must be in \[0, 10\); got -1"):
        held_out(margins, keep, [-1], range(4, 10))
    assert issubclass(LeakyReferenceError, InputError)


def test_bad_banks_are_refused():
    keep = design(8, 20)
    margins = noise(keep, 21)
    broken = keep.copy()
    broken[3, 4] ^= True
    for bad, error, message in (
        ((margins, broken), PairError, "models 2 and 3 are not complementary: 1 of 20"),
        ((margins[:4], keep[:4]), PairError, "at least 6 models; got 4"),
        ((margins[:7], keep[:7]), PairError, "even number of models; got 7"),
        ((margins, keep.astype(int)), PairError, "bool matrix"),
        ((margins, keep, [3]), PairError, "at least 2 examples; got 1"),
        ((margins, keep, [3, 3]), PairError, "must differ"),
        ((margins, keep, np.zeros(20, bool)), PairError, "at least 2 examples; got 0"),
        ((margins[:, :19], keep), MarginError, "same models and examples"),
        ((margins[0], keep), MarginError, "`margins` must be"),
        ((np.where(margins > 2, np.inf, margins), keep), MarginError, "must be finite"),
    ):
        with pytest.raises(error, match=message):
            ulira(*bad)
    for bad, error, message in (
        ({"variance": "fixed"}, UnknownNameError, "unknown variance `fixed`"),
        ({"centre": "mode"}, UnknownNameError, "unknown centre"),
        ({"redraws": 1}, InputError, "0 or at least 2"),
        ({"seed": -1}, InputError, "must not be negative"),
        ({"fprs": [0.0]}, MarginError, r"in \(0, 1\)"),
        ({"strata": [1, 2]}, PairError, r"`strata` must be `\(20,\)` integers"),
        ({"seeds": [1] * 8}, PairError, "must all differ; got 1 8 times"),
        ({"seeds": [1, 2]}, PairError, "a seed for each of 8 models; got 2"),
    ):
        with pytest.raises(error, match=message):
            ulira(margins, keep, **bad)
    ulira(margins, keep, seeds=range(8), redraws=0)


def test_bad_references_of_efficacy_are_refused():
    keep = design(8, 20)
    margins, retrained = noise(keep, 22), noise(keep, 23)
    with pytest.raises(PairError, match="from 6 to 8; got 4"):
        efficacy(margins, retrained[:4], keep)
    with pytest.raises(PairError, match="from 6 to 8; got 7"):
        efficacy(margins, retrained[:7], keep)
    with pytest.raises(MarginError, match="as many views; got 1 and 2"):
        efficacy(margins, np.stack([retrained] * 2, axis=1), keep)
    with pytest.raises(PairError, match="must all differ; got 7 2 times"):
        efficacy(margins, retrained, keep, seeds=(range(8), range(7, 15)))
    efficacy(margins, retrained, keep, seeds=(range(8), range(8, 16)), redraws=0)


def test_results_of_other_examples_are_not_compared():
    keep = design(8, 20)
    margins = noise(keep, 24)
    a, b, c = (ulira(margins, keep, ids, redraws=0) for ids in ([0, 1], [1, 2], [1, 2, 3]))
    with pytest.raises(PairError, match="ids differ"):
        compare(a, b)
    with pytest.raises(PairError, match=r"got \(4, 2\) and \(4, 3\)"):
        a.share_above(c)
