"""Mean and variance of channels for every class, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningMoments:
    """Mean and variance for every class, in one pass and without keeping values.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979, equation 2.1.

    Args:
        num_classes: C.
        channels: K.
        device: Where the values are.

    Attributes:
        count: `(C,)` values so far.
        mean: `(C, K)` mean; 0 for a class without values.
    """

    def __init__(self, num_classes: int, channels: int, device: torch.device) -> None:
        # float64 is not to be had on mps
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.count = torch.zeros(num_classes, dtype=dtype, device=device)
        self.mean = torch.zeros(num_classes, channels, dtype=dtype, device=device)
        self._squares = torch.zeros_like(self.mean)

    @property
    def var(self) -> Tensor:
        """`(C, K)` variance, divided by the count."""
        return self._squares / self.count.clamp(min=1)[:, None]

    def update(self, values: Tensor, labels: Tensor) -> None:
        """Add `(N, K)` values with their `(N,)` labels."""
        values = values.to(self.mean.dtype)
        count = torch.zeros_like(self.count).index_add_(
            0, labels, torch.ones_like(labels, dtype=self.count.dtype)
        )
        mean = torch.zeros_like(self.mean).index_add_(0, labels, values)
        mean /= count.clamp(min=1)[:, None]
        squares = torch.zeros_like(self.mean).index_add_(
            0, labels, (values - mean[labels]).square()
        )
        total = self.count + count
        share = (count / total.clamp(min=1))[:, None]
        step = mean - self.mean
        self._squares += squares + step.square() * self.count[:, None] * share
        self.mean += step * share
        self.count = total
