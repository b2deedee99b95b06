"""Recipes that fine-tune a plain original, and what is shared between variants of a method."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from unlearnbench.bench import METHODS
from unlearnbench.bench.checkpoint import Checkpoint
from unlearnbench.bench.original import run_original
from unlearnbench.bench.recipe import TrainingSettings, create_recipe
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.store import Store
from unlearnbench.bench.training import train_recipe
from unlearnbench.bench.work import find_work

from .commands import artifacts
from .test_training import examples
from .toys import NARROW, fresh, same_tensors, toy_options, toy_plan, toy_spec

HELD = "orthogonal[ortho_form=cosine,ortho_lambda=30.0]"
TUNED = "orthogonal[finetune_epochs=2,ortho_lambda=0.05]"
SETTINGS = TrainingSettings(epochs=3, batch_size=32, lr=0.05)


def penalty_of(model):
    return float(METHODS.create("osp[ortho_lambda=1]").training_penalty(model).detach())


# --- the training ---------------------------------------------------------------------------------


def trained(recipe, *, model=None, checkpoint=None, started=False, data=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return train_recipe(model or fresh(), data or examples(60), create_recipe(recipe, SETTINGS),
                            checkpoint, started=started)  # fmt: skip


def test_the_penalty_comes_after_a_plain_training():
    """By hand: the plain recipe, then its epochs with the penalty, on the same generators."""
    whole = trained(TUNED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = examples(60)
        model = train_recipe(fresh(), data, create_recipe("plain", SETTINGS))
        plain = penalty_of(model)
        model = train_recipe(model, data, create_recipe(TUNED, SETTINGS), started=True)
    assert same_tensors(whole, model)
    assert penalty_of(model) < 0.9 * plain


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 2, 3, 4], ids=lambda n: f"after-epoch-{n}")
def test_an_interrupted_training_goes_on_in_either_part(stop, tmp_path, monkeypatch):
    path, done = tmp_path / "checkpoints" / "a.safetensors", 0
    write = Checkpoint.epoch_done

    def counted(self, epochs, model, optimizer):
        nonlocal done
        write(self, epochs, model, optimizer)
        done += 1
        if done == stop:
            raise StoppedError

    def go():
        data = examples(60)
        checkpoint = Checkpoint(path, data._generator, every_s=0)
        return trained(TUNED, data=data, checkpoint=checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "epoch_done", counted)
        with pytest.raises(StoppedError):
            go()
    assert same_tensors(go(), trained(TUNED))
    assert [file for file in path.parent.iterdir() if file != path] == []


def test_a_damaged_file_of_the_second_part_does_not_stand_for_the_first(tmp_path):
    path, data = tmp_path / "a.safetensors", examples(60)
    path.write_text("cut short")
    whole = trained(TUNED, data=data, checkpoint=Checkpoint(path, data._generator, every_s=1e9))
    assert same_tensors(whole, trained(TUNED))


def test_a_schedule_that_decays_ends_without_the_penalty():
    calls = []
    osp = METHODS.get("osp")

    class Counting(osp):
        name = "counting"

        def training_penalty(self, model):
            calls.append(None)
            return super().training_penalty(model)

    from unlearnbench.bench.recipe import Recipe

    settings = SETTINGS.model_copy(update={"epochs": 10})
    train_recipe(fresh(), examples(32), Recipe("r", settings, Counting(ortho_schedule="decay")))
    assert len(calls) == 6  # one step an epoch; none in the last four epochs


# --- in a sweep -----------------------------------------------------------------------------------


def test_a_fine_tuned_original_starts_from_the_plain_one(tmp_path):
    spec = toy_spec(methods=["identity"], recipes=["plain", TUNED])
    result = run_sweep(spec, toy_options(tmp_path))
    assert [record.status for record in result.records] == ["ok"] * len(result.records)
    plan, store = toy_plan(spec), Store(tmp_path / "store")
    (tuned,) = [job for job in plan.originals.values() if job.start is not None]
    assert plan.originals[tuned.start.key].recipe.name == "plain"
    assert len(plan.originals) == 2
    found, start = (store.get("original", key) for key in (tuned.key, tuned.start.key))
    assert found.meta["original_s"] > start.meta["original_s"]  # both trainings count
    seconds = {r.recipe: r.times["original_s"] for r in result.records}
    assert seconds[tuned.recipe.name] == found.meta["original_s"]


def test_only_what_is_missing_is_trained(tmp_path):
    plain, tuned = (toy_spec(methods=["identity"], recipes=[r]) for r in ("plain", TUNED))
    run_sweep(plain, toy_options(tmp_path))
    work = find_work(toy_plan(tuned), Store(tmp_path / "store"), 1)
    assert [job.start is not None for job in work.originals] == [True]
    fresh_work = find_work(toy_plan(tuned), Store(tmp_path / "other"), 1)
    assert [job.start is not None for job in fresh_work.originals] == [False, True]


def test_a_measure_that_fails_does_not_lose_the_training(tmp_path, monkeypatch):
    from unlearnbench.bench import original

    def broken(model, examples):
        raise MemoryError("no room")

    monkeypatch.setattr(original, "decorrelation", broken)
    result = run_sweep(toy_spec(methods=["identity"]), toy_options(tmp_path))
    (identity, _) = result.records
    assert identity.status == "ok"
    assert identity.model_info["decorrelation_failed"] == "MemoryError: no room"
    assert (result.out / "leaderboard.md").is_file()


def test_a_recipe_that_has_nothing_to_penalise_is_not_passed_off_as_one(tmp_path):
    vit = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"
    spec = toy_spec(models=[vit], methods=["osp[units=mlp]", "osp-vanilla[units=mlp]"])
    records = run_sweep(spec, toy_options(tmp_path)).records
    status = {(r.method, r.recipe): (r.status, r.reason) for r in records}
    assert status["osp-vanilla", "plain"] == ("ok", None)
    skipped, reason = status["osp", "orthogonal"]
    assert skipped == "skipped"
    assert "recipe `orthogonal` finds nothing to penalise in this network" in reason


def test_a_start_that_is_gone_is_told(tmp_path):
    from unlearnbench.bench import StoreError
    from unlearnbench.bench.datastore import put_images
    from unlearnbench.bench.jobs import WorkerSettings

    from .toys import toy_images_of

    spec = toy_spec(methods=["identity"], recipes=[TUNED])
    store = Store(tmp_path)
    put_images(store, toy_images_of(spec))
    (tuned,) = [job for job in toy_plan(spec).originals.values() if job.start is not None]
    with pytest.raises(StoreError, match=f"original `{tuned.start.key}` is not in the store"):
        run_original(tuned, WorkerSettings(str(tmp_path), (), 1, "cpu"))


def test_retrained_and_shadow_models_are_fine_tuned_too(tmp_path):
    spec = toy_spec(methods=["osp[finetune_epochs=1]"], ulira={"shadows": 4}, seeds=1)
    result = run_sweep(spec, toy_options(tmp_path))
    assert {r.status for r in result.records} == {"ok"}
    retrained = next(r for r in result.records if r.method == "retrain")
    # two epochs plain and one with the penalty
    assert retrained.samples == {"retain": 3 * retrained.retain_size}
    assert {bank.recipe for bank in result.banks} == {"orthogonal[finetune_epochs=1]"}


def test_variants_share_originals_and_preparation(tmp_path):
    names = ["osp", "osp-weight", "random-channels", "l2-channels"]
    result = run_sweep(toy_spec(methods=names), toy_options(tmp_path))
    assert {r.recipe for r in result.records} == {"orthogonal"}
    kinds = [name.split("/")[0] for name in artifacts(tmp_path / "store")]
    assert kinds.count("original") == kinds.count("prepared") == 1
    assert kinds.count("cell") == 6  # with identity and retrain
    again = run_sweep(toy_spec(methods=[*names, "osp-vanilla"]), toy_options(tmp_path))
    assert again.summary["jobs"] == 4  # a plain original, its references, and the variant
    forget = {r.method: r.metrics["forget_acc"] for r in again.records}
    assert set(names) < set(forget)


def test_the_record_tells_how_decorrelated_the_original_is_and_the_table_what_it_cost(tmp_path):
    spec = toy_spec(methods=["identity"], recipes=["plain", HELD],
                    training={"epochs": 10, "batch_size": 32, "lr": 0.05})  # fmt: skip
    result = run_sweep(spec, toy_options(tmp_path))
    facts = {r.recipe: r.model_info for r in result.records}
    plain, held = facts["plain"], facts[HELD]
    assert held["filter_cosine"] < 0.8 * plain["filter_cosine"]
    assert 0 < plain["feature_correlation"] < 1
    text = (result.out / "leaderboard.md").read_text()
    line = next(x for x in text.splitlines() if x.startswith("What a recipe costs"))
    assert f"filters {held['filter_cosine']:.3f}" in line.replace("\\", "")
    assert "points to plain)" in line
    assert "times plain)" in line


def test_a_checkpoint_of_ones_own_is_fine_tuned_with_the_penalty(tmp_path):
    """No plain training at all: the weights, then the epochs with the penalty."""
    save_file(fresh().state_dict(), tmp_path / "own.safetensors")
    model = f'{NARROW[:-1]},weights="{tmp_path / "own.safetensors"}"]'
    spec = toy_spec(models=[model], methods=["osp[finetune_epochs=2]", "osp"],
                    training={"epochs": 0, "batch_size": 32})  # fmt: skip
    result = run_sweep(spec, toy_options(tmp_path))
    status = {(r.method, r.recipe): r.status for r in result.records}
    tuned = "orthogonal[finetune_epochs=2]"
    assert status[("osp", tuned)] == status[("retrain", tuned)] == "ok"
    assert status[("osp", "plain")] == "ok"  # the checkpoint as it is
    assert status[("retrain", "plain")] == "skipped"
    retrained = next(r for r in result.records if (r.method, r.recipe) == ("retrain", tuned))
    assert retrained.samples == {"retain": 2 * retrained.retain_size}
    assert "own.safetensors" in retrained.model


def test_what_was_prepared_is_made_again_if_the_original_is_another(tmp_path):
    from unlearnbench.bench.jobs import WorkerSettings
    from unlearnbench.bench.workbench import Workbench

    spec = toy_spec(methods=["osp"])
    run_sweep(spec, toy_options(tmp_path))
    store = Store(tmp_path / "store")
    cell = next(c for c in toy_plan(spec).cells if c.method.name == "osp")
    found = store.get("original", cell.job.original.key)
    other = {k: t + 0.001 if t.is_floating_point() else t for k, t in found.tensors().items()}
    store.drop("original", cell.job.original.key)
    store.put("original", cell.job.original.key, found.meta, other)
    bench = Workbench(store, cell.job, WorkerSettings(str(store.root), (), 1, "cpu"))
    bench.unlearn(bench.prepare().tensors)  # is not refused as statistics of another model
