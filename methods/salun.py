"""SalUn: random labels, learned by the weights on which the forget set depends most.

Source: Fan, Liu, Zhang, Wong, Wei, Liu, "SalUn: Empowering Machine Unlearning via Gradient-based
    Weight Saliency in Both Image Classification and Generation", ICLR 2024,
    https://arxiv.org/abs/2310.12508, equations 3 to 5.
Reference code: https://github.com/OPTML-Group/Unlearn-Saliency (read for its facts; none used).
Differences: those of `random-label`, which it is on the salient weights. Entries that are not
    salient keep their bits: in public code weight decay and momentum moved them, since it only
    masked gradients. Exactly the given share is salient; ties go to the entry that comes first.
    Gradients are those of the evaluation transform. The variant with a soft threshold in place of
    the mask is not here.
Norms: as `random-label`; running statistics of BatchNorm are no weights and are not masked.
Cost: that of `random-label`, and one pass over the forget set, forward and backward.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import Range
from .random_label import RandomLabel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import UnlearningTask


class Salun(RandomLabel):
    """Minimise CE(forget, random labels) and CE(retain) over the salient weights only.

    Attributes:
        lr: Step size.
        epochs: Passes over both sets.
        order: `alternate` a forget pass and a retain pass, or serve both sets `mixed` in common
            batches.
        redraw: Draw labels anew in every epoch, and not once.
        exclude_own: Never draw the true label.
        forget_batch_norm: Mode of BatchNorm in forget passes.
        salient_frac: Share of all parameters that may move.
    """

    name: ClassVar[str] = "salun"
    reference: ClassVar[str] = "Fan et al., ICLR 2024"

    salient_frac: Annotated[float, Field(gt=0, le=1), Range(0.1, 1, log=True)] = 0.5

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Equation 5: theta_o + m (theta - theta_o), with theta as random labels would have it."""
        with task.masked(model, self.masks(model, task)):
            return super().unlearn(model, task)

    def masks(self, model: nn.Module, task: UnlearningTask) -> dict[str, Tensor]:
        """Masks m of the largest |gradient of the forget loss| of all parameters, by their name."""
        import torch

        gradients = task.gradient_sum(model, task.forget)
        sizes = torch.cat([gradient.abs().flatten() for gradient in gradients.values()])
        salient = torch.zeros_like(sizes, dtype=torch.bool)
        largest_first = sizes.argsort(descending=True, stable=True)
        salient[largest_first[: ceil(self.salient_frac * len(sizes))]] = True
        parts = torch.split(salient, [gradient.numel() for gradient in gradients.values()])
        return {
            name: part.view_as(gradient)
            for (name, gradient), part in zip(gradients.items(), parts, strict=True)
        }
