"""Figures of an attack from margins made by hand: known answers, names, suspicion, refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unlearnbench.bench import DATASETS, InputError, StoreError
from unlearnbench.bench.datastore import put_images
from unlearnbench.bench.jobs import ScoreJob, WorkerSettings
from unlearnbench.bench.margins import put_margins
from unlearnbench.bench.metrics.attack_power import attack_power
from unlearnbench.bench.metrics.forgetting_score import forgetting_null, forgetting_score
from unlearnbench.bench.metrics.klom import klom, klom_floor
from unlearnbench.bench.metrics.pairs import PairError, pair_design
from unlearnbench.bench.metrics.population import margin_auc
from unlearnbench.bench.metrics.ulira import compare, efficacy, retain_privacy, ulira
from unlearnbench.bench.scoring import run_score
from unlearnbench.bench.store import Store

IMAGES = DATASETS.create(
    "synthetic[channels=1,classes=4,size=4,test_per_class=50,train_per_class=200]"
).load(Path("unused"))
LABELS = IMAGES.train_labels
D, T = len(LABELS), len(IMAGES.test_labels)
POOL = np.sort(np.random.default_rng(1).permutation(D - 40)[:300])
HELD_OUT = np.arange(D - 40, D)
OTHERS = np.setdiff1d(np.arange(D - 40), POOL)


def design(n_models=16):
    keep = np.zeros((n_models, D), dtype=bool)
    keep[:, : D - 40] = pair_design(LABELS[: D - 40], n_models // 2, [POOL]).keep
    return keep


def noise(n_models=16, seed=0, views=1):
    """Margins in which nothing is to be found, `(N, V, D + T)`: levels and spreads differ."""
    rng = np.random.default_rng((seed, 3))
    level = 3 * np.random.default_rng(77).normal(size=D + T)
    spread = np.random.default_rng(78).uniform(0.5, 2, D + T)
    return (level + spread * rng.normal(size=(n_models, views, D + T))).astype(np.float32)


def leak(margins, keep, size, ids=POOL):
    """Raise the margins of forgotten examples by so many of their standard deviations."""
    spread = np.random.default_rng(78).uniform(0.5, 2, D + T)
    raised = margins.copy()
    raised[..., ids] += (size * spread[ids] * keep[:, ids])[:, None].astype(np.float32)
    return raised


def parts(margins, correct=None):
    """What is stored of one model; the signals are made from the margin, as two classes have."""
    right = margins[0] > 0 if correct is None else correct
    p = 1 / (1 + np.exp(-margins[0].astype(np.float64)))
    entropy = -p * np.log(p) - (1 - p) * np.log1p(-p)
    return {
        "margins": torch.from_numpy(margins),
        "entropy": torch.from_numpy(entropy.astype(np.float32)),
        "mod_entropy": torch.from_numpy(-margins[0]),
        "correct": torch.from_numpy(right),
    }


class Bench:
    """A store with the margins of a bank, before and after unlearning and retrained."""

    def __init__(self, folder, n_models=16):
        self.store = Store(folder)
        self.keep = design(n_models)
        put_images(self.store, IMAGES)
        self.number = 0

    def put(self, margins, correct=None):
        self.number += 1
        keys = []
        for k, own in enumerate(margins):
            key = f"{self.number:04x}{k:028x}"
            put_margins(self.store, key, parts(own, None if correct is None else correct[k]),
                        {"unlearn_s": 0.5, "original_s": 2.0})  # fmt: skip
            keys.append(key)
        return tuple(keys)

    def job(self, before, after, retrained=(), *, seeds=None, pool=POOL, others=OTHERS, **options):
        self.number += 1
        return ScoreJob(
            key=f"{self.number:032x}",
            data=IMAGES.digest,
            shadows=before,
            unlearned=after,
            retrained=retrained,
            seeds=tuple(range(len(after))) if seeds is None else seeds,
            keep=self.keep,
            pool=pool,
            others=others,
            options={"shadows": len(after), "redraws": 20, **options},
        )

    def score(self, *args, **options):
        job = self.job(*args, **options)
        run_score(job, WorkerSettings(str(self.store.root), (), 1, "cpu"))
        found = self.store.get("ulira", job.key)
        arrays = {name: t.numpy() for name, t in found.tensors().items()}
        return SimpleNamespace(job=job, arrays=arrays, **found.meta)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """A leak of one standard deviation, pooled variances; originals leak two."""
    bench = Bench(tmp_path_factory.mktemp("leaky"))
    margins = SimpleNamespace(
        before=leak(noise(seed=1), bench.keep, 2, np.arange(D - 40)),
        after=leak(noise(seed=2), bench.keep, 1),
        retrained=noise(seed=3),
    )
    keys = [bench.put(getattr(margins, name)) for name in ("before", "after", "retrained")]
    options = {"variance": "pooled", "klom": True, "forgetting_score": True}
    return SimpleNamespace(
        bench=bench, margins=margins, keys=keys, keep=bench.keep,
        scored=bench.score(*keys, **options), options=options,
    )  # fmt: skip


# --- known answers ------------------------------------------------------------------------------


def test_a_leak_of_one_standard_deviation_scores_the_closed_form(leaky):
    """T6, through the store: pooled variance of unequal spreads is off by a little."""
    acc = leaky.scored.metrics["ulira.privacy/acc"]
    assert acc == pytest.approx(attack_power(16, 1.0), abs=0.02)
    assert leaky.scored.metrics["ulira.privacy/p"] == 1 / 21
    assert leaky.scored.metrics["ulira/power_d0.5"] == attack_power(16, 0.5)


def test_figures_are_those_of_the_library(leaky):
    m, metrics = leaky.margins, leaky.scored.metrics
    before, after, retrained = (x[..., :D] for x in (m.before, m.after, m.retrained))
    options = {"variance": "pooled", "redraws": 20}
    privacy = ulira(after, leaky.keep, POOL, strata=LABELS, **options)
    identity, harmless = (ulira(x, leaky.keep, POOL, **options) for x in (before, retrained))
    per_row = ("per_example", "power")
    for name, value in privacy.metrics().items():
        prefix = "ulira/" if name.startswith(per_row) else "ulira.privacy/"
        assert metrics[prefix + name] == value, name
    for other, result in (("identity", identity), ("retrain", harmless)):
        difference = compare(privacy, result)
        assert metrics[f"ulira.privacy/acc_vs_{other}"] == difference.acc
        assert metrics[f"ulira.privacy/acc_vs_{other}_se"] == difference.acc_se
    assert metrics["ulira/share_above_identity"] == privacy.share_above(identity)
    against = efficacy(after, retrained, leaky.keep, POOL, **options)
    for name, value in against.metrics().items():
        if not name.startswith(per_row):
            assert metrics[f"ulira.efficacy/{name}"] == value, name
    assert metrics["mia.population/auc"] == margin_auc(after, leaky.keep, POOL)
    change = retain_privacy(after, before, leaky.keep, OTHERS, variance="pooled")
    assert metrics["ulira.retain/auc_change"] == change.auc
    assert metrics["ulira.retain/acc_change_se"] == change.acc_se
    assert change.auc < -0.2  # the originals leak of all examples, unlearned models of the pool


def test_scores_and_targets_are_stored_for_whoever_wants_to_look_closer(leaky):
    arrays = leaky.scored.arrays
    np.testing.assert_array_equal(arrays["ids"], POOL)
    for kind in ("privacy", "efficacy"):
        inside, outside = (arrays[f"{kind}.{side}_scores"] for side in ("in", "out"))
        assert inside.shape == outside.shape == (8, 300)
        hits = ((inside > 0).mean(0) + (outside <= 0).mean(0)) / 2
        np.testing.assert_allclose(arrays[f"{kind}.per_example"], hits, atol=1e-6)
        assert hits.mean() == pytest.approx(leaky.scored.metrics[f"ulira.{kind}/acc"], abs=1e-6)


def test_efficacy_calls_unlearned_models_in(bench):
    """Unlearned margins lie below retrained ones, and so Streisand's share is raised."""
    retrained = noise(seed=3)
    keys = [bench.put(noise(seed=1)), bench.put(noise(seed=2) - 10), bench.put(retrained)]
    scored = bench.score(*keys)
    assert scored.metrics["ulira.efficacy/acc"] > 0.98
    assert scored.metrics["ulira.efficacy/low_share"] > 0.9
    assert scored.metrics["ulira.privacy/low_share"] < 0.1
    assert scored.arrays["efficacy.in_scores"].mean() > 0 > scored.arrays[
        "efficacy.out_scores"
    ].mean()  # fmt: skip
    assert scored.metrics["ulira.privacy/acc"] == pytest.approx(
        0.5, abs=4 * scored.metrics["ulira.privacy/null_sd"]
    )


def test_models_that_are_left_as_they_are_differ_in_nothing_from_identity(bench):
    before = bench.put(leak(noise(seed=1), bench.keep, 1.5))
    scored = bench.score(before, before, bench.put(noise(seed=3)))
    for name in ("ulira.privacy/acc_vs_identity", "ulira.privacy/acc_vs_identity_se",
                 "ulira/share_above_identity", "ulira/control_rise", "ulira/control_rise_se",
                 "ulira.retain/auc_change", "ulira.retain/auc_change_se"):  # fmt: skip
        assert scored.metrics[name] == 0
    assert scored.metrics["ulira.privacy/acc_vs_retrain"] > 0.1
    assert "suspicion" not in scored.attack


def test_a_second_view_helps(bench):
    """The log likelihood ratios of views are averaged."""
    keys = [bench.put(noise(seed=s, views=2)) for s in (1, 3)]
    after = leak(noise(seed=2, views=2), bench.keep, 1)
    both = bench.score(keys[0], bench.put(after), keys[1])
    plain = [bench.put(noise(seed=s, views=2)[:, :1]) for s in (1, 3)]
    one = bench.score(plain[0], bench.put(after[:, :1]), plain[1])
    assert (both.attack["views"], one.attack["views"]) == (2, 1)
    assert both.metrics["ulira.privacy/acc"] > one.metrics["ulira.privacy/acc"] + 0.03
    expected = ulira(after[..., :D], bench.keep, POOL, redraws=0)
    assert both.metrics["ulira.privacy/auc"] == expected.auc


def test_population_attacks_know_nothing_of_examples(bench):
    """A leak below the differences between examples: one attacker for all hardly sees it."""
    keys = [bench.put(noise(seed=1)), bench.put(leak(noise(seed=2), bench.keep, 1))]
    metrics = bench.score(*keys).metrics
    assert metrics["ulira.privacy/auc"] > 0.7
    assert 0.5 < metrics["mia.population/auc"] < 0.62
    for name in ("confidence_auc", "loss_auc", "mod_entropy_songmittal_auc"):
        assert metrics[f"mia.population/{name}"] == pytest.approx(metrics["mia.population/auc"])
    assert 0.4 < metrics["mia.population/threshold_acc"] < 0.62


# --- names --------------------------------------------------------------------------------------

BAND = {"null_mean", "null_sd", "null_lo", "null_hi"}
LAW = {
    "acc", "se", "auc", "auc_se", "low_share", "spread_ratio",
    *(f"{kind}_{rate}" for kind in ("tpr", "fpr") for rate in ("0.05", "0.01", "0.001")),
    *BAND, "p", *(f"auc_{name}" for name in BAND), "auc_p",
}  # fmt: skip
PRIVACY = {f"ulira.privacy/{name}" for name in LAW}
VERSUS = {f"ulira.privacy/acc_vs_{name}" for name in
          ("identity", "identity_se", "retrain", "retrain_se")}  # fmt: skip
EFFICACY = {f"ulira.efficacy/{name}" for name in LAW}
ROW = {f"ulira/{name}" for name in ("per_example_p5", "per_example_p50", "per_example_p95",
       "power_d0.5", "share_above_identity", "control_rise", "control_rise_se")}  # fmt: skip
RETAIN = {f"ulira.retain/{name}" for name in
          ("auc_change", "auc_change_se", "acc_change", "acc_change_se")}  # fmt: skip
POPULATION = {f"mia.population/{name}" for name in ("auc", "confidence_auc", "loss_auc",
              "entropy_auc", "mod_entropy_songmittal_auc", "threshold_acc")}  # fmt: skip
KLOM = {"klom_gauss/mean", "klom_gauss/floor_mean",
        *(f"klom/{floor}{name}" for floor in ("", "floor_") for name in
          ("mean", "median", "p95"))}  # fmt: skip
CHALLENGE = {"forgetting_score/f", "forgetting_score/null"}
ALL = PRIVACY | VERSUS | EFFICACY | ROW | RETAIN | POPULATION


def test_names_are_those_agreed(leaky):
    assert set(leaky.scored.metrics) == ALL | KLOM | CHALLENGE
    assert set(leaky.bench.score(*leaky.keys).metrics) == ALL
    assert set(leaky.bench.score(*leaky.keys, klom=True).metrics) == ALL | KLOM


def test_retraining_is_not_compared_with_itself(leaky):
    before, _, retrained = leaky.keys
    metrics = leaky.bench.score(before, retrained, klom=True, forgetting_score=True).metrics
    own = {"ulira.privacy/acc_vs_retrain", "ulira.privacy/acc_vs_retrain_se"}
    assert set(metrics) == ALL - EFFICACY - own


def test_every_figure_is_a_finite_number(leaky):
    assert all(type(v) is float and np.isfinite(v) for v in leaky.scored.metrics.values())


def test_what_the_figures_are_of(leaky):
    attack = leaky.scored.attack
    assert attack["variant"] == "half_split"
    assert attack["shadows"] == 16
    assert attack["examples"] == 300
    assert attack["views"] == 1
    assert attack["variance"] == "pooled"
    assert attack["redraws"] == 20
    assert attack["tuning_track"] == "none"
    assert attack["unlearn_s"] == 16 * 0.5
    assert attack["scores"] == leaky.scored.job.key


def test_without_examples_to_retain_there_is_no_retain_privacy(leaky):
    metrics = leaky.bench.score(*leaky.keys, others=OTHERS[:1]).metrics
    assert set(metrics) == ALL - RETAIN


# --- optional -----------------------------------------------------------------------------------


def forgotten(margins, keep):
    """Margins of each target in the model of every pair that was trained on it, `(N/2, E)`."""
    return np.stack([
        [margins[2 * p + (0 if keep[2 * p, i] else 1), 0, i] for i in POOL]
        for p in range(len(keep) // 2)
    ]).astype(np.float64)  # fmt: skip


def test_klom_and_its_floor(leaky):
    metrics = leaky.scored.metrics
    values = klom(forgotten(leaky.margins.after, leaky.keep),
                  forgotten(leaky.margins.retrained, leaky.keep))  # fmt: skip
    assert metrics["klom/mean"] == pytest.approx(values.mean())
    assert metrics["klom/median"] == pytest.approx(np.median(values))
    assert metrics["klom/floor_mean"] == pytest.approx(klom_floor(8).mean)
    assert metrics["klom/mean"] > metrics["klom/floor_mean"]
    assert metrics["klom_gauss/mean"] > metrics["klom_gauss/floor_mean"]


def test_klom_of_a_second_retrained_ensemble_is_at_its_floor(leaky):
    before, _, retrained = leaky.keys
    again = leaky.bench.put(noise(seed=9))
    metrics = leaky.bench.score(before, again, retrained, klom=True).metrics
    assert metrics["klom/mean"] == pytest.approx(metrics["klom/floor_mean"], rel=0.1)
    # its floor is that of equal spreads, which moderated variances estimate better
    assert 1 < metrics["klom_gauss/mean"] / metrics["klom_gauss/floor_mean"] < 2


def test_the_forgetting_score_and_its_null(leaky):
    metrics = leaky.scored.metrics
    pair = [forgotten(m, leaky.keep) for m in (leaky.margins.after, leaky.margins.retrained)]
    assert metrics["forgetting_score/f"] == forgetting_score(*pair)
    assert metrics["forgetting_score/null"] == forgetting_null(8)
    assert metrics["forgetting_score/f"] < metrics["forgetting_score/null"]


# --- few shadow models --------------------------------------------------------------------------


def test_four_shadow_models_are_attacked_with_rmia_instead(tmp_path):
    bench = Bench(tmp_path, n_models=4)
    raised = leak(noise(4, seed=2), bench.keep, 3)
    leaking = bench.score(bench.put(noise(4, seed=1)), bench.put(raised), bench.put(noise(4)))
    harmless = bench.score(bench.put(noise(4, seed=4)), bench.put(noise(4, seed=5)))
    names = {"rmia/auc", "rmia/auc_se", "ulira/control_rise", "ulira/control_rise_se"}
    assert set(leaking.metrics) == POPULATION | names
    assert leaking.metrics["rmia/auc"] > 0.5 + 3 * leaking.metrics["rmia/auc_se"]
    spread = 3 * max(harmless.metrics["rmia/auc_se"], 0.01)
    assert harmless.metrics["rmia/auc"] == pytest.approx(0.5, abs=spread)


@pytest.mark.parametrize("n_models", [4, 6])
def test_optional_figures_are_there_from_six_shadow_models_on(tmp_path, n_models):
    bench = Bench(tmp_path, n_models=n_models)
    keys = [bench.put(noise(n_models, seed=s)) for s in (1, 2, 3)]
    options = {"pool": POOL[:40], "klom": True, "forgetting_score": True}
    metrics = bench.score(*keys, **options).metrics
    assert (set(metrics) >= KLOM | CHALLENGE) == (n_models == 6)
    assert ("rmia/auc" in metrics) == (n_models == 4)


# --- suspicion ----------------------------------------------------------------------------------


def rights(keep, controls, test, seed=0, members=1.0):
    """`(N, D + T)` whether each image is recognised: shares of controls and of test images."""
    rng = np.random.default_rng((seed, 12))
    share = np.where(keep, members, controls)
    return np.concatenate(
        [rng.random(keep.shape) < share, rng.random((len(keep), T)) < test], axis=1
    )


@pytest.mark.parametrize(("test_after", "expected"), [(0.7, 0.1), (0.9, 0.0), (0.85, 0.05)])
def test_the_rise_is_that_of_controls_and_beyond_that_of_test_images(bench, test_after, expected):
    before = rights(bench.keep, 0.8, 0.8, 0)
    after = rights(bench.keep, 0.9, test_after, 1)
    margins = noise()
    metrics = bench.score(bench.put(margins, before), bench.put(margins, after)).metrics
    rises = []
    for k, kept in enumerate(bench.keep):
        controls = [i for i in POOL if not kept[i]]
        own = np.mean([int(after[k, i]) - int(before[k, i]) for i in controls])
        rises.append(min(own, own - np.mean(after[k, D:].astype(int) - before[k, D:])))
    assert metrics["ulira/control_rise"] == pytest.approx(np.mean(rises))
    assert metrics["ulira/control_rise_se"] == pytest.approx(np.std(rises, ddof=1) / 4)
    assert metrics["ulira/control_rise"] == pytest.approx(expected, abs=0.03)


def test_test_images_are_those_of_the_classes_in_the_pool(bench):
    pool = np.flatnonzero(LABELS == 2)[:100]
    before = rights(bench.keep, 0.8, 0.8)
    after = before.copy()
    after[:, D + np.flatnonzero(IMAGES.test_labels != 2)] = False  # of no concern
    margins = noise()
    options = {"pool": pool, "others": np.setdiff1d(np.arange(D - 40), pool)}
    keys = bench.put(margins, before), bench.put(margins, after)
    assert bench.score(*keys, **options).metrics["ulira/control_rise"] == 0


@pytest.mark.parametrize(
    ("before", "after", "suspect"),
    [
        ((0.8, 0.8), (1.0, 0.8), True),  # trained on the controls
        ((0.8, 0.8), (1.0, 0.85), True),  # which helps others too
        ((0.8, 0.8), (0.95, 0.95), False),  # a better model
        ((0.8, 0.8), (0.81, 0.8), False),  # too little to tell
        ((0.8, 0.8), (0.0, 0.0), False),  # the class is gone
        ((0.8, 0.8), (0.3, 0.3), False),  # much is gone
        ((0.8, 0.8), (0.2, 0.8), False),  # looks as if forgotten too much
    ],
)
def test_who_is_suspected(bench, before, after, suspect):
    margins = noise()
    keys = [
        bench.put(margins, rights(bench.keep, c, t, s)) for s, (c, t) in enumerate([before, after])
    ]
    scored = bench.score(*keys)
    assert ("suspicion" in scored.attack) == suspect
    if suspect:
        rise = 100 * scored.metrics["ulira/control_rise"]
        assert scored.attack["suspicion"].startswith(
            f"accuracy on the controls rose by {rise:.1f} points, and by more than on test images"
        )


@pytest.mark.parametrize("left", [0.0, 0.25])
def test_who_destroys_the_model_is_not_suspected(bench, left):
    """With wrong training labels controls were recognised less often than test images, before."""
    margins = noise()
    before, after = rights(bench.keep, 0.72, 0.8), rights(bench.keep, left, left, 1)
    assert (
        "suspicion" not in bench.score(bench.put(margins, before), bench.put(margins, after)).attack
    )


# --- what is refused ----------------------------------------------------------------------------


def test_equal_seeds_are_refused(leaky):
    """T31, where margins are scored."""
    with pytest.raises(PairError, match="seeds of shadow models must all differ; got 7 2 times"):
        leaky.bench.score(*leaky.keys, seeds=(7, 7, *range(10, 24)))


def test_margins_that_are_missing_or_of_other_images_are_refused(leaky):
    before, after, retrained = leaky.keys
    with pytest.raises(StoreError, match="the margins `nothing` are not in the store"):
        leaky.bench.score(before, (*after[:-1], "nothing"), retrained)
    other = leaky.bench.put(noise(1, seed=5)[..., :-1])
    with pytest.raises(StoreError, match="are not of the same images"):
        leaky.bench.score(before, (*after[:-1], *other), retrained)


def test_a_whole_bank_of_other_images_is_refused(leaky):
    """Fewer columns than there are training images."""
    keys = leaky.bench.put(noise(seed=5)[..., : D - 100])
    with pytest.raises((InputError, StoreError)):
        leaky.bench.score(keys, keys)


def test_margins_that_are_not_finite_are_refused(leaky):
    before, _, retrained = leaky.keys
    margins = noise(seed=6)
    margins[3, 0, POOL[2]] = np.nan
    with pytest.raises(InputError, match="must be finite; got 1 values that are not"):
        leaky.bench.score(before, leaky.bench.put(margins), retrained)


def test_what_is_scored_is_not_scored_again(leaky):
    settings = WorkerSettings(str(leaky.bench.store.root), (), 1, "cpu")
    assert run_score(leaky.scored.job, settings) == 0
