"""l1-sparse: the weight of the penalty by epoch, its value, and that it makes weights small."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS
from unlearnbench.bench.recipe import TrainingSettings
from unlearnbench.bench.task import UnlearningTask

from .toys import SETTINGS, toy_task, trained

L1 = METHODS.get("l1-sparse")


@pytest.mark.parametrize(
    ("frac", "expected"),
    [
        (1.0, [8, 7, 6, 5, 4, 3, 2, 1]),
        (0.5, [8, 6, 4, 2, 0, 0, 0, 0]),
        (0.25, [8, 4, 0, 0, 0, 0, 0, 0]),
        (0.0, [0] * 8),
    ],
)
def test_the_weight_falls_linearly_and_is_zero_at_the_end(frac, expected):
    method = L1(epochs=8, alpha=0.08, penalised_frac=frac)
    assert [100 * method.weight(t) for t in range(8)] == pytest.approx(expected)


def test_every_epoch_has_the_loss_of_the_formula(monkeypatch):
    losses = []
    monkeypatch.setattr(
        UnlearningTask, "fit", lambda self, *args, loss, **options: losses.append(loss)
    )
    method = L1(epochs=4, alpha=0.02, penalised_frac=0.5)
    task = toy_task(method)
    method.unlearn(trained(), task)
    batch, model = next(task.retain.batches(16)), trained()
    plain = F.cross_entropy(model(batch.images), batch.labels).item()
    size = sum(p.detach().double().abs().sum().item() for p in model.parameters())
    weights = [0.02, 0.01, 0.0, 0.0]
    for loss, weight in zip(losses, weights, strict=True):
        assert loss(model, batch).item() == pytest.approx(plain + weight * size, rel=1e-5)


def test_norms_and_biases_are_penalised_unless_left_out():
    model = trained()
    all_ = L1().norm(model).item()
    flat = sum(p.abs().sum().item() for p in model.parameters() if p.dim() == 1)
    assert flat > 1
    assert L1(penalised="weights").norm(model).item() == pytest.approx(all_ - flat, rel=1e-5)


def test_a_step_of_the_penalty_takes_the_same_from_every_weight():
    """Its gradient is alpha sign(theta)."""
    model = trained()
    method = L1(alpha=0.5)
    (method.weight(0) * method.norm(model)).backward()
    for parameter in model.parameters():
        assert torch.equal(parameter.grad, 0.5 * parameter.detach().sign())


def test_without_a_penalty_it_is_finetune():
    finetune = METHODS.get("finetune")(epochs=2)
    method = L1(epochs=2, alpha=0)
    expected = finetune.unlearn(trained(), toy_task(finetune))
    model = method.unlearn(trained(), toy_task(method))
    for (name, a), b in zip(
        model.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6), name


def test_the_larger_alpha_the_more_weights_are_near_zero():
    settings = TrainingSettings(**SETTINGS.model_dump() | {"weight_decay": 0.0})

    def small(alpha):
        method = L1(alpha=alpha, epochs=10, lr=0.02)
        model = method.unlearn(trained(), toy_task(method, settings=settings))
        every = torch.cat([p.flatten() for p in model.parameters() if p.dim() > 1])
        return float((every.abs() < 2e-3).float().mean())

    shares = [small(alpha) for alpha in (0.0, 1e-3, 1e-2)]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 2 * shares[0]


def test_only_the_retain_set_is_used():
    method = L1(epochs=3)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.served == {"retain": 3 * task.retain_size}
    assert task.accuracy(model, task.retain) > 0.9
