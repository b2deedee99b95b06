"""Gradients by parameter: sums, and means of squares and magnitudes, against plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearnbench.bench import InputError, UndeclaredNeedError, Unlearner
from unlearnbench.bench import gradients as gradients_module

from .toys import same_tensors, toy_task, trained

VIT = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"


class Open(Unlearner):
    """Declares what the tools need."""

    name = "open"
    reference = "test"
    needs = frozenset({"forget", "retain", "gradients"})

    def unlearn(self, model, task):
        return model


def by_hand(model, images, labels):
    """Gradient of the mean cross-entropy, by `backward`."""
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found


def close(found, expected, rtol=1e-3):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape
        scale = float(tensor.abs().max())
        assert torch.allclose(found[name], tensor, rtol=rtol, atol=1e-5 * scale + 1e-9), name


def mean_of(values):
    return {name: torch.stack([v[name] for v in values]).mean(0) for name in values[0]}


@pytest.fixture(params=["network", VIT])
def setting(request):
    model = {} if request.param == "network" else {"model": VIT}
    task = toy_task(Open(), **model)
    batch = next(task.retain.batches(200))
    return trained(**model), task, batch


def singles(model, batch):
    """One gradient for every example, by `backward`."""
    parts = zip(batch.images.split(1), batch.labels.split(1), strict=True)
    return [by_hand(model, *part) for part in parts]


def test_the_sum_is_that_of_every_example(setting):
    model, task, batch = setting
    each = singles(model, batch)
    expected = {name: sum(one[name] for one in each) for name in each[0]}
    close(task.gradient_sum(model, task.retain), expected)
    assert task.served["retain"] == 200 - 119 + task.retain_size


def test_the_mean_square_of_examples_is_that_of_single_gradients(setting):
    model, task, batch = setting
    each = singles(model, batch)
    squares = mean_of([{n: g**2 for n, g in one.items()} for one in each])
    magnitudes = mean_of([{n: g.abs() for n, g in one.items()} for one in each])
    close(task.gradient_moment(model, task.retain), squares)
    close(task.gradient_moment(model, task.retain, moment="magnitude"), magnitudes)


def test_gradients_of_examples_come_in_order_and_add_up_to_the_sum(setting):
    model, task, batch = setting
    stacks = list(task.gradients(model, task.retain))
    found = {name: torch.cat([stack[name] for stack in stacks]) for name in stacks[0]}
    for place in (0, 40, 80):
        one = {name: stack[place] for name, stack in found.items()}
        close(one, singles(model, batch)[place])
    close({name: stack.sum(0) for name, stack in found.items()},
          task.gradient_sum(model, task.retain))  # fmt: skip


def test_the_mean_square_of_batches_is_that_of_the_batches_that_were_drawn():
    model, task, again = trained(), toy_task(Open(), seed=4), toy_task(Open(), seed=4)
    found = task.gradient_moment(model, task.retain, each="batch", batch_size=20)
    order = torch.randperm(task.retain_size, generator=again.rng)
    batch = next(again.retain.batches(200))
    parts = order.split(20)
    assert [len(part) for part in parts] == [20, 20, 20, 20, 1]
    assert len(set(batch.labels[parts[0]].tolist())) > 1
    each = [by_hand(model, batch.images[part], batch.labels[part]) for part in parts]
    close(found, mean_of([{n: g**2 for n, g in one.items()} for one in each]))


def test_one_batch_of_everything_gives_the_square_of_the_mean_gradient():
    model, task = trained(), toy_task(Open())
    total = task.gradient_sum(model, task.forget)
    found = task.gradient_moment(model, task.forget, each="batch", batch_size=500)
    close(found, {name: (g / task.forget_size) ** 2 for name, g in total.items()})


@pytest.mark.parametrize("at_once", [1, 2**12, 2**27])
def test_how_many_gradients_are_held_at_once_makes_no_difference(at_once, monkeypatch):
    model, task = trained(), toy_task(Open())
    whole = task.gradient_moment(model, task.forget)
    monkeypatch.setattr(gradients_module, "AT_ONCE", at_once)
    close(task.gradient_moment(model, task.forget), whole)


class Stubborn(nn.Module):
    """A network that asks for the value of a number, which vmap refuses."""

    def __init__(self):
        super().__init__()
        self.inner = trained()
        self.calls = []

    def forward(self, images):
        float(images.sum())
        self.calls.append(len(images))
        return self.inner(images)


def test_a_network_that_refuses_vmap_is_asked_example_by_example():
    model, task = Stubborn(), toy_task(Open())
    found = task.gradient_moment(model, task.forget)
    assert model.calls == [1] * task.forget_size
    expected = task.gradient_moment(trained(), task.forget)
    close({name.removeprefix("inner."): tensor for name, tensor in found.items()}, expected)


def test_a_loss_is_called_with_the_batch_and_may_ignore_labels():
    def squared_outputs(model, batch):
        return model(batch.images).square().sum(1).mean()

    model, task = trained(), toy_task(Open())
    found = task.gradient_sum(model, task.forget, loss=squared_outputs)
    batch = next(task.forget.batches(200))
    out = model(batch.images)
    assert torch.allclose(found["fc.bias"], 2 * out.sum(0), rtol=1e-4)


def test_a_network_that_ends_in_a_frozen_part_has_gradients_of_the_rest():
    model, task = trained(), toy_task(Open())
    model.fc.requires_grad_(requires_grad=False)
    found = task.gradient_moment(model, task.forget)
    assert found.keys() == {n for n, _ in model.named_parameters() if not n.startswith("fc")}


def test_model_mode_and_grad_are_left_as_they_came():
    model, task = trained().train(), toy_task(Open())
    task.gradient_sum(model, task.forget)
    task.gradient_moment(model, task.forget, each="batch")
    task.gradient_moment(model, task.forget)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert same_tensors(model, trained())


def test_augmented_images_give_other_gradients():
    model, task = trained(), toy_task(Open())
    task.forget._pixels.flip = True
    plain = task.gradient_sum(model, task.forget)["conv1.0.weight"]
    moved = task.gradient_sum(model, task.forget, augmented=True)["conv1.0.weight"]
    assert not torch.allclose(plain, moved, rtol=1e-2)


@pytest.mark.parametrize("tool", ["gradient_sum", "gradient_moment", "gradients"])
def test_without_declared_gradients_every_tool_refuses(tool):
    task = toy_task(Open())
    with torch.no_grad(), pytest.raises(UndeclaredNeedError, match='needs` with "gradients"'):
        getattr(task, tool)(trained(), task.forget)


def test_an_empty_set_is_named():
    task = toy_task(Open())
    nothing = task.forget.subset(torch.tensor([], dtype=torch.int64))
    for tool in (task.gradient_sum, task.gradient_moment):
        with pytest.raises(InputError, match="the forget set is empty"):
            tool(trained(), nothing)
