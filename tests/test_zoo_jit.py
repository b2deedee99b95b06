"""JiT: the sensitivity to noise, its gradient, and what accumulates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearnbench.bench import METHODS

from .toys import toy_task, trained

JIT = METHODS.get("jit")


def linear(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()


def noisy(task, batch, sigma, rng):
    """Pixels with noise, cut to 0..1, in float64; and the step, by image."""
    scale = task.forget.pixel_scale
    mean, std = float(scale.mean), float(scale.std)
    pixels = batch.images.double() * std + mean
    moved = (pixels + sigma * torch.randn(pixels.shape, generator=rng).double()).clamp(0, 1)
    return (moved - mean) / std, (moved - pixels).flatten(1).norm(dim=1)


def by_hand(model, task, batch, method, rng):
    """Loss and gradient of the weight of a linear classifier, with the noisy branch held."""
    W, b = model[1].weight.detach().double(), model[1].bias.detach().double()
    x = batch.images.flatten(1).double()
    loss, slope = 0.0, torch.zeros_like(W)
    for _ in range(method.copies):
        away, step = noisy(task, batch, method.sigma, rng)
        difference = (x - away.flatten(1)) @ W.T
        norm = difference.norm(dim=1)
        loss += float((norm / step).mean()) / method.copies
        unit = difference / norm[:, None] / step[:, None]
        slope += unit.T @ x / len(x) / method.copies
    assert b.shape == (4,)
    return loss, slope


def test_the_loss_is_the_mean_ratio_of_distances_and_only_the_clean_branch_has_a_slope():
    method = JIT(sigma=0.2, copies=3)
    task, twin, model = toy_task(method), toy_task(method), linear()
    loss = method.sensitivity(task)
    batch = next(task.forget.batches(10))
    value = loss(model, batch)
    value.backward()
    expected, slope = by_hand(linear(), twin, batch, method, twin.noise_rng())
    assert value.item() == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(model[1].weight.grad.double(), slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_step_takes_the_gradient_of_its_batch_or_the_sum_of_all_so_far(accumulate):
    method = JIT(lr=0.01, sigma=0.2, copies=2, batch_size=9, accumulate=accumulate)
    task, twin = toy_task(method), toy_task(method)
    found = method.unlearn(linear(), task)[1].weight.detach().double()
    model, total, rng = linear(), 0, twin.noise_rng()
    sizes = []
    for batch in twin.forget.batches(9, training=True):
        _, slope = by_hand(model, twin, batch, method, rng)
        total = total + slope if accumulate else slope
        with torch.no_grad():
            model[1].weight.sub_(0.01 * total.float())
        sizes.append(len(batch))
    assert sizes == [9, 9, 9]
    assert torch.allclose(found, model[1].weight.detach().double(), rtol=1e-3, atol=1e-5)


def test_noise_stays_within_black_and_white():
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, images):
            seen.append(images)
            return self.inner(images)

    method = JIT(sigma=1.5, copies=4, batch_size=50)
    task = toy_task(method)
    method.unlearn(Watching(), task)
    clean, *copies = (task.forget.pixel_scale.to_pixels(images) for images in seen)
    assert len(copies) == 4
    for pixels in copies:
        assert -1e-5 <= pixels.min() < 0.01
        assert 0.99 < pixels.max() <= 1 + 1e-5
        assert not torch.allclose(pixels, clean)


def test_it_needs_the_forget_set_alone_and_leaves_running_statistics():
    method = JIT(lr=0.01, copies=2, epochs=2)
    task = toy_task(method)
    after, before = method.unlearn(trained(), task).state_dict(), trained().state_dict()
    assert task.served == {"forget": 2 * task.forget_size}
    assert all(torch.equal(before[k], after[k]) for k in before if "running" in k)
    assert any(not torch.equal(before[k], after[k]) for k in before if k.endswith("weight"))


def test_it_forgets_a_class_in_a_network():
    method = JIT(lr=0.03, sigma=0.5, copies=5, epochs=5)
    task = toy_task(method, needs=method.needs | {"retain"})
    before, after = trained(), method.unlearn(trained(), task)
    batch = next(task.forget.batches(200))
    with torch.no_grad():
        probability = [
            float(m(batch.images).softmax(1).gather(1, batch.labels[:, None]).mean())
            for m in (before, after)
        ]
    assert probability[1] < 0.8 * probability[0]
