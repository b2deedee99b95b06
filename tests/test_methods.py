"""The contract over every registered method of ours, and what controls and the task promise."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from unlearnbench.bench import (
    DATASETS,
    METHODS,
    UndeclaredNeedError,
    Unlearner,
)
from unlearnbench.bench.cell import run_cell
from unlearnbench.bench.datastore import put_images
from unlearnbench.bench.jobs import WorkerSettings
from unlearnbench.bench.original import run_original
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.store import Store
from unlearnbench.bench.testing import contract

from .toys import (
    same_tensors,
    toy_images,
    toy_options,
    toy_plan,
    toy_spec,
    toy_task,
    trained,
)

NAMES = METHODS.names()


def prepared_store(tmp_path, method, **changes):
    """A store with the toy images and the original; and the cell of the method on it."""
    if METHODS.create(method).scope == {"sample"}:
        changes = {"scenarios": ["random[count=1]"]} | changes
    spec = toy_spec(methods=[method], **changes)
    plan = toy_plan(spec)
    cell = next(c for c in plan.cells if c.method.name == METHODS.create(method).name)
    assert not cell.skip
    store = Store(tmp_path)
    put_images(store, DATASETS.create(cell.dataset).load(tmp_path))
    settings = WorkerSettings(store=str(tmp_path), plugins=(), threads=1, device="cpu")
    run_original(cell.job.original, settings)
    return store, cell.job, settings


test_contract = contract(*NAMES)


def test_identity_is_bit_identical_to_the_original(tmp_path):
    store, job, settings = prepared_store(tmp_path, "identity")
    run_cell(job, settings)
    original = store.get("original", job.original.key).tensors()
    unlearned = store.get("cell", job.key).tensors()
    assert all(torch.equal(original[k], unlearned[k]) for k in original)


def test_retrain_of_a_class_never_names_it_and_keeps_the_others(tmp_path):
    store, job, settings = prepared_store(
        tmp_path, "retrain", training={"epochs": 15, "batch_size": 32, "lr": 0.05}
    )
    run_cell(job, settings)
    metrics = store.get("cell", job.key).meta["metrics"]
    assert metrics["forget_acc"] == metrics["test_forget_acc"] == 0
    assert metrics["test_retain_acc"] > 0.9
    epochs, retained = 15, len(toy_plan(toy_spec()).cells[0].request.retain)
    assert store.get("cell", job.key).meta["samples"] == {"retain": epochs * retained}


def test_retrained_model_shares_nothing_with_the_original(tmp_path):
    store, job, settings = prepared_store(tmp_path, "retrain")
    run_cell(job, settings)
    original = store.get("original", job.original.key).tensors()
    retrained = store.get("cell", job.key).tensors()
    kernels = [k for k, t in original.items() if t.dim() == 4]
    assert all(not torch.equal(original[k], retrained[k]) for k in kernels)


def test_head_mask_never_names_the_class_and_changes_no_other_logit():
    from unlearnbench.bench.batches import ExampleSet, Pixels

    images = toy_images()
    test = ExampleSet(
        "test",
        Pixels(images, "test", torch.device("cpu")),
        np.arange(len(images.test_labels)),
        64,
        torch.Generator(),
        {},
    )
    method = METHODS.create("head-mask")
    task = toy_task(method, "class[classes=[2]]")
    before = task.logits(trained(), test)
    after = task.logits(method.unlearn(trained(), task), test)
    kept = [0, 1, 3]
    assert torch.equal(before[:, kept], after[:, kept])
    assert (after.argmax(1) != 2).all()


def test_finetune_without_steps_to_take_changes_only_by_its_step_size():
    method = METHODS.create("finetune[lr=1e-12,epochs=1]")
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    original = dict(trained().named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, original[name], atol=1e-9)
    assert task.served == {"retain": task.retain_size}


class _Greedy(Unlearner):
    """Touches what it did not declare."""

    name = "greedy"
    reference = "test"

    def unlearn(self, model, task):
        return model


@pytest.mark.parametrize("role", ["forget", "retain", "validation", "training"])
def test_touching_an_undeclared_set_raises_and_says_what_to_declare(role):
    task = toy_task(_Greedy())
    with pytest.raises(UndeclaredNeedError, match=f'`greedy` touched the {role} set.*"{role}"'):
        getattr(task, role)


def test_the_training_set_is_closed_to_unlearn_even_if_declared():
    class Hoarder(_Greedy):
        name = "hoarder"
        needs = frozenset({"training"})

    with pytest.raises(UndeclaredNeedError, match="in `prepare`"):
        _ = toy_task(Hoarder()).training
    assert len(toy_task(Hoarder(), preparing=True).training) == 108


def test_a_task_holds_no_test_images():
    task = toy_task(_Greedy(), needs=frozenset({"forget", "retain", "validation", "training"}))
    test_bytes = {image.tobytes() for image in toy_images().test_images}
    for role in ("forget", "retain", "validation"):
        pixels = getattr(task, role)._pixels
        served = {image.numpy().tobytes() for image in pixels.images}
        assert not served & test_bytes
    assert not hasattr(task, "test")


GRADIENTS = """
import torch
from unlearnbench.bench import Unlearner

class Off(Unlearner):
    name = "off"
    reference = "test"
    def unlearn(self, model, task):
        task.report(gradients=torch.is_grad_enabled())
        return model

class On(Off):
    name = "on"
    needs = frozenset({"gradients"})
"""


@pytest.mark.parametrize(("name", "expected"), [("off", False), ("on", True)])
def test_gradients_are_on_for_a_method_that_declared_them_and_off_for_others(
    name, expected, plugin, tmp_path
):
    path = plugin(GRADIENTS)
    result = run_sweep(toy_spec(methods=[name], plugins=[path]), toy_options(tmp_path))
    (record,) = [r for r in result.records if r.method == name]
    assert record.method_info == {"gradients": expected}


def test_what_prepare_reads_is_counted(tmp_path):
    store, job, settings = prepared_store(tmp_path, "osp[samples_per_class=5]")
    run_cell(job, settings)
    assert store.get("cell", job.key).meta["samples"] == {"training": 4 * 5}


def test_a_cell_that_is_declined_when_it_runs_is_not_applicable(tmp_path):
    spec = toy_spec(
        methods=["osp", "osp-vanilla"],
        models=["vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"],
    )
    result = run_sweep(spec, toy_options(tmp_path))
    own, plain = (r for r in result.records if r.method.startswith("osp"))
    assert own.status == plain.status == "skipped"
    assert "finds nothing to penalise in this network" in own.reason
    assert "only 1 of 9 layers are convolutions" in plain.reason


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_ours_is_named_after_its_method_and_says_where_it_comes_from(name):
    cls = METHODS.get(name)
    assert name == cls.__module__.rsplit(".", 1)[1].replace("_", "-")
    doc = importlib.import_module(cls.__module__).__doc__
    for heading in ("Source", "Reference code", "Differences", "Cost"):
        assert f"{heading}:" in doc
    assert METHODS.create(cls.create({}).spec) == cls.create({})


def test_same_tensors_helper_sees_a_difference():
    model = trained()
    with torch.no_grad():
        next(model.parameters()).flatten()[0].add_(1e-6)
    assert not same_tensors(model, trained())
