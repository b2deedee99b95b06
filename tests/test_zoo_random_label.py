"""Random label: which labels the forget set gets, in which order, and what becomes of it."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS
from unlearnbench.bench.task import UnlearningTask
from unlearnbench.bench.training import check_finite

from .toys import toy_task, trained

RANDOM_LABEL = METHODS.get("random-label")


@pytest.fixture
def passes(monkeypatch):
    """Role, mode of BatchNorm and labels by id of every call of `task.fit`."""
    calls = []
    original = UnlearningTask.fit

    def spy(self, model, examples, optimizer, **options):
        parts = getattr(examples, "parts", (examples,))
        labels = {
            part.role: dict(zip(part.ids.tolist(), part.labels.tolist(), strict=True))
            for part in parts
        }
        calls.append((labels, options.get("batch_norm", "train")))
        return original(self, model, examples, optimizer, **options)

    monkeypatch.setattr(UnlearningTask, "fit", spy)
    return calls


def test_every_epoch_is_a_forget_pass_and_then_a_retain_pass(passes):
    method = RANDOM_LABEL(epochs=3, forget_batch_norm="eval")
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert [list(labels) for labels, _ in passes] == [["forget"], ["retain"]] * 3
    assert [mode for _, mode in passes] == ["eval", "train"] * 3
    assert task.served == {"forget": 3 * task.forget_size, "retain": 3 * task.retain_size}


def test_mixed_passes_hold_both_sets_at_once(passes):
    method = RANDOM_LABEL(epochs=2, order="mixed")
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert [set(labels) for labels, _ in passes] == [{"forget", "retain"}] * 2
    assert task.served == {"forget": 2 * task.forget_size, "retain": 2 * task.retain_size}


@pytest.mark.parametrize("order", ["alternate", "mixed"])
def test_the_forget_set_is_never_given_its_own_label_and_the_retain_set_always(order, passes):
    method = RANDOM_LABEL(epochs=3, order=order)
    task = toy_task(method, "random[fraction=0.2]")
    method.unlearn(trained(), task)
    true = dict(zip(task.forget.ids.tolist(), task.forget.labels.tolist(), strict=True))
    kept = dict(zip(task.retain.ids.tolist(), task.retain.labels.tolist(), strict=True))
    drawn = [labels["forget"] for labels, _ in passes if "forget" in labels]
    assert len(drawn) == 3
    assert all(labels[i] != true[i] for labels in drawn for i in true)
    assert all(labels["retain"] == kept for labels, _ in passes if "retain" in labels)
    assert drawn[0] != drawn[1] != drawn[2]


def test_labels_drawn_once_stay_and_those_of_all_classes_may_be_true(passes):
    method = RANDOM_LABEL(epochs=3, redraw=False, exclude_own=False)
    method.unlearn(trained(), toy_task(method))
    first, second, third = [labels["forget"] for labels, _ in passes if "forget" in labels]
    assert first == second == third
    assert set(first.values()) == {0, 1, 2, 3}


def test_one_step_on_each_set_is_that_of_the_cross_entropies(passes):
    """theta - lr grad CE(forget, drawn), then the same with the retain set; no momentum."""
    from unlearnbench.bench.recipe import TrainingSettings

    settings = TrainingSettings(batch_size=1000, augment=False, momentum=0, weight_decay=0)
    method = RANDOM_LABEL(epochs=1, lr=0.05, forget_batch_norm="eval")
    task = toy_task(method, settings=settings)
    model = method.unlearn(trained(), task)
    expected = deepcopy(trained())
    drawn = passes[0][0]["forget"]
    for examples, train in ((task.forget, False), (task.retain, True)):
        batch = next(examples.batches(1000))
        labels = batch.labels
        if not train:
            labels = torch.tensor([drawn[i] for i in batch.ids.tolist()])
        expected.train(train)
        loss = F.cross_entropy(expected(batch.images), labels)
        slopes = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(expected.parameters(), slopes, strict=True):
                parameter.sub_(0.05 * slope)
    for (name, a), b in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


@pytest.mark.parametrize("order", ["alternate", "mixed"])
def test_it_forgets_a_class_and_keeps_the_others(order):
    method = RANDOM_LABEL(lr=0.03, order=order)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.accuracy(model, task.forget) < 0.2
    assert task.accuracy(model, task.retain) > 0.8


def test_it_takes_a_forget_set_of_one_example():
    method = RANDOM_LABEL(epochs=2)
    task = toy_task(method, "random[count=1]")
    check_finite(method.unlearn(trained(), task))
