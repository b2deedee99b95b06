"""BatchNorm where training would harm it, and statistics for a network that has none yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .batches import Batch
from .errors import InputError
from .evaluate import in_eval_mode
from .mixture import Examples
from .training import Loss


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """All BatchNorm layers that keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


@contextmanager
def norms_in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Use running statistics inside, and do not change them; the rest keeps its mode."""
    training = [norm for norm in batch_norms(model) if norm.training]
    for norm in training:
        norm.eval()
    try:
        yield
    finally:
        for norm in training:
            norm.train()


def bearing_lone_examples(loss: Loss) -> Loss:
    """The loss, with BatchNorm in eval mode for batches of one: it cannot train on those."""

    def careful(model: nn.Module, batch: Batch) -> Tensor:
        if len(batch) > 1:
            return loss(model, batch)
        with norms_in_eval_mode(model):
            return loss(model, batch)

    return careful


def measure_batch_norm(model: nn.Module, examples: Examples) -> None:
    """Give BatchNorm the statistics of some examples in place of those that it has.

    Each running statistic becomes the mean over the batches of one pass, under the training
    transform; all else in the network is in eval mode, and no weight changes.

    Args:
        model: Its running statistics are replaced; its modes are left as they are.
        examples: At least two.

    Raises:
        InputError: If there are fewer than two examples.
    """
    norms = batch_norms(model)
    if len(examples) < 2:
        raise InputError(f"BatchNorm needs at least two examples to measure; got {len(examples)}.")
    momenta = [norm.momentum for norm in norms]
    with in_eval_mode(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # an average over batches in which all count the same
            norm.train()
        try:
            for batch in examples.batches(training=True):
                model(batch.images)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
