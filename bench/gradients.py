"""Gradients of a loss over a set of examples: their sum, and means of squares or magnitudes.

Nothing is trained: the model runs in eval mode, and neither its parameters nor their `grad` change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from .batches import Batch, ExampleSet
from .errors import InputError
from .evaluate import in_eval_mode, pass_size
from .training import Loss

NamedTensors = dict[str, Tensor]
Each = Literal["batch", "example"]
Moment = Literal["square", "magnitude"]
AT_ONCE = 2**27  # numbers that the gradients of several examples may have at once


def gradient_sum(
    model: nn.Module, examples: ExampleSet, loss: Loss, *, augmented: bool = False
) -> NamedTensors:
    """Sum of the gradients of all examples.

    Args:
        model: Left as it came.
        examples: Served once.
        loss: Takes model and batch, returns the mean over the batch.
        augmented: Serve the examples in random order with the training transform.

    Returns:
        By name of a trainable parameter, the gradient of the sum of the examples' losses, in the
        parameter's shape and dtype.

    Raises:
        InputError: If there are no examples.
    """
    check_some(examples)
    total = zeros_like_parameters(model)
    size = pass_size(examples, examples.batch_size)
    with in_eval_mode(model):
        for batch in examples.batches(size, training=augmented):
            for name, gradient in batch_gradient(model, batch, loss).items():
                total[name].add_(gradient, alpha=len(batch))
    return total


def gradient_moment(
    model: nn.Module,
    examples: ExampleSet,
    loss: Loss,
    *,
    moment: Moment = "square",
    each: Each = "example",
    batch_size: int | None = None,
    augmented: bool = False,
) -> NamedTensors:
    """Mean of the squares, or of the magnitudes, of gradients.

    With squares of every example's gradient of the cross-entropy it is the diagonal of the
    empirical Fisher information. With those of batches it depends on how they are cut: it falls as
    batches grow. Batches are then drawn at random, for data often lie in the order of the classes.

    Args:
        model: Left as it came.
        examples: Served once.
        loss: Takes model and batch, returns the mean over the batch.
        moment: What to take of a gradient before the mean.
        each: Whether a gradient is that of one example, or of the mean loss of a batch.
        batch_size: Examples a batch; default is the recipe's. Of no matter for single examples.
        augmented: Serve the examples with the training transform.

    Returns:
        By name of a trainable parameter, in its shape and dtype.

    Raises:
        InputError: If there are no examples.
    """
    check_some(examples)
    total = zeros_like_parameters(model)
    count = 0
    for stack in gradients(
        model, examples, loss, each=each, batch_size=batch_size, augmented=augmented
    ):
        for name, some in stack.items():
            total[name] += (some.square() if moment == "square" else some.abs()).sum(0)
        count += len(next(iter(stack.values())))
    return {name: tensor / count for name, tensor in total.items()}


def gradients(
    model: nn.Module,
    examples: ExampleSet,
    loss: Loss,
    *,
    each: Each = "example",
    batch_size: int | None = None,
    augmented: bool = False,
) -> Iterator[NamedTensors]:
    """One gradient for every example, in order, or for every batch of a random order.

    Those of examples are computed together where the network allows it (`torch.func.vmap`), as
    many at once as memory should bear, and one by one where it does not.

    Yields:
        By name of a trainable parameter, `(n, *shape)` gradients; for batches, n is 1.
    """
    with in_eval_mode(model):
        if each == "batch":
            drawn = examples if augmented else examples.sample(len(examples))
            for batch in drawn.batches(batch_size, training=augmented):
                one = batch_gradient(model, batch, loss)
                yield {name: gradient[None] for name, gradient in one.items()}
            return
        numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
        size = min(pass_size(examples, examples.batch_size), AT_ONCE // max(1, numbers))
        together = True
        for batch in examples.batches(max(1, size), training=augmented):
            if together:
                try:
                    stack = _gradients_together(model, batch, loss)
                except (RuntimeError, NotImplementedError):
                    together = False  # something in the network knows no vmap
            if not together:
                stack = _gradients_one_by_one(model, batch, loss)
            yield stack


def batch_gradient(model: nn.Module, batch: Batch, loss: Loss) -> NamedTensors:
    """Gradient of the loss of a batch by every trainable parameter, zero where it has none."""
    parameters = trainable(model)
    found = torch.autograd.grad(
        loss(model, batch), list(parameters.values()), materialize_grads=True
    )
    return dict(zip(parameters, found, strict=True))


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that take gradients, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def zeros_like_parameters(model: nn.Module) -> NamedTensors:
    """Zeros by the name of every trainable parameter."""
    return {name: torch.zeros_like(p.detach()) for name, p in trainable(model).items()}


def check_some(examples: ExampleSet) -> None:
    """Refuse a set without examples.

    Raises:
        InputError: Naming its role.
    """
    if not len(examples):
        raise InputError(f"the {examples.role} set is empty.")


class _LossOf(nn.Module):
    """A loss as a module, so that parameters can be put in its model's place."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, images: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        return self.loss(self.model, Batch(images, labels, ids))


def _gradients_together(model: nn.Module, batch: Batch, loss: Loss) -> NamedTensors:
    """The gradients of the examples of a batch, by one call."""
    module = _LossOf(model, loss)
    parameters = {f"model.{name}": p.detach() for name, p in trainable(model).items()}

    def loss_of_one(parameters: NamedTensors, *example: Tensor) -> Tensor:
        value: Tensor = functional_call(module, parameters, tuple(part[None] for part in example))
        return value

    each = vmap(grad(loss_of_one), in_dims=(None, 0, 0, 0), randomness="different")
    with sdpa_kernel(SDPBackend.MATH):  # the fused kinds of attention know no vmap
        found = each(parameters, batch.images, batch.labels, batch.ids)
    return {name.removeprefix("model."): gradient for name, gradient in found.items()}


def _gradients_one_by_one(model: nn.Module, batch: Batch, loss: Loss) -> NamedTensors:
    """The gradients of the examples of a batch, one call each."""
    found = []
    for place in range(len(batch)):
        only = slice(place, place + 1)
        one = Batch(batch.images[only], batch.labels[only], batch.ids[only])
        found.append(batch_gradient(model, one, loss))
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}
