"""Runs the checks, from a command line, a script or pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from ..dataset import Dataset
from ..errors import InputError, UnknownNameError
from ..registry import DATASETS, METHODS, classes_of_file
from ..spec_string import parse_spec
from ..unlearner import Unlearner
from . import (  # noqa: F401 - each adds its checks
    declaration,
    determinism,
    edges,
    images,
    information,
    interface,
    process,
    recipes,
    sanity,
)
from .check import Check, Result, checks_of, unknown_failures
from .dataset_subject import DatasetSubject
from .subject import TIME_LIMIT_S, Subject

AnySubject = Subject | DatasetSubject


def find_subjects(
    what: str | Path, *, time_limit_s: float = TIME_LIMIT_S, data_root: Path | str = "data"
) -> list[AnySubject]:
    """The plug-ins that a name or a file stands for.

    Args:
        what: `name`, `name[key=value,…]`, or a Python file, all of whose plug-ins are meant.
        time_limit_s: Seconds that one run of a method may take.
        data_root: Where datasets keep their files.

    Raises:
        InputError: If there is no such plug-in, or it cannot be loaded.
    """
    text = str(what)
    plugins: list[Unlearner | Dataset]
    if isinstance(what, Path) or text.endswith(".py"):
        plugins = [cls.create({}) for cls in classes_of_file(Path(what))]
        files: tuple[str, ...] = (str(Path(what).resolve()),)
    else:
        spec, files = parse_spec(text, "method or dataset"), ()
        names = METHODS.names(), DATASETS.names()
        is_method = spec.name in [*names[0], *METHODS.broken]
        is_dataset = spec.name in [*names[1], *DATASETS.broken]
        if not (is_method or is_dataset):
            raise UnknownNameError("method or dataset", spec.name, [*names[0], *names[1]])
        plugins = [METHODS.create(text)] if is_method else []
        plugins += [DATASETS.create(text)] if is_dataset else []
    return [
        Subject(plugin, files, time_limit_s)
        if isinstance(plugin, Unlearner)
        else DatasetSubject(plugin, Path(data_root))
        for plugin in plugins
    ]


def check_plugin(
    what: str | Path,
    checks: Iterable[str] = (),
    *,
    time_limit_s: float = TIME_LIMIT_S,
    data_root: Path | str = "data",
) -> list[Result]:
    """Run the contract over a method or a dataset.

    In a script, call it under `if __name__ == "__main__":`, since it starts worker processes.

    Args:
        what: `name`, `name[key=value,…]`, or a Python file.
        checks: Names of the checks; none for all.
        time_limit_s: Seconds that one run of a method may take.
        data_root: Where datasets keep their files.

    Raises:
        InputError: If there is no such plug-in or check, or the plug-in cannot be loaded.
    """
    subjects = find_subjects(what, time_limit_s=time_limit_s, data_root=data_root)
    names = tuple(checks)
    return [
        result
        for subject, wanted in zip(subjects, select(subjects, names), strict=True)
        for result in results(subject, wanted, whole=not names)
    ]


def select(subjects: Sequence[AnySubject], names: Sequence[str]) -> list[list[Check]]:
    """The checks wanted of every plug-in, each of which must be a check of one of them at least.

    Raises:
        UnknownNameError: If there is no check of a name.
    """
    known = {c.name for subject in subjects for c in checks_of(subject.kind)}
    for name in names:
        if name not in known:
            raise UnknownNameError("check", name, known)
    return [
        [c for c in checks_of(subject.kind) if not names or c.name in names] for subject in subjects
    ]


def results(subject: AnySubject, checks: Iterable[Check], *, whole: bool) -> Iterator[Result]:
    """What the checks find, one after the other.

    Args:
        subject: The plug-in.
        checks: The checks.
        whole: Whether these are all of its checks; then misspelt known failures are found too.
    """
    if whole:
        yield from unknown_failures(subject)
    for check in checks:
        yield check.apply(subject)


def contract(
    *what: str | Path, time_limit_s: float = TIME_LIMIT_S, data_root: Path | str = "data"
) -> Callable[..., None]:
    """A test function for pytest: a test for every plug-in and check.

    A known failure is an expected one, and fails if it passes. What a check says nothing about
    is skipped.

    Args:
        what: Plug-ins, each as `name`, `name[key=value,…]` or a Python file.
        time_limit_s: Seconds that one run of a method may take.
        data_root: Where datasets keep their files.

    Raises:
        InputError: If there is no such plug-in, or it cannot be loaded.

    Example:
        A whole test module:

            from unlearnbench.bench.testing import contract

            test_contract = contract("my-method")
    """
    import pytest

    if not what:
        raise InputError("`contract` needs the name or the file of a plug-in.")
    cases = [
        pytest.param(each, number, check, id=f"{subject.plugin.name}/{check.name}")
        for each in what
        for number, subject in enumerate(find_subjects(each))
        for check in checks_of(subject.kind)
    ]

    @cache
    def subjects(each: str | Path) -> list[AnySubject]:
        return find_subjects(each, time_limit_s=time_limit_s, data_root=data_root)

    @pytest.mark.parametrize(("what", "number", "check"), cases)
    def test_contract(what: str | Path, number: int, check: Check) -> None:
        subject = subjects(what)[number]
        wrong = list(unknown_failures(subject))
        result = wrong[0] if wrong else check.apply(subject)
        if result.status == "known":
            pytest.xfail(result.message)
        if result.status == "skipped":
            pytest.skip(result.message)
        if not result.ok:
            pytest.fail(f"{result.check}: {result.message}", pytrace=False)

    return test_contract
