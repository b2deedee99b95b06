"""A check of a plug-in: its name, its group, and what it found."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UnknownNameError, UnlearnBenchError, describe

if TYPE_CHECKING:
    from .dataset_subject import DatasetSubject
    from .subject import Subject

Status = Literal["passed", "failed", "skipped", "known", "mended"]
Kind = Literal["method", "dataset"]
GROUPS = (
    "declaration",
    "interface",
    "determinism",
    "information",
    "edges",
    "process",
    "sanity",
    "recipes",
    "images",
)


class CheckFailure(UnlearnBenchError):  # noqa: N818 - a finding, not an error of the suite
    """What a plug-in does wrong, and what to change, in one sentence."""


class NotApplicable(UnlearnBenchError):  # noqa: N818 - likewise
    """Why a check says nothing about a plug-in."""


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        check: Name of the check.
        group: Its group.
        status: `passed`; `failed`; `skipped`, where it says nothing; `known`, for a failure that
            the plug-in declares; `mended`, for one that it declares and no longer has.
        message: What to change, or why it was skipped; empty if it passed.
    """

    check: str
    group: str
    status: Status
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the plug-in need not change."""
        return self.status not in ("failed", "mended")


@dataclass(frozen=True)
class Check:
    """One promise of the contract.

    Attributes:
        name: Kebab-case.
        group: What it is about.
        explanation: What a plug-in promises, in one sentence.
        kinds: Kinds of plug-ins that promise it.
        run: Raises `CheckFailure` or `NotApplicable`, or returns.
    """

    name: str
    group: str
    explanation: str
    kinds: tuple[Kind, ...]
    run: Callable[[Any], None]

    def apply(self, subject: Subject | DatasetSubject) -> Result:
        """Run the check; what the plug-in declares as a known failure is shown as such."""
        status, message = self._look(subject)
        reason = subject.known_failures.get(self.name)
        if reason is not None and self.name == RUNS:
            status = "failed"
            message = f"take `{RUNS}` out of `known_failures`: a method must serve something"
        elif reason is not None and status == "failed":
            status, message = "known", f"{reason} ({message})"
        elif reason is not None and status == "passed":
            status, message = "mended", "this passes now; take it out of `known_failures`"
        return Result(self.name, self.group, status, message)

    def _look(self, subject: Subject | DatasetSubject) -> tuple[Status, str]:
        try:
            self.run(subject)
        except NotApplicable as reason:
            return "skipped", describe(reason)
        except CheckFailure as failure:
            return "failed", describe(failure)
        except Exception as error:  # a plug-in's code may raise anything, anywhere
            return "failed", f"mend what raises {describe(error)}"
        return "passed", ""


RUNS = "runs"
CHECKS: dict[str, Check] = {}


def check(group: str, *kinds: Kind) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Make a function a check; its name is the check's, its docstring the explanation."""

    def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
        name = function.__name__.replace("_", "-")
        explanation = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0]
        CHECKS[name] = Check(
            name, group, " ".join(explanation.split()), kinds or ("method",), function
        )
        return function

    return add


def checks_of(kind: Kind) -> list[Check]:
    """The checks of a kind of plug-in, `method` or `dataset`, in the order of the groups."""
    known = [c for c in CHECKS.values() if kind in c.kinds]
    return sorted(known, key=lambda c: GROUPS.index(c.group))


def unknown_failures(subject: Subject | DatasetSubject) -> Iterator[Result]:
    """A failed result for every declared failure of a check that does not exist."""
    known = {c.name: c for c in checks_of(subject.kind)}
    for name in subject.known_failures:
        if name not in known:
            error = UnknownNameError("check in `known_failures`:", name, known)
            yield Result(name, "declaration", "failed", describe(error))
