"""Parts of a network that training must leave as they are, and parts that begin anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .batches import Batch
from .callbacks import Callback
from .errors import InputError
from .evaluate import in_eval_mode


class Still(Callback):
    """Keeps modules in eval mode, so that BatchNorm statistics in them do not drift.

    Args:
        modules: With all that is in them.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)

    def epoch_begins(self, model: nn.Module, done: int) -> None:
        """Put them into eval mode."""
        for module in self.modules:
            module.eval()


class Masked(Callback):
    """Lets only some entries of the parameters move; the others keep their bits.

    A gradient that is set to zero does not do that by itself: weight decay and momentum move a
    weight without any. So the entries are put back after every step.

    Args:
        model: The network.
        masks: By parameter name, bool in the parameter's shape: which entries may move. A
            parameter without a mask may move as a whole.

    Raises:
        InputError: If a name or a shape is not a parameter's.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters())
        self.entries: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        for name, mask in masks.items():
            parameter = parameters.get(name)
            if parameter is None:
                raise InputError(f"a mask is for `{name}`, which is no parameter of the model.")
            if mask.shape != parameter.shape:
                raise InputError(
                    f"the mask of `{name}` has shape {tuple(mask.shape)}; the parameter has "
                    f"{tuple(parameter.shape)}."
                )
            self.entries.append((parameter, mask, parameter.detach().clone()))

    def before_step(self, model: nn.Module, batch: Batch) -> None:
        """Drop the gradients of what is held, so that they do not count when a norm is clipped."""
        for parameter, mask, _ in self.entries:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    def after_step(self, model: nn.Module, batch: Batch) -> None:
        """Put back what is held."""
        with torch.no_grad():
            for parameter, mask, held in self.entries:
                parameter.copy_(torch.where(mask, parameter, held))


@contextmanager
def training_only(model: nn.Module, modules: Iterable[nn.Module]) -> Iterator[Still]:
    """Let only the parameters of some modules be trained inside, and restore after.

    Args:
        model: The network.
        modules: Those that may be trained, each with what is in it.

    Yields:
        What keeps the rest in eval mode; the training loop must be given it.
    """
    free = {part for module in modules for part in module.modules()}
    chosen = {id(p) for module in free for p in module.parameters(recurse=False)}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    # a module around a free one is no frozen part: only what holds no free one is
    still = [m for m in model.modules() if not free & set(m.modules())]
    for parameter in frozen:
        parameter.requires_grad = False
    try:
        yield Still(still)
    finally:
        for parameter in frozen:
            parameter.requires_grad = True


def last_modules(model: nn.Module, image: Tensor, count: int) -> list[nn.Module]:
    """The modules that run from the `count`-th last convolution or linear layer on.

    Norms and other modules that come after that layer belong to it, whatever block they are in. A
    block is among them only if it begins there; parameters that a block holds itself, such as the
    class token of a transformer, are those of the block.

    Args:
        model: Any network.
        image: `(N, C, H, W)` float example batch on the model's device; one image is enough.
        count: Layers from the output backwards, in the order in which they run; at least 1. As
            many as there are, or more, give the whole network.

    Returns:
        Modules in running order; a module that is in another of them is not named again.
    """
    order: list[nn.Module] = []

    def before(module: nn.Module, _: tuple[Tensor, ...]) -> None:
        if module not in order:
            order.append(module)

    handles = [m.register_forward_pre_hook(before) for m in model.modules()]
    try:
        with in_eval_mode(model), torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    layers = [i for i, m in enumerate(order) if isinstance(m, (nn.Conv2d, nn.Linear))]
    if count >= len(layers):
        return [model]
    tail = order[layers[-count] :]
    inside = {part for module in tail for part in module.modules() if part is not module}
    return [module for module in tail if module not in inside]


def reinitialise(model: nn.Module, fresh: nn.Module, modules: Iterable[nn.Module]) -> None:
    """Give modules the parameters and buffers that the same modules have in a fresh model.

    That is the architecture's own initialisation, where `reset_parameters` would be the layer's.

    Args:
        model: Changed in place.
        fresh: Of the same architecture; left as it is.
        modules: Of `model`, each with what is in it.
    """
    chosen = {id(t) for module in modules for t in module.state_dict(keep_vars=True).values()}
    source = fresh.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if id(tensor) in chosen:
                tensor.copy_(source[name])
