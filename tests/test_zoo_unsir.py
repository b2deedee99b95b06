"""UNSIR: the noise, what each pass sees of it, and that no forget image is needed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS
from unlearnbench.bench.task import UnlearningTask

from .toys import same_tensors, toy_task, trained

UNSIR = METHODS.get("unsir")


def objective(model, noise, label, decay):
    """-CE(f(N), label) + decay mean |N|^2, of every image, in its part of the mean."""
    labels = torch.full((len(noise),), label)
    return decay * noise.square().sum((1, 2, 3)) - F.cross_entropy(
        model(noise), labels, reduction="none"
    )


@pytest.fixture
def passes(monkeypatch):
    """The arguments of every call of `task.fit`; nothing is trained."""
    calls = []

    def spy(self, model, examples, optimizer, **options):
        calls.append((examples, optimizer, options["loss"]))

    monkeypatch.setattr(UnlearningTask, "fit", spy)
    return calls


def test_the_first_step_of_adam_goes_against_the_sign_of_the_slope_by_its_step_size():
    made = []
    for steps in (0, 1):
        method = UNSIR(noise_images=50, noise_steps=steps, noise_lr=0.1)
        made.append(method.noise(trained(), toy_task(method), label=2))
    start = made[0].clone().requires_grad_()
    objective(trained(), start, 2, 0.1).sum().backward()
    clear = start.grad.abs() > 1e-2
    assert clear.float().mean() > 0.9
    step = (made[1] - made[0])[clear]
    assert torch.allclose(step, -0.1 * start.grad[clear].sign(), atol=1e-3)
    assert made[0].shape == (50, 1, 8, 8)
    assert made[0].std() == pytest.approx(1, abs=0.1)


def test_noise_makes_the_error_of_its_own_class_large_in_every_image():
    """Public code used three images of a batch; here none may be left as it was drawn."""
    first = UNSIR(noise_images=70, noise_steps=0).noise(trained(), toy_task(UNSIR()), label=1)
    method = UNSIR(noise_images=70, noise_steps=40)
    last = method.noise(trained(), toy_task(method), label=1)
    with torch.no_grad():
        before, after = (objective(trained(), n, 1, 0.1) for n in (first, last))
        errors = F.cross_entropy(trained()(last), torch.ones(70, dtype=torch.int64))
    assert len(first) == len(last) == 70
    assert (after < before).all()
    assert errors > 1
    assert len({tuple(image.flatten().tolist()) for image in last}) == 70


def test_making_noise_leaves_the_model_and_its_gradients_alone():
    method, model = UNSIR(noise_images=8, noise_steps=3), trained()
    method.noise(model, toy_task(method), label=0)
    assert same_tensors(model, trained())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("classes", [[2], [1, 3]])
def test_the_impair_pass_mixes_retain_images_with_noise_under_the_label_of_its_class(
    classes, passes
):
    """A stand-in for the network sees all images, and gives them logits by what they are."""
    method = UNSIR(noise_images=6, noise_steps=1, noise_ratio=0.5)
    task = toy_task(method, f"class[classes={classes}]")
    twin = toy_task(method, f"class[classes={classes}]")
    noise = {label: method.noise(trained(), twin, label) for label in classes}
    method.unlearn(trained(), task)
    (retain, _, impair), (again, _, repair) = passes
    assert repair is None
    assert again is retain
    batch = next(retain.batches(10))
    count = round(0.5 * len(classes) * 10)
    seen = []

    class Knowing(nn.Module):
        def forward(self, images):
            seen.append(images)
            logits = torch.zeros(len(images), 4)
            for i, image in enumerate(images[len(batch) :]):
                (own,) = [k for k, n in noise.items() if (n == image).flatten(1).all(1).any()]
                logits[len(batch) + i, own] = 50.0
            return logits

    value = impair(Knowing(), batch)
    assert torch.equal(seen[0][:10], batch.images)
    assert len(seen[0]) == 10 + count
    # log 4 for each retain image, and nothing for noise, whose label is that of its class
    expected = 10 * torch.log(torch.tensor(4.0)) / (10 + count)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_both_passes_are_by_adam_without_decay_on_the_same_samples(passes):
    method = UNSIR(noise_images=2, noise_steps=0, impair_lr=0.01, repair_lr=0.003,
                   samples_per_class=5)  # fmt: skip
    method.unlearn(trained(), toy_task(method))
    groups = [optimizer.param_groups[0] for _, optimizer, _ in passes]
    assert [group["lr"] for group in groups] == [0.01, 0.003]
    assert [group["weight_decay"] for group in groups] == [0, 0]
    assert passes[0][0].labels.tolist().count(0) == 0
    assert sorted(passes[0][0].labels.tolist()) == [1] * 5 + [2] * 5 + [3] * 5


def test_it_forgets_a_class_without_an_image_of_it_and_keeps_the_others():
    method = UNSIR(impair_lr=0.02, repair_lr=0.005, noise_images=64)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.served == {"retain": 2 * task.retain_size}
    look = toy_task(method, needs=frozenset({"forget", "retain"}))
    assert look.accuracy(model, look.forget) < 0.5
    assert look.accuracy(model, look.retain) > 0.6
