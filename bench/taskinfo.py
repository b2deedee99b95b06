"""The facts of a task that need no model and no image to be known."""

from __future__ import annotations

from dataclasses import dataclass

from .modelspec import ModelSpec
from .recipe import Recipe


@dataclass(kw_only=True, eq=False)
class TaskInfo:
    """What can be told of a task before anything is trained.

    Attributes:
        model_spec: Architecture of the original.
        recipe: How the original was trained.
        forget_classes: The classes to forget, if the forget set is whole classes; else empty.
        forget_size: Number of examples in the forget set; 0 in `prepare`.
        retain_size: Number of examples in the retain set.
        validation_size: Number of examples held out for validation.
        num_classes: Number of outputs of the model.
        image_shape: Channels, height, width.
    """

    model_spec: ModelSpec
    recipe: Recipe
    forget_classes: tuple[int, ...]
    forget_size: int
    retain_size: int
    validation_size: int
    num_classes: int
    image_shape: tuple[int, int, int]
