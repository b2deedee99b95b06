"""LFSSD: selective synaptic dampening without loss function and labels.

Source: Foster, Fogarty, Schoepf, Öztireli, Brintrup, "Loss-Free Machine Unlearning", ICLR 2024 tiny
    papers, https://arxiv.org/abs/2402.19308; importances are those of Aljundi et al., "Memory Aware
    Synapses", ECCV 2018, https://arxiv.org/abs/1711.09601.
Reference code: https://github.com/if-loops/selective-synaptic-dampening (read for its facts; none
    used).
Differences: those of `ssd`, which it is with other importances.
Norms: as `ssd`.
Cost: that of `ssd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from .ssd import Ssd

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..bench import Batch


class Lfssd(Ssd):
    """Dampen weights by the magnitude of the gradient of the outputs' squared norm.

    Attributes:
        alpha: How many times as important to the forget set as to the training set a weight must
            be to be dampened.
        dampening: lambda, the factor of what remains.
        importance: Whether it is of the gradients of batches or of single examples.
        batch_size: Examples a batch; None for the recipe's batch size.
    """

    name: ClassVar[str] = "lfssd"
    reference: ClassVar[str] = "Foster et al., 2024, arXiv 2402.19308"
    known_failures: ClassVar = {}
    moment: ClassVar[Literal["square", "magnitude"]] = "magnitude"

    @property
    def loss(self) -> Callable[[nn.Module, Batch], Tensor]:
        """The squared norm of the outputs, mean over the batch."""

        def squared_norm(model: nn.Module, batch: Batch) -> Tensor:
            norms: Tensor = model(batch.images).square().sum(1)
            return norms.mean()

        return squared_norm
