"""Watches layers of a network while examples pass through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from .batches import ExampleSet
from .evaluate import in_eval_mode, pass_size

Watch = Callable[[Tensor], None]


def observe(
    model: nn.Module,
    examples: ExampleSet,
    *,
    inputs: Mapping[nn.Module, Watch] | None = None,
    outputs: Mapping[nn.Module, Watch] | None = None,
    augmented: bool = False,
) -> None:
    """Pass all examples through in eval mode, without gradients, and show what layers see.

    Args:
        model: Left as it came.
        examples: Served once, in order, with the evaluation transform.
        inputs: What to call with the first input of a module, by module.
        outputs: What to call with the output of a module, by module. What is needed later must
            be copied or reduced in the call: the next layer may work in place.
        augmented: Serve the examples in random order with the training transform instead.
    """
    with ExitStack() as stack:
        for module, watch in (inputs or {}).items():
            handle = module.register_forward_pre_hook(lambda _, x, watch=watch: watch(x[0]))
            stack.callback(handle.remove)
        for module, watch in (outputs or {}).items():
            handle = module.register_forward_hook(lambda _, x, y, watch=watch: watch(y))
            stack.callback(handle.remove)
        stack.enter_context(in_eval_mode(model))
        stack.enter_context(torch.no_grad())
        size = pass_size(examples, examples.batch_size)
        for batch in examples.batches(size, training=augmented):
            model(batch.images)
