"""Steps until the forget set is known again, against a loop of a few lines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.evaluate import logits
from unlearnbench.bench.probes import RELEARN_STEPS
from unlearnbench.bench.recipe import TrainingSettings
from unlearnbench.bench.relearning import (
    measured_steps,
    orderings,
    relearn_steps,
    relearning_rate,
)

from .toys import CPU, same_tensors, toy_data, trained


def some(ids):
    pixels = Pixels(toy_data().images, "train", CPU, ids)
    return ExampleSet("forget", pixels, ids, 7, torch.Generator(), {})


@pytest.fixture(scope="module")
def forget():
    data = toy_data()
    ids = data.split.training[data.images.train_labels[data.split.training] == 0]
    return some(ids)


def everything():
    return some(toy_data().split.training)


def blank(bias=0.0):
    """A trained network whose head knows nothing, and leans away from class 0."""
    model = trained()
    with torch.no_grad():
        model.fc.weight.mul_(0.01)
        model.fc.bias.zero_()
        model.fc.bias[0] = bias
    return model


def steps(model, forget, *, acc=1.0, lr=0.05, judged=None, seed=0):
    return relearn_steps(
        model, forget, judged or forget, original_acc=acc, lr=lr, generators=orderings(seed)
    )


def test_a_model_that_knows_the_set_needs_no_step(forget):
    assert steps(trained(), forget) == [0] * 5


def test_steps_are_those_of_a_loop_written_out(forget):
    found = steps(blank(-2.0), forget)
    assert 0 < min(found) <= max(found) < RELEARN_STEPS
    (batch,) = forget.batches(1000)
    expected = []
    for generator in orderings(0):
        model = blank(-2.0)
        momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        count = 0
        while True:
            order = torch.randperm(27, generator=generator)  # one batch of all 27
            loss = nn.functional.cross_entropy(model(batch.images[order]), batch.labels[order])
            model.zero_grad()
            loss.backward()
            norm = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
            with torch.no_grad():
                for name, p in model.named_parameters():
                    g = p.grad * min(1.0, 1.0 / float(norm + 1e-6))
                    momentum[name] = 0.9 * momentum[name] + g
                    p -= 0.05 * (g + 0.9 * momentum[name])  # Nesterov
                right = (model(batch.images).argmax(1) == 0).double().mean()
            count += 1
            if count in measured_steps() and right >= 0.95:
                break
        expected.append(count)
    assert found == expected


def test_the_goal_is_95_percent_of_what_the_original_knows(forget):
    model = trained()
    known = float((logits(model, all_ := everything()).argmax(1) == all_.labels).double().mean())
    assert 0.5 < known <= 1
    for goal, expected in ((known / 0.95 - 1e-6, 0), (known / 0.95 + 1e-3, None)):
        found = relearn_steps(
            model, all_, all_, original_acc=goal, lr=1e-9, generators=orderings(0)[:1]
        )
        assert found == [expected]


def test_the_same_orderings_give_the_same_steps_and_the_model_stays(forget):
    model = blank(-2.0)
    model.train()
    state = torch.get_rng_state()
    first = steps(model, forget, lr=0.01)
    assert first == steps(model, forget, lr=0.01)
    assert same_tensors(model, blank(-2.0))
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_orderings_differ_and_are_shared():
    drawn = [torch.randperm(20, generator=g).tolist() for g in orderings(5)]
    assert len({tuple(order) for order in drawn}) == 5
    assert drawn == [torch.randperm(20, generator=g).tolist() for g in orderings(5)]


def test_what_cannot_be_relearned_is_given_up_and_not_overcome_by_growing_weights(forget):
    model = trained()
    with torch.no_grad():
        model.fc.weight[0] = 0
        model.fc.bias[0] = -1e9  # a masked head
    assert steps(model, forget) == [None] * 5


def test_training_that_diverges_is_given_up(forget):
    model = trained()
    with torch.no_grad():
        model.fc.weight[0] = float("inf")
    assert steps(model, forget) == [None] * 5


def test_accuracy_is_measured_on_the_examples_named(forget):
    ids = np.flatnonzero(toy_data().images.train_labels == 1)[:5]
    model = blank()
    with torch.no_grad():
        model.fc.bias[3] = 5.0
    generators = orderings(0)[:1]
    found = relearn_steps(
        model, forget, some(ids), original_acc=1.0, lr=0.05, generators=generators
    )
    assert found == [None]  # learning class 0 never brings class 1 to be known
    assert steps(trained(), forget, judged=some(ids)) == [0] * 5


def test_accuracy_is_measured_after_every_early_step_and_at_the_limit():
    found = measured_steps()
    assert found[:16] == list(range(1, 17))
    assert found[-1] == RELEARN_STEPS
    assert found == sorted(set(found))
    assert max(b / a for a, b in pairwise(found[16:])) < 1.1
    assert measured_steps(3) == [1, 2, 3]


def test_the_step_size_is_derived_from_the_recipe():
    assert relearning_rate(TrainingSettings(lr=0.2)) == pytest.approx(0.02)
    assert relearning_rate(TrainingSettings(lr=3e-3, optimizer="adamw")) == 0.01
