"""What is left to do after other sweeps, lost artefacts and kills: nothing twice, nothing lost."""

from __future__ import annotations

import pytest

from unlearnbench.bench import shadow as shadow_module
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.store import Store
from unlearnbench.bench.work import find_work

from .attack_toys import attack_spec, bank_of, lay_out
from .commands import artifacts
from .toys import toy_options


@pytest.fixture
def options(tmp_path):
    return toy_options(tmp_path)


def left(spec, options):
    """Numbers of models to train, to unlearn, and attacks to score."""
    work = find_work(lay_out(spec)[1], Store(options.store), workers=1)
    return (
        sum(len(job.shadows) for job in work.shadows),
        sum(len(job.cells) for job in work.unlearnings),
        len(work.scores),
    )


def weights(options):
    return [name for name in artifacts(options.store) if name.startswith("shadow/")]


def lose(options, kind, key):
    Store(options.store).drop(kind, key)


def test_models_that_another_sweep_keeps_are_not_removed(options):
    run_sweep(attack_spec(), options)
    run_sweep(attack_spec(ulira={"keep_models": False}), options)
    run_sweep(attack_spec(ulira={"keep_models": False}, methods=["constant-output"]), options)
    assert len(weights(options)) == 6


def test_models_stay_while_an_attack_is_open(options):
    """A method that fails is tried again; that must not cost the bank each time."""
    spec = attack_spec(
        ulira={"keep_models": False}, methods=["identity", "moody[mood=raise,training_size=108]"]
    )
    result = run_sweep(spec, options)
    assert result.summary["attacks_failed"] == 1
    assert len(weights(options)) == 6
    assert left(spec, options)[0] == 0
    run_sweep(attack_spec(ulira={"keep_models": False}), options)
    assert weights(options) == []


def test_retrained_models_that_are_lost_are_made_again_for_a_new_method(options):
    spec = attack_spec()
    run_sweep(spec, options)
    (retrain,) = (a for a in lay_out(spec)[1].attacks.values() if a.method.name == "retrain")
    lose(options, "margins", retrain.cells[2].key)
    assert left(spec, options) == (0, 0, 0)
    more = attack_spec(methods=["constant-output"])
    assert left(more, options) == (0, 7, 1)
    result = run_sweep(more, options)
    assert not result.summary["attacks_failed"]


def test_margins_that_are_lost_are_read_off_the_model_that_is_there(options, monkeypatch):
    spec = attack_spec()
    run_sweep(spec, options)
    plan = lay_out(spec)[1]
    shadow = bank_of(plan).shadows[1]
    before = Store(options.store).get("margins", shadow.key).tensors()
    for attack in plan.attacks.values():
        lose(options, "ulira", attack.key)
    lose(options, "margins", shadow.key)
    assert left(spec, options) == (1, 0, 2)
    monkeypatch.delattr(shadow_module, "train_original")
    result = run_sweep(spec, options)
    assert not result.summary["attacks_failed"]
    after = Store(options.store).get("margins", shadow.key).tensors()
    for name, tensor in before.items():
        assert tensor.equal(after[name])


def test_a_bank_that_cannot_be_described_is_a_failure(options, monkeypatch):
    def fail(*_args, **_options):
        raise RuntimeError("no description")

    monkeypatch.setattr("unlearnbench.bench.bank_facts.get_margins", fail)
    result = run_sweep(attack_spec(), options)
    assert result.summary["banks_failed"] == 1
    assert result.summary["attacks_failed"] == 0
    assert result.banks == []


def test_without_an_attack_no_bank_of_a_former_run_is_left_in_the_folder(options):
    run_sweep(attack_spec(), options)
    assert (options.out / "banks.jsonl").is_file()
    run_sweep(attack_spec(0, methods=["constant-output"]), options)
    assert not (options.out / "banks.jsonl").exists()
