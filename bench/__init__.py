"""unlearnbench: a benchmark of machine-unlearning methods for image classifiers.

This module is the public door. Methods and datasets, ours and other people's, import from here.
Nothing imported at the top loads torch, so that names and parameters can be listed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .callbacks import Callback
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
from .model_card import load_model
from .ranges import Range, Unsearched, When
from .record import Record, read_records
from .registry import DATASETS, METHODS
from .taskinfo import TaskInfo
from .unlearner import FineTuning, Unlearner

if TYPE_CHECKING:
    from .batch_norm import measure_batch_norm
    from .batches import Batch, ExampleSet
    from .channel_units import (
        ChannelUnit,
        damp_channels,
        find_channel_units,
        is_exact,
        restore_channels,
    )
    from .class_statistics import ClassStatistics, measure_classes
    from .distillation import frozen_copy, softened_kl
    from .input_moments import second_moments
    from .layers import Layer, stages
    from .mixture import Mixture
    from .orthogonality import chosen_convolutions, orthogonality_penalty
    from .patches import set_weight_matrix, weight_matrix
    from .scaled_projection import Energy
    from .task import UnlearningTask
    from .weight_coverage import uncovered_weights

__all__ = [
    "DATASETS",
    "METHODS",
    "Batch",
    "Callback",
    "ChannelUnit",
    "ClassStatistics",
    "DataError",
    "Dataset",
    "DeclinedError",
    "DivergedError",
    "Energy",
    "ExampleSet",
    "FineTuning",
    "ImageData",
    "InputError",
    "Layer",
    "Mixture",
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
    "Unsearched",
    "When",
    "chosen_convolutions",
    "damp_channels",
    "find_channel_units",
    "frozen_copy",
    "is_exact",
    "load_model",
    "measure_batch_norm",
    "measure_classes",
    "orthogonality_penalty",
    "read_records",
    "restore_channels",
    "second_moments",
    "set_weight_matrix",
    "softened_kl",
    "stages",
    "uncovered_weights",
    "weight_matrix",
]

_NEEDS_TORCH = {
    "Batch": "batches",
    "ChannelUnit": "channel_units",
    "ClassStatistics": "class_statistics",
    "Energy": "scaled_projection",
    "ExampleSet": "batches",
    "Layer": "layers",
    "Mixture": "mixture",
    "UnlearningTask": "task",
    "chosen_convolutions": "orthogonality",
    "damp_channels": "channel_units",
    "find_channel_units": "channel_units",
    "frozen_copy": "distillation",
    "is_exact": "channel_units",
    "measure_batch_norm": "batch_norm",
    "measure_classes": "class_statistics",
    "orthogonality_penalty": "orthogonality",
    "restore_channels": "channel_units",
    "second_moments": "input_moments",
    "set_weight_matrix": "patches",
    "softened_kl": "distillation",
    "stages": "layers",
    "uncovered_weights": "weight_coverage",
    "weight_matrix": "patches",
}


def __getattr__(name: str) -> object:
    """Import the names that need torch when they are first asked for."""
    if name in _NEEDS_TORCH:
        from importlib import import_module

        return getattr(import_module(f".{_NEEDS_TORCH[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
