"""Metrics against scikit-learn, by hand, and against published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score
from torch import nn

from unlearnbench.bench import ImageData
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.evaluate import outputs_on
from unlearnbench.bench.metrics.accuracy import accuracy_splits
from unlearnbench.bench.metrics.gap import gaps, tug_of_war

from .toys import CPU

fractions = st.floats(0, 1)
accuracies = st.fixed_dictionaries(
    {name: fractions for name in ("forget_acc", "retain_acc", "test_acc")}
)


class Lookup(nn.Module):
    """Answers by a table: an image's only pixel is the row."""

    def __init__(self, answers):
        super().__init__()
        self.answers = torch.as_tensor(answers)

    def forward(self, images):
        rows = (images[:, 0, 0, 0] * 255).round().long()
        return nn.functional.one_hot(self.answers[rows], 4).float()


def laid_out(train_labels, test_labels, forget, validation=()):
    """Data whose training rows are 0, 1, … and test rows 100, 101, …; and its sets."""
    train, test = (np.asarray(labels, dtype=np.int64) for labels in (train_labels, test_labels))
    pixels = [np.arange(len(v), dtype=np.uint8) + o for v, o in ((train, 0), (test, 100))]
    images = [p[:, None, None, None] for p in pixels]
    data = ImageData(images[0], train, images[1], test, ("a", "b", "c", "d"), (0.0,), (1.0,))
    members = {"forget": list(forget), "validation": list(validation)}
    members["retain"] = sorted(set(range(len(train))) - set(forget) - set(validation))
    rng = torch.Generator()
    on_train = Pixels(data, "train", CPU)
    sets = {
        role: ExampleSet(role, on_train, np.array(ids, dtype=np.int64), 1, rng, {})
        for role, ids in members.items()
    }
    everything = np.arange(len(test))
    sets["test"] = ExampleSet("test", Pixels(data, "test", CPU), everything, 1, rng, {})
    return sets


def answering(train, test):
    """A model with these answers for training and test rows."""
    table = np.zeros(256, dtype=np.int64)
    table[: len(train)] = train
    table[100 : 100 + len(test)] = test
    return Lookup(table)


def measured(model, sets, classes):
    return accuracy_splits(outputs_on(model, sets), classes)


# --- accuracy splits ------------------------------------------------------------------------------


def test_accuracies_by_hand():
    sets = laid_out([0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 2, 3], forget=[0, 1], validation=[2])
    model = answering([0, 3, 0, 1, 2, 2, 3, 0], [0, 1, 1, 2, 0])
    assert measured(model, sets, (0,)) == {
        "forget_acc": 0.5,  # rows 0, 1
        "retain_acc": 0.8,  # rows 3 to 7
        "val_acc": 0.0,  # row 2
        "test_acc": 0.6,
        "test_forget_acc": 0.5,  # the two of class 0
        "test_retain_acc": pytest.approx(2 / 3),
    }


def test_accuracies_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 4, 90), rng.integers(0, 4, 70)
    told = [
        np.where(rng.random(len(v)) < 0.6, v, rng.integers(0, 4, len(v))) for v in (train, test)
    ]
    forget, validation = np.flatnonzero(train == 1)[3:], np.flatnonzero(train == 1)[:3]
    validation = np.concatenate([validation, np.flatnonzero(train == 2)[:4]])
    sets = laid_out(train, test, forget, validation)
    metrics = measured(answering(*told), sets, (1, 3))
    kept = np.setdiff1d(np.arange(90), np.concatenate([forget, validation]))
    for name, rows in (("forget_acc", forget), ("retain_acc", kept), ("val_acc", validation)):
        assert metrics[name] == pytest.approx(accuracy_score(train[rows], told[0][rows]))
    inside = np.isin(test, [1, 3])
    for name, rows in (("test_acc", inside | True), ("test_forget_acc", inside),
                       ("test_retain_acc", ~inside)):  # fmt: skip
        assert metrics[name] == pytest.approx(accuracy_score(test[rows], told[1][rows]))


def test_a_sample_request_has_no_class_parts_and_no_validation_set_no_accuracy():
    sets = laid_out([0, 1, 2], [0, 1], forget=[1])
    metrics = measured(answering([0, 1, 2], [0, 0]), sets, ())
    assert metrics == {"retain_acc": 1.0, "forget_acc": 1.0, "test_acc": 0.5}


def test_a_class_without_test_images_has_no_test_accuracy():
    sets = laid_out([0, 1], [1, 1], forget=[0])
    metrics = measured(answering([0, 1], [1, 0]), sets, (0,))
    assert "test_forget_acc" not in metrics
    assert metrics["test_retain_acc"] == 0.5


def test_many_images_are_measured_to_the_last():
    labels = np.arange(100) % 4
    sets = laid_out(labels, labels, forget=[0])
    sets["retain"] = sets["retain"].subset(torch.arange(99).repeat(20))  # several batches
    told = labels.copy()
    told[99] = (told[99] + 1) % 4
    metrics = measured(answering(told, labels), sets, ())
    assert metrics["retain_acc"] == pytest.approx(98 / 99)


# --- distance to the retrained model --------------------------------------------------------------


def test_tug_of_war_golden_value():
    unlearned = {"forget_acc": 0.98, "retain_acc": 0.999, "test_acc": 0.93}
    retrained = {"forget_acc": 0.94, "retain_acc": 1.0, "test_acc": 0.942}
    assert tug_of_war(unlearned, retrained) == pytest.approx(0.947532, abs=5e-7)
    assert tug_of_war(retrained, unlearned) == tug_of_war(unlearned, retrained)


@pytest.mark.parametrize("name", ["forget_acc", "retain_acc", "test_acc"])
def test_tug_of_war_is_lost_by_being_wholly_wrong_once(name):
    right = {"forget_acc": 1.0, "retain_acc": 1.0, "test_acc": 1.0}
    assert tug_of_war(right | {name: 0.0}, right) == 0
    assert tug_of_war(right, right) == 1
    assert tug_of_war(right | {"val_acc": 0.0, "test_forget_acc": 0.0}, right) == 1


@given(accuracies, accuracies)
def test_tug_of_war_is_a_fraction_and_never_above_its_smallest_part(a, b):
    value = tug_of_war(a, b)
    assert 0 <= value <= min(1 - abs(a[name] - b[name]) for name in a) <= 1


@given(accuracies, accuracies)
def test_a_gap_is_symmetric_a_fraction_and_zero_only_for_equals(a, b):
    found = gaps(a, b)
    assert found == gaps(b, a)
    assert found.keys() == {f"gap_{name}" for name in a}
    for name in a:
        assert 0 <= found[f"gap_{name}"] <= 1
        assert (found[f"gap_{name}"] == 0) == (a[name] == b[name])


def test_gaps_are_given_for_the_accuracies_that_both_have():
    mine = {"retain_acc": 0.75, "val_acc": 0.5, "tow": 0.3, "gap_retain_acc": 0.1}
    theirs = {"retain_acc": 1.0, "test_acc": 0.5, "tow": 0.9, "gap_retain_acc": 0.4}
    assert gaps(mine, theirs) == {"gap_retain_acc": 0.25}
