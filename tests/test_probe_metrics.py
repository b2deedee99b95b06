"""New heads, class centres and relearn times on arrays, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import special_ortho_group
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from unlearnbench.bench import InputError
from unlearnbench.bench.metrics.probe import RIDGE, Sample, centre_hits, ridge_hits
from unlearnbench.bench.metrics.relearn import RelearnTime, anamnesis_index, relearn_time

METRICS = pytest.mark.parametrize("metric", [ridge_hits, centre_hits])


def clouds(n=60, p=5, classes=4, spread=1.0, seed=0, *, uneven=False):
    """Examples around the centres of their classes: a sample and others."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, classes + 1) if uneven else np.ones(classes)
    centres = rng.normal(size=(classes, p)) * 2 + 3

    def draw(count, labels):
        return centres[labels] + spread * rng.normal(size=(count, p)), labels

    drawn = rng.choice(classes, size=n, p=share / share.sum())
    drawn[:classes] = np.arange(classes)
    return Sample(*draw(n, drawn)), *draw(200, rng.integers(classes, size=200))


@pytest.mark.parametrize("p", [5, 100], ids=["few features", "more features than examples"])
@pytest.mark.parametrize("uneven", [False, True])
def test_the_new_head_is_scikit_learn_s_ridge_on_scaled_features(p, uneven):
    sample, z, y = clouds(p=p, spread=2 if p < 60 else 7, uneven=uneven)
    x, labels = map(np.asarray, sample)
    counts = np.bincount(labels)
    weight = len(x) / (len(counts) * counts[labels])
    mean = np.average(x, axis=0, weights=weight)
    scale = np.sqrt(np.average(((x - mean) ** 2).mean(1), weights=weight))
    ridge = Ridge(alpha=RIDGE * len(x))
    ridge.fit((x - mean) / scale, np.eye(4)[labels], sample_weight=weight)
    expected = ridge.predict((z - mean) / scale).argmax(1) == y
    assert ridge_hits(sample, z, y).tolist() == expected.tolist()
    assert 0.5 < expected.mean() < 0.99


def test_the_nearest_centre_is_scikit_learn_s():
    sample, z, y = clouds(spread=3, uneven=True)
    expected = NearestCentroid().fit(*sample).predict(z) == y
    assert centre_hits(sample, z, y).tolist() == expected.tolist()
    assert 0.4 < expected.mean() < 0.95


@METRICS
@pytest.mark.parametrize("p", [6, 90])
def test_rotation_shift_and_scale_of_the_features_change_nothing(metric, p):
    sample, z, y = clouds(p=p, spread=3)
    turn = special_ortho_group.rvs(p, random_state=1)
    moved = Sample(7 * np.asarray(sample.features) @ turn - 40, sample.labels)
    assert metric(moved, 7 * z @ turn - 40, y).tolist() == metric(sample, z, y).tolist()


@METRICS
@pytest.mark.parametrize("value", [0.0, 3.7, -1e6])
def test_features_that_are_all_equal_score_what_a_blind_choice_would(metric, value):
    """Of float32, whose rounding must not be blown up; class 0 gains nothing from coming first."""
    rng = np.random.default_rng(0)
    labels = np.array([0] * 30 + [1] * 5 + [2] * 5)
    noise = 1e-8 * rng.normal(size=(40, 6))
    sample = Sample(np.float32(value * (1 + noise)), labels)
    hits = metric(sample, np.full((9, 6), np.float32(value)), np.repeat([0, 1, 2], 3))
    assert hits == pytest.approx(1 / 3)


@METRICS
def test_examples_of_a_class_that_the_sample_lacks_are_never_right(metric):
    sample, z, _ = clouds()
    assert metric(sample, z, np.full(len(z), 9)).sum() == 0


@METRICS
def test_classes_that_look_the_same_share_their_hits(metric):
    """A method that lays one class upon another leaves a coin to throw between the two."""
    x = np.array([[0.0, 0], [0, 0], [5, 1], [5, 1]])
    hits = metric(Sample(x, [0, 1, 2, 2]), [[0.0, 0], [5, 1]], [0, 2])
    assert hits.tolist() == [0.5, 1.0]


def test_a_large_class_has_no_advantage():
    """Weighted alike, the boundary between two clouds is half-way, however many lie in each."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-1, 0.5, 900), rng.normal(1, 0.5, 30)])[:, None]
    labels = np.repeat([0, 1], [900, 30])
    z = np.array([[-0.3], [0.3]])
    assert ridge_hits(Sample(x, labels), z, [0, 1]).tolist() == [1, 1]


@METRICS
def test_tensors_and_lists_do_and_are_left_as_they_are(metric):
    sample, z, y = clouds()
    expected = metric(sample, z, y)
    tensors = [torch.tensor(a) for a in (*sample, z, y)]
    before = [t.clone() for t in tensors]
    assert metric(Sample(*tensors[:2]), *tensors[2:]).tolist() == expected.tolist()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


@METRICS
@pytest.mark.parametrize(
    ("sample", "features", "labels", "sentence"),
    [
        (([[1.0]], [0]), [[1.0, 2.0]], [0], r"got shapes \(1, 1\) and \(1, 2\)"),
        (([[1.0]], [0, 1]), [[1.0]], [0], "labels of the sample must be 1 integers"),
        (([[1.0]], [0]), [[1.0]], [0.5], "labels of the examples must be 1 integers"),
        (([[np.nan]], [0]), [[1.0]], [0], "`features of the sample` must be finite"),
        (([[1.0]], [0]), [[np.inf]], [0], "`features` must be finite"),
        ((np.zeros((0, 2)), []), [[1.0, 2.0]], [0], "n and p at least 1"),
    ],
)
def test_what_no_probe_can_be_made_of_is_refused(metric, sample, features, labels, sentence):
    with pytest.raises(InputError, match=sentence) as refused:
        metric(Sample(*sample), features, labels)
    assert len(refused.value.sentences) == 1


# --- relearning ---------------------------------------------------------------------------------


def test_relearn_time_is_the_median_and_the_limit_where_half_did_not_get_there():
    assert relearn_time([5, 1, 3], 9) == (3, 0)
    assert relearn_time([5, None, 3, None, 1], 9) == (5, pytest.approx(0.4))
    assert not relearn_time([5, None, 3, None, 1], 9).is_bound
    late = relearn_time([5, None, None, None, 1], 9)
    assert late == (9, pytest.approx(0.6))
    assert late.is_bound
    assert relearn_time([0], 9) == (0, 0)


@pytest.mark.parametrize("steps", [[], [-1], [10]])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(InputError, match="numbers from 0 to 9 or None"):
        relearn_time(steps, 9)


def test_the_anamnesis_index_is_a_ratio_that_is_not_defined_without_a_reference():
    of = RelearnTime
    assert anamnesis_index(of(10, 0), of(20, 0.2)) == 0.5
    assert anamnesis_index(of(20, 0), of(20, 0)) == 1
    assert anamnesis_index(of(0, 0), of(20, 0)) == 0
    assert anamnesis_index(of(200, 1), of(20, 0)) == 10  # at least
    assert anamnesis_index(of(5, 0), of(0, 0)) is None
    assert anamnesis_index(of(5, 0), of(200, 0.6)) is None
