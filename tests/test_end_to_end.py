"""A whole sweep through the real command, with worker processes, on real images."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from unlearnbench.bench import METHODS, read_records
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.sweep_files import LEADERBOARD_FILES
from unlearnbench.bench.terminal import terminal_table

from .commands import SWEEP, TOY, artifacts, call, python, shell, start
from .pages import data_in
from .toys import toy_options, toy_spec

REFERENCES = ("identity", "retrain")
CELLS = 2 * 2 * (2 + 3) + 2 * 2  # references and methods, and OSP's references on one scenario


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep that ran to its end, in a folder of its own; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.toml").write_text(SWEEP)
    done = shell("run", "small.toml", "--workers", 2, cwd=folder)
    assert done.returncode == 0, done.stderr
    out = folder / "results" / "small"
    return SimpleNamespace(
        folder=folder,
        store=folder / ".unlearnbench",
        out=out,
        stdout=done.stdout,
        stderr=done.stderr,
        records=read_records(out / "records.jsonl"),
        # later runs of this folder must leave these as they are
        artifacts=artifacts(folder / ".unlearnbench"),
        text=(out / "records.jsonl").read_bytes(),
    )


def metrics(records):
    return {(r.scenario, r.recipe, r.method, r.seed): r.metrics for r in records}


# --- one run ------------------------------------------------------------------------------------


def test_standard_output_is_the_table_and_two_closing_lines(finished):
    table = terminal_table(finished.records)
    head, cells, results, end = finished.stdout.rsplit("\n", 3)
    assert head == table
    assert re.fullmatch(
        rf"Cells: {CELLS - 4} ok, 0 failed, 4 skipped\. 24 jobs in \d+\.\d s, "
        r"\d+% of it training, unlearning and measuring\.",
        cells,
    )
    assert results == (
        "Results: results/small/leaderboard.html   "
        f"MLflow UI: mlflow ui --backend-store-uri sqlite:///{finished.store / 'mlflow.db'}"
    )
    assert end == ""


def test_standard_error_is_silent_where_there_is_no_terminal_and_nothing_is_wrong(finished):
    assert finished.stderr == ""


def test_every_cell_has_its_record(finished):
    cells = [(r.scenario, r.recipe, r.method, r.seed, r.status) for r in finished.records]
    assert len(set(cells)) == len(cells) == CELLS
    for seed in (0, 1):
        for name in (*REFERENCES, "finetune", "head-mask"):
            assert ("class[classes=[3]]", "plain", name, seed, "ok") in cells
        for name in (*REFERENCES, "osp"):
            assert ("class[classes=[3]]", "orthogonal", name, seed, "ok") in cells
        assert ("random[fraction=0.1]", "orthogonal", "osp", seed, "skipped") in cells
        assert ("random[fraction=0.1]", "plain", "head-mask", seed, "skipped") in cells


def test_every_record_holds_what_it_must(finished):
    for record in finished.records:
        content = record.model_dump(by_alias=True)
        for field in ("schema", "sweep", "key", "dataset", "model", "recipe", "scenario",
                      "forget_request", "method", "hyperparameters", "seed", "status", "reason",
                      "metrics", "times", "peak_memory_bytes", "samples",
                      "environment"):  # fmt: skip
            assert field in content
        assert content["sweep"] == "small"
        assert content["dataset"] == "digits"
        defaults = METHODS.create(record.method).params
        changed = {"epochs": 1} if record.method == "finetune" else {}
        assert record.hyperparameters == defaults | changed
        if record.status == "skipped":
            assert record.reason
            assert record.metrics == record.times == {}
            continue
        assert record.reason is None
        accuracies = {"retain_acc", "forget_acc", "test_acc"}
        if record.scenario.startswith("class"):
            accuracies |= {"test_retain_acc", "test_forget_acc"}
        wanted = accuracies | {f"gap_{name}" for name in accuracies} | {"tow"}
        assert wanted <= set(record.metrics)
        assert all(0 <= record.metrics[name] <= 1 for name in wanted)
        assert {"unlearn_s", "prepare_s", "retrain_s", "speedup"} <= set(record.times)
        assert all(value >= 0 for value in record.times.values())
        assert record.peak_memory_bytes > 1e7
        environment = record.environment
        for name in ("unlearnbench", "python", "torch", "timm", "numpy", "hardware"):
            assert environment[name]
        assert environment["device"] in ("cpu", "cuda", "mps")
        assert environment["threads"] >= 1
        assert "git_commit" in environment


def test_gaps_and_speed_up_are_those_to_the_retrained_model_of_the_same_seed(finished):
    ok = [r for r in finished.records if r.status == "ok"]
    retrained = {(r.scenario, r.recipe, r.seed): r for r in ok if r.method == "retrain"}
    assert len(retrained) == 6
    for record in ok:
        reference = retrained[record.scenario, record.recipe, record.seed]
        for name, value in record.metrics.items():
            if name.startswith("gap_"):
                metric = name.removeprefix("gap_")
                assert value == abs(record.metrics[metric] - reference.metrics[metric])
        assert record.times["retrain_s"] == reference.times["unlearn_s"]
        assert record.times["speedup"] == pytest.approx(
            reference.times["unlearn_s"] / record.times["unlearn_s"]
        )
        if record.method == "retrain":
            assert record.times["speedup"] == 1
            assert record.metrics["tow"] == 1
    seeds = {(r.scenario, r.seed): r.metrics["test_acc"] for r in retrained.values()}
    assert len(set(seeds.values())) > 1  # one model for all seeds would pass the rest


def test_samples_are_counted_by_set(finished):
    samples = {(r.scenario, r.method): r.samples for r in finished.records if r.status == "ok"}
    sizes = {r.scenario: r.retain_size for r in finished.records}
    for scenario, size in sizes.items():
        assert samples[scenario, "identity"] == {}
        assert samples[scenario, "retrain"] == {"retain": 3 * size}
        assert samples[scenario, "finetune"] == {"retain": size}


def test_leaderboard_and_figures_are_written(finished):
    text = (finished.out / "leaderboard.html").read_text()
    page = json.dumps(data_in(text))
    markdown = (finished.out / "leaderboard.md").read_text()
    rows = list(csv.DictReader(io.StringIO((finished.out / "leaderboard.csv").read_text())))
    for method in ("finetune", "head-mask", "osp"):
        assert method in page
        assert method in markdown
        assert any(method in row.values() for row in rows)
    assert "forgets whole classes only" in markdown
    assert "forgets whole classes only" in page
    assert "<script" in text
    assert not re.search(r"""(?:src|href)=["']https?://""", text)
    figures = sorted(path.suffix for path in (finished.out / "figures").iterdir())
    assert figures.count(".png") == figures.count(".svg") >= 4
    assert all(path.stat().st_size > 1000 for path in (finished.out / "figures").iterdir())


def test_mlflow_holds_a_parent_run_with_a_child_for_every_cell(finished, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished.store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_key = {run.data.tags["unlearnbench.key"]: run for run in children}
    assert set(by_key) == {record.key for record in finished.records}
    for record in finished.records:
        run = by_key[record.key]
        assert run.data.params["method"] == record.method
        assert run.data.tags["status"] == record.status
        if record.status == "ok":
            assert run.data.metrics["acc/test"] == record.metrics["test_acc"]
    client._tracking_client.store.engine.dispose()


def test_the_progress_bar_is_on_standard_error_and_nowhere_else(tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run_sweep(toy_spec(), toy_options(tmp_path))
    assert "toy: 100%" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert capsys.readouterr().out == ""


# --- runs after it ------------------------------------------------------------------------------


def test_the_same_command_again_does_nothing_and_loads_neither_timm_nor_mlflow(finished):
    files = {p: p.stat().st_mtime_ns for p in finished.out.rglob("*") if p.is_file()}
    again = shell(
        "run", "small.toml", "--workers", 2, cwd=finished.folder, PYTHONPROFILEIMPORTTIME="1"
    )
    assert again.returncode == 0
    assert re.sub(r"24 jobs.*", "", finished.stdout) == re.sub(r"0 jobs.*", "", again.stdout)
    assert " 0 jobs in " in again.stdout
    assert artifacts(finished.store) == finished.artifacts
    assert (finished.out / "records.jsonl").read_bytes() == finished.text
    assert {p: p.stat().st_mtime_ns for p in finished.out.rglob("*") if p.is_file()} == files
    imported = {line.rpartition("|")[2].strip() for line in again.stderr.splitlines()}
    assert "torch" in imported  # else the rest says nothing
    assert not {"timm", "mlflow", "torchvision", "optuna"} & imported


def test_another_sweep_with_another_method_trains_no_original_and_retrains_nothing(
    finished, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    shutil.copytree(finished.store, store)
    (tmp_path / "other.toml").write_text(SWEEP)
    before = artifacts(store)
    result = call(
        "run", "other.toml", "--method", "neggrad-plus[epochs=1]", "--method", "osp",
        "--store", store, "--workers", 0, "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    after = artifacts(store)
    assert {name: after[name] for name in before} == before
    assert sorted(name.partition("/")[0] for name in set(after) - set(before)) == ["cell"] * 4
    records = read_records(tmp_path / "results" / "other")
    assert {r.sweep for r in records} == {"other"}
    shared = {r.key: r for r in finished.records}
    for record in records:
        if record.method != "neggrad-plus":
            assert record == shared[record.key].model_copy(update={"sweep": "other"})


def test_the_leaderboard_is_rendered_again_from_the_records_alone(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for name in ("records.jsonl", "spec.json"):
        shutil.copy(finished.out / name, tmp_path / "out")
    result = call("leaderboard", "out")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == terminal_table(finished.records) + (
        "\nLeaderboard: out/leaderboard.html\n"
    )
    for name in LEADERBOARD_FILES:
        assert (tmp_path / "out" / name).read_bytes() == (finished.out / name).read_bytes(), name
    assert not (tmp_path / ".unlearnbench").exists()


def test_an_exported_request_runs_again_with_the_same_cells(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SWEEP)
    made = call("request", "small.toml", "--scenario", "class[classes=[3]]", "--to", "f.json")
    assert made.exit_code == 0, made.stderr
    shutil.copytree(finished.store, tmp_path / ".unlearnbench")
    result = call("run", "small.toml", "--scenario", "ids[file=f.json]", "--workers", 0)
    assert result.exit_code == 0, result.stderr
    assert " 0 jobs in " in result.stdout
    records = read_records(tmp_path / "results" / "small")
    assert {r.forget_request for r in records} == {
        r.forget_request for r in finished.records if r.scenario.startswith("class")
    }
    assert {r.method for r in records if r.status == "ok"} >= {"osp", "head-mask"}


# --- kill and interrupt -------------------------------------------------------------------------


def wait_for_cells(store, process, count):
    """Wait until so many cells are in the store; fail if the run ends before."""
    deadline = time.monotonic() + 120
    while sum(name.startswith("cell/") for name in artifacts(store)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(session):
    """Processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def nothing_left(session, seconds=10):
    deadline = time.monotonic() + seconds
    while alive(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(session)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("cells", [1, 8])
def test_a_killed_run_continues_and_ends_with_the_same_metrics(finished, tmp_path, cells):
    (tmp_path / "small.toml").write_text(SWEEP)
    store = tmp_path / ".unlearnbench"
    process = start("run", "small.toml", "--workers", 2, cwd=tmp_path)
    wait_for_cells(store, process, cells)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert nothing_left(process.pid)
    survived = artifacts(store)
    done = shell("run", "small.toml", "--workers", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    now = artifacts(store)
    assert {name: now[name] for name in survived} == survived
    assert set(now) == set(finished.artifacts)
    missing = len([name for name in set(now) - set(survived) if name[:4] in ("cell", "orig")])
    assert f" {missing} jobs in " in done.stdout
    assert 0 < missing < 24
    records = read_records(tmp_path / "results" / "small")
    assert metrics(records) == metrics(finished.records)
    assert [r.key for r in records] == [r.key for r in finished.records]


@pytest.mark.slow
@linux_only
def test_interrupting_a_run_keeps_what_is_finished_and_leaves_no_process(tmp_path):
    (tmp_path / "small.toml").write_text(SWEEP)
    store = tmp_path / ".unlearnbench"
    process = start("run", "small.toml", "--workers", 2, "--epochs", 20, cwd=tmp_path)
    wait_for_cells(store, process, 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.strip() == (
        "Error: interrupted; what is finished is kept, the same command continues."
    )
    assert nothing_left(process.pid)
    finished = {n.removeprefix("cell/") for n in artifacts(store) if n.startswith("cell/")}
    records = read_records(tmp_path / "results" / "small")
    assert {r.key for r in records if r.status == "ok"} == finished
    assert {r.status for r in records} == {"ok", "skipped"}


def wait_for_command(process):
    """Until the command itself runs, and loads torch, an interrupt is Python's own affair."""
    loaded = ""
    while process.poll() is None and "libtorch" not in loaded:
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
        time.sleep(0.01)


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("seconds", [0, 1, 4])
def test_interrupting_a_run_that_has_hardly_begun_is_one_sentence_too(tmp_path, seconds):
    (tmp_path / "small.toml").write_text(SWEEP)
    process = start("run", "small.toml", "--workers", 2, "--epochs", 50, cwd=tmp_path)
    wait_for_command(process)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert nothing_left(process.pid)


INTERRUPTED = """
import multiprocessing, os, signal, threading, time
from multiprocessing import forkserver
from pathlib import Path
from unlearnbench.bench import executor
from unlearnbench.bench.runner import RunOptions, run_sweep
from unlearnbench.bench.store import Store
from unlearnbench.bench.sweep import read_sweep

executor.start_server()
first = multiprocessing.get_context("forkserver").Process(target=time.time)
first.start()  # returns when torch is loaded
first.join()
server = forkserver._forkserver._forkserver_pid
os.kill(server, signal.SIGSTOP)  # as if it were loading it still


def read_signed(pipe, wait=forkserver.read_signed):  # where the run waits for a worker's number
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    return wait(pipe)


forkserver.read_signed = read_signed
folder = Path.cwd()
try:
    run_sweep(
        read_sweep(folder / "toy.toml"),
        RunOptions(folder / "store", folder / "out", folder / "data", workers=2, device="cpu"),
    )
except KeyboardInterrupt:
    print("interrupted")
os.kill(server, signal.SIGCONT)
time.sleep(5)  # enough to train the original
print(Store(folder / "store", create=False).holds("original"))
"""


@pytest.mark.slow
@linux_only
def test_a_worker_that_was_asked_for_when_the_run_was_interrupted_does_no_work(tmp_path):
    (tmp_path / "toy.toml").write_text(TOY)
    done = python(INTERRUPTED, tmp_path)
    assert done.stdout.splitlines() == ["interrupted", "False"], done.stderr
    assert not done.stderr
