"""What a method is handed: tools, defaults, and random numbers that leave no trace."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from unlearnbench.bench import UndeclaredNeedError, Unlearner
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.errors import DivergedError
from unlearnbench.bench.evaluate import accuracy, logits
from unlearnbench.bench.recipe import TrainingSettings
from unlearnbench.bench.task import quiet_randomness

from .toys import CPU, fresh, same_tensors, toy_images, toy_task, trained


class Open(Unlearner):
    """Declares every set."""

    name = "open"
    reference = "test"
    needs = frozenset({"forget", "retain", "validation", "training", "gradients"})

    def unlearn(self, model, task):
        return model


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws():
    return float(torch.rand(())), float(np.random.rand()), random.random()


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


# --- randomness -----------------------------------------------------------------------------------


def test_global_random_state_is_restored_even_when_the_body_raises():
    before = states()

    def fail():
        with quiet_randomness(generator(), CPU):
            raise ZeroDivisionError(draws())

    with pytest.raises(ZeroDivisionError):
        fail()
    assert states() == before
    with quiet_randomness(generator(), CPU):
        draws()
    assert states() == before


def test_inside_the_seed_decides_what_library_code_draws():
    def inside(seed, outside):
        torch.manual_seed(outside)
        np.random.seed(outside)
        random.seed(outside)
        with quiet_randomness(generator(seed), CPU):
            return draws()

    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        assert inside(1, 10) == inside(1, 20)
        for a, b in zip(inside(1, 10), inside(2, 10), strict=True):
            assert a != b
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])


def test_two_uses_of_one_generator_draw_different_numbers():
    rng = generator()
    drawn = []
    for _ in range(2):
        with quiet_randomness(rng, CPU):
            drawn.append(draws())
    assert drawn[0] != drawn[1]


def test_a_fresh_model_differs_from_call_to_call_and_comes_again_with_the_seed():
    task, again = toy_task(Open(), seed=5), toy_task(Open(), seed=5)
    first, second = task.fresh_model(), task.fresh_model()
    assert not same_tensors(first, second)
    assert same_tensors(first, again.fresh_model())
    assert same_tensors(second, again.fresh_model())
    assert not first.training
    assert first.state_dict().keys() == trained().state_dict().keys()


# --- tools ----------------------------------------------------------------------------------------


def test_what_a_method_reports_is_kept_and_the_last_word_counts():
    task = toy_task(Open())
    task.report(alpha=3.0, steps=2)
    task.report(steps=4)
    assert task.reported == {"alpha": 3.0, "steps": 4}


def test_an_optimizer_takes_from_the_recipe_what_is_not_given():
    settings = TrainingSettings(optimizer="sgd", momentum=0.7, weight_decay=0.02, batch_size=32)
    task = toy_task(Open(), settings=settings)
    model = fresh()
    default = task.optimizer(model, lr=0.3).param_groups[0]
    assert (default["lr"], default["momentum"], default["weight_decay"]) == (0.3, 0.7, 0.02)
    given = task.optimizer(model, lr=0.3, momentum=0.0, weight_decay=0.0).param_groups[0]
    assert (given["momentum"], given["weight_decay"]) == (0.0, 0.0)
    assert isinstance(task.optimizer(model, lr=0.3, name="adamw"), torch.optim.AdamW)


def test_fit_minimises_the_smoothed_loss_of_the_recipe_without_its_penalty():
    settings = TrainingSettings(label_smoothing=0.3, batch_size=200)
    task = toy_task(Open(), settings=settings)
    model = trained()
    batch = next(task.retain.batches(200))
    expected = nn.functional.cross_entropy(trained()(batch.images), batch.labels,
                                           label_smoothing=0.3)  # fmt: skip
    optimizer = task.optimizer(model, lr=1e-9)
    assert task.fit(model, task.retain, optimizer, batch_norm="eval") == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_sets_have_the_sizes_that_the_facts_tell():
    task = toy_task(Open())
    assert len(task.forget) == task.forget_size == 27
    assert len(task.retain) == task.retain_size == 81
    assert len(task.validation) == task.validation_size == 12
    assert not set(task.forget.ids.tolist()) & set(task.retain.ids.tolist())
    assert task.forget.labels.unique().tolist() == list(task.forget_classes) == [0]


def test_a_blank_batch_holds_no_example():
    task = toy_task(Open())
    batch = task.blank_batch(3)
    assert batch.images.shape == (3, 1, 8, 8)
    assert not batch.images.any()
    assert not batch.labels.any()
    assert task.served == {}


def test_layers_of_the_original_are_found_without_serving_an_example():
    task = toy_task(Open(), needs=frozenset())
    assert [layer.name for layer in task.layers(trained()) if layer.is_head] == ["fc"]
    assert task.served == {}
    with pytest.raises(UndeclaredNeedError):
        _ = task.forget


# --- evaluation -----------------------------------------------------------------------------------


def examples():
    return ExampleSet("test", Pixels(toy_images(), "test", CPU), np.arange(60), 7, generator(), {})


def test_logits_are_those_of_eval_mode_in_order():
    model = trained()
    images = Pixels(toy_images(), "test", CPU).batch(torch.arange(60), None).images
    with torch.no_grad():
        expected = model(images)
    model.train()
    given = logits(model, examples())
    assert torch.allclose(given, expected, atol=1e-5)
    assert not given.requires_grad


def test_evaluation_leaves_every_module_in_its_own_mode():
    model = trained().train()
    model.layer1.eval()
    before = [module.training for module in model.modules()]
    assert True in before
    assert False in before
    logits(model, examples())
    assert [module.training for module in model.modules()] == before
    with torch.no_grad():
        model.fc.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="outputs on the test set are not finite"):
        logits(model, examples())
    assert [module.training for module in model.modules()] == before


def test_accuracy_is_the_share_of_right_answers():
    class Constant(nn.Module):
        def forward(self, images):
            return nn.functional.one_hot(torch.tensor([2]), 4).float().expand(len(images), 4)

    assert accuracy(Constant(), examples()) == 0.25


def test_accuracy_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="the test set is empty"):
        accuracy(trained(), examples().subset(torch.tensor([], dtype=torch.int64)))


def test_evaluation_is_in_float32_even_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        inside = logits(trained(), examples())
    assert torch.equal(inside, logits(trained(), examples()))
