"""T30: the clock runs inside `unlearn` only."""

from __future__ import annotations

import re
import time

import pytest

from unlearnbench.bench import cell, workbench
from unlearnbench.bench.runner import run_sweep

from .toys import toy_options, toy_spec

SLEEPER = """
import time
from unlearnbench.bench import Unlearner

class Sleeper(Unlearner):
    '''Sleep for half a second.'''
    name = "sleeper"
    reference = "test"

    def unlearn(self, model, task):
        time.sleep(0.5)
        return model
"""


def slowly(function):
    def slow(*args, **options):
        time.sleep(0.2)
        return function(*args, **options)

    return slow


def test_half_a_second_is_half_a_second_whatever_stands_around_it(tmp_path, plugin, monkeypatch):
    monkeypatch.setattr(cell, "outputs_on", slowly(cell.outputs_on))
    monkeypatch.setattr(workbench, "build_model", slowly(workbench.build_model))
    monkeypatch.setattr(workbench.Workbench, "warm_up", slowly(workbench.Workbench.warm_up))
    spec = toy_spec(methods=["sleeper"], plugins=[plugin(SLEEPER)], seeds=3)
    records = [r for r in run_sweep(spec, toy_options(tmp_path)).records if r.method == "sleeper"]
    times = [record.times["unlearn_s"] for record in records]
    assert len(times) == 3
    assert min(times) == pytest.approx(0.5, abs=0.05)  # a busy machine only adds
    assert min(record.times["evaluate_s"] for record in records) >= 0.2


PHASES = """
import time
from unlearnbench.bench import Unlearner

class Searcher(Unlearner):
    '''Sleep in two phases.'''
    name = "searcher"
    reference = "test"

    def unlearn(self, model, task):
        with task.phase("statistics"):
            time.sleep(0.1)
        for _ in range(2):
            with task.phase("search"):
                time.sleep(0.15)
        time.sleep(0.1)
        return model
"""


def test_phases_are_timed_apart_and_stay_part_of_the_whole(tmp_path, plugin):
    spec = toy_spec(methods=["searcher"], plugins=[plugin(PHASES)], seeds=3)
    result = run_sweep(spec, toy_options(tmp_path))
    times = [record.times for record in result.records if record.method == "searcher"]
    fastest = {name: min(t[name] for t in times) for name in times[0]}
    assert fastest["statistics_s"] == pytest.approx(0.1, abs=0.05)
    assert fastest["search_s"] == pytest.approx(0.3, abs=0.05)
    assert fastest["unlearn_s"] == pytest.approx(0.5, abs=0.08)
    assert all(t["unlearn_s"] > t["statistics_s"] + t["search_s"] for t in times)
    table = (result.out / "leaderboard.md").read_text()
    assert re.search(r"\|\s*statistics s \|\s*search s \|", table)
