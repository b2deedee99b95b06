"""Examples in the docstrings of metrics on arrays run as printed."""

from __future__ import annotations

import doctest
import importlib

import pytest

NAMES = [
    "attack_power",
    "cka",
    "divergence",
    "margin",
    "pairs",
    "population",
    "probe",
    "ranking",
    "rates",
    "relearn",
    "ulira",
]


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    module = importlib.import_module(f"unlearnbench.bench.metrics.{name}")
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
