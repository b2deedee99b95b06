"""Looks over a method's shoulder while the harness runs it."""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..batches import ExampleSet
from ..plugin import Plugin
from ..registry import DATASETS
from ..task import UnlearningTask
from ..unlearner import Unlearner
from ..workbench import Workbench
from .global_state import SETTINGS, Draws, settings

RANDOM = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("normal", "bernoulli", "multinomial", "poisson", "normal_", "uniform_", "bernoulli_"),
    *("random_", "exponential_", "log_normal_", "cauchy_", "geometric_"),
}
HARNESS = Path(__file__).parents[1]


@dataclass
class Watch:
    """What was seen of a method at work.

    Attributes:
        folders: Folders of the method's source files.
        state: Settings of the process that it did not put back.
        draws: Ways in which it drew random numbers past `task.rng`.
        generators: Initial seeds of generators of its own that it drew from.
        touched: Sets that it touched without having declared them.
        looked: Ways in which it got at data past the task.
        uncounted: Ways in which it read examples past the count.
        images: Sets whose images or labels it changed.
        prepared: Names of prepared tensors that it changed.
        params: Whether its own parameters changed.
        lent: Weak references to what it was lent, by what it is called.
    """

    folders: frozenset[Path]
    state: list[str] = field(default_factory=list)
    draws: list[str] = field(default_factory=list)
    generators: set[int] = field(default_factory=set)
    touched: list[str] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    params: bool = False
    lent: list[tuple[str, weakref.ref[Any]]] = field(default_factory=list)

    def is_own(self, depth: int) -> bool:
        """Whether code of the method's files is at work, `depth` frames above the caller."""
        file = sys._getframe(depth + 1).f_code.co_filename
        return Path(file).parent in self.folders

    def alive(self, what: str) -> bool:
        """Whether anything that was lent under a name still exists."""
        return any(name == what and reference() is not None for name, reference in self.lent)


def watch_of(method: Unlearner) -> Watch:
    """A watch that knows which files are the method's."""
    folders = set()
    for cls in type(method).__mro__:
        if issubclass(cls, Plugin):
            try:
                file = Path(inspect.getsourcefile(cls) or "")
            except (TypeError, OSError):
                continue
            if HARNESS not in file.parents:
                folders.add(file.parent)
    return Watch(frozenset(folders))


@contextmanager
def watched(method: Unlearner, watch: Watch, *, draws: bool) -> Iterator[None]:
    """Watch `prepare` and `unlearn` of the method's class inside.

    Args:
        method: The method.
        watch: What is seen is noted here.
        draws: Look at every call of a random function of torch as well, which takes time.
    """
    cls = type(method)
    with ExitStack() as stack:
        for name in ("prepare", "unlearn"):
            if getattr(cls, name) is not getattr(Unlearner, name):
                spy = _spied(getattr(cls, name), watch, draws)
                stack.enter_context(patch.object(cls, name, spy))
        yield


def _spied(function: Callable[..., Any], watch: Watch, draws: bool) -> Callable[..., Any]:
    """The method's function, looked at from within the harness's own precautions."""

    @wraps(function)
    def spy(self: Unlearner, model: nn.Module, task: UnlearningTask) -> Any:  # noqa: ANN401
        found = settings()
        drawn = Draws.now()
        params = self.params
        images = {role: _content(examples) for role, examples in task._sets.items()}
        prepared = {name: tensor.clone() for name, tensor in task.prepared.items()}
        lent: list[tuple[str, Any]] = [("the task", task)]
        lent += [(f"the {role} set", examples) for role, examples in task._sets.items()]
        lent += [("the model", p) for p in [*model.parameters(), *model.buffers()]]
        watch.lent += [(name, weakref.ref(thing)) for name, thing in lent]
        try:
            with _guarded(watch), _Draws(watch, task.rng) if draws else ExitStack():
                return function(self, model, task)
        finally:
            for name, value in found.items():
                if SETTINGS[name].get() != value:
                    watch.state.append(name)
                    SETTINGS[name].put(value)
            watch.draws += drawn.moved()
            watch.params |= self.params != params
            for role, examples in task._sets.items():
                if not all(map(torch.equal, images[role], _content(examples))):
                    watch.images.append(role)
            for name, tensor in prepared.items():
                if name not in task.prepared or not torch.equal(tensor, task.prepared[name]):
                    watch.prepared.append(name)

    return spy


def _content(examples: ExampleSet) -> tuple[Tensor, Tensor, Tensor]:
    pixels = vars(examples)["_pixels"]
    return pixels.images.clone(), pixels.labels.clone(), pixels.ids.clone()


@contextmanager
def _guarded(watch: Watch) -> Iterator[None]:
    """Notice whoever goes past the task to data."""
    open_set = UnlearningTask._set

    def note_set(task: UnlearningTask, role: str) -> ExampleSet:
        if role not in task._sets:
            watch.touched.append(role)
        return open_set(task, role)

    def refuse(what: str) -> Callable[..., Any]:
        def refused(*args: object, **kwargs: object) -> Any:  # noqa: ANN401
            watch.looked.append(what)
            raise PermissionError(f"a method may not get at {what}.")

        return refused

    free = ExampleSet.with_generator

    def note_free(examples: ExampleSet, generator: torch.Generator) -> ExampleSet:
        if watch.is_own(1):
            watch.uncounted.append("`with_generator`")
        return free(examples, generator)

    with ExitStack() as stack:
        for owner, name, spy in [
            (UnlearningTask, "_set", note_set),
            (Workbench, "test_set", refuse("the test set")),
            (Workbench, "train_set", refuse("the harness's own sets")),
            (ExampleSet, "with_generator", note_free),
            *((cls, "load", refuse("a dataset")) for cls in DATASETS.classes()),
        ]:
            stack.enter_context(patch.object(owner, name, spy))
        stack.enter_context(patch.object(ExampleSet, "_pixels", _Pixels(watch), create=True))
        yield


class _Pixels:
    """Stands before the images of every example set and notices the method's own code."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __get__(self, examples: ExampleSet, owner: type) -> Any:  # noqa: ANN401
        if self._watch.is_own(1):
            self._watch.uncounted.append("`_pixels`")
        return vars(examples)["_pixels"]

    def __set__(self, examples: ExampleSet, pixels: object) -> None:
        vars(examples)["_pixels"] = pixels


class _Draws(TorchFunctionMode):
    """Notices which generator the method's own code draws from."""

    def __init__(self, watch: Watch, rng: torch.Generator) -> None:
        super().__init__()
        self._watch, self._rng = watch, rng

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        options = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in RANDOM and self._watch.is_own(1):
            generator = options.get("generator")
            if generator is None:
                self._watch.draws.append(f"calls `{name}` without `generator=task.rng`")
            elif generator is not self._rng:
                self._watch.generators.add(generator.initial_seed())
        return func(*args, **options)
