"""How methods and datasets are found by name."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint

import pytest

from unlearnbench.bench import (
    Dataset,
    InputError,
    PluginError,
    UnknownNameError,
    Unlearner,
    registry,
)
from unlearnbench.bench.dataset import check_dataset
from unlearnbench.bench.registry import Registry, load_plugin_files
from unlearnbench.bench.unlearner import check_declaration

DATASET = """
from unlearnbench.bench import Dataset

class {cls}(Dataset):
    '''A dataset from elsewhere.'''
    name = "{name}"
    reference = "none"
    about = "nothing"
    size: int = 3
    def load(self, data_root):
        raise NotImplementedError
"""
METHOD = """
from typing import Annotated
from pydantic import Field
from unlearnbench.bench import Range, Unlearner, When

class Forgetful(Unlearner):
    '''Do nothing at all.'''
    name = "forgetful"
    reference = "none"
    def unlearn(self, model, task):
        return model
"""


# what a method declares -> why it is refused
BAD_DECLARATIONS = {
    "a: Annotated[float, Range(2, 1)] = 1.5":
        "ValueError: `low` must be below `high`; got 2 and 1.",
    "a: Annotated[float, Range(0, 1, log=True)] = 0.5":
        "ValueError: `low` must be positive when `log` is set; got 0.",
    "a: Annotated[float, Field(gt=0), Range(0, 1)] = 0.5":
        "method `forgetful`: the range of `a` ends at 0, which `a` refuses: it should be greater "
        "than 0.",
    "a: Annotated[int, Field(le=9), Range(1, 10)] = 5":
        "method `forgetful`: the range of `a` ends at 10, which `a` refuses: it should be less "
        "than or equal to 9.",
    "a: Annotated[int, Range(0.5, 10)] = 5":
        "method `forgetful`: the range of `a` ends at 0.5, which `a` refuses",
    "a: Annotated[str, Range(1, 10)] = 'x'":
        "method `forgetful`: `a` has a range, but is no number.",
    "a: Annotated[bool, When(b=1)] = True":
        "method `forgetful`: the condition of `a` names `b`, which must be a field",
    "needs = {'retian'}": "method `forgetful` declares needs ['retian']; allowed: forget, retain",
    "scope = {'classes'}": "method `forgetful` declares scope ['classes']; allowed: class, sample.",
    "known_failures = {'finite': ' '}":
        "method `forgetful` must give `known_failures` as {{\"name of a check\": \"reason\"}}; got",
    "known_failures = ['finite']": "method `forgetful` must give `known_failures` as",
}  # fmt: skip


def new_datasets():
    return Registry("dataset", Dataset, "unlearnbench.datasets", check_dataset)


@pytest.fixture
def entry_points(monkeypatch):
    """Entry points that pretend to be installed, as `(name, value)`."""
    declared = []

    def installed(*, group):
        return [EntryPoint(name, value, group) for name, value in declared]

    monkeypatch.setattr(importlib.metadata, "entry_points", installed)
    return declared


@pytest.fixture
def datasets(entry_points):
    """A registry of its own, so that the global one stays clean."""
    return new_datasets()


@pytest.fixture
def global_registries(entry_points, monkeypatch):
    """Stand-ins for the global registries; modules loaded from files are forgotten afterwards."""
    methods = Registry("method", Unlearner, "unlearnbench.methods", check_declaration)
    monkeypatch.setattr(registry, "METHODS", methods)
    monkeypatch.setattr(registry, "DATASETS", new_datasets())
    before = set(sys.modules)
    yield registry
    for name in set(sys.modules) - before:
        if name.startswith("unlearnbench_plugin_"):
            del sys.modules[name]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write an importable module under a name of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


# --- ours -----------------------------------------------------------------------------------------


def test_our_datasets_are_found_by_scanning_the_room(datasets):
    assert {"cifar10", "cifar100", "digits", "fashion-mnist", "synthetic"} <= set(datasets.names())
    assert datasets.names() == sorted(datasets.names())
    assert [cls.name for cls in datasets.classes()] == datasets.names()
    assert datasets.broken == {}


def test_create_reads_name_and_parameters(datasets):
    made = datasets.create("synthetic[classes=4,noise=1e-2]")
    assert (made.name, made.classes, made.noise) == ("synthetic", 4, 0.01)
    assert made.spec == "synthetic[classes=4,noise=0.01]"
    assert made == datasets.create({"name": "synthetic", "classes": 4, "noise": 0.01})
    assert datasets.create(made.spec) == made


def test_unknown_name_is_answered_with_the_nearest_and_the_list(datasets):
    with pytest.raises(UnknownNameError) as caught:
        datasets.get("cifar-10")
    assert str(caught.value).startswith("unknown dataset `cifar-10`; did you mean `cifar10`")
    assert str(caught.value).endswith(f"Known: {', '.join(datasets.names())}.")


def test_unknown_name_that_is_near_nothing_is_answered_with_the_list(datasets):
    with pytest.raises(UnknownNameError, match=r"^unknown dataset `qqq`\. Known: cifar10, "):
        datasets.create("qqq")


def test_unknown_parameter_is_answered_with_the_nearest(datasets):
    with pytest.raises(InputError, match="unknown key `clases`; did you mean `classes`"):
        datasets.create("synthetic[clases=4]")


def test_all_wrong_parameters_are_reported_together(datasets):
    with pytest.raises(InputError) as caught:
        datasets.create("synthetic[classes=1,noise=-1,sise=3]")
    assert len(caught.value.sentences) == 3


def test_broken_file_of_ours_raises_at_once(entry_points, tmp_path, monkeypatch):
    (tmp_path / "broken_room").mkdir()
    (tmp_path / "broken_room" / "bad.py").write_text("raise RuntimeError('broken')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="broken"):
        Registry("dataset", Dataset, "broken_room").names()


# --- names ----------------------------------------------------------------------------------------


def test_name_that_is_taken_is_an_error_that_names_both(datasets):
    class Other(Dataset):
        name = "digits"
        reference = about = "none"

        def load(self, data_root): ...

    datasets.names()
    with pytest.raises(
        PluginError,
        match=r"two datasets are called `digits`: unlearnbench\.datasets\.digits and elsewhere",
    ):
        datasets.add(Other, "elsewhere")


def test_adding_a_class_twice_does_nothing(datasets):
    cls = datasets.get("digits")
    datasets.add(cls, "again")
    assert datasets.get("digits") is cls


@pytest.mark.parametrize("missing", ["name", "reference", "about"])
def test_dataset_without_a_declaration_is_refused(datasets, missing):
    given = {"name": "mine", "reference": "none", "about": "nothing"}
    del given[missing]
    cls = type("Mine", (Dataset,), {**given, "load": lambda self, data_root: None})
    with pytest.raises(PluginError, match=f"dataset class `Mine` needs `{missing}`"):
        datasets.add(cls, "elsewhere")


# --- entry points ---------------------------------------------------------------------------------


def test_entry_point_may_be_a_class_or_a_module(datasets, entry_points, module):
    module("outside_class", DATASET.format(cls="One", name="one"))
    module("outside_module", DATASET.format(cls="Two", name="two"))
    entry_points += [("one", "outside_class:One"), ("two", "outside_module")]
    assert {"one", "two"} <= set(datasets.names())
    assert datasets.create("one[size=5]").size == 5
    assert datasets.broken == {}


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        ("raise ValueError('two\\nlines.')", "outside", "ValueError: two lines"),
        ("import sys; sys.exit(3)", "outside", "SystemExit: 3"),
        ("import does_not_exist", "outside", "it needs the module `does_not_exist`, which"),
        ("def", "outside", "SyntaxError"),
        ("", "outside:Absent", "AttributeError"),
        ("", "outside", "outside defines no dataset"),
        ("thing = 3", "outside:thing", "neither a module nor a dataset class"),
        (DATASET.format(cls="D", name="digits"), "outside:D", "two datasets are called `digits`"),
        ("from unlearnbench.bench import Dataset as D", "outside:D", "dataset class `Dataset`"),
    ],
)
def test_broken_entry_point_is_listed_and_harms_nothing(
    datasets, entry_points, module, source, value, reason
):
    module("outside", source)
    module("healthy", DATASET.format(cls="Fine", name="fine"))
    entry_points += [("theirs", value), ("fine", "healthy")]
    assert {"digits", "fine"} <= set(datasets.names())
    assert list(datasets.broken) == ["theirs"]
    assert reason in datasets.broken["theirs"]
    assert "\n" not in datasets.broken["theirs"]
    assert datasets.get("digits").__module__ == "unlearnbench.datasets.digits"
    with pytest.raises(
        InputError, match=r"^dataset `theirs` cannot be loaded: .*[^.]\.$"
    ) as caught:
        datasets.create("theirs")
    assert reason in str(caught.value)


@pytest.mark.parametrize("declaration", BAD_DECLARATIONS)
def test_a_method_with_an_impossible_declaration_is_broken_and_harms_nothing(
    global_registries, entry_points, module, declaration
):
    module("outside", METHOD + f"    {declaration}\n")
    entry_points.append(("forgetful", "outside"))
    methods = global_registries.METHODS
    assert "forgetful" not in methods.names()
    assert methods.create("identity").spec == "identity"
    with pytest.raises(InputError, match=r"^method `forgetful` cannot be loaded: ") as caught:
        methods.create("forgetful")
    reason = BAD_DECLARATIONS[declaration].replace("{{", "{").replace("}}", "}").rstrip(".")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


# --- files ----------------------------------------------------------------------------------------


def test_file_may_define_a_method_and_a_dataset(global_registries, tmp_path):
    path = tmp_path / "my plugin.py"
    path.write_text(METHOD + DATASET.format(cls="Mine", name="mine"))
    load_plugin_files([path])
    assert global_registries.METHODS.create("forgetful").spec == "forgetful"
    assert global_registries.DATASETS.create("mine[size=4]").spec == "mine[size=4]"


def test_loading_a_file_twice_does_nothing(global_registries, tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text(METHOD)
    load_plugin_files([path, str(path)])
    load_plugin_files([path])
    assert "forgetful" in global_registries.METHODS.names()


def test_what_a_file_imports_is_not_taken_for_its_own(global_registries, tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text("from unlearnbench.datasets.digits import Digits\n" + METHOD)
    load_plugin_files([path])
    assert global_registries.DATASETS.get("digits").__module__ == "unlearnbench.datasets.digits"


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("absent.py", None, "plug-in file `{path}` does not exist."),
        ("a.txt", METHOD, "plug-in file `{path}` is not a Python file."),
        ("a.py", "x = 1", "plug-in file `{path}` defines no method and no dataset."),
        (
            "a.py",
            "from unlearnbench.bench import Dataset\nclass Half(Dataset):\n    name = 'half'",
            "plug-in file `{path}` defines no method and no dataset.",
        ),
        ("a.py", "def", "cannot load plug-in file `{path}`: SyntaxError: invalid syntax"),
        (
            "a.py",
            "1 / 0",
            "cannot load plug-in file `{path}`: ZeroDivisionError: division by zero.",
        ),
        ("a.py", "import sys; sys.exit(3)", "cannot load plug-in file `{path}`: SystemExit: 3."),
        (
            "a.py",
            DATASET.format(cls="D", name="digits"),
            "cannot load plug-in file `{path}`: two datasets are called `digits`: "
            "unlearnbench.datasets.digits and {path}.",
        ),
        (
            "a.py",
            "import absent.part",
            "cannot load plug-in file `{path}`: it needs the module `absent`, which is not "
            "installed.",
        ),
        *(
            ("a.py", METHOD + f"    {fault}\n", "cannot load plug-in file `{path}`: " + reason)
            for fault, reason in BAD_DECLARATIONS.items()
        ),
        (
            "a.py",
            METHOD.replace('reference = "none"', ""),
            "cannot load plug-in file `{path}`: method class `Forgetful` needs a `reference`.",
        ),
    ],
)
def test_file_that_cannot_be_used_is_one_sentence_each_time(
    global_registries, tmp_path, name, source, message
):
    path = tmp_path / name
    if source is not None:
        path.write_text(source)
    for _ in range(2):  # a second attempt must not pass because the first left something behind
        with pytest.raises(InputError) as caught:
            load_plugin_files([path])
        assert str(caught.value).startswith(message.format(path=path))
        assert "\n" not in str(caught.value)
        assert len(caught.value.sentences) == 1
