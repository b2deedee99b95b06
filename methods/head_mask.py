"""Head mask: make the classifier unable to name the forgotten classes. A control.

Source: none; every class-wise table needs it, because it reaches zero forget accuracy and full
    retain accuracy at no cost while the features still hold the class.
Reference code: none.
Differences: none.
Cost: nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..bench import DeclinedError, Unlearner

if TYPE_CHECKING:
    from torch import nn

    from ..bench import UnlearningTask

NEVER = -1e9


class HeadMask(Unlearner):
    """Zero the classifier row of the forgotten classes and set its bias to -1e9 (control)."""

    name: ClassVar[str] = "head-mask"
    reference: ClassVar[str] = "control"
    scope: ClassVar = frozenset({"class"})

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Edit the last layer; a zero row alone gives logit 0, which can still win."""
        import torch

        module = next(layer.module for layer in task.layers(model) if layer.is_head)
        classes = list(task.forget_classes)
        if module.bias is None:
            raise DeclinedError("the classifier has no bias, so no class can be masked.")
        with torch.no_grad():
            module.weight[classes] = 0
            module.bias[classes] = NEVER
        return model
