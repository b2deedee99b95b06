"""Boundary unlearning: the class across the boundary, and the output that comes and goes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS, DeclinedError, InputError
from unlearnbench.bench.task import UnlearningTask

from .toys import same_tensors, toy_task, trained

SHRINK, EXPAND = METHODS.get("boundary-shrink"), METHODS.get("boundary-expand")


def linear(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()


@pytest.fixture
def passes(monkeypatch):
    """What every call of `task.fit` was asked to do, and the labels that it was given."""
    calls = []
    original = UnlearningTask.fit

    def spy(self, model, examples, optimizer, **options):
        calls.append({"labels": examples.labels.clone(), **options})
        heads = [m for m in model.modules() if isinstance(m, nn.Linear)]
        calls[-1]["outputs"] = len(heads[-1].weight)
        return original(self, model, examples, optimizer, **options)

    monkeypatch.setattr(UnlearningTask, "fit", spy)
    return calls


@pytest.mark.parametrize("exclude_own", [True, False])
@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_the_nearest_class_of_a_linear_classifier_is_worked_out_by_hand(epsilon, exclude_own):
    """The slope of CE by the image is W^T (p - y); the step is taken in pixels of 0 to 1."""
    method = SHRINK(epsilon=epsilon, exclude_own=exclude_own)
    model, task = linear(), toy_task(method)
    found = method.nearest_labels(model, task)
    batch = next(toy_task(method).forget.batches(200))
    W, b = model[1].weight.detach().double(), model[1].bias.detach().double()
    x = batch.images.flatten(1).double()
    p = (x @ W.T + b).softmax(1) - F.one_hot(batch.labels, 4)
    scale = task.forget.pixel_scale
    mean, std = float(scale.mean), float(scale.std)
    pixels = (x * std + mean + epsilon * (p @ W).sign()).clamp(0, 1)
    outputs = (pixels - mean) / std @ W.T + b
    if exclude_own:
        outputs[torch.arange(len(x)), batch.labels] = -torch.inf
    assert torch.equal(found, outputs.argmax(1))


def test_an_attack_that_fails_gives_the_second_best_class_and_not_the_true_one(passes):
    method = SHRINK(epsilon=1e-7, epochs=1)
    task = toy_task(method)
    logits = task.logits(trained(), task.forget)
    assert (logits.argmax(1) == task.forget.labels).float().mean() > 0.9
    method.unlearn(trained(), task)
    logits.scatter_(1, task.forget.labels[:, None], -torch.inf)
    assert torch.equal(passes[0]["labels"], logits.argmax(1))
    assert task.reported["crossed_frac"] == 1
    kept = SHRINK(epsilon=1e-7, epochs=1, exclude_own=False)
    task = toy_task(kept)
    kept.unlearn(trained(), task)
    assert task.reported["crossed_frac"] < 0.1


@pytest.mark.parametrize("cls", [SHRINK, EXPAND])
def test_only_the_forget_set_is_served_and_running_statistics_stay(cls):
    method = cls(lr=1e-3, epochs=3)
    task = toy_task(method)
    after = method.unlearn(trained(), task).state_dict()
    before = trained().state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "running" in k)
    assert any(not torch.equal(before[k], after[k]) for k in before if k.endswith("weight"))
    looks = 1 if cls is SHRINK else 0
    assert task.served == {"forget": (3 + looks) * task.forget_size}


def test_shrink_trains_on_the_nearest_class_and_leaves_the_images_as_they_are():
    method = SHRINK(lr=1e-3, epochs=20)
    task = toy_task(method, needs=method.needs | {"retain"})
    before = [batch.images.clone() for batch in task.forget.batches()]
    model = method.unlearn(trained(), task)
    assert task.accuracy(model, task.forget) < 0.2
    assert task.accuracy(model, task.retain) > 0.6
    for a, b in zip(before, task.forget.batches(), strict=True):
        assert torch.equal(a, b.images)
        assert not b.images.requires_grad


def test_expand_trains_on_a_fifth_output_that_is_gone_afterwards(passes):
    method = EXPAND(lr=1e-3, epochs=20)
    task = toy_task(method, needs=method.needs | {"retain"})
    model = method.unlearn(trained(), task)
    (call,) = passes
    assert call["outputs"] == 5
    assert call["labels"].tolist() == [4] * task.forget_size
    before, after = trained().state_dict(), model.state_dict()
    assert list(before) == list(after)
    assert all(before[k].shape == after[k].shape for k in before)
    assert all(p.requires_grad for p in model.parameters())
    assert task.accuracy(model, task.forget) < 0.2
    assert task.accuracy(model, task.retain) > 0.6


def test_the_new_output_changes_no_other_and_cutting_it_gives_the_bits_back():
    """Without a step to speak of, what comes out is what went in."""
    from unlearnbench.methods.boundary_expand import narrow, widen

    model, images = trained(), torch.randn(5, 1, 8, 8)
    before = model(images)
    widen(model.fc, torch.Generator().manual_seed(0))
    wide = model(images)
    assert wide.shape == (5, 5)
    assert torch.allclose(wide[:, :4], before, atol=1e-5)
    bound = model.fc.in_features**-0.5
    assert 0 < model.fc.weight[4].abs().max() <= bound
    narrow(model.fc)
    assert same_tensors(model, trained())


def test_a_first_step_of_expand_is_that_of_the_cross_entropy_with_the_new_class():
    """One step from p: row c moves by lr (y - p)_c x, with p over C + 1 outputs."""
    from unlearnbench.methods.boundary_expand import widen

    method = EXPAND(lr=1e-3, epochs=1)
    scenario = "random[count=1]"
    task, twin = toy_task(method, scenario), toy_task(method, scenario)
    wide = linear()
    widen(wide[1], twin.rng)
    batch = next(twin.forget.batches())
    x = batch.images.flatten(1)
    p = wide(batch.images).softmax(1)[0].detach()
    p[4] -= 1
    decay = task.recipe.settings.weight_decay
    # Nesterov momentum makes the first step 1 + momentum times as long
    size = 1e-3 * (1 + task.recipe.settings.momentum)
    slope = torch.outer(p, x[0]) + decay * wide[1].weight.detach()
    expected = (wide[1].weight.detach() - size * slope)[:4]
    model = method.unlearn(linear(), task)
    assert torch.allclose(model[1].weight, expected, atol=1e-6)
    assert not torch.allclose(model[1].weight, linear()[1].weight, atol=1e-6)


def test_a_classifier_of_two_layers_is_declined():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = linear(1), linear(2)

        def get_classifier(self):
            return self.a[1], self.b[1]

        def forward(self, images):
            return self.a(images) + self.b(images)

    with pytest.raises(DeclinedError, match="the classifier is not one layer"):
        EXPAND().unlearn(Twice(), toy_task(EXPAND()))


def test_nothing_to_forget_is_an_error_that_says_so():
    task = toy_task(SHRINK())
    task.forget_size = 0
    with pytest.raises(InputError, match="the forget set is empty"):
        SHRINK().unlearn(trained(), task)
