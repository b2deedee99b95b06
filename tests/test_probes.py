"""Probes in whole sweeps: figures by hand, what is run again, failures, bad input."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from unlearnbench.bench import InputError, Record, probes, probing, read_records, relearning
from unlearnbench.bench.metrics.cka import cka
from unlearnbench.bench.metrics.probe import RIDGE
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.planview import describe_plan
from unlearnbench.bench.probes import PROBES
from unlearnbench.bench.probing import probe_samples
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.scenario import split_validation
from unlearnbench.bench.store import Store
from unlearnbench.bench.sweep import read_sweep

from .attack_toys import SIMPLE, TINY
from .commands import TOY, artifacts, call, plugins_forgotten
from .toys import NARROW, toy_images_of, toy_options, toy_plan, toy_spec

PLUGIN = """
import torch
from unlearnbench.bench import DeclinedError, Unlearner

class Collapse(Unlearner):
    '''Make the features of all images equal.'''
    name = "collapse"
    reference = "test"
    def unlearn(self, model, task):
        with torch.no_grad():
            for parameter in model.layer4.parameters():
                parameter.zero_()
        return model

class Wrap(Unlearner):
    '''Return another network.'''
    name = "wrap"
    reference = "test"
    def unlearn(self, model, task):
        return torch.nn.Sequential(model)

class Shy(Unlearner):
    '''Decline when run.'''
    name = "shy"
    reference = "test"
    def unlearn(self, model, task):
        raise DeclinedError("too shy.")
"""
TRAINING = {"epochs": 10, "batch_size": 32, "lr": 0.2, "augment": False}
BLOCKS = ["act1", "layer1", "layer2", "layer3", "layer4"]
LIMIT = 40
FIGURES = ("probe/", "cka_", "relearn/", "js/", "zrf")


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugins") / "probed.py"
    path.write_text(PLUGIN)
    with plugins_forgotten():
        yield [path]


@pytest.fixture(scope="module", autouse=True)
def _impatient():
    """Relearning that does not get there takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (probing, relearning):
            patch.setattr(module, "RELEARN_STEPS", LIMIT)
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tracking_uri, plugins):
    """A conv net with all probes: folder, spec and records by method and seed."""
    folder = tmp_path_factory.mktemp("swept")
    spec = toy_spec(
        methods=["head-mask", "finetune[epochs=1]", "collapse", "wrap", "shy"],
        seeds=2,
        probes="all",
        plugins=plugins,
        training=TRAINING,
    )
    result = run_sweep(spec, toy_options(folder, tracking_uri=tracking_uri))
    assert result.records == read_records(folder / "out")
    return folder, spec, by_method(result.records)


def by_method(records):
    return {(r.method, r.seed): r for r in records}


def figures(record):
    return {k: v for k, v in record.metrics.items() if k.startswith(FIGURES)}


def run(folder, uri, **changes):
    spec = toy_spec(**changes)
    result = run_sweep(spec, toy_options(folder, tracking_uri=uri))
    return by_method(result.records), result.summary


# --- figures, by hand ---------------------------------------------------------------------------


def model_of(folder, record, model=NARROW, shape=(1, 8, 8)):
    """The unlearned model of a cell."""
    net = build_model(create_model_spec(model), 4, shape, 0)
    net.load_state_dict(Store(folder / "store").get("cell", record.key).tensors())
    return net.eval()


def batch(spec, split, ids):
    data = toy_images_of(spec)
    pixels = torch.from_numpy(getattr(data, f"{split}_images")[ids]).float() / 255
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.mean, data.std))
    return (pixels - mean) / std, getattr(data, f"{split}_labels")[ids]


def forget_ids(spec):
    return toy_plan(spec).cells[0].request.forget


def features(net, images):
    with torch.no_grad():
        return net.forward_head(net.forward_features(images), pre_logits=True).double().numpy()


def test_a_model_with_gates_is_not_probed_and_says_so(tmp_path):
    spec = toy_spec(methods=["osp-vanilla[target=gate]"], probes=["divergence"])
    records = run_sweep(spec, toy_options(tmp_path)).records
    (gated,) = [record for record in records if record.method == "osp-vanilla"]
    assert gated.status == "ok"
    assert "has gates on its activations" in gated.probe["reason"]


@pytest.mark.parametrize("method", ["identity", "retrain", "finetune"])
@pytest.mark.parametrize("share", ["2", "10"])
def test_recovery_is_what_scikit_learn_finds_on_the_stored_model(swept, method, share):
    folder, spec, records = swept
    record = records[method, 1]
    net = model_of(folder, record)
    data = toy_images_of(spec)
    training = split_validation(data, spec.validation_fraction).training
    ids = probe_samples(data.train_labels, training, data.digest)[share]
    images, labels = batch(spec, "train", ids)
    x, z = features(net, images), features(net, batch(spec, "test", slice(None))[0])
    x, z = x - x.mean(0), z - x.mean(0)  # classes are equally large
    scale = np.sqrt((x**2).mean())
    ridge = Ridge(alpha=RIDGE * len(x)).fit(x / scale, np.eye(4)[labels])
    right = ridge.predict(z / scale).argmax(1) == data.test_labels
    assert record.metrics[f"probe/recovery_{share}"] == right[data.test_labels == 0].mean()
    assert record.metrics[f"probe/accuracy_{share}"] == right.mean()
    if share == "10":
        right = NearestCentroid().fit(x, labels).predict(z) == data.test_labels
        assert record.metrics["probe/centres"] == right[data.test_labels == 0].mean()
        assert record.metrics["probe/centres_accuracy"] == right.mean()


def test_samples_are_stratified_nested_and_of_every_class():
    labels = np.array([0] * 1000 + [1] * 100 + [2] * 3)
    training = np.delete(np.arange(1103), [5, 6, 1001])
    drawn = probe_samples(labels, training, "some data")
    assert np.bincount(labels[drawn["2"]]).tolist() == [20, 2, 1]
    assert np.bincount(labels[drawn["10"]]).tolist() == [100, 10, 1]
    assert set(drawn["2"]) <= set(drawn["10"]) <= set(training)
    again = probe_samples(labels, training, "some data")
    assert all((again[name] == ids).all() for name, ids in drawn.items())
    other = probe_samples(labels, training, "other data")
    assert set(other["10"]) != set(drawn["10"])


def blocks(net, images):
    """Every block's output averaged over space, by hooks."""
    kept = {}
    handles = [
        getattr(net, name).register_forward_hook(
            lambda _, __, out, name=name: kept.__setitem__(name, out.detach().mean((2, 3)).numpy())
        )
        for name in BLOCKS
    ]
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()
    return kept


@pytest.mark.parametrize("seed", [0, 1])
def test_retrained_models_are_compared_with_that_of_another_seed(swept, seed):
    folder, spec, records = swept
    images, _ = batch(spec, "train", forget_ids(spec))
    mine, theirs = (
        blocks(model_of(folder, records["retrain", s]), images) for s in (seed, 1 - seed)
    )
    found = records["retrain", seed].metrics
    expected = {name: cka(mine[name], theirs[name]) for name in BLOCKS}
    for name, value in expected.items():
        assert found[f"cka_retrained/forget/{name}"] == pytest.approx(value, abs=1e-5)
        assert value < 0.999
    mean = np.mean(list(expected.values()))
    assert found["cka_retrained/forget_mean"] == pytest.approx(mean, abs=1e-5)
    assert found["cka_retrained/forget_last"] == found["cka_retrained/forget/layer4"]
    assert 0 < found["js/retrained"] < 0.5


@pytest.mark.parametrize("method", ["identity", "finetune"])
def test_other_models_are_compared_with_the_retrained_one_of_their_seed(swept, method):
    folder, spec, records = swept
    images, _ = batch(spec, "train", forget_ids(spec))
    nets = [model_of(folder, records[name, 1]) for name in (method, "retrain")]
    found = records[method, 1].metrics
    mine, theirs = (blocks(net, images) for net in nets)
    for name in BLOCKS:
        value = cka(mine[name], theirs[name])
        assert found[f"cka_retrained/forget/{name}"] == pytest.approx(value, abs=1e-5)
    with torch.no_grad():
        p, q = (net(images).double().softmax(1).numpy() for net in nets)
    js = np.mean([jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])
    assert found["js/retrained"] == pytest.approx(js, abs=1e-6)
    steps = [records[name, 1].metrics["relearn/steps"] for name in (method, "retrain")]
    assert steps[1] > 0
    assert found["relearn/ain"] == steps[0] / steps[1]


def test_a_masked_head_has_the_features_of_the_original_and_the_original_is_like_itself(swept):
    _, _, records = swept
    for seed in (0, 1):
        masked, original = (records[n, seed].metrics for n in ("head-mask", "identity"))
        assert masked["forget_acc"] == 0
        for name in original:
            if name.startswith(("probe/", "cka_")):
                assert masked[name] == original[name], name
        for role in ("forget", "retain"):
            for name in BLOCKS:
                assert original[f"cka_original/{role}/{name}"] == pytest.approx(1, abs=1e-9)
        # given up: no step of such a size undoes a mask
        assert (masked["relearn/steps"], masked["relearn/censored"]) == (LIMIT, 1)


def test_the_original_needs_no_step_and_shows_what_an_untrained_model_needs(swept):
    _, _, records = swept
    for seed in (0, 1):
        found = records["identity", seed].metrics
        assert found["relearn/steps"] == found["relearn/censored"] == found["relearn/ain"] == 0
        assert found["relearn/untrained_steps"] > 0
        assert 0 <= found["relearn/untrained_censored"] <= 1
        assert 0.3 < found["zrf"] < 1
    with_anchor = {m for (m, _), r in records.items() if "relearn/untrained_steps" in r.metrics}
    assert with_anchor == {"identity"}


def test_features_that_are_all_equal_recover_no_more_than_chance_and_say_why_there_is_no_cka(swept):
    _, _, records = swept
    for seed in (0, 1):
        collapsed, original = (records[n, seed] for n in ("collapse", "identity"))
        for name in ("probe/recovery_2", "probe/recovery_10", "probe/centres"):
            assert collapsed.metrics[name] == 0.25
        assert original.metrics["probe/recovery_10"] > 0.5
        assert (
            records["retrain", seed].metrics["probe/recovery_10"]
            < (original.metrics["probe/recovery_10"])
        )
        assert "cka_original/forget/layer3" in collapsed.metrics
        for name in ("forget/layer4", "forget_last", "forget_mean", "retain_mean"):
            assert f"cka_original/{name}" not in collapsed.metrics
        assert any("`layer4`" in note and "constant" in note for note in collapsed.probe["notes"])


def test_a_method_that_returns_another_network_is_ok_and_says_why_it_is_not_probed(swept):
    folder, _, records = swept
    for seed in (0, 1):
        wrapped = records["wrap", seed]
        assert wrapped.status == "ok"
        assert not figures(wrapped)
        assert "method `wrap` is no `resnet18[" in wrapped.probe["reason"]
    text = (folder / "out" / "leaderboard.md").read_text()
    (line,) = [line for line in text.splitlines() if "figures of probes that are not there: `wrap`"
               in line]  # fmt: skip
    assert "(seeds 0, 1)" in line
    assert "cannot be probed" in line


def test_a_cell_that_is_declined_has_no_probe(swept):
    record = swept[2]["shy", 0]
    assert record.status == "skipped"
    assert record.reason == "too shy"
    assert record.probe == {}


def test_records_say_how_probes_were_made(swept):
    probe = swept[2]["finetune", 0].probe
    assert probe["probes"] == list(PROBES)
    assert probe["relearn"] == {
        "lr": pytest.approx(0.02), "momentum": 0.9, "batch_size": 32, "orderings": 5,
        "max_steps": LIMIT,
    }  # fmt: skip
    assert probe["notes"] == []
    assert probe["probe_s"] > 0


# --- where they are shown -----------------------------------------------------------------------


def test_the_leaderboard_shows_each_figure_with_the_retrained_model_s_beside_it(swept):
    folder, _, records = swept
    text = (folder / "out" / "leaderboard.md").read_text()
    (head,) = re.findall(r"^\| method .*", text, re.M)
    heads = [cell.strip() for cell in head.split("|")]
    for name in (
        "new head 2 % (retrained)",
        "new head 10 % (retrained)",
        "class centres forgotten (retrained)",
        "CKA to original, forget, last block (retrained)",
        "CKA to retrained, retain, mean (retrained)",
        "relearning steps (retrained)",
        "relearning AIN",
        "outputs on forget set ZRF (retrained)",
    ):
        assert name in heads
    assert not [name for name in heads if "layer" in name]  # blocks one by one are in the records
    row = next(line for line in text.splitlines() if line.startswith("| finetune "))
    cells = dict(zip(heads, [cell.strip() for cell in row.split("|")], strict=True))
    mean, beside = (
        100 * np.mean([records[m, s].metrics["probe/recovery_10"] for s in (0, 1)])
        for m in ("finetune", "retrain")
    )
    shown = cells["new head 10 % (retrained)"]
    assert shown.startswith(f"{mean:.1f} ±")
    assert shown.endswith(f"({beside:.1f})")
    masked = next(line for line in text.splitlines() if line.startswith("| **head-mask** "))
    assert f"≥ {LIMIT}" in masked
    assert "- **new head %**: " in text
    assert "which is the ideal, and not 0" in text
    frame = pd.read_csv(folder / "out" / "leaderboard.csv").set_index("method")
    assert frame.loc["finetune", "probe/recovery_10_mean"] == pytest.approx(mean / 100)
    assert frame.loc["finetune", "probe/recovery_10_retrained"] == pytest.approx(beside / 100)
    page = (folder / "out" / "leaderboard.html").read_text()
    assert "class centres" in page
    assert "relearning" in page


def test_mlflow_has_the_figures_under_their_names(swept, tracking_uri):
    from mlflow import MlflowClient

    _, _, records = swept
    client = MlflowClient(tracking_uri)
    runs = client.search_runs(
        [client.get_experiment_by_name("toy").experiment_id],
        f"tags.`unlearnbench.key` = '{records['finetune', 0].key}'",
    )
    for name, value in figures(records["finetune", 0]).items():
        assert runs[0].data.metrics[name] == pytest.approx(value)
    client._tracking_client.store.engine.dispose()


def test_without_probes_there_is_nothing_of_them(tmp_path, tracking_uri):
    records, _ = run(tmp_path, tracking_uri)
    assert all(record.probe == {} and not figures(record) for record in records.values())
    frame = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert not [name for name in frame.columns if str(name).startswith(FIGURES)]
    assert "new head" not in (tmp_path / "out" / "leaderboard.md").read_text()


def test_fractions_outside_0_and_1_are_refused_and_other_figures_are_not():
    fields = {
        "sweep": "s", "key": "k", "dataset": "d", "model": "m", "recipe": "plain", "scenario": "c",
        "forget_request": "r", "forget_size": 1, "retain_size": 1, "method": "x", "seed": 0,
        "status": "ok",
    }  # fmt: skip
    good = {"retain_acc": 1, "forget_acc": 1, "test_acc": 1}
    free = {"relearn/steps": 12, "relearn/ain": 3.5, "cka_original/forget/layer1": -0.1}
    assert Record(**fields, metrics=good | free).probe == {}
    for name in ("probe/recovery_2", "probe/centres", "relearn/censored", "zrf",
                 "relearn/untrained_censored"):  # fmt: skip
        with pytest.raises(ValueError, match="fractions"):
            Record(**fields, metrics=good | {name: 1.01})


# --- what is run again --------------------------------------------------------------------------


def of_kind(found, kind):
    return {name: time for name, time in found.items() if name.startswith(f"{kind}/")}


def test_probes_that_are_switched_on_later_unlearn_nothing_and_a_rerun_does_nothing(
    tmp_path, tracking_uri
):
    methods = ["head-mask"]
    _, first = run(tmp_path, tracking_uri, methods=methods)
    before = artifacts(tmp_path / "store")
    records, second = run(tmp_path, tracking_uri, methods=methods, probes=["centres", "cka"])
    after = artifacts(tmp_path / "store")
    assert {name: after[name] for name in before} == before
    assert {name.partition("/")[0] for name in set(after) - set(before)} == {"probe"}
    assert first["jobs"] == 4
    assert second["jobs"] == 3
    assert all("probe/centres" in record.metrics for record in records.values())
    assert not [n for record in records.values() for n in figures(record) if "recovery" in n]
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    # the order in which probes are named does not matter
    again, third = run(tmp_path, tracking_uri, methods=methods, probes=["cka", "centres"])
    assert third["jobs"] == 0
    assert again == records
    assert artifacts(tmp_path / "store") == after
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_a_probe_that_was_interrupted_goes_on_where_it_was(tmp_path, tracking_uri):
    records, _ = run(tmp_path, tracking_uri, probes=["divergence"])
    plan = toy_plan(toy_spec(probes=["divergence"]))
    (job,) = [job for job in plan.probes.values() if job.cell.method.name == "identity"]
    Store(tmp_path / "store").drop("probe", job.key)
    before = artifacts(tmp_path / "store")
    spec = toy_spec(probes=["divergence"])
    text = describe_plan(spec, toy_plan(spec), Store(tmp_path / "store"), 1)
    assert "would look into 1 of 2 models" in text
    again, summary = run(tmp_path, tracking_uri, probes=["divergence"])
    assert summary["jobs"] == 1
    after = artifacts(tmp_path / "store")
    assert set(after) - set(before) == {f"probe/{job.key}"}
    assert {key: figures(r) for key, r in again.items()} == {
        key: figures(r) for key, r in records.items()
    }


def test_cells_whose_models_were_not_kept_are_run_again(tmp_path, tracking_uri):
    run(tmp_path, tracking_uri, methods=["finetune[epochs=1]"])
    store = Store(tmp_path / "store")
    plan = toy_plan(toy_spec(methods=["finetune[epochs=1]"]))
    kept = next(c.key for c in plan.cells if c.method.name == "identity")
    for cell in plan.cells:
        if cell.key != kept:
            store.drop("cell", cell.key)
    unkept, _ = run(tmp_path, tracking_uri, methods=["finetune[epochs=1]"], save_models=False)
    before = artifacts(tmp_path / "store")
    assert not store.has_tensors("cell", unkept["finetune", 0].key)
    spec = toy_spec(methods=["finetune[epochs=1]"], probes=["recovery"])
    text = describe_plan(spec, toy_plan(spec), store, 1)
    assert "2 to run, 1 done" in text
    assert "Probes (recovery): would look into 3 of 3 models." in text
    probed, summary = run(
        tmp_path, tracking_uri, methods=["finetune[epochs=1]"], probes=["recovery"]
    )
    assert summary["jobs"] == 2 + 3
    after = artifacts(tmp_path / "store")
    assert after[f"cell/{kept}"] == before[f"cell/{kept}"]
    for key, record in probed.items():
        assert "probe/recovery_10" in record.metrics
        assert record.metrics["test_acc"] == unkept[key].metrics["test_acc"]
    # and without probes nothing asks for the models
    _, summary = run(tmp_path, tracking_uri, methods=["finetune[epochs=1]"], save_models=False)
    assert summary["jobs"] == 0


def test_a_seed_that_is_added_probes_no_other_cell_again():
    two, three = (toy_plan(toy_spec(probes="all", seeds=n)) for n in (2, 3))
    assert set(two.probes) < set(three.probes)
    one = toy_plan(toy_spec(probes="all"))
    lone = [job for job in one.probes.values() if job.reference is None]
    assert [job.cell.method.name for job in lone] == ["retrain"]
    # of the first retrained model: it has something to be compared with now
    assert len(set(one.probes) - set(two.probes)) == 1


@pytest.mark.parametrize("change", [{"probes": ["cka"]}, {"seeds": [1]}, {"methods": ["finetune"]}])
def test_what_is_probed_is_in_the_key(change):
    base = toy_plan(toy_spec(probes="all"))
    changed = toy_plan(toy_spec(**{"probes": "all", **change}))
    ours = {job.cell.method.name: key for key, job in base.probes.items()}
    theirs = {job.cell.method.name: key for key, job in changed.probes.items()}
    assert (theirs["identity"] == ours["identity"]) == ("methods" in change)


# --- failures -----------------------------------------------------------------------------------


def test_a_retrained_model_that_fails_costs_the_comparison_only_and_for_a_while(
    tmp_path, tracking_uri, monkeypatch
):
    from unlearnbench.bench import METHODS

    def fail(self, model, task):
        raise OSError("no time")

    with monkeypatch.context() as patch:
        patch.setattr(METHODS.get("retrain"), "unlearn", fail)
        records, summary = run(tmp_path, tracking_uri, probes="all")
        assert records["retrain", 0].status == "failed"
        found = figures(records["identity", 0])
        assert {"probe/recovery_2", "cka_original/forget_last", "relearn/steps", "zrf"} <= set(
            found
        )
        assert not [n for n in found if "retrained" in n or n == "relearn/ain"]
        assert "reason" not in records["identity", 0].probe
        before = artifacts(tmp_path / "store")
    again, summary = run(tmp_path, tracking_uri, probes="all")
    assert summary["probes_failed"] == 0
    after = artifacts(tmp_path / "store")
    assert {name: after[name] for name in before} == before
    compared = figures(again["identity", 0])
    assert {"js/retrained", "cka_retrained/retain_mean"} <= set(compared)
    assert {name: compared[name] for name in found} == found


def test_a_probe_that_fails_fails_no_cell_and_is_tried_again(tmp_path, tracking_uri, monkeypatch):
    def fail(model, examples):
        raise RuntimeError("the lens is dirty")

    with monkeypatch.context() as patch:
        patch.setattr(probing, "block_features", fail)
        records, summary = run(tmp_path, tracking_uri, probes=["cka"])
    for record in records.values():
        assert record.status == "ok"
        assert record.probe == {"reason": "RuntimeError: the lens is dirty"}
        assert not figures(record)
    assert summary["probes_failed"] == 2
    assert summary["cells_failed"] == 0
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "figures of probes that are not there" in text
    assert "the lens is dirty" in text
    assert len(list((tmp_path / "out" / "failures").glob("*.log"))) == 2
    records, summary = run(tmp_path, tracking_uri, probes=["cka"])
    assert (summary["jobs"], summary["probes_failed"]) == (2, 0)
    assert all("cka_original/forget_mean" in r.metrics for r in records.values())
    assert "that are not there" not in (tmp_path / "out" / "leaderboard.md").read_text()


DEADLY = """
import os, signal
from unlearnbench.bench import Unlearner, probing

class Deadly(Unlearner):
    '''Do nothing.'''
    name = "deadly"
    reference = "test"
    def unlearn(self, model, task):
        return model

probing.Probing.own = lambda self: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_command_ends_with_1_where_a_probe_failed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probing, "centre_hits", lambda *_: 1 / 0)
    Path("toy.toml").write_text(TOY)
    result = call("run", "toy.toml", "--workers", 0, "--device", "cpu", "--probe", "centres")
    assert result.exit_code == 1
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed: probe of ")]
    assert len(failed) == 2
    assert all("ZeroDivisionError" in line for line in failed)
    assert "Cells: 2 ok, 0 failed" in result.stdout


def test_a_probe_whose_process_dies_fails_no_cell(tmp_path, tracking_uri, plugin, monkeypatch):
    monkeypatch.setattr(probing.Probing, "own", probing.Probing.own)  # put back at the end
    spec = toy_spec(probes=["divergence"], plugins=[plugin(DEADLY)])
    result = run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri, workers=1))
    for record in result.records:
        assert record.status == "ok"
        assert record.probe == {"reason": "its process died by signal 9 (SIGKILL)"}


@pytest.mark.slow
def test_processes_give_the_same_figures(tmp_path, tracking_uri, monkeypatch):
    for module in (probing, relearning):  # workers know nothing of the shorter limit
        monkeypatch.setattr(module, "RELEARN_STEPS", probes.RELEARN_STEPS)
    spec = toy_spec(datasets=[SIMPLE], models=[TINY], methods=["finetune[epochs=1]"], probes="all")
    here, there = (
        run_sweep(spec, toy_options(tmp_path / str(n), tracking_uri=tracking_uri, workers=n))
        for n in (0, 2)
    )
    assert [figures(r) for r in here.records] == [figures(r) for r in there.records]
    assert all(figures(r) for r in here.records)


def test_a_damaged_model_is_told(tmp_path, tracking_uri):
    records, _ = run(tmp_path, tracking_uri)
    path = Store(tmp_path / "store").path("cell", records["identity", 0].key)
    (path / "tensors.safetensors").write_bytes(b"rubbish")
    records, summary = run(tmp_path, tracking_uri, probes=["centres"])
    assert "is damaged" in records["identity", 0].probe["reason"]
    assert records["identity", 0].status == "ok"
    assert summary["probes_failed"] == 1


# --- other networks and scenarios ---------------------------------------------------------------


def test_a_vision_transformer_is_probed_block_by_block(tmp_path, tracking_uri):
    records, summary = run(
        tmp_path,
        tracking_uri,
        datasets=[SIMPLE],
        models=[TINY.replace("depth=1", "depth=2")],
        probes="all",
        seeds=2,
        training={"epochs": 4, "batch_size": 32, "optimizer": "adamw", "lr": 3e-3},
    )
    assert summary["probes_failed"] == 0
    found = records["retrain", 0].metrics
    for name in ("original", "retrained"):
        for role in ("forget", "retain"):
            for block in ("blocks.0", "blocks.1"):
                assert -0.2 < found[f"cka_{name}/{role}/{block}"] <= 1
    assert records["identity", 0].metrics["cka_original/retain_mean"] == pytest.approx(1)
    assert records["retrain", 0].probe["relearn"]["lr"] == 0.01
    masked = {"probe/recovery_2", "probe/centres", "relearn/steps", "js/retrained", "zrf"}
    assert masked <= set(found)


def test_where_single_examples_are_forgotten_there_is_no_class_to_recover(tmp_path, tracking_uri):
    records, _ = run(
        tmp_path,
        tracking_uri,
        datasets=[SIMPLE],
        models=[TINY],
        scenarios=["random[fraction=0.2]"],
        probes="all",
        seeds=2,
    )
    for record in records.values():
        found = figures(record)
        assert not {"probe/recovery_2", "probe/recovery_10", "probe/centres"} & set(found)
        assert {"probe/accuracy_2", "probe/accuracy_10", "probe/centres_accuracy"} <= set(found)
        assert {"cka_retrained/forget_last", "relearn/steps", "js/retrained", "zrf"} <= set(found)
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "new head all classes, 2 % (retrained)" in text
    assert "new head 2 %" not in text


def test_a_forget_set_too_small_for_cka_says_so(tmp_path, tracking_uri):
    ids = toy_plan(toy_spec()).cells[0].request.forget[:3]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, ids)))
    scenario = {"name": "ids", "file": str(tmp_path / "ids.txt")}
    records, _ = run(tmp_path, tracking_uri, scenarios=[scenario], probes="all")
    record = records["identity", 0]
    assert record.probe["notes"] == ["cka: the forget set has 3 examples, and CKA needs at least 4"]
    assert "cka_original/retain_last" in record.metrics
    assert not [name for name in record.metrics if name.startswith("cka_original/forget")]
    assert "js/retrained" in record.metrics


# --- bad input ----------------------------------------------------------------------------------

BAD = {
    "probes = ['recovry']": r"`probes`: unknown probe `recovry`; did you mean `recovery`\? Known: ",
    "probes = 'everything'": r"`probes`: unknown probe `everything`",
    "probes = 3": r"`probes`: give `all`, or a list of recovery, centres, .*; got 3\.$",
    "probes = 'all'\nsave_models = false": r"`probes`: .*`save_models = false` does not keep; set",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_settings_are_one_sentence(tmp_path, line):
    path = tmp_path / "bad.toml"
    path.write_text(f"{line}\n{TOY}")
    with pytest.raises(InputError, match=BAD[line]) as refused:
        read_sweep(path)
    assert len(refused.value.sentences) == 1


GOOD = {
    "probes = 'all'": PROBES,
    "probes = 'cka'": ("cka",),
    "probes = ['relearn', 'centres', 'relearn']": ("centres", "relearn"),
    "probes = []\nsave_models = false": (),
}


@pytest.mark.parametrize("line", GOOD)
def test_good_settings_are_names_in_order(tmp_path, line):
    path = tmp_path / "good.toml"
    path.write_text(f"{line}\n{TOY}")
    assert read_sweep(path).probes == GOOD[line]


def test_the_command_line_switches_probes_on_and_refuses_what_there_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("toy.toml").write_text(TOY)
    common = ("toy.toml", "--workers", 0, "--device", "cpu")
    shown = call("plan", *common, "--probe", "cka", "--probe", "centres")
    assert shown.exit_code == 0, shown.stderr
    assert "Probes (centres, cka): would look into 2 of 2 models." in shown.stdout
    assert "Probes" not in call("plan", *common).stdout
    Path("toy.toml").write_text(f"save_models = false\n{TOY}")
    for arguments, sentence in (
        (("--probe", "ck"), "unknown probe `ck`; did you mean `cka`?"),
        (("--probe", "all"), "`save_models = false` does not keep"),
    ):
        result = call("run", *common, *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert len(result.stderr.strip().splitlines()) == 1
        assert sentence in result.stderr
        assert not Path(".unlearnbench").exists()
