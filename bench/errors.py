"""Errors of unlearnbench.

    UnlearnBenchError
    ├── InputError (ValueError)        what a person typed or wrote; exit code 2, no traceback
    │   ├── UnknownNameError (KeyError)    a name that no registry, file or enumeration knows
    │   └── DataError                      data that is absent, damaged or cannot be downloaded
    ├── StoreError (OSError)           the store cannot be written, or holds damaged files; exit code 2
    ├── UndeclaredNeedError            a method touched what it had not declared
    ├── DivergedError                  a model or its outputs are not finite
    └── PluginError                    a plug-in that cannot be loaded
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnlearnBenchError(Exception):
    """Root of all errors that unlearnbench raises on purpose."""


class InputError(UnlearnBenchError, ValueError):
    """Bad input, as one or several complete sentences.

    Attributes:
        sentences: One sentence for each thing that is wrong.
    """

    def __init__(self, *sentences: str) -> None:
        self.sentences = tuple(sentences)
        super().__init__("\n".join(sentences))

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def __reduce__(self) -> tuple[type[InputError], tuple[str, ...]]:
        return InputError, self.sentences  # subclasses take other arguments


class UnknownNameError(InputError, KeyError):
    """A name that is not known; says which one was probably meant and which there are."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, note: str = "") -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else "."
        listed = ", ".join(known[:40]) + (", …" if len(known) > 40 else "")
        sentence = f"unknown {kind} `{name}`{meant} Known: {listed}."
        super().__init__(f"{sentence} {note}".strip())


class DataError(InputError):
    """Data that is missing, damaged or cannot be fetched."""


class StoreError(UnlearnBenchError, OSError):
    """The store cannot be written, or an artefact in it does not match its digest."""


class UndeclaredNeedError(UnlearnBenchError, PermissionError):
    """A method touched a set that it had not declared in `needs`."""


class DivergedError(UnlearnBenchError, ArithmeticError):
    """Weights or outputs that are not finite."""


class PluginError(UnlearnBenchError, ImportError):
    """A plug-in that cannot be imported or breaks the interface."""


def collect(*problems: InputError | None) -> InputError | None:
    """Join several input errors into one, keeping every sentence once and in order."""
    sentences: dict[str, None] = {}
    for problem in problems:
        if problem is not None:
            sentences.update(dict.fromkeys(problem.sentences))
    return InputError(*sentences) if sentences else None
