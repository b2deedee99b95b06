"""Writes the beginnings of a plug-in: one file, or an installable distribution."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Literal

from .errors import InputError
from .registry import DATASETS, METHODS

Kind = Literal["method", "dataset"]
TEMPLATES = Path(__file__).with_name("templates")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# names that the templates import
IMPORTED = {"Annotated", "Any", "ClassVar", "Dataset", "Field", "ImageData", "Path", "Range",
            "Unlearner", "UnlearningTask"}  # fmt: skip


def write_plugin(kind: Kind, name: str, folder: Path) -> Path:
    """Write a plug-in as one file, for `--plugin`.

    Args:
        kind: `method` or `dataset`.
        name: Its registered name, kebab-case.
        folder: Where to write; made if absent.

    Returns:
        The file.

    Raises:
        InputError: If the name cannot be used, or the file exists or cannot be written.
    """
    _check_name(kind, name)
    if _module(name) in sys.stdlib_module_names:
        raise InputError(
            f"`{_module(name)}.py` would stand before Python's own module `{_module(name)}`; "
            "choose another name."
        )
    path = folder / f"{_module(name)}.py"
    _write({path: _render(f"{kind}.py.jinja", kind, name)}, path)
    return path


def write_package(kind: Kind, name: str, folder: Path) -> Path:
    """Write a plug-in as a distribution with an entry point and a test that runs the contract.

    Args:
        kind: `method` or `dataset`.
        name: Its registered name, kebab-case.
        folder: Where to write its folder; made if absent.

    Returns:
        The folder, `unlearnbench-<name>`.

    Raises:
        InputError: If the name cannot be used, or the folder exists or cannot be written.
    """
    _check_name(kind, name)
    root = folder / f"unlearnbench-{name}"
    package = root / _package(name)
    files = {
        root / "pyproject.toml": "pyproject.toml.jinja",
        root / "README.md": "README.md.jinja",
        root / "tests" / "test_contract.py": "test_contract.py.jinja",
        package / "__init__.py": "init.py.jinja",
        package / f"{_module(name)}.py": f"{kind}.py.jinja",
    }
    _write({path: _render(template, kind, name) for path, template in files.items()}, root)
    return root


def next_steps(kind: Kind, name: str, written: Path) -> list[str]:
    """Commands with which a person goes on."""
    path = shlex.quote(str(written))
    if written.suffix == ".py":
        use = f"--{kind} {name}"
        return [f"unlearnbench check {path}", f"unlearnbench run --plugin {path} {use}"]
    return [f'pip install -e "{written}[test]"', f"pytest {path}", f"unlearnbench check {name}"]


def _check_name(kind: Kind, name: str) -> None:
    if not NAME.fullmatch(name):
        raise InputError(
            f"a {kind} is called by lower-case words with hyphens between them, such as "
            f"`my-{kind}`; got `{name}`."
        )
    registry = METHODS if kind == "method" else DATASETS
    if name in registry.names():
        raise InputError(f"there is a {kind} called `{name}` already; choose another name.")


def _module(name: str) -> str:
    return name.replace("-", "_")


def _package(name: str) -> str:
    return f"unlearnbench_{_module(name)}"


def _class(kind: Kind, name: str) -> str:
    title = "".join(word.title() for word in name.split("-"))
    return f"{title}{kind.title()}" if title in IMPORTED else title


def _render(template: str, kind: Kind, name: str) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # Python, TOML and Markdown
    )
    return environment.get_template(template).render(
        kind=kind,
        name=name,
        title=name.replace("-", " ").capitalize(),
        module=_module(name),
        package=_package(name),
        cls=_class(kind, name),
    )


def _write(files: dict[Path, str], target: Path) -> None:
    """Write new files; what exists already stays as it is.

    Raises:
        InputError: If the target exists, or cannot be written.
    """
    try:
        if target.exists():
            raise InputError(f"`{target}` exists already; nothing was written.")
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise InputError(f"`{target}` cannot be written: {error.strerror}.") from None
