"""SalUn: which weights are salient, and that no other moves by a bit."""

from __future__ import annotations

from math import ceil

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS

from .toys import toy_task, trained

SALUN, RANDOM_LABEL = METHODS.get("salun"), METHODS.get("random-label")


def slopes():
    """Gradient of the summed cross-entropy of the forget set, one example at a time."""
    model = trained()
    method = SALUN()
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for batch in toy_task(method).forget.batches(1):
        loss = F.cross_entropy(model(batch.images), batch.labels)
        found = torch.autograd.grad(loss, list(model.parameters()))
        for name, slope in zip(total, found, strict=True):
            total[name] += slope
    return total


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_largest_slopes_of_all_parameters_together_are_salient(share):
    method = SALUN(salient_frac=share)
    masks = method.masks(trained(), toy_task(method))
    sizes = {name: slope.abs() for name, slope in slopes().items()}
    count = sum(s.numel() for s in sizes.values())
    assert sum(int(m.sum()) for m in masks.values()) == ceil(share * count)
    least_in = min(float(sizes[n][m].min()) for n, m in masks.items() if m.any())
    most_out = max(float(sizes[n][~m].max()) for n, m in masks.items() if not m.all())
    assert least_in >= most_out * (1 - 1e-3)
    shares = [float(m.float().mean()) for m in masks.values()]
    assert max(shares) - min(shares) > 0.2  # by rank among all, not layer by layer


def test_equal_slopes_do_not_make_more_entries_salient(monkeypatch):
    method = SALUN(salient_frac=0.25)
    task = toy_task(method)
    flat = {"a": torch.ones(3, 2), "b": torch.ones(2)}
    monkeypatch.setattr(type(task), "gradient_sum", lambda *args, **options: flat)
    masks = method.masks(trained(), task)
    assert masks["a"].tolist() == [[True, True], [False, False], [False, False]]
    assert not masks["b"].any()


@pytest.mark.parametrize("order", ["alternate", "mixed"])
def test_weights_that_are_not_salient_keep_their_bits(order):
    """Although there is weight decay and momentum."""
    method = SALUN(lr=0.03, epochs=4, salient_frac=0.3, order=order)
    task = toy_task(method)
    assert task.recipe.settings.weight_decay > 0
    assert task.recipe.settings.momentum > 0
    masks = method.masks(trained(), task)
    model = method.unlearn(trained(), task)
    before = dict(trained().named_parameters())
    moved = {name: p != before[name] for name, p in model.named_parameters()}
    assert not any(bool((moved[n] & ~masks[n]).any()) for n in masks)
    salient = sum(int(m.sum()) for m in masks.values())
    assert sum(int((moved[n] & masks[n]).sum()) for n in masks) > 0.95 * salient


def test_with_all_weights_salient_it_is_random_label():
    method, plain = SALUN(salient_frac=1.0, epochs=2), RANDOM_LABEL(epochs=2)
    model = method.unlearn(trained(), toy_task(method))
    expected = plain.unlearn(trained(), toy_task(plain))
    for (name, a), b in zip(
        model.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_it_forgets_a_class_with_a_third_of_the_weights_and_keeps_the_others():
    method = SALUN(lr=0.03, salient_frac=0.3)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.accuracy(model, task.forget) < 0.2
    assert task.accuracy(model, task.retain) > 0.8


def test_the_forget_set_is_served_once_more_for_its_slopes():
    method = SALUN(epochs=2)
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert task.served == {"forget": 3 * task.forget_size, "retain": 2 * task.retain_size}
