"""Bad Teacher: who teaches what, the value of the loss, modes, and the network drawn at random."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS
from unlearnbench.bench import distillation as tools
from unlearnbench.bench.task import UnlearningTask

from .toys import same_tensors, toy_task, trained

BAD = METHODS.get("bad-teacher")


@pytest.fixture
def teachers(monkeypatch):
    """The frozen copies that are made, the original's first."""
    made = []
    real = tools.frozen_copy

    def spy(model):
        made.append(real(model))
        return made[-1]

    monkeypatch.setattr(tools, "frozen_copy", spy)
    return made


@pytest.fixture
def fits(monkeypatch):
    calls = []

    def spy(self, model, examples, optimizer, **options):
        calls.append((model, examples, optimizer, options))
        return 0.0

    monkeypatch.setattr(UnlearningTask, "fit", spy)
    return calls


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_is_the_mean_distance_to_each_examples_own_teacher(teachers, fits, temperature):
    method = BAD(temperature=temperature)
    task = toy_task(method)
    method.unlearn(trained(), task)
    ((_, mixture, _, options),) = fits
    good, bad = teachers
    student = trained()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
        batch = next(mixture.batches(40, training=True))
        forget = torch.isin(batch.ids, task.forget.ids)
        assert 0 < int(forget.sum()) < len(batch)
        each = []
        for image, gone in zip(batch.images, forget, strict=True):
            teacher = bad if gone else good
            p = F.softmax(teacher(image[None]).double() / temperature, 1)
            q = F.softmax(student(image[None]).double() / temperature, 1)
            each.append(temperature**2 * (p * (p.log() - q.log())).sum())
        expected = torch.stack(each).mean().item()
    assert options["loss"](student, batch).item() == pytest.approx(expected, rel=1e-4)


def test_labels_do_not_matter(fits):
    method = BAD()
    task = toy_task(method)
    method.unlearn(trained(), task)
    ((model, mixture, _, options),) = fits
    batch = next(mixture.batches(30, training=True))
    other = type(batch)(batch.images, (batch.labels + 1) % 4, batch.ids)
    assert torch.equal(options["loss"](model, batch), options["loss"](model, other))


def test_the_mixture_is_the_forget_set_and_a_share_of_the_retain_set(fits):
    method = BAD(retain_frac=0.3)
    task = toy_task(method)
    method.unlearn(trained(), task)
    ((_, mixture, optimizer, options),) = fits
    kept, forget = mixture.parts
    assert (len(kept), len(forget)) == (round(0.3 * task.retain_size), task.forget_size)
    assert set(kept.ids.tolist()) < set(task.retain.ids.tolist())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0
    assert options["batch_norm"] == "eval"


def test_teachers_never_move_and_the_student_keeps_its_statistics(teachers):
    method = BAD(lr=1e-2, epochs=3)
    task = toy_task(method)
    student = method.unlearn(trained(), task)
    good, bad = teachers
    assert same_tensors(good, trained())
    assert same_tensors(bad, toy_task_fresh(method))
    before, after = trained().state_dict(), student.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "running" in k)
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


def toy_task_fresh(method):
    """The random network that the method draws: after the retain sample, from the same seed."""
    task = toy_task(method)
    task.retain.sample(max(2, round(method.retain_frac * len(task.retain))))
    return task.fresh_model(untrained=True)


def test_a_teacher_with_measured_norms_tells_images_apart_and_a_fresh_one_hardly(teachers):
    spread = {}
    for norms in ("fresh", "measured"):
        method = BAD(teacher_norms=norms)
        task = toy_task(method)
        method.unlearn(trained(), task)
        spread[norms] = task.logits(teachers[-1], task.retain).std(0).mean().item()
    assert spread["measured"] > 3 * spread["fresh"]


def test_outputs_on_a_forgotten_class_go_to_those_of_the_bad_teacher(teachers):
    method = BAD(lr=5e-3, epochs=30, retain_frac=1.0)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.accuracy(model, task.retain) > 0.9
    gone = task.logits(model, task.forget).softmax(1)
    bad = task.logits(teachers[1], task.forget).softmax(1)
    before = task.logits(trained(), task.forget).softmax(1)
    assert (gone - bad).abs().mean() < 0.2 * (before - bad).abs().mean()


def test_the_bad_teacher_does_not_start_from_weights_that_the_original_started_from(tmp_path):
    from safetensors.torch import save_file

    from .toys import NARROW

    file = tmp_path / "weights.safetensors"
    save_file(trained().state_dict(), file)
    task = toy_task(BAD(), model=f"{NARROW[:-1]},weights={file},stem=small]")
    assert same_tensors(task.fresh_model(), trained())
    assert not same_tensors(task.fresh_model(untrained=True), trained())
