"""unlearnbench: a benchmark of machine-unlearning methods for image classifiers.

This module is the public door. Methods and datasets, ours and other people's, import from here.
Nothing imported at the top loads torch, so that names and parameters can be listed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .dataset import Dataset, ImageData
from .errors import (
    DataError,
    DeclinedError,
    DivergedError,
    InputError,
    PluginError,
    StoreError,
    UndeclaredNeedError,
    UnknownNameError,
    UnlearnBenchError,
)
from .ranges import Range
from .record import Record, read_records
from .registry import DATASETS, METHODS
from .taskinfo import TaskInfo
from .unlearner import Unlearner

if TYPE_CHECKING:
    from .batches import Batch, ExampleSet
    from .input_moments import second_moments
    from .layers import Layer
    from .patches import set_weight_matrix, weight_matrix
    from .scaled_projection import Energy
    from .task import UnlearningTask
    from .weight_coverage import uncovered_weights

__all__ = [
    "DATASETS",
    "METHODS",
    "Batch",
    "DataError",
    "Dataset",
    "DeclinedError",
    "DivergedError",
    "Energy",
    "ExampleSet",
    "ImageData",
    "InputError",
    "Layer",
    "PluginError",
    "Range",
    "Record",
    "StoreError",
    "TaskInfo",
    "UndeclaredNeedError",
    "UnknownNameError",
    "UnlearnBenchError",
    "Unlearner",
    "UnlearningTask",
    "read_records",
    "second_moments",
    "set_weight_matrix",
    "uncovered_weights",
    "weight_matrix",
]

_NEEDS_TORCH = {
    "Batch": "batches",
    "Energy": "scaled_projection",
    "ExampleSet": "batches",
    "Layer": "layers",
    "UnlearningTask": "task",
    "second_moments": "input_moments",
    "set_weight_matrix": "patches",
    "uncovered_weights": "weight_coverage",
    "weight_matrix": "patches",
}


def __getattr__(name: str) -> object:
    """Import the names that need torch when they are first asked for."""
    if name in _NEEDS_TORCH:
        from importlib import import_module

        return getattr(import_module(f".{_NEEDS_TORCH[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
