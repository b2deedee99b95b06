"""CF-k: finetune the last k layers on the retain set; the others stay as they are.

Source: Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru, "Towards Adversarial Evaluations for Inexact
    Machine Unlearning", 2022, https://arxiv.org/abs/2201.06640.
Reference code: https://github.com/shash42/Evaluating-Inexact-Unlearning (read for its facts; none
    used).
Differences: k counts convolutions and linear layers from the output backwards as they run; norms
    behind the first of them belong to the trained part. By default it is half of them, as the
    authors' 50 of 110, or the last stage or the classifier (`part`). The step size is constant
    (theirs restarts along a cosine, over 30 epochs). SGD has Nesterov momentum and the recipe's
    weight decay.
Norms: BatchNorm of the frozen part is in eval mode, so that its statistics do not drift; that of
    the trained part is in train mode.
Cost: `epochs` passes over the retain set, with a backward pass through the last layers only.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from torch import nn

    from ..bench import TaskInfo, UnlearningTask


class CfK(Unlearner):
    """Freeze all but the last k layers and finetune those on the retain set.

    Attributes:
        lr: Step size; None for the peak of the recipe.
        epochs: Passes over the retain set; None for as many as the original's.
        part: What is trained: the second `half` of the layers, the last `stage` with the head, or
            the `head`.
        k: Number of layers that are trained, in place of `part`.
    """

    name: ClassVar[str] = "cf-k"
    reference: ClassVar[str] = "Goel et al., 2022, arXiv 2201.06640"
    needs: ClassVar = frozenset({"retain", "gradients"})

    lr: Annotated[float, Field(gt=0), Range(1e-3, 1e-1, log=True)] | None = 0.01
    epochs: Annotated[int, Field(ge=1), Range(1, 30, log=True)] | None = 10
    part: Literal["half", "stage", "head"] = "half"
    k: Annotated[int, Field(ge=1)] | None = None

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Finetune the last layers."""
        with task.training_only(model, self.last(model, task)):
            optimizer = task.optimizer(model, lr=self.lr or task.recipe.settings.lr)
            task.fit(
                model, task.retain, optimizer, epochs=self.epochs or task.recipe.settings.epochs
            )
        return model

    def last(self, model: nn.Module, task: UnlearningTask) -> list[nn.Module]:
        """The last k layers and what runs after them."""
        from ..bench import stages

        names = [layer.name for layer in task.layers(model)]
        k = self.k or 1
        if self.k is None and self.part == "half":
            k = ceil(len(names) / 2)
        elif self.k is None and self.part == "stage":
            inside = set(stages(model, 1))
            k = len(names) - next((i for i, n in enumerate(names) if n in inside), len(names) - 1)
        task.report(k=min(k, len(names)))
        return task.last_modules(model, k)

    def unsupported_reasons(self, task: TaskInfo) -> list[str]:
        """Add: an original that was not trained here has no number of epochs to take over."""
        reasons = super().unsupported_reasons(task)
        if self.epochs is None and not task.recipe.settings.epochs:
            reasons.append("trains as long as the original, which was not trained; give `epochs`")
        return reasons
