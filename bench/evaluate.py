"""Outputs of a model, in eval mode and float32, without gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .batches import ExampleSet
from .errors import DivergedError, InputError

BATCH = 512
BATCH_VALUES = BATCH * 3 * 64 * 64  # of larger images fewer are passed at once, to bound memory


class Outputs(NamedTuple):
    """What a model says of some examples, and what is true.

    Attributes:
        logits: `(N, C)` float32.
        labels: `(N,)` int64.
    """

    logits: Tensor
    labels: Tensor

    @property
    def hits(self) -> Tensor:
        """`(N,)` float64, 1 where the largest logit is the label's."""
        return (self.logits.argmax(1) == self.labels).cpu().double()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode inside, and back into its own mode after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def logits(model: nn.Module, examples: ExampleSet, *, mirrored: bool = False) -> Tensor:
    """Logits of every example in order.

    Args:
        model: Left in the mode in which it came, module by module.
        examples: N examples; served with the evaluation transform.
        mirrored: Turn every image left to right.

    Returns:
        `(N, C)` float32 logits, not softmaxed, on the examples' device.

    Raises:
        DivergedError: If an output is not finite.
    """
    off = torch.autocast(examples.ids.device.type, enabled=False)
    with in_eval_mode(model), torch.no_grad(), off:
        parts = [
            model(batch.images.flip(-1) if mirrored else batch.images).float()
            for batch in examples.batches(pass_size(examples))
        ]
    out = torch.cat(parts) if parts else torch.zeros(0, 1, device=examples.ids.device)
    if not bool(torch.isfinite(out).all()):
        raise DivergedError(f"the model's outputs on the {examples.role} set are not finite.")
    return out


def pass_size(examples: ExampleSet, most: int = BATCH) -> int:
    """How many images to pass at once: `most`, or fewer where they are larger than 3x64x64."""
    return max(1, min(most, BATCH_VALUES // math.prod(examples.image_shape)))


def accuracy(model: nn.Module, examples: ExampleSet) -> float:
    """Share of the examples whose largest logit is the label's; NaN-free, in [0, 1].

    Raises:
        DivergedError: If an output is not finite.
        InputError: If there are no examples.
    """
    if not len(examples):
        raise InputError(f"the {examples.role} set is empty: its accuracy is not defined.")
    hits = logits(model, examples).argmax(1) == examples.labels
    return float(hits.cpu().double().mean())


def outputs_on(model: nn.Module, sets: Mapping[str, ExampleSet]) -> dict[str, Outputs]:
    """Outputs on every set that is not empty, by its role.

    Raises:
        DivergedError: If an output is not finite.
    """
    return {
        role: Outputs(logits(model, examples), examples.labels)
        for role, examples in sets.items()
        if len(examples)
    }
