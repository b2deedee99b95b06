"""Population attacks: golden values, independent references, and what each of them counts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import special, stats

from unlearnbench.bench.metrics.margin import MarginError, logit_margin
from unlearnbench.bench.metrics.pairs import pair_design
from unlearnbench.bench.metrics.population import (
    SIGNALS,
    confidence,
    cross_entropy,
    entropy,
    margin_auc,
    mia_challenge_accuracy,
    mia_entropy_member_rate,
    mia_svc_efficacy,
    mod_entropy_songmittal,
    threshold_accuracy,
)
from unlearnbench.bench.metrics.rmia import rmia


def test_modified_entropy_has_its_golden_values():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    found = mod_entropy_songmittal(np.log(p), [0, 1])
    assert found == pytest.approx([0.162167, 3.370413], abs=5e-7)


def test_signals_agree_with_plain_probabilities():
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(40, 6)), rng.integers(0, 6, 40)
    p = special.softmax(logits, axis=1)
    true = p[np.arange(40), labels]
    other = np.where(np.arange(6) == labels[:, None], 0, -p * np.log1p(-p)).sum(1)
    np.testing.assert_allclose(confidence(logits, labels), true, rtol=1e-12)
    np.testing.assert_allclose(cross_entropy(logits, labels), -np.log(true), rtol=1e-10)
    np.testing.assert_allclose(entropy(logits), stats.entropy(p, axis=1), rtol=1e-10)
    np.testing.assert_allclose(
        mod_entropy_songmittal(logits, labels), -(1 - true) * np.log(true) + other, rtol=1e-10
    )


def test_signals_are_finite_where_a_softmax_saturates():
    logits = np.array([[900.0, 0.0, -900.0]] * 3)
    assert cross_entropy(logits, [0, 1, 2]) == pytest.approx([0, 900, 1800])
    assert entropy(logits) == pytest.approx([0, 0, 0])
    assert mod_entropy_songmittal(logits, [0, 1, 2]) == pytest.approx([0, 1800, 2700])


def test_signals_are_high_for_members():
    sure, unsure = np.array([[9.0, 0.0, 0.0]]), np.array([[1.0, 0.5, 0.0]])
    for name, signal in SIGNALS.items():
        assert signal(sure, [0])[0] > signal(unsure, [0])[0], name


def simulated(d, n_models=8, examples=1_000, classes=1):
    labels = np.arange(examples) % classes
    keep = pair_design(labels, n_models // 2).keep
    return np.random.default_rng(1).normal(size=keep.shape) + d * keep, keep, labels


@pytest.mark.parametrize("d", [0, 1])
def test_margin_auc_has_its_closed_form(d):
    margins, keep, _ = simulated(d, n_models=20)
    assert margin_auc(margins, keep) == pytest.approx(stats.norm.cdf(d / np.sqrt(2)), abs=0.01)


def test_margin_auc_is_blind_to_what_varies_between_examples():
    """The weak attacker: levels of examples drown what a per-example attack sees."""
    margins, keep, _ = simulated(1)
    levels = 5 * np.random.default_rng(2).normal(size=1_000)
    assert margin_auc(margins + levels, keep) < 0.6 < margin_auc(margins, keep)


@pytest.mark.parametrize(("d", "acc"), [(0, 0.5), (1, 0.691462), (2, 0.841345)])
def test_a_threshold_reaches_its_closed_form(d, acc):
    """8,000 calls: standard error 0.0056; the threshold's own error costs less."""
    margins, keep, _ = simulated(d)
    assert threshold_accuracy(margins, keep) == pytest.approx(acc, abs=0.017)


def test_thresholds_may_differ_between_classes():
    margins, keep, labels = simulated(2, classes=2)
    shifted = margins + 10 * labels
    assert threshold_accuracy(shifted, keep) < 0.75
    assert threshold_accuracy(shifted, keep, classes=labels) == pytest.approx(0.841, abs=0.02)


def test_a_threshold_is_one_sided():
    margins, keep, _ = simulated(-3)
    assert threshold_accuracy(margins, keep) == pytest.approx(0.5, abs=0.02)
    assert threshold_accuracy(np.zeros_like(margins), keep) == 0.5


def test_a_threshold_does_not_see_the_pair_it_is_used_on():
    """By brute force over all thresholds of the other pairs."""
    margins, keep, _ = simulated(1, n_models=6, examples=12)
    margins = margins.round(1)
    right = 0
    for pair in range(3):
        mine = np.isin(np.arange(6) // 2, pair)
        grid = np.sort(np.r_[margins[~mine].ravel(), np.inf])[::-1]
        hits = [((margins[~mine] >= t) == keep[~mine]).sum() for t in grid]
        threshold = grid[int(np.argmax(hits))]
        right += ((margins[mine] >= threshold) == keep[mine]).sum()
    assert threshold_accuracy(margins, keep) == pytest.approx(right / margins.size)


def test_svc_efficacy_counts_those_called_non_members():
    rng = np.random.default_rng(3)
    retain, test = 1 - 0.05 * rng.random(500), 0.6 * rng.random(200)
    assert mia_svc_efficacy(retain, test, retain[:50]) == 0
    assert mia_svc_efficacy(retain, test, test[:50]) == 1
    assert mia_svc_efficacy(retain, test, np.r_[retain[:30], test[:10]]) == 0.25
    # as many of the retain set as there are test examples, from its beginning
    tail = np.r_[retain[:200], np.zeros(300)]
    assert mia_svc_efficacy(tail, test, retain[:50]) == 0
    features = np.column_stack([retain, retain])
    assert mia_svc_efficacy(features, np.column_stack([test, test]), features[:9]) == 0


def test_entropy_member_rate_counts_those_called_members():
    rng = np.random.default_rng(4)
    retain, test = 0.1 * rng.random(900), 1 + rng.random(100)
    assert mia_entropy_member_rate(retain, test, np.r_[retain[:30], test[:10]]) == 0.75


def test_challenge_accuracy_is_half_without_a_difference_and_one_with():
    rng = np.random.default_rng(5)
    forget, test = rng.exponential(size=400), rng.exponential(size=900)
    # ten test sets of 80, largely of different examples: standard error about 0.03
    assert mia_challenge_accuracy(forget, test) == pytest.approx(0.5, abs=0.09)
    assert mia_challenge_accuracy(forget + 20, test) == 1
    assert mia_challenge_accuracy(forget, test, 3) == mia_challenge_accuracy(forget, test, 3)


def test_bad_features_are_refused():
    with pytest.raises(MarginError, match="`forget` must be finite"):
        mia_svc_efficacy([0.1, 0.2], [0.3, 0.4], [np.nan])
    with pytest.raises(MarginError, match="`test` must be"):
        mia_challenge_accuracy([0.1], [])


# --- RMIA ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_models", [4, 8])
def test_rmia_finds_nothing_where_nothing_is_and_something_where_something_is(n_models):
    margins, keep, _ = simulated(1.5, n_models, 600)
    margins += 2 * np.random.default_rng(6).normal(size=600)
    never = np.random.default_rng(7).normal(size=(n_models, 300))
    found = rmia(margins, keep, never)
    assert found.auc > 0.7
    nothing = rmia(margins - 1.5 * keep, keep, never)
    assert nothing.auc == pytest.approx(0.5, abs=3 * nothing.auc_se)
    assert found.in_scores.shape == (n_models // 2, 600)
    assert len(np.unique(found.in_scores)) == found.in_scores.size  # ties are broken


def test_rmia_is_the_share_of_the_population_that_is_beaten():
    margins, keep, _ = simulated(1, 4, 5)
    never = np.random.default_rng(8).normal(size=(4, 7))
    found = rmia(margins, keep, never, gamma=1.5)
    p, z = special.expit(margins), special.expit(never)
    for model in range(4):
        others = [m for m in range(4) if m // 2 != model // 2]
        ratio, ratios = p[model] / p[others].mean(0), z[model] / z[others].mean(0)
        share = (ratio[:, None] / ratios >= 1.5).mean(1)
        scores = np.where(keep[model], found.in_scores, found.out_scores)[model // 2]
        np.testing.assert_array_equal(np.floor(scores * 7 + 1e-9), np.round(share * 7))


def test_rmia_refuses_bad_populations():
    margins, keep, _ = simulated(1, 4, 5)
    with pytest.raises(MarginError, match=r"`population` must be `\(4, Z\)`"):
        rmia(margins, keep, np.zeros((3, 7)))
    with pytest.raises(MarginError, match="`population` must be finite"):
        rmia(margins, keep, np.full((4, 7), np.nan))
    with pytest.raises(MarginError, match="`gamma` must be positive"):
        rmia(margins, keep, np.zeros((4, 7)), gamma=0)


# --- imports ------------------------------------------------------------------------------------


def test_metrics_on_arrays_load_neither_torch_nor_mlflow_nor_sklearn():
    names = ("ulira", "population", "rmia", "klom", "forgetting_score", "clustering")
    code = "; ".join(f"import unlearnbench.bench.metrics.{name}" for name in names)
    code += "; import sys; print({'torch', 'mlflow', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_margins_of_logits_are_the_strongest_signal_of_one_model():
    """Loss, confidence and margin rank alike: they are one signal."""
    rng = np.random.default_rng(9)
    logits, labels = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    order = np.argsort(logit_margin(logits, labels))
    for name in ("confidence", "loss"):
        np.testing.assert_array_equal(np.argsort(SIGNALS[name](logits, labels)), order)
