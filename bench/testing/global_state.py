"""The state of a process that a method must leave as it finds it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch


class _Setting(NamedTuple):
    get: Callable[[], Any]
    put: Callable[[Any], Any]


def _put_benchmark(value: bool) -> None:
    torch.backends.cudnn.benchmark = value


def _put_deterministic(value: bool) -> None:
    torch.backends.cudnn.deterministic = value


SETTINGS: dict[str, _Setting] = {
    "the gradient mode": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "the number of threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    "the default dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),
    "whether algorithms are deterministic": _Setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "the precision of matrix products": _Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "anomaly detection": _Setting(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "autocast": _Setting(
        lambda: torch.is_autocast_enabled("cpu"),
        lambda value: torch.set_autocast_enabled("cpu", value),
    ),
    "cuDNN's benchmark mode": _Setting(lambda: torch.backends.cudnn.benchmark, _put_benchmark),
    "cuDNN's deterministic mode": _Setting(
        lambda: torch.backends.cudnn.deterministic, _put_deterministic
    ),
    "the working directory": _Setting(os.getcwd, os.chdir),
}


def settings() -> dict[str, Any]:
    """Every setting by what it is called."""
    return {name: setting.get() for name, setting in SETTINGS.items()}


@contextmanager
def kept_state() -> Iterator[None]:
    """Put settings and random state back at the end."""
    before, numpy_state, python_state = settings(), np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for name, value in before.items():
            if SETTINGS[name].get() != value:
                SETTINGS[name].put(value)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


class Draws(NamedTuple):
    """State of the global generators, as far as a method has no business to move it.

    Attributes:
        seed: Seed of torch's; what library code such as dropout draws from it is no matter.
        numpy: State of NumPy's.
        python: State of Python's.
    """

    seed: int
    numpy: tuple[Any, ...]
    python: tuple[Any, ...]

    @classmethod
    def now(cls) -> Draws:
        """The state as it is."""
        kind, keys, *rest = np.random.get_state(legacy=True)
        return cls(
            torch.initial_seed(), (kind, np.asarray(keys).tobytes(), *rest), random.getstate()
        )

    def moved(self) -> Iterator[str]:
        """What was done since."""
        now = Draws.now()
        if now.seed != self.seed:
            yield "seeds torch's global generator"
        if now.numpy != self.numpy:
            yield "draws from NumPy's global generator"
        if now.python != self.python:
            yield "draws from Python's global generator"
