"""EU-k: train the last k layers from scratch on the retain set; the others stay as they are.

Source: Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru, "Towards Adversarial Evaluations for Inexact
    Machine Unlearning", 2022, https://arxiv.org/abs/2201.06640.
Reference code: https://github.com/shash42/Evaluating-Inexact-Unlearning (read for its facts; none
    used).
Differences: those of `cf-k` in what the last layers are. They begin with the architecture's own
    initialisation, drawn anew; of an original that started from weights, with those weights. They
    are trained with the original's schedule, step size and epochs unless given (the authors
    restart a cosine, over 62 epochs).
Norms: those of `cf-k`; statistics of the trained part begin anew with its weights.
Cost: as many passes over the retain set as the original's training, with a backward pass through
    the last layers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import Range
from .cf_k import CfK

if TYPE_CHECKING:
    from torch import nn

    from ..bench import UnlearningTask


class EuK(CfK):
    """Reinitialise the last k layers and train them on the retain set.

    Attributes:
        lr: Peak step size; None for that of the recipe.
        epochs: Passes over the retain set; None for as many as the original's.
        part: What is trained: the second `half` of the layers, the last `stage` with the head, or
            the `head`.
        k: Number of layers that are trained, in place of `part`.
    """

    name: ClassVar[str] = "eu-k"

    lr: Annotated[float, Field(gt=0), Range(1e-3, 1e-1, log=True)] | None = None
    epochs: Annotated[int, Field(ge=1), Range(1, 30, log=True)] | None = None

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Train new last layers as the original was trained."""
        settings = task.recipe.settings
        last = self.last(model, task)
        task.reinitialise(model, last)
        with task.training_only(model, last):
            task.fit(
                model,
                task.retain,
                task.optimizer(model, lr=self.lr or settings.lr),
                epochs=self.epochs or settings.epochs,
                schedule=settings.schedule,
                warmup_frac=settings.warmup_frac,
                clip_norm=settings.clip_norm,
            )
        return model
