"""NegGrad+: descend on the retain set and ascend on the forget set in the same step.

Source: Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning",
    NeurIPS 2023, https://arxiv.org/abs/2302.09880 (as a baseline).
Reference code: none.
Differences: the forget batches are shuffled and augmented anew in every pass, not repeated from a
    cache. Gradients are clipped. The loss is that of the paper, unbounded below.
Norms: BatchNorm sees both batches in train mode, as in public implementations. Half of what its
    running statistics see is then the forget set, and for a whole class that alone damages them,
    whatever the loss: part of what this method "forgets" is that. `forget_batch_norm=eval` keeps
    it out.
Cost: `epochs` passes over the retain set, each step with a forget batch beside it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Batch, UnlearningTask


class NegGradPlus(Unlearner):
    """Minimise beta CE(retain) - (1 - beta) CE(forget).

    Attributes:
        lr: Step size.
        epochs: Passes over the retain set.
        forget_weight: 1 - beta, the weight of the ascent; searched on a log scale, since the
            result is very sensitive to it.
        forget_batch_size: Forget examples a step; None for the recipe's batch size.
        clip_norm: Largest norm of the gradient of a step.
        forget_batch_norm: Mode of BatchNorm in the pass over the forget batch.
    """

    name: ClassVar[str] = "neggrad-plus"
    reference: ClassVar[str] = "Kurmanji et al., NeurIPS 2023 (baseline)"
    needs: ClassVar = frozenset({"forget", "retain", "gradients"})

    lr: Annotated[float, Field(gt=0), Range(1e-4, 1e-1, log=True)] = 0.01
    epochs: Annotated[int, Field(ge=1), Range(1, 10)] = 5
    forget_weight: Annotated[float, Field(ge=0, le=1), Range(1e-4, 5e-2, log=True)] = 0.01
    forget_batch_size: Annotated[int, Field(ge=1)] | None = None
    clip_norm: Annotated[float, Field(gt=0), Range(0.1, 10, log=True)] = 1.0
    forget_batch_norm: Literal["train", "eval"] = "train"

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Take joint steps; the forget set is cycled beside the retain set."""
        from torch.nn import functional as F  # noqa: N812

        forget = task.forget.endless(self.forget_batch_size)

        def joint(model: nn.Module, batch: Batch) -> Tensor:
            other = next(forget)
            descent = F.cross_entropy(model(batch.images), batch.labels)
            # BatchNorm cannot train on a lone example
            keep = self.forget_batch_norm == "eval" or len(other) == 1
            with task.eval_mode(model) if keep else nullcontext():
                ascent = F.cross_entropy(model(other.images), other.labels)
            return (1 - self.forget_weight) * descent - self.forget_weight * ascent

        optimizer = task.optimizer(model, lr=self.lr)
        task.fit(
            model, task.retain, optimizer, epochs=self.epochs, loss=joint, clip_norm=self.clip_norm
        )
        return model
