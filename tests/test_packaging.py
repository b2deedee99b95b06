"""What is installed, what it exports, and who may import whom."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import unlearnbench.bench
from unlearnbench.bench import METHODS

from .commands import environment

REPOSITORY = Path(__file__).parents[1]
ROOMS = ("bench", "methods", "datasets")
DATA_FILES = {"py.typed", "quickstart.toml", "osp-ablations.toml", "svd-options.toml",
              "leaderboard_page.html", "leaderboard_page.css", "leaderboard_page.js",
              "leaderboard_chart.js", "leaderboard_evidence.js", "leaderboard_state.js",
              "leaderboard_table.js", "leaderboard_controls.js",
              "leaderboard_table.tex", "published.toml"}  # fmt: skip
# third parties behind one door each; `bench/patches.py` asks timm how it pads
DOORS = {
    "mlflow": {"bench/tracking_client.py", "bench/tracking_writer.py"},
    "timm": {"bench/models.py", "bench/patches.py", "bench/stacking.py", "bench/weights.py"},
    "torchvision": {"bench/torchvision_data.py", "datasets/cifar.py", "datasets/fashion_mnist.py"},
    "pebble": {"bench/executor.py"},
    "pytest": {"bench/testing/suite.py"},
}  # fmt: skip

sources = pytest.mark.skipif(
    not (REPOSITORY / "bench").is_dir(), reason="the repository is not beside the tests"
)


def files(room):
    return sorted((REPOSITORY / room).rglob("*.py"))


def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def imports(path):
    """Absolute names of everything that a file of ours imports, wherever it stands in it."""
    package = ("unlearnbench", *path.relative_to(REPOSITORY).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


# --- what is packed -----------------------------------------------------------------------------


@sources
def test_the_listed_packages_are_the_folders_with_python_files():
    folders = {path.parent.relative_to(REPOSITORY) for room in ROOMS for path in files(room)}
    listed = project()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == listed
    assert set(listed) == {"unlearnbench." + ".".join(folder.parts) for folder in folders}


@sources
def test_only_the_harness_is_a_package_with_an_init():
    assert (REPOSITORY / "bench" / "__init__.py").is_file()
    for room in ("methods", "datasets"):
        assert not list((REPOSITORY / room).rglob("__init__.py"))
        assert {path.suffix for path in (REPOSITORY / room).iterdir() if path.is_file()} <= {
            ".py",
            ".typed",
        }


@sources
def test_every_third_party_that_is_imported_is_a_dependency():
    declared = {
        requirement.split(">")[0].split("[")[0].lower().replace("-", "_")
        for requirement in project()["project"]["dependencies"]
    }
    names = {"sklearn": "scikit_learn", "pydantic_core": "pydantic", "PIL": "pillow"}
    declared.add("pytest")  # an author's own, who calls `contract`
    beside = {  # what a dependency of ours cannot do without
        "markupsafe": "jinja2", "sqlalchemy": "mlflow",
    }  # fmt: skip
    for room in ROOMS:
        for path in files(room):
            for module in {name.split(".")[0] for name in imports(path)}:
                if module in sys.stdlib_module_names or module == "unlearnbench":
                    continue
                name = names.get(module, module)
                assert beside.get(name, name).lower() in declared, f"{path}: {module}"


@sources
def test_a_wheel_holds_every_module_and_data_file_and_the_command(tmp_path):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and there is no network to fetch it")
    if int(importlib.metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools is older than 77")
    # a copy, so that no build folder is left in the repository
    copy = tmp_path / "repository"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (REPOSITORY / name).exists():
            (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    (copy / "README.md").touch()
    for room in ROOMS:
        for path in (REPOSITORY / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = copy / path.relative_to(REPOSITORY)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation",
               "--no-index", "--disable-pip-version-check", "-w", str(tmp_path)]  # fmt: skip
    built = subprocess.run(
        command, cwd=copy, env=environment(), capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("unlearnbench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (entry_points,) = [n for n in packed if n.endswith("entry_points.txt")]
        commands = archive.read(entry_points).decode()
    ours = {
        f"unlearnbench/{path.relative_to(REPOSITORY)}"
        for room in ROOMS
        for path in (REPOSITORY / room).rglob("*")
        if path.suffix == ".py"
        or path.name in DATA_FILES
        or path.suffix in (".toml", ".html", ".jinja")
    }
    assert {name for name in packed if ".dist-info/" not in name} == ours
    assert {f"unlearnbench/bench/{name}" for name in DATA_FILES} <= packed
    assert "unlearnbench = unlearnbench.bench.cli:main" in commands
    assert not any(name.startswith(("bench/", "methods/", "datasets/")) for name in packed)


# --- the public door ----------------------------------------------------------------------------


def test_all_is_sorted_and_names_exactly_what_is_public():
    exported = unlearnbench.bench.__all__
    # constants first, then classes, then functions: what ruff calls sorted
    order = [(not n.isupper(), not n[0].isupper(), n) for n in exported]
    assert order == sorted(order)
    tree = ast.parse(Path(unlearnbench.bench.__file__).read_text())
    public = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert set(exported) == public
    for name in exported:
        assert getattr(unlearnbench.bench, name).__module__.startswith("unlearnbench.bench.")


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = unlearnbench.bench.Nonsense


@pytest.mark.parametrize(
    "module", ["unlearnbench.bench", "unlearnbench.bench.sweep", "unlearnbench.bench.plan"]
)
def test_importing_the_harness_loads_no_heavy_library(module, tmp_path):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(),
                          capture_output=True, text=True, check=True)  # fmt: skip
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    heavy = {"torch", "torchvision", "timm", "mlflow", "pandas", "optuna", "seaborn", "sklearn"}
    assert not loaded & heavy


# --- who may import whom ------------------------------------------------------------------------


@sources
def test_the_harness_never_imports_a_method_or_dataset_by_name():
    for path in files("bench"):
        rooms = ("unlearnbench.methods", "unlearnbench.datasets", "methods", "datasets")
        wrong = {name for name in imports(path) if name.startswith(rooms) or name in rooms}
        assert not wrong, path
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and node.value in rooms[:2]
        }
        assert not strings or path.name == "registry.py", path


def kin_of(path):
    """Modules of the methods that the classes in a file derive from."""
    name = f"unlearnbench.methods.{path.stem}"
    classes = [cls for cls in METHODS.classes() if cls.__module__ == name]
    above = {base.__module__ for cls in classes for base in cls.__mro__}
    return {module for module in above if module.startswith("unlearnbench.methods.")} - {name}


@sources
def test_methods_and_datasets_import_public_names_of_the_harness_and_nothing_of_each_other():
    # what datasets that torchvision or Pillow reads share
    inside = {"unlearnbench.bench.torchvision_data", "unlearnbench.bench.image_files"}
    for room in ("methods", "datasets"):
        for path in files(room):
            public = {f"unlearnbench.bench.{name}" for name in unlearnbench.bench.__all__}
            kin = kin_of(path) if room == "methods" else set()
            for name in imports(path):
                if name.startswith("unlearnbench") and name != "unlearnbench.bench":
                    if name in kin or name.rpartition(".")[0] in kin:
                        continue  # what it derives from
                    base = name if name in inside or name in public else name.rpartition(".")[0]
                    assert base in public | inside, f"{path} imports {name}"


@sources
@pytest.mark.parametrize("library", DOORS)
def test_a_third_party_comes_in_by_its_own_door(library):
    doors = {
        str(path.relative_to(REPOSITORY))
        for room in ROOMS
        for path in files(room)
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert doors <= DOORS[library]
    assert doors


@sources
def test_no_module_prints_or_configures_logging_but_the_command_line():
    for room in ROOMS:
        for path in files(room):
            if path.name == "cli.py":
                continue
            calls = [
                node.func.id
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            ]
            assert "print" not in calls, path


def test_every_method_is_one_file_named_after_it():
    for cls in METHODS.classes():
        if cls.__module__.startswith("unlearnbench.methods."):
            assert cls.__module__ == f"unlearnbench.methods.{cls.name.replace('-', '_')}"
            assert importlib.util.find_spec(cls.__module__).origin.endswith(".py")
