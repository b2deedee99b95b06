"""Failures are data: whatever a method does, the sweep goes on and the record says why."""

from __future__ import annotations

import json
import re
import signal
from types import SimpleNamespace

import pytest

from unlearnbench.bench import DivergedError, UnlearnBenchError, read_records
from unlearnbench.bench.executor import describe_failure
from unlearnbench.bench.runner import run_sweep

from .commands import TOY, artifacts, call, plugins_forgotten, shell
from .pages import data_in
from .toys import toy_options, toy_spec

HEAD = """
import os, signal, sys, time
from unlearnbench.bench import Unlearner, UnlearnBenchError

class _Bad(Unlearner):
    '''Go wrong.'''
    reference = "test"
"""
METHOD = """
class {cls}(_Bad):
    '''Go wrong.'''
    name = "{name}"
    {fields}
    def unlearn(self, model, task):
        {body}
"""
PICKY = """
class Picky(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
    def __reduce__(self):
        raise RuntimeError("not to be pickled")
class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")
class Rude(BaseException):
    pass
"""

# what a method does -> what its record says
HERE = {
    "raise ValueError('no such layer.')": "ValueError: no such layer",
    "raise ValueError('two\\nlines')": "ValueError: two lines",
    "raise ValueError": "ValueError",
    "raise ValueError('half of a \\ud800 pair')": "ValueError: half of a ? pair",
    "raise UnlearnBenchError()": "UnlearnBenchError",
    "raise UnlearnBenchError('the network has no norm.')": "the network has no norm",
    "raise Picky(1, 2)": "Picky: 1 and 2",
    "raise Mute": "Mute",
    "raise Rude('stop')": "Rude: stop",
    "sys.exit(4)": "SystemExit: 4",
    "sys.exit()": "SystemExit",
    "raise MemoryError": "out of memory: MemoryError",
    "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried 2 GiB.')":
        "out of memory: OutOfMemoryError: CUDA out of memory. Tried 2 GiB",
    "return None": "TypeError: method `bad` must return a model; got NoneType",
    "return model.state_dict()": "TypeError: method `bad` must return a model; got OrderedDict",
    "next(model.parameters()).data.fill_(float('nan')); return model":
        "has values that are not finite",
    "next(iter(model.buffers())).fill_(float('inf')); return model":
        "has values that are not finite",
    "return task.retain": "method `bad` touched the retain set, which is withheld",
    "return task.training": "method `bad` touched the training set, which is withheld",
    "return model.layer9(task)": "AttributeError: 'ResNet' object has no attribute 'layer9'",
    "import torch; return torch.nn.Identity()": "",
}  # fmt: skip


def source(body, *, name="bad", fields=""):
    return HEAD + PICKY + METHOD.format(cls="Bad", name=name, fields=fields, body=body)


@pytest.fixture
def run(tmp_path, plugin, tracking_uri):
    """Run one sweep in this process; returns its records by (method, recipe, seed)."""

    def run_(text, **changes):
        spec = toy_spec(plugins=[plugin(text)], **{"methods": ["bad"], **changes})
        result = run_sweep(spec, toy_options(tmp_path, tracking_uri=tracking_uri))
        assert result.records == read_records(tmp_path / "out")
        return {(r.method, r.recipe, r.seed): r for r in result.records}

    return run_


@pytest.fixture(scope="module")
def here(tmp_path_factory, tracking_uri):
    """A sweep in this process with every method of `HERE`: its records by method, its folder."""
    folder = tmp_path_factory.mktemp("here")
    methods = [
        METHOD.format(cls=f"M{number}", name=f"bad-{number}", fields="", body=body)
        for number, body in enumerate(HERE)
    ]
    (folder / "bad.py").write_text(HEAD + PICKY + "".join(methods))
    names = [f"bad-{number}" for number in range(len(HERE))]
    spec = toy_spec(plugins=[folder / "bad.py"], methods=[*names, "finetune"])
    with plugins_forgotten():
        result = run_sweep(spec, toy_options(folder, tracking_uri=tracking_uri))
    assert result.records == read_records(folder / "out")
    return {r.method: r for r in result.records}, folder / "out"


@pytest.mark.parametrize(
    ("returned", "got"), [("[1]", "list"), ("{'x': 1}", "dict"), ("{1: torch.ones(2)}", "dict")]
)
def test_a_preparation_that_is_no_named_tensors_is_a_failed_record(run, returned, got):
    fault = f"def prepare(self, model, task):\n        import torch\n        return {returned}"
    (record,) = [r for r in run(source("return model", fields=fault)).values() if r.method == "bad"]
    assert record.status == "failed"
    assert record.reason == (
        f"TypeError: method `bad` must return tensors by name from `prepare`, or None; got {got}"
    )


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        ("None", "None"),
        ("0.5", "0.5"),
        ("next(model.parameters())[0, 0]", "a tensor of shape (3, 3)"),
    ],
)
def test_a_penalty_that_is_no_number_fails_its_originals_with_a_sentence(run, returned, got):
    fault = f"recipe = 'odd'\n    def training_penalty(self, model):\n        return {returned}"
    records = run(source("return model", fields=fault))
    (record,) = [r for r in records.values() if r.method == "bad"]
    assert record.reason == (
        "its original failed: TypeError: method `bad` must return a tensor of one number from "
        f"`training_penalty`; got {got}"
    )


@pytest.mark.parametrize("body", HERE)
def test_a_method_that_goes_wrong_becomes_a_failed_record_with_a_reason(here, body):
    records, out = here
    name = f"bad-{list(HERE).index(body)}"
    record = records[name]
    assert record.status == "failed"
    assert HERE[body].replace("`bad`", f"`{name}`") in record.reason
    assert "\n" not in record.reason
    assert record.metrics == record.times == {}
    text = (out / "failures" / f"{record.key[:12]}.log").read_text()
    assert text.startswith(f"{name} on class, plain recipe, seed 0\n")
    assert "Traceback (most recent call last)" in text


def test_methods_beside_those_that_go_wrong_are_not_harmed(here):
    records, _ = here
    assert {records[n].status for n in ("identity", "retrain", "finetune")} == {"ok"}


def test_what_a_method_prints_is_kept_off_standard_output(run, capsys):
    records = run(source("print('noise'); return model"))
    assert records["bad", "plain", 0].status == "ok"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "noise" in captured.err


def test_a_report_that_is_no_number_fails_the_cell_and_not_the_sweep(run):
    records = run(source("task.report(alpha=float('nan')); return model"))
    assert records["bad", "plain", 0].status == "failed"
    assert records["identity", "plain", 0].status == "ok"


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_rerun_tries_failed_cells_again_and_no_other(run, tmp_path, seeds):
    switch = tmp_path / "switch"
    text = source(
        f"if not os.path.exists({str(switch)!r}): raise OSError('no switch')\n        return model"
    )
    first = run(text, seeds=seeds)
    assert {r.status for key, r in first.items() if key[0] == "bad"} == {"failed"}
    before = artifacts(tmp_path / "store")
    switch.touch()
    second = run(text, seeds=seeds)
    assert {r.status for r in second.values()} == {"ok"}
    after = artifacts(tmp_path / "store")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {
        f"cell/{r.key}" for key, r in second.items() if key[0] == "bad"
    }


# --- originals ----------------------------------------------------------------------------------

PENALTY = """
    recipe = "strange"
    def training_penalty(self, model):
        {penalty}
"""


@pytest.mark.parametrize(
    ("penalty", "reason"),
    [
        ("raise ValueError('no kernel')", "its original failed: ValueError: no kernel"),
        ("return sum(p.sum() for p in model.parameters()) * float('nan')",
         "its original failed: the loss became nan in epoch 1"),
        ("return None", "its original failed: TypeError: "),
    ],
)  # fmt: skip
def test_an_original_that_fails_fails_its_cells_and_the_other_recipe_goes_on(
    run, tmp_path, penalty, reason
):
    text = source("return model", fields=PENALTY.format(penalty=penalty))
    records = run(text, methods=["bad", "finetune"])
    strange = {key[0]: r for key, r in records.items() if key[1] == "strange"}
    assert set(strange) == {"identity", "retrain", "bad"}
    for record in strange.values():
        assert record.status == "failed"
        assert reason in record.reason
    plain = [r for key, r in records.items() if key[1] == "plain"]
    assert len(plain) == 3
    assert {r.status for r in plain} == {"ok"}
    assert "Traceback" in "".join(p.read_text() for p in (tmp_path / "out/failures").iterdir())
    assert reason.split(": ")[1] in (tmp_path / "out" / "leaderboard.md").read_text()


def test_training_that_diverges_fails_every_cell_with_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.toml").write_text(TOY.replace("lr = 0.05", "lr = 1e12"))
    result = call("run", "toy.toml", "--workers", 0)
    assert result.exit_code == 1
    records = read_records(tmp_path / "results" / "toy")
    assert [r.status for r in records] == ["failed", "failed"]
    assert all(r.reason.startswith("its original failed: the loss became nan") for r in records)
    assert "Cells: 0 ok, 2 failed, 0 skipped." in result.stdout


# --- skipped ------------------------------------------------------------------------------------


def test_a_sweep_whose_only_method_declines_ends_well_and_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.toml").write_text(TOY)
    args = ("run", "toy.toml", "--method", "osp", "--scenario", "random", "--workers", 0)
    result = call(*args)
    assert result.exit_code == 0, result.stderr
    (record,) = read_records(tmp_path / "results" / "toy")
    assert record.status == "skipped"
    assert record.reason == "forgets whole classes only, and this forget set is not one"
    assert "Cells: 0 ok, 0 failed, 1 skipped. 0 jobs" in result.stdout
    assert "forgets whole classes only" in (tmp_path / "results/toy/leaderboard.md").read_text()
    assert artifacts(tmp_path / ".unlearnbench") == {}
    text = (tmp_path / "results/toy/records.jsonl").read_bytes()
    assert call(*args).exit_code == 0
    assert (tmp_path / "results/toy/records.jsonl").read_bytes() == text


# --- processes ----------------------------------------------------------------------------------

# name -> what it does, what its record says, whether there is a traceback to keep
THERE = {
    "raises": ("raise Picky(1, 2)", "Picky: 1 and 2", True),
    "prints": ("print('noise'); raise KeyError('x')", "KeyError: 'x'", True),
    "exits": ("sys.exit(4)", "SystemExit: 4", True),
    "stops": ("raise KeyboardInterrupt", "KeyboardInterrupt", True),
    "leaves": ("os._exit(5)", "its process ended with exit code 5", False),
    "leaves-well": ("os._exit(0)", "its process ended with exit code 0", False),
    "is-killed": ("os.kill(os.getpid(), signal.SIGKILL)", "died by signal 9 (SIGKILL)", False),
    "crashes": ("os.abort()", "died by signal 6 (SIGABRT)", False),
    "sleeps": ("time.sleep(100)", "stopped by the time limit of 4 s", False),
    "fine": ("return model", None, False),
}


@pytest.fixture(scope="module")
def disaster(tmp_path_factory):
    """A sweep in worker processes with every kind of method that goes wrong, and one that works."""
    folder = tmp_path_factory.mktemp("disaster")
    methods = [
        METHOD.format(cls=f"M{i}", name=name, fields="", body=body)
        for i, (name, (body, _, _)) in enumerate(THERE.items())
    ]
    (folder / "bad.py").write_text(HEAD + PICKY + "".join(methods))
    (folder / "toy.toml").write_text("plugins = 'bad.py'\ntime_limit_s = 4\n" + TOY)
    args = ["run", "toy.toml", "--workers", 2, *(f"--method={name}" for name in THERE)]
    done = shell(*args, cwd=folder)
    out = folder / "results" / "toy"
    return SimpleNamespace(folder=folder, args=args, done=done, out=out,
                           records={r.method: r for r in read_records(out)})  # fmt: skip


def test_a_sweep_with_failures_ends_with_exit_code_1_and_a_whole_table(disaster):
    assert disaster.done.returncode == 1
    assert "Traceback" not in disaster.done.stderr
    assert f"Cells: 3 ok, {len(THERE) - 1} failed, 0 skipped." in disaster.done.stdout
    assert "noise" not in disaster.done.stdout
    lines = disaster.done.stderr.splitlines()
    for name, (_, reason, _) in THERE.items():
        said = [line for line in lines if line.startswith(f"failed: {name} on class")]
        assert len(said) == (0 if reason is None else 1)
        assert reason is None or reason in said[0]


@pytest.mark.parametrize("name", THERE)
def test_what_happened_to_a_process_is_in_its_record(disaster, name):
    _, reason, traceback = THERE[name]
    record = disaster.records[name]
    if reason is None:
        assert record.status == "ok"
        assert "gap_forget_acc" in record.metrics
        return
    assert record.status == "failed"
    assert reason in record.reason
    log = disaster.out / "failures" / f"{record.key[:12]}.log"
    assert log.exists() == traceback
    if traceback:
        assert re.search(r'File ".*bad\.py", line \d+, in unlearn', log.read_text())


def test_failures_are_shown_on_every_leaderboard(disaster):
    markdown = (disaster.out / "leaderboard.md").read_text()
    page = json.dumps(data_in((disaster.out / "leaderboard.html").read_text()))
    for text in (markdown, page):
        for reason in ("Picky: 1 and 2", "stopped by the time limit of 4 s", "signal 9"):
            assert reason in text
    assert "stopped by the time limit of 4 s" in disaster.done.stdout


@pytest.mark.slow
def test_a_rerun_in_processes_runs_the_failed_cells_only(disaster):
    before = artifacts(disaster.folder / ".unlearnbench")
    again = shell(*disaster.args, cwd=disaster.folder)
    assert again.returncode == 1
    assert artifacts(disaster.folder / ".unlearnbench") == before
    assert f" {len(THERE) - 1} jobs in " in again.stdout


@pytest.mark.slow
def test_retrained_models_are_exempt_from_the_time_limit(tmp_path):
    (tmp_path / "toy.toml").write_text(TOY.replace("epochs = 2", "epochs = 20"))
    done = shell("run", "toy.toml", "--time-limit", 0.1, "--workers", 2, cwd=tmp_path)
    (retrained,) = [r for r in read_records(tmp_path / "results/toy") if r.method == "retrain"]
    assert retrained.status == "ok", done.stderr
    assert retrained.times["unlearn_s"] > 0.1


# --- the sentence -------------------------------------------------------------------------------


class _Expired(Exception):  # noqa: N818 - pebble's name
    """Like pebble's ProcessExpired."""

    exitcode = -signal.SIGSEGV


_Expired.__name__ = "ProcessExpired"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DivergedError("`fc.weight` has values that are not finite."),
         "`fc.weight` has values that are not finite"),
        (UnlearnBenchError(), "UnlearnBenchError"),
        (RuntimeError("CUDA error: out of memory"), "RuntimeError: CUDA error: out of memory"),
        (TimeoutError("the server is slow"), "TimeoutError: the server is slow"),
        (_Expired(), "its process died by signal 11 (SIGSEGV)"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_failure_is_described_in_one_sentence(error, sentence):
    assert describe_failure(error) == sentence


def test_a_very_long_message_is_cut():
    assert len(describe_failure(ValueError("x" * 10**6))) < 1100
