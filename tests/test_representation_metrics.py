"""CKA, divergences and AUS against known values (T13, T15 of the evaluation specification)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import special_ortho_group

from unlearnbench.bench import InputError
from unlearnbench.bench.metrics.cka import cka
from unlearnbench.bench.metrics.divergence import (
    adaptive_unlearning_score,
    js_divergence,
    zero_retrain_forgetting,
)

P = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]
Q = [[0.6, 0.3, 0.1], [0.3, 0.3, 0.4]]


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_does_not_see_rotation_scale_and_shift(unbiased):
    x = np.random.default_rng(0).normal(size=(60, 8))
    turned = 3 * x @ special_ortho_group.rvs(8, random_state=1) - 2
    assert cka(x, x, unbiased=unbiased) == pytest.approx(1)
    assert cka(x, turned, unbiased=unbiased) == pytest.approx(1)


def test_independent_features_score_nothing_unless_the_estimate_is_biased():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(200, 512)), rng.normal(size=(200, 512))) for _ in range(5)]
    assert np.mean([cka(*pair) for pair in pairs]) == pytest.approx(0, abs=0.01)
    assert np.mean([cka(*pair, unbiased=False) for pair in pairs]) == pytest.approx(0.72, abs=0.01)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.ones((5, 2)), np.eye(5)),
        (np.eye(3), np.eye(3)),
        (np.eye(5), np.eye(6)),
        (np.full((5, 2), np.nan), np.eye(5)),
    ],
)
def test_bad_representations_are_refused(x, y):
    with pytest.raises(InputError):
        cka(x, y)


def test_divergence_has_its_golden_value_and_is_the_library_s():
    assert js_divergence(P, Q) == pytest.approx(0.046632, abs=5e-7)
    expected = np.mean([jensenshannon(p, q) ** 2 for p, q in zip(P, Q, strict=True)])
    assert js_divergence(P, Q) == pytest.approx(expected)
    assert js_divergence([[1, 0]], [[0, 1]]) == pytest.approx(np.log(2))
    assert zero_retrain_forgetting(P, P) == 1
    # the common code divides by the classes too: 0.016650 for these
    assert js_divergence(P, Q) != pytest.approx(0.016650, abs=1e-4)


@pytest.mark.parametrize("bad", [[[0.5, 0.6]], [[-0.1, 1.1]], [[np.nan, 1]], [0.5, 0.5]])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(InputError):
        js_divergence(bad, bad)


def test_the_adaptive_unlearning_score_has_its_golden_values():
    assert adaptive_unlearning_score(0.94, 0.93, 0.96) == pytest.approx(0.961165, abs=5e-7)
    score = adaptive_unlearning_score(0.94, 0.93, 0.02, whole_classes=True)
    assert score == pytest.approx(0.970588, abs=5e-7)
