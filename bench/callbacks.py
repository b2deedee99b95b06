"""What may be done between the steps of the training loop, beside a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from .batches import Batch


class Callback:
    """Watches a training or takes part in it; whatever is not overridden does nothing.

    Several are called in the order in which they were given.

    Example:
        >>> from unlearnbench.bench import Callback
        >>> class CountSteps(Callback):
        ...     steps = 0
        ...     def after_step(self, model, batch):
        ...         self.steps += 1
    """

    def epoch_begins(self, model: nn.Module, done: int) -> None:
        """Called before each epoch, when the model has been put into its mode.

        Args:
            model: The model in training.
            done: Number of epochs that are done.
        """

    def before_step(self, model: nn.Module, batch: Batch) -> None:
        """Called when the gradients of a batch are there, before they are clipped and used."""

    def after_step(self, model: nn.Module, batch: Batch) -> None:
        """Called when the step on a batch has been taken."""
