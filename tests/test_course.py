"""The course of unlearning: looked at from outside, off the clock, and without a trace."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unlearnbench.bench import cell, task, workbench
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.checkpoint import Checkpoint
from unlearnbench.bench.course import EXAMPLES, Course, rounded, spread
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.store import Store
from unlearnbench.bench.training import steps_an_epoch, train_recipe

from .toys import (
    CPU,
    SETTINGS,
    same_tensors,
    toy_data,
    toy_images,
    toy_options,
    toy_recipe,
    toy_spec,
    trained,
)

TWICE = """
import numpy as np, random, torch
from torch import nn
from unlearnbench.bench import Unlearner

class Noisy(nn.Module):
    '''Draw from every global generator, in training and in evaluation.'''
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = x + 1e-2 * torch.randn_like(x) + 1e-2 * np.random.rand() + 1e-2 * random.random()
        return self.inner(self.drop(x))

class Twice(Unlearner):
    '''Two fits of one and two epochs, with everything that a look could disturb.'''
    name = "twice"
    reference = "test"
    needs = frozenset({"forget", "retain", "gradients"})

    def unlearn(self, model, task):
        noisy = Noisy(model)
        optimizer = task.optimizer(noisy, lr=0.02)
        with task.phase("search"):
            task.fit(noisy, task.forget, optimizer, batch_norm="eval")
        task.fit(noisy, task.retain, optimizer, epochs=2)
        task.report(drawn=float(torch.rand(())) + np.random.rand() + random.random())
        return model

class Watched(Unlearner):
    '''An epoch while a hook counts the passes.'''
    name = "watched"
    reference = "test"
    needs = frozenset({"retain", "gradients"})

    def unlearn(self, model, task):
        passes = []
        handle = model.register_forward_hook(lambda *_: passes.append(1))
        task.fit(model, task.retain, task.optimizer(model, lr=0.01), epochs=2)
        handle.remove()
        task.report(passes=len(passes))
        return model
"""


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory):
    """One MLflow database for all, since it takes a second to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def records_of(tmp_path, tracking_uri):
    """Run a sweep in a folder and return its records by method."""

    def run(folder=tmp_path, **changes):
        options = toy_options(folder, tracking_uri=tracking_uri)
        return {record.method: record for record in run_sweep(toy_spec(**changes), options).records}

    return run


def forget_set(count=30):
    pixels = Pixels(toy_images(), "train", CPU)
    return ExampleSet("forget", pixels, np.arange(count), 1, torch.Generator(), {})


def test_every_epoch_is_noted_with_its_loss_and_forget_accuracy(tmp_path, records_of):
    records = records_of(methods=["finetune[epochs=3]", "scrub[epochs=2]", "head-mask"])
    finetune = records["finetune"].course
    assert [len(curve) for curve in finetune.values()] == [3, 3]
    assert finetune.keys() == {"loss", "forget_acc"}
    assert finetune["forget_acc"][-1] == pytest.approx(records["finetune"].metrics["forget_acc"])
    assert len(records["retrain"].course["loss"]) == 2
    assert records["retrain"].course["forget_acc"][-1] == pytest.approx(
        records["retrain"].metrics["forget_acc"]
    )
    assert len(records["scrub"].course["forget_acc"]) >= 3  # away and back count each
    store = Store(tmp_path / "store")
    (path,) = (tmp_path / "store" / "artifacts" / "original").glob("*/*")
    original = store.get("original", path.name).meta["course"]
    assert len(original["loss"]) == 2
    assert records["identity"].course == original
    assert records["head-mask"].course == {}  # it has no loop, or one of its own


def test_looking_changes_no_bit_and_no_random_number(tmp_path, plugin, monkeypatch, records_of):
    methods, plugins = ["twice", "finetune", "neggrad", "scrub"], [plugin(TWICE)]

    def run(folder):
        records = records_of(tmp_path / folder, methods=methods, plugins=plugins)
        store = Store(tmp_path / folder / "store")
        return records, {m: store.get("cell", r.key).tensors() for m, r in records.items()}

    looked_at, weights = run("with")
    monkeypatch.setattr(Course, "epoch_done", lambda *_: None)
    alone, unseen = run("without")
    assert looked_at.keys() == alone.keys()
    for key, record in looked_at.items():
        assert record.course, key
        assert record.metrics == alone[key].metrics
        assert record.samples == alone[key].samples
        assert record.method_info == alone[key].method_info
        assert weights[key].keys() == unseen[key].keys()
        assert all(torch.equal(weights[key][name], unseen[key][name]) for name in weights[key])
    assert [len(curve) for curve in looked_at["twice"].course.values()] == [3, 3]


def test_the_clock_stands_while_the_harness_looks(plugin, monkeypatch, records_of):
    now = 0.0

    class SlowCourse(Course):
        def epoch_done(self, model, loss):
            nonlocal now
            now += 100.0
            super().epoch_done(model, loss)

    clock = SimpleNamespace(perf_counter=lambda: now)
    for module in (task, workbench):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(cell, "Course", SlowCourse)
    record = records_of(methods=["twice"], plugins=[plugin(TWICE)])["twice"]
    assert now >= 300.0
    assert record.times["unlearn_s"] == 0.0
    assert record.times["search_s"] == 0.0


def test_a_model_with_hooks_is_not_looked_at(plugin, records_of):
    record = records_of(methods=["watched"], plugins=[plugin(TWICE)])["watched"]
    assert record.course.keys() == {"loss"}
    assert len(record.course["loss"]) == 2
    steps = steps_an_epoch(range(record.retain_size), 32)
    assert record.method_info["passes"] == 2 * steps


def test_a_look_that_fails_or_sees_nan_costs_no_cell():
    class Broken(torch.nn.Module):
        def forward(self, images):
            raise RuntimeError("no")

    class Blank(torch.nn.Module):
        def forward(self, images):
            return torch.full((len(images), 4), torch.nan)

    course = Course(forget_set, 8)
    course.epoch_done(Broken(), 1.5)
    course.epoch_done(Broken(), 0.5)
    assert course.as_dict() == {"loss": [1.5, 0.5]}
    course = Course(forget_set, 8)
    course.epoch_done(Blank(), 1.0)
    assert course.as_dict() == {"loss": [1.0], "forget_acc": [0.0]}


def test_a_look_leaves_modes_and_generators_as_they_were():
    model = trained()
    model.train()
    model.fc.eval()
    modes = [module.training for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    Course(forget_set, 8).epoch_done(model, 0.0)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()


def test_of_a_large_forget_set_some_spread_examples_are_looked_at():
    assert spread(np.arange(EXAMPLES)).tolist() == list(range(EXAMPLES))
    some = spread(np.arange(2 * EXAMPLES + 1))
    assert len(some) <= EXAMPLES
    assert some[-1] >= 2 * EXAMPLES - 2
    assert rounded([1 / 3, 1e-9 / 3]) == [0.333333, 3.33333e-10]


def test_the_losses_of_a_training_that_was_interrupted_are_all_there(tmp_path):
    """The checkpoint remembers those of the epochs that are not run again."""
    recipe = toy_recipe(settings=SETTINGS.model_copy(update={"epochs": 4}))

    class Interrupted(Checkpoint):
        def epoch_done(self, epochs, model, optimizer):
            super().epoch_done(epochs, model, optimizer)
            if epochs == 2:
                raise KeyboardInterrupt

    def train(kind, path):
        data, model = toy_data(), trained()
        rng = torch.Generator().manual_seed(1)
        pixels = Pixels(data.images, "train", CPU)
        examples = ExampleSet("training", pixels, data.split.training, 32, rng, {})
        checkpoint = kind(path, rng, every_s=0)
        try:
            train_recipe(model, examples, recipe, checkpoint)
        except KeyboardInterrupt:
            return train(Checkpoint, path)
        return model, checkpoint.losses

    whole, losses = train(Checkpoint, tmp_path / "whole.safetensors")
    again, resumed = train(Interrupted, tmp_path / "part.safetensors")
    assert same_tensors(whole, again)
    assert len(losses) == 4
    assert resumed == losses
