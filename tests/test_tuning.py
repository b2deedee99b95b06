"""Tuning from end to end: what it finds, what it never looks at, and what people get of it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

from unlearnbench.bench import read_records
from unlearnbench.bench.batches import Pixels
from unlearnbench.bench.runner import plan_sweep, run_sweep
from unlearnbench.bench.store import Store
from unlearnbench.bench.trial_record import read_trials
from unlearnbench.bench.tuned import read_tuned
from unlearnbench.bench.tuning_target import find_targets

from .commands import (
    PROGRAM,
    TOY,
    artifacts,
    call,
    environment,
    interruptible,
    plugins_forgotten,
    shell,
)
from .toys import toy_options, toy_spec

# forgets from x = 0.4 on and ruins the rest from x = 0.6 on: the best is between them
PLANTED = """
import time
from typing import Annotated, ClassVar
from unlearnbench.bench import Range, Unlearner

class Planted(Unlearner):
    '''Have a known optimum.'''
    name = "planted"
    reference = "test"
    x: Annotated[float, Range(0, 1)] = 0.1
    nap_s: float = 0.0
    def unlearn(self, model, task):
        import torch
        time.sleep(self.nap_s)
        if self.x > 0.85:
            raise ValueError("too much")
        with torch.no_grad():
            if self.x > 0.4:
                model.fc.bias[0] = -1e4
            if self.x > 0.6:
                model.fc.bias[1] = 1e4
        return model
"""
LONGER = {"epochs": 8, "batch_size": 32, "lr": 0.05}
# what tuning may take from the store
OPEN = {"data", "original", "prepared", "trial"}


@pytest.fixture
def planted(tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED)
    with plugins_forgotten():
        yield tmp_path / "planted.py"


def planted_spec(plugin, **changes):
    return toy_spec(
        **{
            "methods": ["planted"],
            "plugins": [plugin],
            "training": LONGER,
            "tune": {"trials": 16, "objectives": ["balance"]},
        }
        | changes
    )


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def tuned_of(out):
    return {entry.method: entry for entry in read_tuned(out / "tuned.toml")}


# --- what is found --------------------------------------------------------------------------------


@pytest.mark.parametrize("objectives", [["balance"], ["retain", "forget", "seconds"]])
def test_a_known_optimum_is_found_and_run(planted, tmp_path, objectives, tracking_uri):
    spec = planted_spec(planted, tune={"trials": 16, "objectives": objectives})
    result = run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri))
    entry = tuned_of(tmp_path / "out")["planted"]
    assert 0.4 < entry.params["x"] <= 0.6
    assert entry.tuning.forget == 1.0
    assert entry.tuning.retain == pytest.approx(entry.tuning.original_retain, abs=0.2)
    (record,) = [r for r in result.records if r.method == "planted"]
    assert record.hyperparameters["x"] == entry.params["x"]
    assert record.metrics["forget_acc"] == 0
    assert record.tuning["trials"] == 16
    assert record.tuning["track"] == "validation"
    assert record.tuning["seconds"] > 0
    assert all(not r.tuning for r in result.records if r.method != "planted")


def test_trials_that_fail_count_and_do_not_stop_the_study(planted, tmp_path, capsys, tracking_uri):
    spec = planted_spec(planted, tune={"trials": 30, "sampler": "random"})
    run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri))
    entry = tuned_of(tmp_path / "out")["planted"]
    found = rows(next((tmp_path / "out" / "tuning").iterdir()) / "trials.csv")
    failed = [row for row in found if row["state"] == "failed"]
    assert failed
    assert {row["reason"] for row in failed} == {"ValueError: too much"}
    assert all(float(row["param.x"]) > 0.85 for row in failed)
    assert (
        (entry.tuning.trials, entry.tuning.failed) == (30, len(failed)) == (len(found), len(failed))
    )
    assert all(float(row["busy_s"]) > 0 for row in found)
    assert entry.tuning.seconds == pytest.approx(sum(float(row["busy_s"]) for row in found))
    assert "failed: trial" in capsys.readouterr().err
    number = failed[0]["trial"]
    (log,) = (tmp_path / "out" / "tuning").glob(f"*/failures/trial-{number}.log")
    assert "ValueError: too much" in log.read_text()


@pytest.mark.slow
def test_a_trial_that_takes_too_long_is_stopped_and_its_time_counts(
    planted, tmp_path, tracking_uri
):
    spec = planted_spec(
        planted,
        methods=["planted[nap_s=60]"],
        time_limit_s=2,  # the sweep's holds for trials too, unless they have their own
        training=LONGER | {"epochs": 1},
        tune={"trials": 1},
    )
    result = run_sweep(spec, toy_options(tmp_path, workers=1, tracking_uri=tracking_uri))
    (trial,) = read_trials(tmp_path / "out")
    assert (trial.state, trial.reason) == ("failed", "stopped by the time limit of 2 s")
    assert 2 <= trial.busy_s < 60
    assert {r.reason for r in result.records if r.method == "planted"} == {trial.reason}


def test_a_method_none_of_whose_trials_succeeds_is_run_as_written(planted, tmp_path, tracking_uri):
    spec = planted_spec(planted, methods=["planted[nap_s=0,x=0.99]", "planted[nap_s=0]"])
    spec = spec.model_copy(update={"tune": spec.tune.model_copy(update={"trials": 2})})
    text = planted.read_text().replace("self.x > 0.85", "True")
    planted.write_text(text)
    result = run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri))
    entry = tuned_of(tmp_path / "out")["planted"]
    assert entry.params == {}
    assert entry.tuning.reason == "no trial came to its end"
    reasons = {r.tuning.get("reason") for r in result.records if r.method == "planted"}
    assert reasons == {None, "no trial came to its end"}  # the first had nothing to tune


def test_every_method_has_the_same_number_of_trials_and_the_leaderboard_its_cost(
    tmp_path, tracking_uri
):
    spec = toy_spec(
        methods=["finetune", "neggrad", "head-mask"], tune={"trials": 3, "development_models": 1}
    )
    result = run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri))
    entries = tuned_of(tmp_path / "out")
    assert set(entries) == {"finetune", "neggrad"}
    assert {entry.tuning.trials for entry in entries.values()} == {3}
    (table,) = [rows(tmp_path / "out" / "leaderboard.csv")]
    cost = {row["method"]: row["tuning_s_mean"] for row in table}
    assert float(cost["finetune"]) == pytest.approx(entries["finetune"].tuning.seconds)
    assert not cost["head-mask"]
    assert re.search(r"\| +tuning s +\|", (tmp_path / "out" / "leaderboard.md").read_text())
    assert {r.status for r in result.records} == {"ok"}


FITTED = '''
from typing import Annotated, ClassVar
from unlearnbench.bench import Range, Unlearner

class Fitted(Unlearner):
    """Be good or bad from the first epoch on."""
    name = "fitted"
    reference = "test"
    needs = frozenset({"retain", "gradients"})
    x: Annotated[float, Range(0, 1)] = 1.0
    def unlearn(self, model, task):
        import torch
        with torch.no_grad():
            model.fc.bias[0] = -1e4
            if self.x < 0.5:
                model.fc.bias[1] = 1e4
        task.fit(model, task.retain, task.optimizer(model, lr=1e-9), epochs=4)
        return model
'''


@pytest.mark.parametrize("objectives", [["balance"], ["retain", "forget", "seconds"]])
def test_trials_that_lag_behind_are_stopped_at_an_epoch(tmp_path, tracking_uri, objectives):
    (tmp_path / "fitted.py").write_text(FITTED)
    with plugins_forgotten():
        spec = planted_spec(
            tmp_path / "fitted.py",
            methods=["fitted"],
            tune={"trials": 16, "sampler": "random", "objectives": objectives},
        )
        result = run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri))
    entry = tuned_of(tmp_path / "out")["fitted"]
    trials = read_trials(tmp_path / "out")
    assert len(trials) == entry.tuning.trials == 16
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert entry.tuning.pruned == len(pruned)
    assert entry.params["x"] >= 0.5
    assert bool(pruned) == (len(objectives) == 1)
    for trial in pruned:
        assert trial.params["x"] < 0.5
        assert re.match(r"stopped after epoch \d with balance 0\.\d+, which", trial.reason)
        assert not trial.metrics
    assert {r.status for r in result.records} == {"ok"}


def test_looking_at_every_epoch_changes_no_result(tmp_path, tracking_uri):
    found = []
    for prune in (False, True):
        spec = toy_spec(
            methods=["finetune"],
            training=LONGER,
            tune={"trials": 4, "objectives": ["balance"], "prune": prune},
        )
        out = tmp_path / str(prune)
        run_sweep(spec, toy_options(out, tracking_uri=tracking_uri))
        found.append([(t.params, t.metrics["retain"]) for t in read_trials(out / "out")])
    assert found[0] == found[1]


def test_every_trial_is_a_run_in_mlflow_and_none_is_doubled(tmp_path, planted):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    spec = planted_spec(planted, tune={"trials": 3}, name="tracked")
    result = run_sweep(spec, toy_options(tmp_path, tracking_uri=uri))
    assert result.tracked
    trials = read_trials(tmp_path / "out")
    done = call("sync", tmp_path / "out", "--store", tmp_path / "store", "--tracking-uri", uri)
    assert done.exit_code == 0, done.stderr
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tracked").experiment_id
    runs = client.search_runs([experiment], "tags.`unlearnbench.kind` = 'trial'")
    assert len(runs) == len(trials) == 3
    by_number = {int(run.data.params["trial"]): run.data for run in runs}
    for trial in trials:
        run = by_number[trial.trial]
        assert float(run.params["x"]) == trial.params["x"]
        assert run.metrics["tuning/retain"] == trial.metrics["retain"]
        assert run.tags["chosen"] == json.dumps(trial.chosen)
    assert sum(trial.chosen for trial in trials) == 1


# --- what is never looked at ----------------------------------------------------------------------


@pytest.mark.parametrize("track", ["validation", "oracle"])
def test_neither_test_images_nor_the_sweeps_own_models_are_touched(
    planted, tmp_path, monkeypatch, track
):
    """A spy on all images that are laid out and on all that is read from the store."""
    spec = planted_spec(
        planted,
        scenarios=["class[classes=[0]]", "random[fraction=0.2]"],
        methods=["planted", "osp-vanilla[rho=0.3]"],
        ulira={"shadows": 8},
        tune={"trials": 2, "track": track},
    )
    read, laid_out = [], []
    get, init = Store.get, Pixels.__init__

    def spied_get(self, kind, key):
        read.append((kind, key))
        return get(self, kind, key)

    def spied_init(self, data, split, *args, **kwargs):
        laid_out.append(split)
        init(self, data, split, *args, **kwargs)

    monkeypatch.setattr(Store, "get", spied_get)
    monkeypatch.setattr(Pixels, "__init__", spied_init)
    from unlearnbench.bench import tuned_sweep

    options = toy_options(tmp_path)
    sweep, data, plan, device = plan_sweep(spec, options)
    tuned_sweep.tune_sweep(sweep, data, device, options.store, options.out, 0)
    assert laid_out
    assert set(laid_out) == {"train"}
    assert {kind for kind, _ in read} == OPEN
    own = {key for kind, key in read if kind == "original"}
    assert own
    assert own.isdisjoint(cell.job.original.key for cell in plan.cells)
    targets = find_targets(sweep, data, device, spec.tune)
    retrained = {t.references["retrain"].key for t in targets if "retrain" in t.references}
    read_trials = {key for kind, key in read if kind == "trial"}
    assert retrained <= read_trials
    assert bool(retrained) == (track == "oracle")


def test_no_test_image_is_within_reach_of_a_trial(planted, tmp_path, tracking_uri):
    planted.write_text(
        planted.read_text().replace(
            "time.sleep(self.nap_s)",
            "import gc\n"
            "        from unlearnbench.bench import ImageData\n"
            "        near = [x for x in gc.get_objects() if isinstance(x, ImageData)]\n"
            "        assert near and not any(len(x.test_images) for x in near), 'test images'",
        )
    )
    spec = planted_spec(planted, tune={"trials": 2}, training=LONGER | {"epochs": 1})
    run_sweep(spec, toy_options(tmp_path, workers=1, tracking_uri=tracking_uri))
    assert tuned_of(tmp_path / "out")["planted"].tuning.failed == 0


def test_development_originals_come_from_seeds_of_their_own(tmp_path):
    spec = toy_spec(methods=["finetune"], tune={"development_models": 3}, seeds=[0, 1, 2])
    sweep, data, _, device = plan_sweep(spec, toy_options(tmp_path))
    (target,) = find_targets(sweep, data, device, spec.tune)
    seeds = {job.seed for job in target.originals}
    assert len(seeds) == 3
    assert min(seeds) > 1000
    other = spec.tune.model_copy(update={"seed": 1})
    (drawn,) = find_targets(sweep, data, device, other)
    assert seeds.isdisjoint(job.seed for job in drawn.originals)


def test_development_originals_share_the_requests_of_their_kind(tmp_path):
    spec = toy_spec(
        methods=["finetune", "osp-vanilla"],
        scenarios=["class[classes=[0]]", "class[classes=[2]]", "random[fraction=0.1]"],
        tune={"development_models": 2},
    )
    sweep, data, _, device = plan_sweep(spec, toy_options(tmp_path))
    targets = find_targets(sweep, data, device, spec.tune)
    assert [(t.method.name, t.kind, len(t.requests)) for t in targets] == [
        ("finetune", "class", 2), ("finetune", "sample", 1), ("osp-vanilla", "class", 2)
    ]  # fmt: skip
    trial = targets[0].trial(targets[0].method)
    assert len({cell.original.key for cell in trial.cells}) == 2
    assert len({tuple(cell.forget) for cell in trial.cells}) == 2


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "toy.toml").write_text(TOY)
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


TUNE = ("tune", "planted", "--sweep", "toy.toml", "--plugin", "planted.py")


@pytest.mark.slow
def test_the_command_writes_what_people_and_sweeps_read(folder):
    done = shell(*TUNE, "--trials", 6, "--workers", 2, cwd=folder)
    assert done.returncode == 0, done.stderr
    out = folder / "results" / "tune-planted"
    entry = tuned_of(out)["planted"]
    head, table = done.stdout.split("\n\n")[0], done.stdout
    assert head.startswith("planted on synthetic[")
    assert "6 trials (" in table
    assert re.search(rf"^\* +{entry.tuning.trial} ", table, re.MULTILINE)
    assert f"Hyper-parameters: {Path('results/tune-planted/tuned.toml')}" in table
    (study,) = (out / "tuning").iterdir()
    for name in ("history", "importance", "parallel", "front"):
        assert (study / f"{name}.svg").read_text().lstrip().startswith("<?xml")
        assert (study / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(rows(study / "trials.csv")) == 6
    # the same command does nothing again
    before = artifacts(folder / ".unlearnbench")
    again = shell(*TUNE, "--trials", 6, "--workers", 2, cwd=folder)
    assert again.stdout == done.stdout
    assert artifacts(folder / ".unlearnbench") == before
    # and a sweep runs what was found
    run = shell(
        "run", "toy.toml", "--method", "planted", "--plugin", "planted.py", "--workers", 2,
        "--hyperparameters", out / "tuned.toml", cwd=folder,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (record,) = [r for r in read_records(folder / "results" / "toy") if r.method == "planted"]
    assert record.hyperparameters["x"] == entry.params["x"]
    assert record.tuning["study"] == study.name


def counts(store, name="*"):
    """Lines of the journals that tell the end of a trial."""
    return sum(
        '"op_code":6' in line and '"state":1' in line
        for path in (store / "studies").glob(f"{name}.log")
        for line in path.read_text().splitlines()
    )


def tuner(folder, *options):
    return subprocess.Popen(
        [str(PROGRAM), *map(str, (*TUNE[:1], "planted[nap_s=0.2]", *TUNE[2:], *options))],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_was_killed_goes_on_to_the_right_number_of_trials(folder, how):
    process = tuner(folder, "--trials", 8, "--workers", 2)
    deadline = time.monotonic() + 120
    while counts(folder / ".unlearnbench") < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, how)
    stdout, stderr = process.communicate(timeout=30)
    assert not stdout
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "finished trials are kept" in stderr
        assert "Traceback" not in stderr
    process = tuner(folder, "--trials", 8, "--workers", 2)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert "8 trials (" in stdout
    (study,) = (folder / "results" / "tune-planted" / "tuning").iterdir()
    found = rows(study / "trials.csv")
    assert len(found) == 8
    assert {row["state"] for row in found} <= {"complete", "failed"}


@pytest.mark.slow
def test_two_processes_work_on_one_study(folder):
    shared = ("--trials", 12, "--workers", 1, "--storage", "shared.log")
    both = [tuner(folder, *shared, "--name", f"t{i}") for i in range(2)]
    ended = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert all("12 trials (" in stdout for stdout, _ in ended)
    first, second = (
        tomllib.loads((folder / f"results/t{i}/tuned.toml").read_text()) for i in (0, 1)
    )
    assert first == second
    tuners = set(re.findall(r'"tuner":"(\w+)"', (folder / "shared.log").read_text()))
    assert len(tuners) == 2


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["tune", "nope"], "unknown method `nope`"),
        (["tune", "head-mask"], "there is nothing to tune: `head-mask` declare no search ranges"),
        (["tune", "scrub", "--search", "lr=[2,1]"], "the search of `lr` needs two numbers"),
        (["tune", "scrub", "--search", "lr"], "`--search` is written `NAME=[LOW,HIGH]`"),
        (["tune", "scrub", "--search", "rate=[1,2]"], "unknown hyper-parameter of `scrub` `rate`"),
        (["tune", "scrub[lr=0.1]", "--search", "lr=[1,2]"], "`lr` is both set and searched"),
        (["tune", "scrub", "--storage", "x.txt"], "`x.txt` is no storage of studies"),
        (["tune", "scrub", "neggrad", "--study", "a"], "`--study a` names one study, but"),
        (["run", "--hyperparameters", "none.toml"], "the hyper-parameters `none.toml` cannot be"),
        (["run", "--hyperparameters", "toy.toml"], "unknown key `datasets`"),
        (["tune", "scrub", "--search", "optimizer=[[sgd]]"], "`optimizer` should be 'sgd' or"),
        (["tune", "finetune,finetune[epochs=5]"], "`finetune` is listed twice"),
        (["tune", "scrub", "--out", "toy.toml"], "the output folder `toy.toml` cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_told_in_one_sentence(folder, args, sentence):
    sweep = [] if args[0] == "run" else ["--sweep", "toy.toml"]
    done = call(*args, *sweep)
    assert done.exit_code == 2, done.stdout
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / ".unlearnbench" / "artifacts" / "original").exists()


def test_tuning_without_validation_images_is_refused(tmp_path, tracking_uri):
    from unlearnbench.bench import InputError

    spec = toy_spec(methods=["finetune"], tune={}, validation_fraction=0)
    with pytest.raises(InputError, match="tuning needs validation images"):
        run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri))


def test_hyperparameters_that_the_method_does_not_allow_are_named(folder):
    (folder / "tuned.toml").write_text(
        '[[tuned]]\nmethod = "finetune"\nparams = { lr = -1, depth = 3 }\n'
    )
    done = call("run", "toy.toml", "--method", "finetune", "--hyperparameters", "tuned.toml")
    assert done.exit_code == 2
    assert "method `finetune`: `lr` should be greater than 0; got -1" in done.stderr
    assert "unknown key `depth`" in done.stderr


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ('method = "finetunee"', "unknown method `finetunee`; did you mean `finetune`"),
        ('method = "scrub"', "nothing in the hyper-parameters `tuned.toml` is for a dataset"),
        ('method = "finetune"\ndataset = "cifar10"', "its methods are `finetune`"),
        ('method = "osp"\nparams = { ortho_lambda = 0.5 }', "ortho_lambda of the recipe cannot be"),
        ('method = "finetune"\nkind = "subset"', "`tuned.0.kind`"),
    ],
)
def test_hyperparameters_that_could_not_be_used_are_refused(folder, entry, sentence):
    (folder / "tuned.toml").write_text(f"[[tuned]]\n{entry}\n")
    done = call("run", "toy.toml", "--method", "finetune", "--hyperparameters", "tuned.toml")
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert not (folder / ".unlearnbench").exists()


def test_methods_that_a_file_does_not_cover_are_told(folder, caplog):
    (folder / "tuned.toml").write_text(
        '[[tuned]]\nmethod = "finetune[ epochs = 2 ]"\nparams = { lr = 0.02 }\n'
    )
    done = call(
        "plan", "toy.toml", "--method", "finetune[epochs=2]", "--method", "neggrad",
        "--hyperparameters", "tuned.toml",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "finetune[epochs=2,lr=0.02]" in done.stdout
    assert "has nothing for `neggrad` on some tasks; used as written" in caplog.text


def test_settings_of_a_sweep_file_hold_for_the_command_too(folder):
    table = '\n[tune]\ntrials = 2\nsampler = "random"\ntolerance = 0.2\ndevelopment_models = 1\n'
    (folder / "mine.toml").write_text(TOY + table)
    done = call("tune", "finetune", "--sweep", "mine.toml", "--workers", 0, "--trials", 3)
    assert done.exit_code == 0, done.stderr
    assert "3 trials (0 failed, 0 pruned) on 1 development models" in done.stdout
    assert "at least 80 % of the original's retain" in done.stdout


def test_tune_and_hyperparameters_contradict_each_other(folder):
    (folder / "tuned.toml").write_text("")
    (folder / "both.toml").write_text('hyperparameters = "tuned.toml"\n' + TOY + "\n[tune]\n")
    done = call("run", "both.toml")
    assert done.exit_code == 2
    assert "`tune` would find hyper-parameters, but they are to be taken from" in done.stderr


def test_plan_tells_what_tuning_adds_and_runs_nothing(folder):
    (folder / "tuned.toml").write_text(TOY + "\n[tune]\ntrials = 7\ndevelopment_models = 3\n")
    done = call("plan", "tuned.toml", "--method", "finetune", "--method", "scrub")
    assert done.exit_code == 0, done.stderr
    assert (
        "Tuning comes first: 2 studies of 7 trials each on 3 development models; would train at "
        "most 3 of these, and unlearn at most 42 times." in done.stdout
    )
    assert not (folder / ".unlearnbench").exists()
