"""Unlearners whose score is known, on real networks; and what a method can reach of controls."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from unlearnbench.bench import METHODS, DivergedError
from unlearnbench.bench import shadow as shadow_module
from unlearnbench.bench.margins import get_margins
from unlearnbench.bench.metrics.attack_power import attack_power
from unlearnbench.bench.metrics.ulira import ulira

from .attack_toys import (
    BY_HEART,
    LEARNER,
    NOISY,
    attack_on,
    attack_spec,
    bank_of,
    carry_out,
    figures,
    lay_out,
    margins_after,
    margins_before,
    tensors_of,
)
from .commands import artifacts, plugins_forgotten
from .toys import NARROW

PEEKING = {"name": "peeking", "dataset": NOISY}
HONEST = ("identity", "retrain", "retrain-again", "constant-output", "over-unlearner", "finetune",
          "neggrad-plus")  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _forgetful():
    with plugins_forgotten():
        yield


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """32 networks that learned half of a noisy dataset by heart, and forgot half of that."""
    methods = [*HONEST[2:5], PEEKING, "finetune[epochs=1,lr=0.001]",
        "neggrad-plus[epochs=1,lr=0.001]"]  # fmt: skip
    spec = attack_spec(
        32, datasets=[NOISY], models=[LEARNER], training=BY_HEART, methods=methods,
        scenarios=["random[fraction=0.5]"], ulira={"redraws": 100},
    )  # fmt: skip
    done = carry_out(spec, tmp_path_factory.mktemp("real"))
    assert not done.failed
    return done


def test_the_bank_learned_by_heart(real):
    """Else nothing below would say anything."""
    facts = next(real.store.get("bank", j.key) for j in real.jobs if type(j).__name__ == "BankJob")
    assert facts.meta["metrics"]["acc/in_mean"] > 0.85
    assert facts.meta["metrics"]["acc/out_mean"] < 0.75


# --- unlearners with known scores ---------------------------------------------------------------


def test_identity_has_the_margins_of_the_shadow_models_bit_for_bit(real):
    """T20: privacy is LiRA of the originals."""
    before, after = margins_before(real), margins_after(real, "identity")
    np.testing.assert_array_equal(after, before)
    bank, attack = bank_of(real.plan), attack_on(real, "identity")
    lira = ulira(before, bank.keep, attack.score.pool, redraws=0)
    found = figures(real, "identity")
    assert found["ulira.privacy/acc"] == lira.acc
    assert found["ulira.privacy/auc"] == lira.auc
    assert found["ulira.privacy/tpr_0.01"] == lira.tpr[0.01]
    for name in ("acc_vs_identity", "acc_vs_identity_se"):
        assert found[f"ulira.privacy/{name}"] == 0
    assert found["ulira/share_above_identity"] == 0
    assert found["ulira.retain/auc_change"] == found["ulira/control_rise"] == 0


def test_identity_leaks_and_can_be_told_from_retrained(real):
    found = figures(real, "identity")
    assert found["ulira.privacy/acc"] > 0.5 + 3 * found["ulira.privacy/se"]
    assert found["ulira.privacy/acc"] > found["ulira.privacy/null_hi"]
    assert found["ulira.privacy/p"] == pytest.approx(1 / 101)
    assert found["ulira.efficacy/acc"] > found["ulira.efficacy/null_hi"]
    assert found["ulira.privacy/acc_vs_retrain"] > 3 * found["ulira.privacy/acc_vs_retrain_se"]


@pytest.mark.parametrize("method", ["retrain", "retrain-again"])
def test_retrained_models_are_inside_the_null_band(real, method):
    """T21: the band holds 95 % of harmless banks; a standard error more holds all but 0.3 %."""
    found = figures(real, method)
    for name, se in (("", "se"), ("auc_", "auc_se")):
        value = found[f"ulira.privacy/{name.rstrip('_') or 'acc'}"]
        low, high = (found[f"ulira.privacy/{name}null_{end}"] for end in ("lo", "hi"))
        margin = found[f"ulira.privacy/{se}"]
        assert low - margin <= value <= high + margin
    assert found["ulira.privacy/p"] > 0.01


def test_a_second_retrained_ensemble_cannot_be_told_from_the_first(real):
    """T21: other random numbers, the same law."""
    assert not np.array_equal(margins_after(real, "retrain"), margins_after(real, "retrain-again"))
    found = figures(real, "retrain-again")
    low, high = (found[f"ulira.efficacy/null_{end}"] for end in ("lo", "hi"))
    margin = found["ulira.efficacy/se"]
    assert low - margin <= found["ulira.efficacy/acc"] <= high + margin
    assert found["ulira.efficacy/p"] > 0.01
    assert not [name for name in figures(real, "retrain") if "efficacy" in name]


def test_a_constant_output_is_private_and_nothing_like_a_retrained_model(real):
    """T22."""
    found = figures(real, "constant-output")
    assert found["ulira.privacy/acc"] == found["ulira.privacy/auc"] == 0.5
    assert found["mia.population/auc"] == pytest.approx(0.5, abs=0.02)  # classes differ
    assert found["ulira.efficacy/acc"] > 0.98


def test_forgetting_too_much_is_seen_by_example_and_not_by_population(real):
    """T25."""
    found = figures(real, "over-unlearner")
    assert found["ulira.privacy/acc"] > 0.98
    assert found["mia.population/auc"] < 0.05
    assert found["ulira.privacy/low_share"] > 0.9
    assert figures(real, "identity")["ulira.privacy/low_share"] < 0.05


@pytest.mark.parametrize("delta", [0, 0.5, 1, 2])
def test_a_leak_of_known_size_is_measured_on_real_margins(real, delta):
    """T24: two points (margins are not quite Gaussian) and two standard errors."""
    keep, pool = bank_of(real.plan).keep, attack_on(real, "retrain").score.pool
    margins = margins_after(real, "retrain")[:, 0].astype(float)
    raised = margins + delta * margins.std(0, ddof=1) * keep
    result = ulira(raised, keep, pool, redraws=0)
    assert result.acc == pytest.approx(attack_power(32, float(delta)), abs=0.02 + 2 * result.se)


def test_the_way_from_identity_to_retrained_is_downhill(real):
    """T28: on real margins."""
    keep, pool = bank_of(real.plan).keep, attack_on(real, "retrain").score.pool
    ends = [margins_after(real, m).astype(float) for m in ("identity", "retrain")]
    results = [
        ulira(w * ends[0] + (1 - w) * ends[1], keep, pool, redraws=0)
        for w in (1, 0.75, 0.5, 0.25, 0)
    ]
    accs = [result.acc for result in results]
    assert accs[0] - accs[-1] > 3 * results[0].se
    # a step may go up by chance, but not by more than a standard error of its difference
    assert all(after < before + 0.01 for before, after in pairwise(accs))


# --- a bias of the head -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_class(tmp_path_factory):
    spec = attack_spec(
        8, methods=["head-bias"], scenarios=["class[classes=[1]]"], models=[LEARNER],
        training=BY_HEART,
    )  # fmt: skip
    done = carry_out(spec, tmp_path_factory.mktemp("class"), cells=True)
    assert not done.failed
    return done


def test_a_bias_of_the_head_changes_nothing(of_class):
    """T23, in float32: margins move by 64 and lose what is below 64 * 2**-24, 4e-6 nats."""
    identity, biased = (figures(of_class, m) for m in ("identity", "head-bias"))
    pool = attack_on(of_class, "identity").score.pool
    moved = margins_after(of_class, "head-bias") - margins_before(of_class)
    np.testing.assert_allclose(moved[..., pool], -64, atol=64 * 2**-22)
    for name, value in identity.items():
        if name.startswith("ulira.privacy/") and "_vs_" not in name and "low_" not in name:
            # calls and ranks are the same unless a score is nearer to another than rounding
            assert biased[name] == pytest.approx(value, abs=2 / len(pool) / 8), name
    scores = [
        tensors_of(of_class.store, "ulira", attack_on(of_class, m).key)["privacy.in_scores"]
        for m in ("identity", "head-bias")
    ]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3, rtol=1e-3)


def test_a_bias_of_the_head_is_exact_in_double_precision(of_class):
    """T23, to 1e-9."""
    keep, pool = bank_of(of_class.plan).keep, attack_on(of_class, "identity").score.pool
    margins = margins_before(of_class).astype(float)
    plain, moved = (ulira(margins - bias, keep, pool, redraws=0) for bias in (0, 64))
    np.testing.assert_allclose(moved.in_scores, plain.in_scores, atol=1e-9, rtol=1e-9)
    assert moved.acc == pytest.approx(plain.acc, abs=1e-9)
    assert moved.auc == pytest.approx(plain.auc, abs=1e-9)


def test_the_accuracy_on_the_forgotten_class_is_zero_all_the_same(of_class):
    (cell,) = [c for c in of_class.plan.cells if c.method.name == "head-bias"]
    assert of_class.store.get("cell", cell.key).meta["metrics"]["forget_acc"] == 0
    stack = get_margins(of_class.store, attack_on(of_class, "head-bias").score.unlearned)
    assert not stack.correct[:, attack_on(of_class, "head-bias").score.pool].any()


# --- controls -----------------------------------------------------------------------------------


def pixels_of(images, ids):
    """Bytes of an image as they are stored, and as a network gets them."""
    for i in ids:
        raw = images.train_images[i]
        mean, std = (
            np.array(x, dtype=np.float32)[:, None, None] for x in (images.mean, images.std)
        )
        yield int(i), raw.tobytes(), ((raw.astype(np.float32) / 255 - mean) / std).tobytes()


def test_no_control_can_be_reached_from_a_task(tmp_path):
    """T27: whatever refers to whatever, from inside `unlearn` and `prepare`."""
    METHODS.names()
    spec = attack_spec(
        6, methods=["spy"], training={"epochs": 1, "batch_size": 32, "augment": False}
    )
    done = carry_out(spec, tmp_path)
    assert not done.failed
    images, split = done.data.images, done.data.split
    attack = attack_on(done, "spy")
    pool = attack.score.pool
    seen = METHODS.get("spy").seen
    assert [look["phase"] for look in seen] == ["prepare", "unlearn"] * 6
    looks = iter(seen)
    for kept, cell in zip(attack.bank.keep, attack.cells, strict=True):
        half = set(np.flatnonzero(kept).tolist())
        controls = [i for i in pool if not kept[i]]
        assert len(controls) > 10
        prepare, unlearn = next(looks), next(looks)
        assert prepare["served"] == {"training": half, "validation": set(split.validation.tolist())}
        forget = set(cell.forget.tolist())
        assert unlearn["served"] == {
            "forget": forget, "retain": half - forget, "validation": set(split.validation.tolist()),
        }  # fmt: skip
        strangers = np.setdiff1d(split.training, np.flatnonzero(kept))
        assert set(controls) <= set(strangers.tolist())
        for look in (prepare, unlearn):
            found = b"|".join(look["bytes"])
            for i, raw, normal in pixels_of(images, strangers):
                assert raw not in found, i
                assert normal not in found, i
            # the search does find what is there
            own = list(pixels_of(images, sorted(half)[:20]))
            assert all(raw in found for _, raw, _ in own)
            assert any(normal in found for _, _, normal in pixels_of(images, sorted(half)))
        tests = images.test_images.reshape(len(images.test_labels), -1)
        assert not any(row.tobytes() in found for row in tests)


def test_who_fetches_the_controls_elsewhere_is_suspected(real):
    """T27: it trained on all that it was not given."""
    attack = attack_on(real, "peeking")
    meta = real.store.get("ulira", attack.key).meta
    assert meta["metrics"]["ulira/control_rise"] > 0.05
    assert meta["attack"]["suspicion"].startswith("accuracy on the controls rose by ")
    after = get_margins(real.store, attack.score.unlearned)
    controls = ~attack.bank.keep[:, attack.score.pool]
    assert after.correct[:, attack.score.pool][controls].mean() > 0.85


@pytest.mark.parametrize("method", HONEST)
def test_who_does_not_is_not_suspected(real, method):
    meta = real.store.get("ulira", attack_on(real, method).key).meta
    assert "suspicion" not in meta["attack"]
    assert meta["metrics"]["ulira/control_rise"] < 0.03


# --- what a method gets -------------------------------------------------------------------------


def test_hyper_parameters_are_those_of_the_cells(real):
    """None is chosen for a shadow model."""
    for attack in real.plan.attacks.values():
        assert {c.method.params == attack.method.params for c in attack.cells} == {True}
        assert len({c.key for c in attack.cells}) == 32


def test_orthogonal_pruning_is_attacked_on_a_bank_of_its_recipe(tmp_path):
    spec = attack_spec(
        6, methods=["osp"], models=[NARROW], scenarios=["class[classes=[0]]"],
        training={"epochs": 2, "batch_size": 32, "lr": 0.05},
    )  # fmt: skip
    done = carry_out(spec, tmp_path)
    assert not done.failed
    attack = attack_on(done, "osp")
    assert {done.store.get("shadow", s.key).meta["recipe"] for s in attack.bank.shadows} == {
        "orthogonal"
    }
    assert not np.array_equal(margins_after(done, "osp"), margins_before(done))
    assert 0 <= figures(done, "osp")["ulira.privacy/acc"] <= 1
    prepared = [name for name in artifacts(tmp_path) if name.startswith("prepared/")]
    assert len(prepared) == 6


# --- what goes wrong ----------------------------------------------------------------------------


def moody(mood, *, one=True):
    """A sweep whose method goes wrong on the third shadow model, or on all of them."""
    spec = attack_spec(6)
    _, plan = lay_out(spec)
    attack = next(iter(plan.attacks.values()))
    total = int(attack.cells[2].forget.sum()) if one else 0
    assert not one or len({int(c.forget.sum()) for c in attack.cells}) == 6
    method = {"name": "moody", "mood": mood, "forget_sum": total, "training_size": 80}
    return attack_spec(6, methods=[method, "constant-output"]), attack.cells[2].original.key


REASONS = {
    "raise": "ValueError: this one has no heart",
    "nan": "the model's outputs on the train set are not finite",
    "none": "TypeError: method `moody` must return a model; got NoneType",
}


@pytest.mark.parametrize("mood", REASONS)
def test_a_method_that_fails_on_one_shadow_model_has_a_reason_and_others_figures(tmp_path, mood):
    spec, key = moody(mood)
    done = carry_out(spec, tmp_path)
    attack = attack_on(done, "moody")
    assert done.failed[attack.key] == (
        f"unlearning a shadow model failed: on shadow model {key[:12]}: {REASONS[mood]}"
    )
    assert not done.store.has("ulira", attack.key)
    for method in ("identity", "retrain", "constant-output"):
        assert "ulira.privacy/acc" in figures(done, method)
    # what went well is not done again
    before = artifacts(tmp_path)
    again = carry_out(spec, tmp_path)
    assert again.failed[attack.key] == done.failed[attack.key]
    assert artifacts(tmp_path) == before


def test_a_method_that_declines_shadow_models_declines_the_attack(tmp_path):
    spec, _ = moody("decline", one=False)
    done = carry_out(spec, tmp_path)
    attack = attack_on(done, "moody")
    (outcome,) = [o for o in done.outcomes if o.key == attack.key]
    assert outcome.declined
    assert outcome.reason == "the network is too shy"
    assert "ulira.privacy/acc" in figures(done, "constant-output")


def test_a_shadow_model_that_fails_fails_all_attacks_and_loses_no_other(tmp_path, monkeypatch):
    plain, calls = shadow_module.train_original, []

    def train_original(store, job, settings):
        calls.append(job.key)
        if len(calls) == 4:
            raise DivergedError("the loss became nan in epoch 1.")
        return plain(store, job, settings)

    spec = attack_spec(6)
    with monkeypatch.context() as patch:
        patch.setattr(shadow_module, "train_original", train_original)
        done = carry_out(spec, tmp_path)
    for attack in done.plan.attacks.values():
        assert done.failed[attack.key] == ("a shadow model failed: the loss became nan in epoch 1")
    survived = artifacts(tmp_path)
    assert 3 <= sum(name.startswith("shadow/") for name in survived) <= 5
    mended = carry_out(spec, tmp_path)
    assert not mended.failed
    now = artifacts(tmp_path)
    assert {name: now[name] for name in survived} == survived


def test_retraining_that_fails_on_a_shadow_model_fails_what_is_compared_with_it(
    tmp_path, monkeypatch
):
    retrain = METHODS.get("retrain")
    plain = retrain.unlearn
    spec = attack_spec(6)
    _, plan = lay_out(spec)
    first = next(iter(plan.attacks.values())).cells[0].forget

    def unlearn(self, model, task):
        if task.forget_size == len(first) and task.retain_size < 60:
            raise MemoryError
        return plain(self, model, task)

    with monkeypatch.context() as patch:
        patch.setattr(retrain, "unlearn", unlearn)
        done = carry_out(spec, tmp_path)
    for attack in done.plan.attacks.values():
        assert "out of memory: MemoryError" in done.failed[attack.key]
    assert not carry_out(spec, tmp_path).failed
