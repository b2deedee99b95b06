"""Random labels in place of the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import DeclinedError


def random_labels(
    labels: Tensor, num_classes: int, rng: torch.Generator, *, exclude_own: bool = True
) -> Tensor:
    """Draw a label for every example, uniformly.

    Args:
        labels: `(N,)` int64 true labels.
        num_classes: C, at least 2 if the own class is excluded.
        rng: CPU generator.
        exclude_own: Draw from the C - 1 other classes, and not from all.

    Returns:
        `(N,)` int64, on the device of `labels`.

    Raises:
        DeclinedError: If there is no other class.
    """
    if not exclude_own:
        drawn = torch.randint(0, num_classes, labels.shape, generator=rng)
        return drawn.to(labels.device)
    if num_classes < 2:
        raise DeclinedError("draws labels of other classes, and there is only one class.")
    away = torch.randint(1, num_classes, labels.shape, generator=rng).to(labels.device)
    return (labels + away) % num_classes
