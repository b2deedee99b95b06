"""T30: the clock runs inside `unlearn` only."""

from __future__ import annotations

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
