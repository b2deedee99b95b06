"""Errors of unlearnbench.

UnlearnBenchError
├── InputError (ValueError)        what a person typed or wrote; exit code 2, no traceback
│   ├── UnknownNameError (KeyError)    a name that no registry, file or enumeration knows
│   └── DataError                      data that is absent, damaged or cannot be downloaded
├── StoreError (OSError)           the store cannot be written or is damaged; exit code 2
├── DeclinedError                  a method finds that it does not serve this network or data
├── UndeclaredNeedError            a method touched what it had not declared
├── PrunedError                    a trial of a search that lags behind was stopped
├── DivergedError                  a model or its outputs are not finite
└── PluginError                    a plug-in that cannot be loaded
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LONGEST = 1000  # characters of an error that a person is shown


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


class DeclinedError(UnlearnBenchError):
    """A method finds only when it runs that it does not serve this network or these data.

    Raised by `prepare` or `unlearn`; the cell is shown as not applicable, with the sentence.
    """


class PrunedError(UnlearnBenchError):
    """A trial of a hyper-parameter search was stopped, for it lagged behind the others."""


class DivergedError(UnlearnBenchError, ArithmeticError):
    """Weights or outputs that are not finite."""


class PluginError(UnlearnBenchError, ImportError):
    """A plug-in that cannot be imported or breaks the interface."""


def describe(error: BaseException) -> str:
    """Write an error on one line, without a full stop; ours need no type in front."""
    try:
        text = str(error)
    except Exception:  # a plug-in's exception may fail at that too
        text = ""
    text = " ".join(text.split()).encode("utf-8", "replace").decode()
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} …"
    text = text.rstrip(".: ")
    if not text:
        return type(error).__name__
    return text if isinstance(error, UnlearnBenchError) else f"{type(error).__name__}: {text}"


class Problems:
    """Input errors that are gathered, so that a person sees all of them at once."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._sentences)

    def note(self, error: InputError) -> None:
        """Keep the sentences of an error."""
        self._sentences.update(dict.fromkeys(error.sentences))

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note an input error that is raised inside, and go on behind."""
        try:
            yield
        except InputError as error:
            self.note(error)

    def raise_any(self) -> None:
        """Raise everything noted as one error, each sentence once and in order.

        Raises:
            InputError: If anything was noted.
        """
        if self._sentences:
            raise InputError(*self._sentences)
