"""Attacks on one model: known answers, and the class mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unlearnbench.bench.evaluate import Outputs
from unlearnbench.bench.metrics.single_model import single_model_attacks


def outputs(labels, margin, classes=4):
    """Logits whose true class leads by a margin for each example."""
    labels = np.asarray(labels)
    logits = np.zeros((len(labels), classes))
    logits[np.arange(len(labels)), labels] = margin
    return Outputs(torch.tensor(logits, dtype=torch.float32), torch.tensor(labels))


def draw(rng, size, mean, labels):
    return outputs(labels, rng.normal(mean, 0.5, size))


def test_a_forget_set_like_the_test_set_is_called_non_member_and_one_like_the_retain_set_member():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    retain, test = draw(rng, 200, 9, labels), draw(rng, 200, 1, labels)
    forgotten = single_model_attacks(
        {"retain": retain, "test": test, "forget": draw(rng, 200, 1, labels)}, ()
    )
    assert forgotten["mia_svc_efficacy"] > 0.95
    assert forgotten["mia_entropy_member_rate"] < 0.05
    assert forgotten["mia_challenge_accuracy"] == pytest.approx(0.5, abs=0.12)
    remembered = single_model_attacks(
        {"retain": retain, "test": test, "forget": draw(rng, 200, 9, labels)}, ()
    )
    assert remembered["mia_svc_efficacy"] < 0.05
    assert remembered["mia_entropy_member_rate"] > 0.95
    assert remembered["mia_challenge_accuracy"] > 0.95


def test_a_forgotten_class_is_compared_with_test_images_of_its_own():
    """Class 0 is hard for all: test images of it look like its forget set, others do not."""
    rng = np.random.default_rng(1)
    kept, own = 1 + np.arange(150) % 3, np.zeros(60, dtype=int)
    test = Outputs(
        *(torch.cat(pair) for pair in zip(draw(rng, 150, 5, kept), draw(rng, 60, -3, own),
                                          strict=True))
    )  # fmt: skip
    sets = {"retain": draw(rng, 150, 5, kept), "test": test, "forget": draw(rng, 60, -3, own)}
    assert single_model_attacks(sets, (0,))["mia_challenge_accuracy"] == pytest.approx(0.5, abs=0.2)
    # with all test images beside it the attack tells classes apart instead
    assert single_model_attacks(sets, ())["mia_challenge_accuracy"] > 0.75


def test_too_few_examples_give_no_figure():
    few = outputs(np.arange(8) % 4, np.ones(8))
    assert single_model_attacks({"retain": few, "test": few, "forget": few}, ()) == {}
