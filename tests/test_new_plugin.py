"""`unlearnbench new-method` and `new-dataset`: what they write works as written."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tomllib

import pytest

from unlearnbench.bench import DATASETS, METHODS
from unlearnbench.bench.registry import classes_of_file
from unlearnbench.bench.testing import check_plugin

from .commands import call, environment, plugins_forgotten

KINDS = ("method", "dataset")


@pytest.fixture(autouse=True)
def _clean():
    with plugins_forgotten():
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_is_written_and_found_by_its_name(tmp_path, kind):
    result = call(f"new-{kind}", "my-thing", "--to", tmp_path / "new")
    assert result.exit_code == 0
    path = tmp_path / "new" / "my_thing.py"
    assert result.stdout.splitlines()[0] == f"Wrote {path}"
    assert f"  unlearnbench check {path}" in result.stdout.splitlines()
    (cls,) = classes_of_file(path)
    assert (cls.name, cls.__name__) == ("my-thing", "MyThing")
    assert cls is (METHODS if kind == "method" else DATASETS).get("my-thing")


@pytest.mark.parametrize("name", ["range", "field", "unlearner", "dataset", "any", "image-data"])
def test_a_name_that_the_file_itself_imports_gets_a_class_of_another_name(tmp_path, name):
    for kind in KINDS:
        call(f"new-{kind}", name, "--to", tmp_path / kind)
        (cls,) = classes_of_file(tmp_path / kind / f"{name.replace('-', '_')}.py")
        assert cls.name == name


def test_a_new_dataset_keeps_the_contract(tmp_path):
    call("new-dataset", "my-images", "--to", tmp_path)
    assert {r.status for r in check_plugin(tmp_path / "my_images.py")} == {"passed"}


def test_a_new_method_passes_or_is_not_concerned_by_every_check(tmp_path):
    call("new-method", "my-way", "--to", tmp_path)
    found = check_plugin(tmp_path / "my_way.py")
    assert {r.check: r.message for r in found if r.status not in ("passed", "skipped")} == {}
    assert {r.group for r in found if r.status == "skipped"} <= {"edges", "recipes"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("package", [False, True])
def test_nothing_is_overwritten(tmp_path, kind, package):
    arguments = [f"new-{kind}", "my-thing", "--to", tmp_path, *(["--package"] * package)]
    assert call(*arguments).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = call(*arguments)
    assert again.exit_code == 2
    assert again.stderr.endswith("exists already; nothing was written.\n")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "name", "sentence"),
    [
        ("new-method", "My Way", "such as `my-method`; got `My Way`."),
        ("new-method", "my_way", "got `my_way`."),
        ("new-method", "../up", "got `../up`."),
        ("new-method", "3d", "got `3d`."),
        ("new-method", "a--b", "got `a--b`."),
        ("new-method", "", "got ``."),
        ("new-dataset", "My", "such as `my-dataset`; got `My`."),
        ("new-method", "scrub", "there is a method called `scrub` already"),
        ("new-dataset", "digits", "there is a dataset called `digits` already"),
        ("new-method", "random", "would stand before Python's own module `random`"),
        ("new-method", "a" * 300, "cannot be written: File name too long."),
    ],
)
def test_a_name_that_cannot_be_used_is_one_sentence(tmp_path, command, name, sentence):
    result = call(command, name, "--to", tmp_path)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    result = call("new-method", "my-way", "--to", tmp_path / "file" / "below")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "cannot be written: Not a directory" in result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_declares_its_entry_point_and_its_test_is_two_statements(tmp_path, kind):
    call(f"new-{kind}", "my-thing", "--package", "--to", tmp_path)
    root = tmp_path / "unlearnbench-my-thing"
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["project"]["entry-points"][f"unlearnbench.{kind}s"] == {
        "my-thing": "unlearnbench_my_thing.my_thing"
    }
    assert project["tool"]["setuptools"]["packages"] == ["unlearnbench_my_thing"]
    test = (root / "tests" / "test_contract.py").read_text()
    assert 'contract("my-thing")' in test
    assert len(ast.parse(test).body) == 3  # the docstring is one
    assert "unlearnbench check my-thing" in (root / "README.md").read_text()
    for path in root.rglob("*"):
        if path.is_file():
            assert "{{" not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_package_installs_and_passes_its_own_tests_as_written(tmp_path, kind):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and there is no network to fetch it")
    call(f"new-{kind}", "my-thing", "--package", "--to", tmp_path)
    root, site = tmp_path / "unlearnbench-my-thing", tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation",
               "--no-index", "--disable-pip-version-check", "--target", str(site),
               str(root)]  # fmt: skip
    done = subprocess.run(install, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=root,
        env=environment(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
