"""NegGrad: gradient ascent on the forget set, bounded so that it ends.

Source: Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020,
    https://arxiv.org/abs/1911.04933 (as a baseline).
Reference code: none.
Differences: ascent has no minimum, so it is bounded three ways. The loss of an example counts up to
    `loss_cap * log C` only, beyond which it is as wrong as wanted; gradients are clipped; and it
    stops once forget accuracy is down to what a retrained model could have: zero for whole classes,
    the original's accuracy on validation data for other forget sets. BatchNorm stays in eval mode,
    because batches of one class would destroy its running statistics.
Cost: up to `epochs` passes over the forget set, forward and backward, and as many forward to
    check the stop rule.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Batch, TaskInfo, UnlearningTask


class NegGrad(Unlearner):
    """Ascend the loss of the forget set until it is forgotten, bounded.

    Attributes:
        lr: Step size.
        epochs: Largest number of passes over the forget set.
        clip_norm: Largest norm of the gradient of a step.
        loss_cap: Cross-entropy, in units of log C, at which an example stops contributing.
    """

    name: ClassVar[str] = "neggrad"
    reference: ClassVar[str] = "baseline; Golatkar et al., CVPR 2020"
    needs: ClassVar = frozenset({"forget", "validation", "gradients"})

    lr: Annotated[float, Field(gt=0, le=1), Range(1e-5, 1e-1, log=True)] = 1e-3
    epochs: Annotated[int, Field(ge=1), Range(1, 20)] = 10
    clip_norm: Annotated[float, Field(gt=0), Range(0.1, 10, log=True)] = 1.0
    loss_cap: Annotated[float, Field(gt=0), Range(0.5, 4)] = 2.0

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Maximise min(CE, cap) on the forget set, an epoch at a time, until the stop rule."""
        target = 0.0 if task.forget_classes else task.accuracy(model, task.validation)
        optimizer = task.optimizer(model, lr=self.lr)
        done = 0
        while done < self.epochs and task.accuracy(model, task.forget) > target:
            task.fit(
                model,
                task.forget,
                optimizer,
                loss=self.loss(task.num_classes),
                batch_norm="eval",
                clip_norm=self.clip_norm,
            )
            done += 1
        task.report(epochs_done=done)
        return model

    def loss(self, num_classes: int) -> Callable[[nn.Module, Batch], Tensor]:
        """Build the loss -mean(min(CE, loss_cap * log C))."""
        from torch.nn import functional as F  # noqa: N812

        cap = self.loss_cap * log(num_classes)

        def negated(model: nn.Module, batch: Batch) -> Tensor:
            each = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
            return -each.clamp(max=cap).mean()

        return negated

    def unsupported_reasons(self, task: TaskInfo) -> list[str]:
        """Add: other forget sets need validation data for the stop rule."""
        reasons = super().unsupported_reasons(task)
        if not task.forget_classes and not task.validation_size:
            reasons.append("stops by validation accuracy, and no validation set is held out")
        return reasons
