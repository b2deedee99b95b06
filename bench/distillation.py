"""Teachers, and how far a student's outputs are from theirs."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def frozen_copy(model: nn.Module) -> nn.Module:
    """A deep copy in eval mode that takes no gradients; it shares no tensor with the model."""
    return deepcopy(model).eval().requires_grad_(requires_grad=False)


def softened_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of softmax(logits / T), mean over the examples.

    It is a sum over classes; `torch.nn.functional.kl_div` by itself takes the mean over classes
    too, and is smaller by their number.

    Args:
        student: `(N, C)` float logits; gradients reach them.
        teacher: `(N, C)` float logits; no gradients reach these.
        temperature: T > 0.

    Returns:
        Scalar in nats.

    Source: Hinton, Vinyals, Dean, 2015, https://arxiv.org/abs/1503.02531, section 2.
    """
    target = F.log_softmax(teacher.detach() / temperature, 1)
    softened = F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(softened, target, reduction="batchmean", log_target=True)
