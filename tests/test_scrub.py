"""SCRUB: the schedule, the frozen teacher, BatchNorm in forget passes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS
from unlearnbench.bench.recipe import TrainingSettings
from unlearnbench.bench.task import UnlearningTask

from .toys import SETTINGS, same_tensors, toy_task, trained

SCRUB = METHODS.get("scrub")


@pytest.fixture
def passes(monkeypatch):
    """What every call of `task.fit` was asked to do."""
    calls = []
    original = UnlearningTask.fit

    def spy(self, model, examples, optimizer, **options):
        calls.append((examples.role, options.get("batch_norm", "train"), options["loss"]))
        before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
        result = original(self, model, examples, optimizer, **options)
        after = model.state_dict()
        calls[-1] += (all(torch.equal(before[k], after[k]) for k in before),)
        return result

    monkeypatch.setattr(UnlearningTask, "fit", spy)
    return calls


def test_max_passes_come_first_and_training_ends_with_min_passes(passes):
    method = SCRUB(lr=1e-3, epochs=4, max_epochs=2)
    method.unlearn(trained(), toy_task(method))
    assert [c[0] for c in passes] == ["forget", "retain", "forget", "retain", "retain", "retain"]


def test_forget_passes_run_batch_norm_in_eval_mode(passes):
    method = SCRUB(lr=1e-3, epochs=2, max_epochs=1)
    method.unlearn(trained(), toy_task(method))
    statistics_stayed = {role: stayed for role, _, _, stayed in passes}
    assert [mode for _, mode, _, _ in passes] == ["eval", "train", "train"]
    assert statistics_stayed == {"forget": True, "retain": False}


def test_the_teacher_is_a_deep_copy_that_never_moves(monkeypatch):
    copies = []
    real = copy.deepcopy

    def spy(thing, *args):
        made = real(thing, *args)
        if isinstance(thing, torch.nn.Module):
            copies.append(made)
        return made

    monkeypatch.setattr("unlearnbench.bench.distillation.deepcopy", spy)
    method = SCRUB(lr=0.05, epochs=2, max_epochs=1)
    student = method.unlearn(trained(), toy_task(method))
    (teacher,) = copies
    assert same_tensors(teacher, trained())
    assert not same_tensors(student, trained())
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    storages = {t.data_ptr() for t in teacher.state_dict().values()}
    assert not storages & {t.data_ptr() for t in student.state_dict().values()}


def test_losses_have_the_values_of_the_formulas(passes):
    """min: gamma CE + alpha T^2 KL(teacher || student), max: -T^2 KL; batch means."""
    method = SCRUB(lr=1e-4, epochs=1, max_epochs=1, gamma=0.7, alpha=0.3, temperature=2.0)
    task = toy_task(method)
    method.unlearn(trained(), task)
    losses = {role: loss for role, _, loss, _ in passes}
    student = trained()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
        batch = (
            next(iter(task.validation.batches(8)))
            if "validation" in method.needs
            else next(iter(task.retain.batches(8)))
        )
        p = F.softmax(trained()(batch.images).double() / 2, 1)
        q = F.softmax(student(batch.images).double() / 2, 1)
        kl = 4 * (p * (p.log() - q.log())).sum(1).mean()
        ce = F.cross_entropy(student(batch.images).double(), batch.labels)
        assert losses["forget"](student, batch).item() == pytest.approx(-kl.item(), rel=1e-4)
        assert losses["retain"](student, batch).item() == pytest.approx(
            (0.7 * ce + 0.3 * kl).item(), rel=1e-4
        )


def test_at_the_teacher_the_distance_has_no_slope():
    """Equal outputs are the minimum of KL: without decay a lone max pass changes nothing."""
    settings = TrainingSettings(**SETTINGS.model_dump() | {"weight_decay": 0.0})
    method = SCRUB(lr=0.1, epochs=1, max_epochs=1, gamma=0.0, alpha=0.0)
    model = method.unlearn(trained(), toy_task(method, settings=settings))
    for (name, a), (_, b) in zip(
        model.named_parameters(), trained().named_parameters(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5), name


def test_samples_are_counted_for_both_sets():
    method = SCRUB(lr=1e-3, epochs=3, max_epochs=2)
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert task.served == {"forget": 2 * task.forget_size, "retain": 3 * task.retain_size}


def test_it_forgets_a_class_and_keeps_the_others():
    method = SCRUB(lr=0.05, epochs=10, max_epochs=4, alpha=0.1)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.accuracy(model, task.forget) < 0.2
    assert task.accuracy(model, task.retain) > 0.8
