"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from unlearnbench.bench import METHODS, read_records
from unlearnbench.bench.runner import run_sweep
from unlearnbench.bench.sweep import SweepSpec

from .toys import toy_options, toy_spec

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_it_has_at_most_200_lines():
    assert len(TEXT.splitlines()) <= 200


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_two_commands_stand_where_the_gate_looks_for_them(name):
    block = TEXT.split(f"<!-- {name} -->\n", 1)[1]
    assert re.match(r"```sh\n[^\n]+\n```\n", block)


def test_the_sweep_file_is_valid():
    (text,) = blocks("toml")
    spec = SweepSpec.model_validate({"name": "my_sweep", **tomllib.loads(text)})
    assert spec.training.precision == "bf16"
    assert spec.ulira.shadows == 64
    for method in spec.methods:
        METHODS.create(method)


def test_the_attack_on_arrays_runs_and_finds_the_leak_of_the_example(capsys):
    code = next(code for code in blocks("python") if "ulira(" in code)
    exec(compile(code, "README.md", "exec"), {})
    acc, se, lo, hi = map(float, re.findall(r"0\.\d+", capsys.readouterr().out))
    assert acc == pytest.approx(0.674, abs=3 * se)  # eight pairs, a leak of one sd: closed form
    assert lo < 0.5 < hi < acc


def test_the_method_of_the_example_runs_as_a_plugin_file(tmp_path, plugin):
    code = next(code for code in blocks("python") if "Unlearner" in code)
    path = plugin(code)
    result = run_sweep(toy_spec(methods=["nudge"], plugins=[path]), toy_options(tmp_path))
    (record,) = [r for r in read_records(result.out) if r.method == "nudge"]
    assert record.status == "ok"
    assert record.hyperparameters == {"lr": 0.01}


def test_the_table_of_methods_names_them_all():
    for name in METHODS.names():
        assert f"`{name}`" in TEXT
