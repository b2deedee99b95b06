"""Checkpoints: a training that was interrupted ends with the same bits as one that was not."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.checkpoint import Checkpoint
from unlearnbench.bench.datastore import put_images
from unlearnbench.bench.job_keys import original_job
from unlearnbench.bench.jobs import WorkerSettings
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.original import run_original
from unlearnbench.bench.recipe import TrainingSettings
from unlearnbench.bench.store import Store
from unlearnbench.bench.task import quiet_randomness
from unlearnbench.bench.training import train_recipe

from .toys import CPU, NARROW, same_tensors, toy_data, toy_images, toy_recipe

PLAIN = {"epochs": 5, "batch_size": 32, "lr": 0.05}
ADAMW = PLAIN | {"optimizer": "adamw", "lr": 1e-3}
DROPOUT = "vit_tiny_patch16_224[depth=1,drop_rate=0.2,embed_dim=32,num_heads=2,patch_size=8]"
CASES = {
    "sgd": (NARROW, PLAIN),
    "sgd-without-momentum": (NARROW, PLAIN | {"momentum": 0.0}),
    "adamw": (NARROW, ADAMW),
    "constant-clipped": (NARROW, PLAIN | {"schedule": "constant", "clip_norm": 0.5}),
    "dropout-sgd": (DROPOUT, PLAIN),
    "dropout-adamw": (DROPOUT, ADAMW),
    "penalised-undecayed": (NARROW, PLAIN),
}
PENALTIES = {"penalised-undecayed": "osp[ortho_schedule=decay,ortho_weight_decay=zero]"}


class Killed(Exception):  # noqa: N818 - it is not an error, it is what happens
    """In place of a signal."""


class Killing(Checkpoint):
    """Die when so many epochs are done and written, or just before they are written."""

    def __init__(self, path, rng, after, *, written=True):
        super().__init__(path, rng, every_s=0)
        self.after, self.written = after, written

    def epoch_done(self, epochs, model, optimizer):
        if epochs == self.after and not self.written:
            raise Killed
        super().epoch_done(epochs, model, optimizer)
        if epochs == self.after:
            raise Killed


def training(case, served=None):
    """A fresh model, its images (mirrored and cropped by chance), recipe and random numbers."""
    name, settings = CASES[case]
    images = toy_images()
    model = build_model(create_model_spec(name), images.num_classes, images.image_shape, seed=3)
    rng = torch.Generator().manual_seed(11)
    pixels = Pixels(images, "train", CPU)
    pixels.flip, pixels.crop_pad = True, 1
    recipe = toy_recipe(PENALTIES.get(case), TrainingSettings(**settings))
    ids = toy_data().split.training[:70]
    examples = ExampleSet("training", pixels, ids, 32, rng, {} if served is None else served)
    return model, examples, recipe, rng


def train(case, checkpoint=None):
    """Train to the end, or to where the checkpoint kills it; global random numbers are used."""
    model, examples, recipe, rng = training(case)
    with quiet_randomness(rng, CPU):
        train_recipe(model, examples, recipe, checkpoint and checkpoint(rng))
    return model


@cache
def whole(case):
    """The model that is trained without an interruption."""
    return train(case)


@pytest.mark.parametrize(
    ("case", "written"), [*((case, True) for case in CASES), ("dropout-adamw", False)]
)
def test_an_interrupted_training_ends_with_the_same_bits(case, written, tmp_path):
    """T29, within a shadow model; augmentation, dropout, momenta and schedule go on."""
    path = tmp_path / "checkpoints" / "one.safetensors"
    with pytest.raises(Killed):
        train(case, lambda rng: Killing(path, rng, 2, written=written))
    assert path.is_file()
    assert same_tensors(train(case, lambda rng: Checkpoint(path, rng, every_s=0)), whole(case))


def test_a_training_may_be_interrupted_again_and_again(tmp_path):
    path = tmp_path / "one.safetensors"
    for after in (1, 3, 4):
        with pytest.raises(Killed):
            train("dropout-adamw", lambda rng, after=after: Killing(path, rng, after))
    resumed = train("dropout-adamw", lambda rng: Checkpoint(path, rng, every_s=0))
    assert same_tensors(resumed, whole("dropout-adamw"))


def test_epochs_that_are_done_are_not_done_again(tmp_path):
    path = tmp_path / "one.safetensors"
    with pytest.raises(Killed):
        train("sgd", lambda rng: Killing(path, rng, 4))
    served = {}
    model, examples, recipe, rng = training("sgd", served)
    with quiet_randomness(rng, CPU):
        train_recipe(model, examples, recipe, Checkpoint(path, rng, every_s=0))
    assert served == {"training": len(examples)}


def test_a_checkpoint_is_not_written_more_often_than_asked(tmp_path):
    path = tmp_path / "one.safetensors"
    train("sgd", lambda rng: Checkpoint(path, rng, every_s=3600))
    assert not path.exists()
    train("sgd", lambda rng: Checkpoint(path, rng, every_s=0))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_seconds_of_what_was_done_before_count(tmp_path):
    path = tmp_path / "one.safetensors"
    model, examples, recipe, rng = training("sgd")
    with pytest.raises(Killed):
        train_recipe(model, examples, recipe, Killing(path, rng, 3))
    again = Checkpoint(path, rng, every_s=0)
    assert again.before_s == 0
    train_recipe(model, examples, recipe, again)
    assert 0 < again.before_s < 60


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_model(path):
    tensors = load_file(path)
    kept = {name: t for name, t in tensors.items() if name != "model.fc.weight"}
    save_file(kept, path, {"format": "unlearnbench.checkpoint/1", "epochs": "2", "seconds": "1"})


def _other_format(path):
    save_file(load_file(path), path, {"format": "somebody-else/7", "epochs": "2", "seconds": "1"})


SPOILT = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": _cut,
    "text": lambda path: path.write_text("this is no checkpoint" * 100),
    "other-model": _other_model,
    "other-format": _other_format,
    "no-metadata": lambda path: save_file(load_file(path), path),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_is_cut_or_foreign_is_ignored(how, tmp_path):
    path = tmp_path / "one.safetensors"
    with pytest.raises(Killed):
        train("sgd", lambda rng: Killing(path, rng, 2))
    SPOILT[how](path)
    resumed = train("sgd", lambda rng: Checkpoint(path, rng, every_s=0))
    assert same_tensors(resumed, whole("sgd"))


def test_clearing_removes_the_file_and_may_be_done_twice(tmp_path):
    path = tmp_path / "one.safetensors"
    checkpoint = Checkpoint(path, torch.Generator(), every_s=0)
    train("sgd", lambda rng: Checkpoint(path, rng, every_s=0))
    checkpoint.clear()
    checkpoint.clear()
    assert not path.exists()


# --- in a worker --------------------------------------------------------------------------------


def worker(folder):
    """A store with the toy images, and the job of an original."""
    store = Store(folder)
    put_images(store, toy_images())
    recipe = toy_recipe(None, TrainingSettings(**PLAIN | {"epochs": 3}))
    job = original_job(toy_images(), 0.1, create_model_spec(NARROW), recipe, seed=0)
    return store, job, WorkerSettings(str(folder), (), 1, "cpu")


def weights(store, job):
    return store.get(job.kind, job.key).tensors()


@pytest.mark.parametrize("spoil", [None, "cut"])
def test_a_worker_goes_on_where_another_was_killed_and_tidies_up(spoil, tmp_path, monkeypatch):
    store, job, settings = worker(tmp_path / "whole")
    run_original(job, settings)
    expected = weights(store, job)
    store, job, settings = worker(tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr("unlearnbench.bench.original.Checkpoint", partial(Killing, after=2))
        with pytest.raises(Killed):
            run_original(job, settings)
    assert store.checkpoint(job.key).is_file()
    assert not store.has(job.kind, job.key)
    if spoil:
        SPOILT[spoil](store.checkpoint(job.key))
    seconds = run_original(job, settings)
    assert not list(store.checkpoint(job.key).parent.iterdir())
    resumed = weights(store, job)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert seconds == store.get(job.kind, job.key).meta["original_s"] > 0
