"""Sweep specs: TOML in, a checked sweep out, everything that is wrong said at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from unlearnbench.bench import METHODS, InputError
from unlearnbench.bench.errors import Problems
from unlearnbench.bench.modelspec import ModelSpec
from unlearnbench.bench.scenario import RandomScenario
from unlearnbench.bench.sweep import SweepSpec, built_in_sweeps, read_sweep, resolve

from .toys import toy_spec

MINIMAL = """
datasets = "digits"
models = ["resnet18"]
scenarios = ["class[classes=[3]]", "random[fraction=0.1]"]
methods = ["finetune[lr=1e-3]", "svd"]
"""

PLUGIN = """
from unlearnbench.bench import Unlearner

class Method(Unlearner):
    '''Do nothing.'''
    name = "{name}"
    reference = "none"
    def unlearn(self, model, task):
        return model
"""


@pytest.fixture
def write(tmp_path):
    """Write a sweep file and return its path."""

    def write_file(text, name="my-sweep.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def forget_plugins(monkeypatch):
    """Methods that a test registers are unknown again afterwards."""
    METHODS.names()
    for attribute in ("_classes", "_origins"):
        monkeypatch.setattr(METHODS, attribute, dict(getattr(METHODS, attribute)))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("unlearnbench_plugin_"):
            del sys.modules[name]


def sentences(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert all(s.endswith(".") and "\n" not in s for s in caught.value.sentences)
    return list(caught.value.sentences)


# --- reading --------------------------------------------------------------------------------------


def test_a_sweep_file_becomes_a_spec_with_defaults(write):
    spec = read_sweep(write(MINIMAL))
    assert spec.name == "my-sweep"
    assert spec.datasets == ["digits"]
    assert spec.methods == ["finetune[lr=1e-3]", "svd"]
    assert spec.recipes == ["auto"]
    assert spec.seeds == [0]
    assert spec.validation_fraction == 0.1
    assert spec.time_limit_s is None
    assert spec.save_models
    assert spec.training.epochs == 30


def test_everything_can_be_set(write):
    spec = read_sweep(
        write(f"""
name = "other"
recipes = "plain"
seeds = [3, 5]
validation_fraction = 0
time_limit_s = 60
save_models = false
{MINIMAL}
[training]
epochs = 2
lr = 1e-2
clip_norm = 1
precision = "bf16"
""")
    )
    assert spec.name == "other"
    assert spec.recipes == ["plain"]
    assert spec.seeds == [3, 5]
    assert spec.time_limit_s == 60
    assert not spec.save_models
    assert (spec.training.epochs, spec.training.lr, spec.training.clip_norm) == (2, 0.01, 1)
    assert spec.training.batch_size == 128


def test_the_quickstart_is_a_valid_sweep_of_all_that_was_promised():
    spec = read_sweep(None)
    assert spec.name == "quickstart"
    assert spec.datasets == ["digits[label_noise=0.1]"]
    assert len(spec.seeds) >= 2
    sweep = resolve(spec)
    assert {scenario.name for scenario in sweep.scenarios} == {"class", "random"}
    assert {method.name for method in sweep.methods} == {
        "identity", "retrain", "finetune", "neggrad", "neggrad-plus", "scrub", "svd", "osp",
        "head-mask",
    }  # fmt: skip


@pytest.mark.parametrize("name", built_in_sweeps())
def test_every_sweep_that_comes_along_is_valid_under_its_name(name):
    spec = read_sweep(Path(name))
    assert spec.name == name
    resolve(spec)


def test_the_ablations_of_orthogonal_soft_pruning_are_all_there():
    sweep = resolve(read_sweep(Path("osp-ablations")))
    assert len(sweep.scenarios) == 10
    assert {method.name for method in sweep.methods} == {
        "osp", "osp-vanilla", "osp-weight", "random-channels", "l2-channels", "head-mask"
    }  # fmt: skip
    recipes = {r.name for method in sweep.methods for r in sweep.recipes_of(method)}
    assert recipes == {"plain", "orthogonal", "orthogonal[finetune_epochs=3]"}


def test_a_file_comes_before_a_sweep_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("osp-ablations").write_text(MINIMAL)
    assert read_sweep(Path("osp-ablations")).scenarios != read_sweep(Path("svd-options")).scenarios
    assert "osp-ablations" in built_in_sweeps()
    assert all(built_in_sweeps().values())


@pytest.mark.parametrize(
    ("seeds", "expected"), [("3", [0, 1, 2]), ("1", [0]), ("[7]", [7]), ("[2, 1]", [2, 1])]
)
def test_seeds_are_a_number_or_a_list(write, seeds, expected):
    assert read_sweep(write(f"seeds = {seeds}\n{MINIMAL}")).seeds == expected


@pytest.mark.parametrize("seeds", ["0", "-2", "[]", "[-1]", "true", "'two'", "[0.5]"])
def test_seeds_that_are_none_are_refused(write, seeds):
    (sentence,) = sentences(read_sweep, write(f"seeds = {seeds}\n{MINIMAL}"))
    assert "`seeds" in sentence


def test_tables_are_specs_too(write):
    spec = read_sweep(
        write("""
datasets = ["digits"]
scenarios = ["class"]
methods = [{name = "scrub", epochs = 3}]
[[models]]
name = "resnet18"
layers = [1, 1, 1, 1]
""")
    )
    sweep = resolve(spec)
    assert sweep.models == [ModelSpec("resnet18", {"layers": [1, 1, 1, 1]})]
    assert [method.spec for method in sweep.methods] == [METHODS.create("scrub[epochs=3]").spec]


# --- overrides ------------------------------------------------------------------------------------


def test_options_replace_fields_of_the_file(write):
    path = write(f"seeds = 4\n{MINIMAL}\n[training]\nlr = 0.5\n")
    overrides = {"methods": ["scrub"], "seeds": [9], "datasets": ["synthetic"]}
    spec = read_sweep(path, overrides, epochs=1)
    assert spec.methods == ["scrub"]
    assert spec.seeds == [9]
    assert spec.datasets == ["synthetic"]
    assert spec.scenarios == ["class[classes=[3]]", "random[fraction=0.1]"]
    assert (spec.training.epochs, spec.training.lr) == (1, 0.5)


def test_options_replace_fields_of_the_quickstart():
    spec = read_sweep(None, {"methods": "svd", "name": "mine"}, epochs=2)
    assert (spec.name, spec.methods, spec.training.epochs) == ("mine", ["svd"], 2)
    assert read_sweep(None).training.epochs != 2


# --- file names -----------------------------------------------------------------------------------


def test_plugins_of_a_file_are_relative_to_it_and_those_of_the_command_line_are_not(write):
    path = write(f'plugins = ["a.py", "/abs/b.py"]\n{MINIMAL}', "deep/sweep.toml")
    spec = read_sweep(path, plugins=[Path("c.py")])
    assert spec.plugins == [path.parent / "a.py", Path("/abs/b.py"), Path("c.py")]
    single = write(f'plugins = "a.py"\n{MINIMAL}', "deep/sweep.toml")
    assert read_sweep(single).plugins == [path.parent / "a.py"]


@pytest.mark.parametrize("wrong", ["5", "[5]", "{a = 1}"])
def test_plugins_that_are_no_file_names_are_refused(write, wrong):
    path = write(f"plugins = {wrong}\n{MINIMAL}")
    (sentence,) = sentences(read_sweep, path, plugins=[Path("c.py")])
    assert "`plugins" in sentence


@pytest.mark.parametrize("scenario", ['"ids[file=gone.txt]"', '{name = "ids", file = "gone.txt"}'])
def test_an_id_file_named_in_a_sweep_file_is_relative_to_it(write, scenario):
    text = MINIMAL.replace('"random[fraction=0.1]"', scenario)
    path = write(text, "deep/sweep.toml")
    _, ids = resolve(read_sweep(path)).scenarios
    assert ids.file == path.parent / "gone.txt"


def test_a_method_of_a_plugin_file_is_known_to_the_sweep(write, forget_plugins):
    plugin = write(PLUGIN.format(name="sweep-test-method"), "deep/own.py")
    text = 'plugins = ["own.py"]\n' + MINIMAL.replace('"svd"', '"sweep-test-method"')
    sweep = resolve(read_sweep(write(text, "deep/sweep.toml")))
    assert sweep.methods[1].name == "sweep-test-method"
    assert plugin in sweep.spec.plugins


# --- what is wrong, all at once -------------------------------------------------------------------


def test_every_wrong_field_is_said_at_once(write):
    found = sentences(
        read_sweep,
        write("""
dataset = "digits"
datasets = []
models = "resnet18"
scenarios = ["class"]
seeds = -1
validation_fraction = 1
time_limit_s = 0
save_models = "perhaps"
name = "my sweep"
[training]
epoch = 3
lr = -1
precision = "fp8"
"""),
    )
    for part in ("unknown key `dataset`; did you mean `datasets`", "`datasets` ", "`seeds`",
                 "`validation_fraction`", "`time_limit_s`", "`save_models`", "`name`",
                 "`methods` is missing", "unknown key `epoch`; did you mean `epochs`",
                 "`training.lr`", "`training.precision`"):  # fmt: skip
        assert sum(part in sentence for sentence in found) == 1, part
    assert len(found) == 11
    assert all(s.startswith("sweep `") and "my-sweep.toml`" in s for s in found)


def test_every_wrong_name_and_parameter_is_said_at_once():
    spec = toy_spec(
        datasets=["digit"], models=["resnet18[stem=big]"], scenarios=["clas", "random[count=0]"],
        methods=["finetun", "scrub[epoch=3]", "svd[", "svd"], recipes=["orthogonl"],
        plugins=["/nowhere/plugin.py"],
    )  # fmt: skip
    found = sentences(resolve, toy_spec(**spec.model_dump() | {"plugins": []}))
    for part in ("unknown dataset `digit`; did you mean `digits`", "`stem` must be",
                 "unknown scenario `clas`; did you mean `class`", "`count` should be",
                 "unknown method `finetun`; did you mean `finetune`",
                 "method `scrub`: unknown key `epoch`", "`svd[`",
                 "unknown recipe `orthogonl`; did you mean `orthogonal`"):  # fmt: skip
        assert sum(part in sentence for sentence in found) == 1, part
    assert len(found) == 8
    assert "plug-in file `/nowhere/plugin.py` does not exist." in sentences(resolve, spec)


def test_problems_can_be_gathered_from_reading_and_resolving(write):
    problems = Problems()
    path = write(MINIMAL.replace("svd", "svdd") + "seeds = 0\n")
    sweep = resolve(read_sweep(path, problems=problems), problems)
    assert [method.name for method in sweep.methods] == ["finetune"]
    found = sentences(problems.raise_any)
    assert len(found) == 2
    assert "`seeds`" in found[0]
    assert "unknown method `svdd`; did you mean `svd`" in found[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"datasets = [", "is not valid TOML"),
        (b"datasets: [digits]", "is not valid TOML"),
        (b"a = 1\na = 2", "is not valid TOML"),
        (b"name = '\xff'", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_toml_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "sweep.toml"
    path.write_bytes(content)
    (sentence,) = sentences(read_sweep, path)
    assert sentence.startswith(f"sweep file `{path}` {message}")


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    (sentence,) = sentences(read_sweep, tmp_path / "gone.toml")
    assert "gone.toml` does not exist, nor is it one of those" in sentence
    (sentence,) = sentences(read_sweep, tmp_path)
    assert "cannot be read: Is a directory" in sentence


def test_an_empty_file_says_what_is_missing(write):
    found = sentences(read_sweep, write(""))
    fields = ("datasets", "models", "scenarios", "methods")
    assert [s.rpartition(": ")[2] for s in found] == [f"`{f}` is missing." for f in fields]


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        toy_spec().name = "other"


# --- what is resolved -----------------------------------------------------------------------------


def test_names_become_things():
    sweep = resolve(toy_spec(scenarios=["random[count=5]"], methods=["finetune[lr=0.5]", "osp"]))
    assert sweep.scenarios == [RandomScenario(count=5)]
    assert sweep.methods[0].lr == 0.5
    assert [recipe.name for recipe in sweep.recipes_of(sweep.methods[0])] == ["plain"]
    assert [recipe.name for recipe in sweep.recipes_of(sweep.methods[1])] == ["orthogonal"]


def test_listed_recipes_are_for_all_methods_and_none_twice():
    recipes = ["auto", "plain", "orthogonal[ortho_lambda=0.01]"]
    sweep = resolve(toy_spec(methods=["finetune", "osp"], recipes=recipes))
    finetune, osp = ([r.name for r in sweep.recipes_of(method)] for method in sweep.methods)
    assert finetune == ["plain", "orthogonal[ortho_lambda=0.01]"]
    assert osp == ["orthogonal", "plain", "orthogonal[ortho_lambda=0.01]"]
    assert all(r.settings == sweep.spec.training for r in sweep.recipes_of(sweep.methods[1]))


def test_a_spec_is_the_same_after_a_round_trip_through_json():
    spec = toy_spec(seeds=3, plugins=["a.py"])
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
