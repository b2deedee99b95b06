"""Finetune: go on training on the retain set and rely on forgetting by neglect.

Source: the usual first baseline, e.g. Golatkar, Achille, Soatto, "Eternal Sunshine of the
    Spotless Net", CVPR 2020, https://arxiv.org/abs/1911.04933.
Reference code: none.
Differences: none known; optimiser, weight decay and augmentation are the recipe's.
Cost: `epochs` passes over the retain set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from torch import nn

    from ..bench import UnlearningTask


class Finetune(Unlearner):
    """Continue training on the retain set only.

    Attributes:
        lr: Step size; after unlearning epochs, what the result depends on most.
        epochs: Passes over the retain set.
        schedule: `constant`, or `cosine` to zero.
    """

    name: ClassVar[str] = "finetune"
    reference: ClassVar[str] = "baseline; Golatkar et al., CVPR 2020"
    needs: ClassVar = frozenset({"retain", "gradients"})

    lr: Annotated[float, Field(gt=0), Range(1e-3, 1e-1, log=True)] = 0.01
    epochs: Annotated[int, Field(ge=1), Range(1, 10)] = 5
    schedule: Literal["constant", "cosine"] = "constant"

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Minimise the cross-entropy of the retain set, starting from the original."""
        optimizer = task.optimizer(model, lr=self.lr)
        task.fit(model, task.retain, optimizer, epochs=self.epochs, schedule=self.schedule)
        return model
