"""`tuned.toml`: hyper-parameters that were found, to be reviewed, committed and used again."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError, Problems
from .files import write_text_atomically
from .plugin import explain
from .registry import METHODS
from .search_space import declared
from .tuning_settings import Track
from .unlearner import Scope, Unlearner

HEAD = """\
# Hyper-parameters that were found by tuning. A sweep takes them with
# `hyperparameters = "{name}"`, or `unlearnbench run --hyperparameters {name}`.
# Each holds for what it names: dataset, model, recipe and kind of forget set (`class`: whole
# classes, `sample`: any other); where one of these is left out, it holds for all.

"""


class Tuning(BaseModel):
    """How hyper-parameters were found, and what that cost.

    Attributes:
        study: Name of the study.
        track: `validation` or `oracle`; see `objectives`.
        trials: Number of trials that counted.
        failed: How many of them failed.
        pruned: How many of them were stopped early.
        development_models: Originals on which each was run.
        objectives: What was made best.
        seconds: What the trials cost, measuring included; of one worker, in seconds.
        trial: Number of the winning trial.
        retain: Its quality; see `objectives`.
        forget: Likewise.
        unlearn_s: Seconds that it unlearned.
        hardware: Where; its seconds stand beside those of the same hardware only.
        original_retain: `retain` of the development originals before unlearning.
        reason: Why nothing was found, and the method is used as it was written.
    """

    model_config = ConfigDict(extra="forbid")

    study: str
    track: Track
    trials: int
    failed: int = 0
    pruned: int = 0
    development_models: int
    objectives: list[str]
    seconds: float
    trial: int | None = None
    retain: float | None = None
    forget: float | None = None
    unlearn_s: float | None = None
    original_retain: float | None = None
    hardware: str | None = None
    reason: str | None = None


class TunedMethod(BaseModel):
    """Hyper-parameters of one method, and what they hold for.

    Attributes:
        method: The method as it was written, with what was set by hand.
        params: What was found.
        dataset: Dataset as `name[key=value,…]`; None for every one.
        model: Architecture likewise.
        recipe: Recipe of the originals likewise.
        kind: `class` or `sample` likewise.
        tuning: How they were found; None if somebody wrote them.
    """

    model_config = ConfigDict(extra="forbid")

    method: str
    params: dict[str, Any] = {}
    dataset: str | None = None
    model: str | None = None
    recipe: str | None = None
    kind: Scope | None = None
    tuning: Tuning | None = None

    def applies(
        self, method: Unlearner, dataset: str, model: str, recipe: str, kind: Scope
    ) -> bool:
        """Whether it holds for a method on a task."""
        own = (self.dataset, self.model, self.recipe, self.kind)
        task = (dataset, model, recipe, kind)
        pairs = zip(own, task, strict=True)
        return self.method == method.spec and all(a is None or a == b for a, b in pairs)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tuned: list[TunedMethod] = []


def write_tuned(path: Path, found: Sequence[TunedMethod]) -> None:
    """Write a file that `read_tuned` reads."""
    content = _File(tuned=list(found)).model_dump(mode="json", exclude_none=True)
    write_text_atomically(path, HEAD.format(name=path.name) + tomli_w.dumps(content))


def read_tuned(path: Path) -> list[TunedMethod]:
    """Read a file of hyper-parameters; the methods are looked up later.

    Raises:
        InputError: If there is no such file, or for everything in it that is not allowed.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"the hyper-parameters `{path}` cannot be read: {error.strerror}."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"the hyper-parameters `{path}` are not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the hyper-parameters `{path}` are not valid TOML: {error}.") from None
    try:
        return _File.model_validate(content).tuned
    except ValidationError as error:
        raise explain(error, f"hyper-parameters `{path}`", _File) from None


class Hyperparameters:
    """What methods are run with instead of what was written.

    Args:
        found: Entries; of several that hold, the first is taken. A method that is written in
            another way (order, spaces) is the same.

    Attributes:
        applied: How often something was found to hold.
        missed: Methods that could be tuned, and for which on some task nothing holds.

    Raises:
        InputError: For every method that is unknown, and every hyper-parameter that is not
            allowed or belongs to a recipe, together.
    """

    def __init__(self, found: Iterable[TunedMethod] = ()) -> None:
        problems = Problems()
        self.applied, self.missed = 0, dict[str, None]()
        self._found: list[tuple[TunedMethod, Unlearner]] = []
        for entry in found:
            with problems.noted():
                method = METHODS.create(entry.method)
                tuned = type(method).create({**method.params, **entry.params})
                recipe = sorted(type(method).penalty_fields & entry.params.keys())
                if recipe:
                    raise InputError(
                        f"hyper-parameters of `{entry.method}`: {', '.join(recipe)} of the recipe "
                        "cannot be taken from a file, for originals are trained with them; write "
                        "them in the method."
                    )
                canonical = entry.model_copy(update={"method": method.spec})
                self._found.append((canonical, tuned))
        problems.raise_any()

    def of(
        self, method: Unlearner, dataset: str, model: str, recipe: str, kind: Scope
    ) -> tuple[Unlearner, Tuning | None] | None:
        """A method as it is run on a task, and how that was found; None where nothing holds."""
        for entry, tuned in self._found:
            if entry.applies(method, dataset, model, recipe, kind):
                self.applied += 1
                return tuned, entry.tuning
        if declared(type(method)):
            self.missed[method.spec] = None
        return None
