"""The shadow bank: its halves and keys, what it costs, and that nothing trained is lost."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from unlearnbench.bench import InputError, StoreError
from unlearnbench.bench import shadow as shadow_module
from unlearnbench.bench.bank import USUAL_FRACTIONS, ShadowBank, draw_halves, make_bank
from unlearnbench.bench.jobs import BankJob, ShadowJob, WorkerSettings
from unlearnbench.bench.margins import get_margins, put_margins, read_margins
from unlearnbench.bench.metrics.pairs import PairError
from unlearnbench.bench.metrics.ulira import ulira
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.scenario import create_scenario
from unlearnbench.bench.shadow import run_shadows
from unlearnbench.bench.store import Store
from unlearnbench.bench.ulira_settings import UliraSettings
from unlearnbench.bench.work import bank_key

from .attack_toys import (
    SIMPLE,
    TINY,
    attack_on,
    attack_spec,
    bank_of,
    carry_out,
    figures,
    lay_out,
    tensors_of,
)
from .commands import artifacts, plugins_forgotten
from .toys import CPU, NARROW, toy_data, toy_images, toy_options, toy_recipe
from .toys import trained as trained_toy


@pytest.fixture(autouse=True, scope="module")
def _forgetful():
    with plugins_forgotten():
        yield


def ids_file(folder, ids, name="pool.txt"):
    path = folder / name
    path.write_text("\n".join(map(str, ids)))
    return f"ids[file={path}]"


# --- halves -------------------------------------------------------------------------------------


def halves(shadows=8, **settings):
    data = toy_data()
    keep = draw_halves(data.images, data.split, UliraSettings(shadows=shadows, **settings))
    return data.images, data.split, keep


def test_models_of_a_pair_are_trained_on_complementary_halves_of_the_training_set():
    images, split, keep = halves()
    assert keep.shape == (8, len(images.train_labels))
    assert not keep[:, split.validation].any()
    part = keep[:, split.training]
    assert (part[0::2] != part[1::2]).all()
    assert len({row.tobytes() for row in part}) == 8


def class_sizes(shadows=40):
    images, split, keep = halves(shadows)
    for label in range(images.num_classes):
        ids = split.training[images.train_labels[split.training] == label]
        assert len(ids) == 27
        yield keep[:, ids].sum(1)


def test_halves_hold_about_half_of_every_class():
    """One example at most is left over where a class and the eight parts of the pools meet."""
    for sizes in class_sizes():
        assert np.abs(sizes - 27 / 2).max() <= 8 / 2
        # a draw without strata has a standard deviation of 2.3
        assert sizes.std() < 1.2


def test_halves_hold_half_of_every_class():
    for sizes in class_sizes():
        assert set(sizes) == {13, 14}


@pytest.mark.parametrize("fraction", USUAL_FRACTIONS)
def test_halves_hold_half_of_the_usual_random_forget_sets(fraction):
    images, split, keep = halves(40)
    pool = create_scenario(f"random[fraction={fraction}]").draw(images, split)
    assert np.abs(keep[:, pool].sum(1) - len(pool) / 2).max() <= 0.5
    unbalanced = np.random.default_rng(0).permutation(split.training)[: len(pool)]
    if len(pool) > 10:
        assert np.abs(keep[:, unbalanced].sum(1) - len(pool) / 2).max() > 2


def test_every_example_is_in_half_of_the_models_by_chance_alone():
    _, split, keep = halves(200)
    first = keep[0::2][:, split.training]
    # binomial, 100 draws: five standard deviations for all of 108 examples
    assert np.abs(first.mean(0) - 0.5).max() < 5 * 0.5 / 10
    together = np.corrcoef(first.T)[np.triu_indices(first.shape[1], 1)]
    assert abs(together.mean()) < 0.02


def explicit_sizes(folder, *, declared):
    """How many of eleven examples are in each half."""
    ids = toy_data().split.training[[1, 5, 6, 20, 33, 41, 50, 51, 52, 77, 90]]
    stratify = [ids_file(folder, ids)] if declared else []
    return halves(60, stratify=stratify)[2][:, ids].sum(1)


def test_an_explicit_pool_is_balanced_better_where_it_is_declared(tmp_path):
    plain, declared = (explicit_sizes(tmp_path, declared=d) for d in (False, True))
    assert np.ptp(declared) <= 3 < np.ptp(plain)
    assert declared.std() < 0.7 * plain.std()


def test_an_explicit_pool_is_balanced_where_it_is_declared(tmp_path):
    assert set(explicit_sizes(tmp_path, declared=True)) == {5, 6}


def test_a_pool_to_balance_must_be_of_the_training_set(tmp_path):
    data = toy_data()
    stranger = int(data.split.validation[0])
    with pytest.raises(InputError, match=rf"not in the training set, e\.g\. \[{stranger}\]"):
        halves(stratify=[ids_file(tmp_path, [stranger])])


def test_seeds_that_are_equal_are_refused(monkeypatch):
    """T31, for a bank; `tests/test_ulira.py` has the library's."""
    images, split, keep = halves()
    monkeypatch.setattr("unlearnbench.bench.bank.derive_seed", lambda *parts: 5)
    with pytest.raises(PairError, match="must all differ; got 5 8 times"):
        make_bank("toy", images, split, 0.1, create_model_spec(NARROW), toy_recipe(), keep,
                  UliraSettings(shadows=8))  # fmt: skip


# --- keys ---------------------------------------------------------------------------------------


def keys(device="cpu", **changes) -> list[str]:
    bank = bank_of(lay_out(attack_spec(8, **changes), device)[1])
    return [shadow.key for shadow in bank.shadows]


def test_all_seeds_and_keys_of_a_bank_differ():
    bank = bank_of(lay_out(attack_spec(64))[1])
    assert isinstance(bank, ShadowBank)
    assert len(set(bank.seeds)) == len({s.key for s in bank.shadows}) == 64


def test_more_pairs_are_added_at_the_end():
    few, many = (bank_of(lay_out(attack_spec(n))[1]) for n in (8, 20))
    assert [s.key for s in many.shadows[:8]] == [s.key for s in few.shadows]
    np.testing.assert_array_equal(many.keep[:8], few.keep)
    assert many.hash != few.hash


UNRELATED = {
    "methods": {"methods": ["finetune", "neggrad-plus", "scrub"]},
    "scenarios": {"scenarios": ["class[classes=[2]]", "random[fraction=0.1]"]},
    "seeds": {"seeds": [3, 4, 5]},
    "name": {"name": "other"},
    "device": {"device": "cuda"},
    "keep_models": {"ulira": {"keep_models": False}},
    "variance": {"ulira": {"variance": "pooled"}},
    "redraws": {"ulira": {"redraws": 50}},
    "klom": {"ulira": {"klom": True, "forgetting_score": True}},
    "time_limit": {"time_limit_s": 5.0, "save_models": False},
}


@pytest.mark.parametrize("which", UNRELATED)
def test_a_bank_does_not_depend_on(which):
    assert keys(**UNRELATED[which]) == keys()


RELATED = {
    "data": {"datasets": [SIMPLE.replace("]", ",seed=1]")]},
    "architecture": {"models": [TINY.replace("embed_dim=32", "embed_dim=16")]},
    "epochs": {"training": {"epochs": 3, "batch_size": 32, "optimizer": "adamw", "lr": 3e-3}},
    "lr": {"training": {"epochs": 2, "batch_size": 32, "optimizer": "adamw", "lr": 4e-3}},
    "validation": {"validation_fraction": 0.2},
    "recipe": {"recipes": ["orthogonal"]},
    "seed": {"ulira": {"seed": 1}},
    "stratify": {"ulira": {"stratify": ["random[count=7,draw_seed=3]"]}},
}


@pytest.mark.parametrize("which", RELATED)
def test_no_model_of_a_bank_is_shared_with_one_of_other(which):
    assert not set(keys(**RELATED[which])) & set(keys())


def test_methods_are_scored_apart_by_what_they_do_and_not_by_the_device():
    spec = attack_spec(methods=["finetune[lr=0.1]", "finetune[lr=0.2]", "finetune"])
    plans = [lay_out(spec, device)[1] for device in ("cpu", "cuda")]
    attacks = [set(plan.attacks) for plan in plans]
    assert attacks[0] == attacks[1]
    assert len(attacks[0]) == 5  # with identity and retrain
    assert not {c.key for c in plans[0].cells} & {c.key for c in plans[1].cells}


def test_a_recipe_of_its_own_makes_a_bank_of_its_own():
    spec = attack_spec(
        scenarios=["class[classes=[0]]"], methods=["osp", "finetune"], models=[NARROW]
    )
    _, plan = lay_out(spec)
    banks = {a.method.name: a.bank for a in plan.attacks.values() if a.method.name in
             ("osp", "finetune")}  # fmt: skip
    assert banks["osp"].recipe.name == "orthogonal"
    assert all(s.recipe.name == "orthogonal" for s in banks["osp"].shadows)
    assert banks["finetune"].recipe.name == "plain"
    assert not {s.key for s in banks["osp"].shadows} & {s.key for s in banks["finetune"].shadows}
    np.testing.assert_array_equal(banks["osp"].keep, banks["finetune"].keep)


# --- pools --------------------------------------------------------------------------------------


def test_shares_of_a_pool_are_what_each_model_was_trained_on():
    data, plan = lay_out(attack_spec(8, scenarios=["class[classes=[1]]"]))
    attack = next(iter(plan.attacks.values()))
    labels, training = data[0].images.train_labels, data[0].split.training
    np.testing.assert_array_equal(attack.score.pool, training[labels[training] == 1])
    for kept, cell in zip(attack.bank.keep, attack.cells, strict=True):
        np.testing.assert_array_equal(cell.original.half, np.flatnonzero(kept))
        np.testing.assert_array_equal(cell.forget, np.flatnonzero(kept & (labels == 1)))
    np.testing.assert_array_equal(np.union1d(attack.score.pool, attack.score.others), training)
    assert not np.intersect1d(attack.score.pool, attack.score.others).size


def test_a_pool_that_leaves_a_model_nothing_to_forget_is_refused(tmp_path):
    spec = attack_spec(8, scenarios=["random[count=1]"])
    with pytest.raises(InputError, match="1 examples to forget are too few for U-LIRA with 8"):
        lay_out(spec)
    data, _ = lay_out(attack_spec())
    ids = data[0].split.training[:3]
    spec = attack_spec(24, scenarios=[ids_file(tmp_path, ids)])
    with pytest.raises(InputError, match=r"too few for U-LIRA .* 24 shadow models") as refused:
        lay_out(spec)
    assert "`--shadows 0`" in str(refused.value)
    assert len(refused.value.sentences) == 1


def test_a_pool_that_leaves_a_model_nothing_to_retain_is_refused():
    with pytest.raises(InputError, match="retain set empty"):
        lay_out(attack_spec(8, scenarios=["class[classes=[0,1,2,3]]"]))


@pytest.mark.parametrize(
    ("shadows", "allowed"), [(0, True), (2, False), (3, False), (4, True), (5, False), (64, True)]
)
def test_shadow_models_come_in_pairs(shadows, allowed):
    if allowed:
        assert UliraSettings(shadows=shadows).shadows == shadows
        return
    with pytest.raises(ValueError, match="come in pairs: give 0, or an even number from 4"):
        UliraSettings(shadows=shadows)


# --- cost ---------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch):
    """Keys of the shadow models that are trained, in order; training can be made to stop."""
    calls, plain = [], shadow_module.train_original

    def train_original(store, job, settings):
        calls.append(job.key)
        return plain(store, job, settings)

    monkeypatch.setattr(shadow_module, "train_original", train_original)
    return calls


def trainings(done) -> int:
    """Number of shadow models in the jobs of a run."""
    return sum(len(job.shadows) for job in done.jobs if isinstance(job, ShadowJob))


def count(store) -> Counter[str]:
    return Counter(name.partition("/")[0] for name in artifacts(store.root))


def test_a_bank_is_trained_once_for_all_methods_scenarios_and_sweeps(tmp_path, trained):
    """N trainings, not M x N."""
    two = ["random[fraction=0.3]", "class[classes=[0]]"]
    spec = attack_spec(scenarios=two, methods=["finetune[epochs=1]", "neggrad-plus[epochs=1]"])
    done = carry_out(spec, tmp_path)
    assert not done.failed
    assert sorted(trained) == sorted(shadow.key for shadow in bank_of(done.plan).shadows)
    rows = 2 * 4  # with identity and retrain
    assert count(done.store) == {
        "data": 1, "bank": 1, "shadow": 6, "margins": 6 + rows * 6, "ulira": rows,
    }  # fmt: skip
    before = artifacts(tmp_path)
    other = attack_spec(
        name="later", seeds=2, scenarios=["class[classes=[2]]", two[0]], methods=["constant-output"]
    )
    again = carry_out(other, tmp_path)
    assert not again.failed
    assert len(trained) == 6
    after = artifacts(tmp_path)
    assert {name: after[name] for name in before} == before
    # new: identity, retrain and constant output on class 2, constant output on the random pool
    assert count(again.store) - Counter(name.partition("/")[0] for name in before) == {
        "margins": 4 * 6, "ulira": 4,
    }  # fmt: skip
    assert not [job for job in carry_out(other, tmp_path).jobs]


def test_more_shadow_models_are_added_and_none_is_trained_again(tmp_path, trained):
    first = carry_out(attack_spec(6), tmp_path)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}
    more = carry_out(attack_spec(8), tmp_path)
    assert not more.failed
    assert len(trained) == 8
    assert len(set(trained)) == 8
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before
    assert trainings(more) == 2
    assert count(more.store)["margins"] == 8 + 2 * 8  # identity and retrain
    assert figures(more, "identity") != figures(first, "identity")
    fresh = carry_out(attack_spec(8), tmp_path / "fresh")
    assert figures(fresh, "identity") == figures(more, "identity")


def test_a_bank_without_models_keeps_margins_and_trains_the_same_again(tmp_path, trained):
    options = toy_options(tmp_path)
    spec = attack_spec(ulira={"keep_models": False})
    run_sweep(spec, options)
    bank = bank_of(lay_out(spec)[1])
    store = carry_out(spec, options.store).store  # nothing is left to do: it opens the store
    assert len(trained) == 6
    assert "shadow" not in count(store)
    assert not list((options.store / "artifacts" / "shadow").glob("*/*/*.safetensors"))
    before = artifacts(options.store)
    assert all(f"margins/{shadow.key}" in before for shadow in bank.shadows)
    assert not carry_out(spec, options.store).jobs  # the same sweep again needs no models
    # a method that comes later does; they have the margins that are known, bit for bit
    known = [tensors_of(store, "margins", shadow.key) for shadow in bank.shadows]
    later = carry_out(attack_spec(ulira={"keep_models": False}, methods=["constant-output"]),
                      options.store)  # fmt: skip
    assert not later.failed
    assert len(trained) == 12
    after = artifacts(options.store)
    assert {name: after[name] for name in before} == before
    for shadow, expected in zip(bank.shadows, known, strict=True):
        store.drop("margins", shadow.key)
        store.drop("shadow", shadow.key)
        run_shadows(ShadowJob("again", (shadow,)), WorkerSettings(str(options.store), (), 1, "cpu"))
        now = tensors_of(store, "margins", shadow.key)
        for name, array in expected.items():
            np.testing.assert_array_equal(now[name], array)


def test_a_model_trained_again_that_is_another_is_refused(tmp_path, monkeypatch):
    """What is in the store was made elsewhere: hardware or libraries have changed."""
    done = carry_out(attack_spec(), tmp_path)
    bank = bank_of(done.plan)
    for shadow in bank.shadows:
        done.store.drop("shadow", shadow.key)
    plain = shadow_module.train_original

    def other(store, job, settings):
        model, meta = plain(store, job, settings)
        with torch.no_grad():
            model.get_classifier().weight.mul_(1.1)
        return model, meta

    monkeypatch.setattr(shadow_module, "train_original", other)
    before = artifacts(tmp_path)
    again = carry_out(attack_spec(methods=["constant-output"]), tmp_path)
    assert all("not the one whose margins are in the store" in r for r in again.failed.values())
    assert attack_on(again, "constant-output").key in again.failed
    assert artifacts(tmp_path) == before


# --- resuming -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return carry_out(attack_spec(methods=["finetune[epochs=1]"]), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_bank_that_is_killed_between_models_goes_on(after, tmp_path, monkeypatch, uninterrupted):
    """T29, between shadow models."""
    calls, plain = [], shadow_module.train_original

    def train_original(store, job, settings):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(job.key)
        return plain(store, job, settings)

    spec = attack_spec(methods=["finetune[epochs=1]"])
    with monkeypatch.context() as patch:
        patch.setattr(shadow_module, "train_original", train_original)
        with pytest.raises(KeyboardInterrupt):
            carry_out(spec, tmp_path)
    survived = artifacts(tmp_path)
    assert sum(name.startswith("shadow/") for name in survived) == after
    done = carry_out(spec, tmp_path)
    now = artifacts(tmp_path)
    assert {name: now[name] for name in survived} == survived
    assert trainings(done) == 6 - after
    assert set(now) == set(artifacts(uninterrupted.store.root))
    for name in now:
        kind, _, key = name.partition("/")
        if kind in ("margins", "shadow", "ulira"):
            arrays, expected = (tensors_of(d.store, kind, key) for d in (done, uninterrupted))
            assert arrays.keys() == expected.keys()
            for part in arrays:
                np.testing.assert_array_equal(arrays[part], expected[part])
    for method in ("identity", "retrain", "finetune"):
        assert figures(done, method) == figures(uninterrupted, method)


def test_order_and_company_do_not_change_a_model(tmp_path, uninterrupted):
    """Only the last model is trained, alone."""
    shadow = bank_of(uninterrupted.plan).shadows[-1]
    job = ShadowJob("alone", (shadow,))
    shutil.copytree(uninterrupted.store.root / "artifacts" / "data", tmp_path / "artifacts/data")
    assert run_shadows(job, WorkerSettings(str(tmp_path), (), 1, "cpu")) > 0
    assert run_shadows(job, WorkerSettings(str(tmp_path), (), 1, "cpu")) == 0
    for kind in ("shadow", "margins"):
        arrays = tensors_of(Store(tmp_path), kind, shadow.key)
        for name, array in tensors_of(uninterrupted.store, kind, shadow.key).items():
            np.testing.assert_array_equal(arrays[name], array)


# --- damage -------------------------------------------------------------------------------------


def test_damaged_margins_are_told_and_cost_themselves_only(tmp_path, uninterrupted):
    folder = tmp_path / "store"
    shutil.copytree(uninterrupted.store.root, folder)
    bank = bank_of(uninterrupted.plan)
    store = type(uninterrupted.store)(folder)
    broken = store.path("margins", bank.shadows[2].key)
    file = broken / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    for kind in ("ulira", "bank"):
        shutil.rmtree(folder / "artifacts" / kind)
    before = artifacts(folder)
    spec = attack_spec(methods=["finetune[epochs=1]"])
    done = carry_out(spec, folder)
    assert set(done.failed) == {a.key for a in done.plan.attacks.values()} | {bank_key(bank)}
    for reason in done.failed.values():
        assert f"`tensors.safetensors` in `{broken}` is damaged" in reason
        assert "delete that folder and run again" in reason
    assert artifacts(folder) == before
    shutil.rmtree(broken)
    mended = carry_out(spec, folder)
    assert not mended.failed
    after = artifacts(folder)
    del before[f"margins/{bank.shadows[2].key}"]
    assert {name: after[name] for name in before} == before
    assert figures(mended, "finetune") == figures(uninterrupted, "finetune")


def test_margins_of_other_images_are_refused(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted.store.root, tmp_path / "store")
    store = Store(tmp_path / "store")
    own = bank_of(uninterrupted.plan).shadows[0].key
    fewer = {name: t[..., :-1] for name, t in store.get("margins", own).tensors().items()}
    put_margins(store, "f" * 32, fewer, {})
    with pytest.raises(StoreError, match="are not of the same images"):
        get_margins(store, (own, "f" * 32))
    with pytest.raises(StoreError, match=f"the margins `{'0' * 32}` are not in the store"):
        get_margins(store, (own, "0" * 32))


# --- facts --------------------------------------------------------------------------------------


def test_the_facts_of_a_bank_are_those_of_its_margins(uninterrupted):
    """Accuracies by a count of their own; LiRA of the originals by the library."""
    bank, store = bank_of(uninterrupted.plan), uninterrupted.store
    facts = store.get("bank", bank_key(bank)).meta
    labels = uninterrupted.data.images.train_labels
    stack = get_margins(store, tuple(s.key for s in bank.shadows))
    assert stack.margins.shape == (6, 1, len(labels) + 60)
    right = stack.correct
    inside, outside = [], []
    for row, kept in zip(right, bank.keep, strict=True):
        others = np.setdiff1d(bank.training, np.flatnonzero(kept))
        inside.append(np.mean([row[i] for i in np.flatnonzero(kept)]))
        outside.append(np.mean([row[i] for i in others]))
    metrics = facts["metrics"]
    assert metrics["acc/in_mean"] == pytest.approx(np.mean(inside))
    assert metrics["acc/in_std"] == pytest.approx(np.std(inside, ddof=1))
    assert metrics["acc/out_mean"] == pytest.approx(np.mean(outside))
    assert metrics["acc/test_mean"] == pytest.approx(right[:, len(labels) :].mean())
    result = ulira(stack.margins[..., : len(labels)], bank.keep, bank.training, redraws=0)
    assert metrics["lira/auc"] == result.auc
    assert metrics["lira/se"] == result.se
    seconds = [store.get("shadow", s.key).meta["original_s"] for s in bank.shadows]
    assert metrics["time/training_s"] == pytest.approx(sum(seconds))
    assert metrics["time/training_s_mean"] == pytest.approx(sum(seconds) / 6)
    assert facts["views"] == 1
    assert [type(j) for j in uninterrupted.jobs].count(BankJob) == 1


def test_margins_are_those_of_the_logits(uninterrupted):
    """Positive exactly where the class is right against all others together."""
    bank, store = bank_of(uninterrupted.plan), uninterrupted.store
    stack = get_margins(store, (bank.shadows[0].key,))
    assert stack.correct[stack.margins[:, 0] > 0].all()
    assert 0 < stack.correct.mean() < 1


def test_mirror_images_are_a_second_view_where_they_keep_the_label():
    images = toy_images()
    plain = read_margins(trained_toy(), images, CPU)
    both = read_margins(trained_toy(), replace(images, flip=True), CPU)
    assert plain["margins"].shape == (1, 180)
    assert both["margins"].shape == (2, 180)
    torch.testing.assert_close(both["margins"][0], plain["margins"][0], rtol=0, atol=0)
    turned = replace(images, train_images=images.train_images[..., ::-1].copy(),
                     test_images=images.test_images[..., ::-1].copy())  # fmt: skip
    mirrored = read_margins(trained_toy(), turned, CPU)
    torch.testing.assert_close(both["margins"][1], mirrored["margins"][0], rtol=0, atol=1e-6)
    assert not torch.equal(both["margins"][0], both["margins"][1])
