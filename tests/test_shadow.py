"""Shadow models trained together, where the device gains from it, and alone."""

from __future__ import annotations

import pytest
import torch

from unlearnbench.bench import shadow as module
from unlearnbench.bench.datastore import put_images
from unlearnbench.bench.errors import DivergedError
from unlearnbench.bench.jobs import WorkerSettings
from unlearnbench.bench.margins import get_margins
from unlearnbench.bench.shadow import run_shadows
from unlearnbench.bench.store import Store
from unlearnbench.bench.work import find_work

from .toys import toy_images_of, toy_plan, toy_spec

CHECKPOINT = module.Checkpoint


@pytest.fixture
def laid_out(tmp_path, monkeypatch):
    """A store with the images, worker settings, and one job of four shadow models."""
    monkeypatch.setattr(module, "STACKING_DEVICES", {"cpu"})
    spec = toy_spec(methods=["identity"], ulira={"shadows": 8})
    plan = toy_plan(spec)
    store = Store(tmp_path / "store")
    put_images(store, toy_images_of(spec))
    job = find_work(plan, store, workers=1).shadows[0]
    assert len(job.shadows) == 4
    return store, WorkerSettings(str(store.root), (), 1, "cpu"), job


def margins(store, job):
    return get_margins(store, job.makes).margins


def test_together_and_alone_give_the_same_margins_up_to_rounding(laid_out, monkeypatch, tmp_path):
    store, settings, job = laid_out
    monkeypatch.setattr(module, "worth_stacking", lambda *_: True)
    run_shadows(job, settings)
    assert all(meta["stack"] == 4 for meta in get_margins(store, job.makes).meta)
    together = margins(store, job)
    for key in job.makes:
        store.drop("margins", key)
        store.drop("shadow", key)
    monkeypatch.setattr(module, "worth_stacking", lambda *_: False)
    run_shadows(job, settings)
    assert all("stack" not in meta for meta in get_margins(store, job.makes).meta)
    assert together == pytest.approx(margins(store, job), abs=1e-3)


def test_the_faster_way_is_measured_and_leaves_no_trace(laid_out, monkeypatch):
    store, settings, job = laid_out
    answers = []
    measure = module.worth_stacking

    def watched(trainings, device):
        before = [training.rng.get_state() for training in trainings]
        weights = [training.model.state_dict()["fc.weight"].clone() for training in trainings]
        answers.append(measure(trainings, device))
        assert all(
            torch.equal(t.rng.get_state(), s) for t, s in zip(trainings, before, strict=True)
        )
        for training, old in zip(trainings, weights, strict=True):
            assert torch.equal(training.model.state_dict()["fc.weight"], old)
        return answers[-1]

    monkeypatch.setattr(module, "worth_stacking", watched)
    run_shadows(job, settings)
    assert answers in ([True], [False])
    assert len(margins(store, job)) == 4


@pytest.mark.parametrize("error", [DivergedError("the loss became nan."), torch.OutOfMemoryError()])
def test_a_stack_that_fails_is_trained_model_by_model(laid_out, monkeypatch, error):
    store, settings, job = laid_out

    def fail(*_args):
        raise error

    monkeypatch.setattr(module, "worth_stacking", lambda *_: True)
    monkeypatch.setattr(module, "train_stacked", fail)
    run_shadows(job, settings)
    assert all("stack" not in meta for meta in get_margins(store, job.makes).meta)


def test_an_interrupted_stack_goes_on_where_it_was(laid_out, monkeypatch):
    store, settings, job = laid_out
    monkeypatch.setattr(module, "worth_stacking", lambda *_: True)
    whole = CHECKPOINT.epoch_done
    monkeypatch.setattr(
        module, "Checkpoint", lambda path, rngs: CHECKPOINT(path, rngs, every_s=0.0)
    )

    def interrupted(self, epochs, model, optimizer):
        whole(self, epochs, model, optimizer)
        if epochs == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CHECKPOINT, "epoch_done", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_shadows(job, settings)
    assert len(list((store.root / "checkpoints").iterdir())) == 1
    resumed = []
    monkeypatch.setattr(
        CHECKPOINT,
        "epoch_done",
        lambda self, epochs, *rest: resumed.append(epochs) or whole(self, epochs, *rest),
    )
    run_shadows(job, settings)
    assert resumed == [2]  # of two epochs the first was not trained again
    assert list((store.root / "checkpoints").iterdir()) == []
    again = margins(store, job)
    for key in job.makes:
        store.drop("margins", key)
        store.drop("shadow", key)
    run_shadows(job, settings)
    assert resumed == [2, 1, 2]
    assert (again == margins(store, job)).all()
