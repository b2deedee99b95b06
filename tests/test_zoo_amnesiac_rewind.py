"""Amnesiac rewind: the history is that of the real training, and its steps are taken back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector
from torch.optim.optimizer import register_optimizer_step_post_hook

from unlearnbench.bench import METHODS, DeclinedError, UndeclaredNeedError, Unlearner
from unlearnbench.bench.batches import ExampleSet
from unlearnbench.bench.original import lay_out, run_original
from unlearnbench.bench.recipe import TrainingSettings
from unlearnbench.bench.workbench import Workbench

from .test_methods import prepared_store
from .toys import toy_task

AMNESIAC = METHODS.get("amnesiac-rewind")
TRAINING = {"epochs": 3, "batch_size": 20, "lr": 0.05}


def laid_out(folder, method="amnesiac-rewind", scenario="random[count=2]"):
    store, job, settings = prepared_store(folder, method, scenarios=[scenario], training=TRAINING)
    return Workbench(store, job, settings), settings


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A bench, with the weights and the batch of every step of its original's own training."""
    weights, batches = [], []
    take = ExampleSet.take

    def spy(self, positions, *, training=False):
        batch = take(self, positions, training=training)
        if training:
            batches.append(set(batch.ids.tolist()))
        return batch

    def look(optimizer, args, kwargs):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        weights.append(parameters_to_vector(parameters).detach().clone())

    handle = register_optimizer_step_post_hook(look)
    monkeypatch.setattr(ExampleSet, "take", spy)
    try:
        bench, settings = laid_out(tmp_path)
    finally:
        handle.remove()
        monkeypatch.undo()
    start = lay_out(bench.store, bench.job.original, settings).model
    weights.insert(0, parameters_to_vector(start.parameters()).detach())
    return bench, weights, batches


def test_the_steps_that_held_a_forget_example_are_taken_back_and_no_others(watched):
    bench, weights, batches = watched
    forget = set(bench.request.forget.tolist())
    touched = [bool(forget & batch) for batch in batches]
    assert len(batches) == 3 * 6
    assert 0 < sum(touched) < len(touched) / 2
    expected = weights[-1].double()
    for step, taken_back in enumerate(touched):
        if taken_back:
            expected -= weights[step + 1].double() - weights[step].double()
    outcome = bench.unlearn(bench.prepare().tensors)
    result = parameters_to_vector(outcome.model.parameters()).detach()
    assert torch.allclose(result.double(), expected, atol=1e-6)
    assert outcome.reported == {"steps": len(touched), "steps_taken_back": sum(touched)}
    assert not torch.allclose(result, weights[-1], atol=1e-4)


def test_all_changes_together_lead_from_the_start_to_the_original(watched):
    bench, weights, batches = watched
    prepared = bench.prepare()
    changes, ids = prepared.tensors["changes"], prepared.tensors["ids"]
    assert torch.allclose(changes.sum(0), weights[-1] - weights[0], atol=1e-5)
    assert [set(row.tolist()) - {-1} for row in ids] == batches
    size = len(bench.split.training)
    assert prepared.served == {"training": 3 * size}


def test_buffers_are_not_taken_back(watched):
    bench, _, _ = watched
    model = bench.unlearn(bench.prepare().tensors).model
    original = bench.original.state_dict()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, original[name]), name


def test_it_declines_to_store_what_is_too_large_before_it_trains(tmp_path):
    bench, _ = laid_out(tmp_path, "amnesiac-rewind[max_bytes=1000]")
    with pytest.raises(DeclinedError, match=r"18 steps of \d+ parameters, .*`max_bytes` allows"):
        bench.prepare()


def test_it_declines_where_the_training_does_not_repeat_itself(tmp_path):
    bench, _ = laid_out(tmp_path)
    with torch.no_grad():
        for parameter in bench.original.parameters():
            parameter.mul_(1.25)
    with pytest.raises(DeclinedError, match=r"does not repeat itself.*differ by 20 %"):
        bench.prepare()


def test_it_serves_few_samples_only_and_says_why():
    few, many = (toy_task(AMNESIAC(), f"random[count={n}]") for n in (1, 10))
    assert AMNESIAC().unsupported_reasons(few) == []
    (reason,) = AMNESIAC().unsupported_reasons(many)
    share = 100 * (1 - (98 / 108) ** 32)
    assert reason.startswith(f"would take back {share:.0f} % of the training")
    assert AMNESIAC(max_touched_frac=1.0).unsupported_reasons(many) == []
    whole = toy_task(AMNESIAC())
    assert AMNESIAC().unsupported_reasons(whole)[0] == "does not forget whole classes"


def test_an_original_that_was_not_trained_here_has_no_history():
    task = toy_task(
        AMNESIAC(), "random[count=1]", settings=TrainingSettings(epochs=0, batch_size=20)
    )
    (reason,) = AMNESIAC().unsupported_reasons(task)
    assert "the original was not trained here" in reason


def test_the_history_is_closed_to_who_did_not_declare_it_and_to_unlearn():
    class Curious(Unlearner):
        name = "curious"
        reference = "test"
        needs = frozenset({"training"})

        def unlearn(self, model, task):
            return model

    with pytest.raises(UndeclaredNeedError, match=r'the history of training.*"history".*`prepare`'):
        toy_task(Curious(), preparing=True).replay([])
    with pytest.raises(UndeclaredNeedError, match="training set"):
        toy_task(AMNESIAC()).replay([])


def test_a_bench_opens_the_history_to_prepare_only(tmp_path):
    bench, _ = laid_out(tmp_path)
    seen = []

    class Peeking(AMNESIAC):
        def unlearn(self, model, task):
            with pytest.raises(UndeclaredNeedError):
                task.replay([])
            seen.append(task.served)
            return model

    bench.method = Peeking()
    bench.unlearn({})
    assert seen == [{}]


def test_the_same_request_is_served_again_from_the_store(tmp_path):
    bench, settings = laid_out(tmp_path)
    first = bench.prepare()
    run_original(bench.job.original, settings)
    again = Workbench(bench.store, bench.job, settings).prepare()
    assert again.prepare_s == first.prepare_s
    assert np.array_equal(again.tensors["changes"], first.tensors["changes"])
