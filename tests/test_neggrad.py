"""NegGrad and NegGrad+: bounded ascent that stops, and joint steps."""

from __future__ import annotations

from math import log

import pytest
import torch

from unlearnbench.bench import METHODS
from unlearnbench.bench.training import check_finite

from .toys import toy_task, trained

NEGGRAD, PLUS = METHODS.get("neggrad"), METHODS.get("neggrad-plus")


@pytest.mark.parametrize("lr", [1e-3, 0.1, 1.0])
def test_neggrad_is_never_nan_at_any_step_size_that_it_accepts(lr):
    method = NEGGRAD(lr=lr, epochs=20, clip_norm=10.0, loss_cap=100.0)
    model = method.unlearn(trained(), toy_task(method))
    check_finite(model)
    assert torch.isfinite(model(torch.zeros(2, 1, 8, 8))).all()


def test_neggrad_stops_when_a_class_is_forgotten():
    method = NEGGRAD(lr=0.02, epochs=100, loss_cap=4.0)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.accuracy(model, task.forget) == 0
    assert task.reported["epochs_done"] < 100
    one_less = NEGGRAD(lr=0.02, epochs=task.reported["epochs_done"] - 1, loss_cap=4.0)
    again = toy_task(one_less)
    assert again.accuracy(one_less.unlearn(trained(), again), again.forget) > 0


def test_neggrad_of_samples_stops_at_the_accuracy_on_unseen_images():
    method = NEGGRAD(lr=0.02, epochs=100, loss_cap=4.0)
    task = toy_task(method, "random[fraction=0.2]")
    target = task.accuracy(trained(), task.validation)
    model = method.unlearn(trained(), task)
    assert task.accuracy(model, task.forget) <= target
    nothing_to_do = toy_task(method, "random[fraction=0.2]")
    already = method.unlearn(model, nothing_to_do)
    assert nothing_to_do.accuracy(already, nothing_to_do.forget) <= target


def test_neggrad_leaves_running_statistics_alone():
    method = NEGGRAD(lr=0.02, epochs=3)
    model = method.unlearn(trained(), toy_task(method)).state_dict()
    before = trained().state_dict()
    assert all(torch.equal(before[k], model[k]) for k in before if "running" in k)
    assert any(not torch.equal(before[k], model[k]) for k in before if k.endswith("weight"))


def test_neggrad_loss_is_capped_for_each_example():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [-50.0, 0.0, 0.0, 0.0]], requires_grad=True)

    class Fixed(torch.nn.Module):
        def forward(self, images):
            return logits

    batch = type("B", (), {"images": None, "labels": torch.tensor([0, 0])})
    loss = NEGGRAD(loss_cap=2.0).loss(4)(Fixed(), batch)
    assert loss.item() == pytest.approx(-(log(4) + 2 * log(4)) / 2)
    loss.backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


@pytest.mark.parametrize(("mode", "passes"), [("train", 2), ("eval", 1)])
def test_neggrad_plus_shows_the_forget_set_to_batch_norm_only_in_train_mode(mode, passes):
    method = PLUS(lr=0.01, epochs=2, forget_weight=0.0, forget_batch_norm=mode)
    task = toy_task(method)
    after = method.unlearn(trained(), task).state_dict()
    before = trained().state_dict()
    steps = 2 * -(-task.retain_size // 32)
    counters = [k for k in before if k.endswith("num_batches_tracked")]
    assert counters
    assert all(int(after[k]) - int(before[k]) == passes * steps for k in counters)


def test_neggrad_plus_takes_a_forget_set_of_one_example():
    method = PLUS(epochs=1)
    task = toy_task(method, "random[count=1]")
    check_finite(method.unlearn(trained(), task))
    assert task.forget_size == 1


def test_neggrad_plus_forgets_a_class_and_keeps_the_others():
    method = PLUS(lr=0.02, epochs=6, forget_weight=0.2)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.accuracy(model, task.forget) < 0.2
    assert task.accuracy(model, task.retain) > 0.8


def test_neggrad_plus_takes_one_forget_batch_a_step():
    method = PLUS(epochs=2, forget_batch_size=5)
    task = toy_task(method)
    method.unlearn(trained(), task)
    steps = 2 * -(-task.retain_size // 32)
    assert task.served["retain"] == 2 * task.retain_size
    per_pass = -(-task.forget_size // 5)
    full, rest = divmod(steps, per_pass)
    assert task.served["forget"] in (
        full * task.forget_size + min(rest * 5, task.forget_size),
        full * task.forget_size + rest * 5,
    )
