"""Teachers and the distance to them; callbacks of the training loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unlearnbench.bench import Callback, frozen_copy, softened_kl

from .test_task import Open
from .toys import same_tensors, toy_task, trained


def test_the_distance_of_two_known_distributions():
    """KL((1/2, 1/2) || (1/4, 3/4)) = log 2 / 2 + log(2/3) / 2, at T = 1."""
    teacher = torch.zeros(3, 2)
    student = torch.tensor([[0.0, math.log(3.0)]]).expand(3, 2)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert softened_kl(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    # logits twice as large at T = 2 give the same distributions, and T^2 times the distance
    assert softened_kl(2 * student, teacher, 2.0).item() == pytest.approx(4 * expected, rel=1e-5)


def test_gradients_reach_the_student_only():
    student = torch.randn(4, 3, requires_grad=True)
    teacher = torch.randn(4, 3, requires_grad=True)
    softened_kl(student, teacher, 2.0).backward()
    q, p = (student / 2).softmax(1), (teacher / 2).softmax(1)
    assert torch.allclose(student.grad, 2 * (q - p).detach() / 4, atol=1e-6)
    assert teacher.grad is None


def test_a_frozen_copy_is_deep_in_eval_mode_and_takes_no_gradients():
    model = trained().train()
    teacher = frozen_copy(model)
    assert same_tensors(teacher, model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert same_tensors(teacher, trained())
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_callbacks_see_every_epoch_every_gradient_and_every_step_in_order():
    task = toy_task(Open())
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    log = []

    class Note(Callback):
        def epoch_begins(self, model, done):
            log.append(("epoch", done, model.training))

        def before_step(self, model, batch):
            self.weight, self.grad = model[1].weight.clone(), model[1].weight.grad.clone()
            log.append(("before", len(batch)))

        def after_step(self, model, batch):
            assert torch.allclose(model[1].weight, self.weight - 0.1 * self.grad)
            log.append(("after", len(batch)))

    optimizer = task.optimizer(model, lr=0.1, momentum=0.0, weight_decay=0.0)
    task.fit(model, task.forget, optimizer, epochs=2, batch_size=20, callbacks=[Note()])
    steps = [("before", 20), ("after", 20), ("before", 7), ("after", 7)]
    assert log == [("epoch", 0, True), *steps, ("epoch", 1, True), *steps]
