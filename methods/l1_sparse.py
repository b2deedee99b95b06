"""l1-sparse: finetune with an l1 penalty that fades, so that weights of the forget set go to zero.

Source: Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning",
    NeurIPS 2023, https://arxiv.org/abs/2304.04934, the sparsity-aware unlearning of its section 4.
Reference code: https://github.com/OPTML-Group/Unlearn-Sparse (read for its facts; none used).
Differences: the number of epochs without penalty at the end is a share of all, so that both can be
    searched. Norms and biases are penalised too, as in that code (`penalised=weights` leaves them
    out: all parameters of one dimension). The penalty is a sum, so what a weight of it does depends
    on the number of parameters. The paper's other way, to prune and then unlearn, is not here. SGD
    has Nesterov momentum and the recipe's weight decay.
Norms: BatchNorm in train mode.
Cost: `epochs` passes over the retain set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner, Unsearched

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Batch, UnlearningTask


class L1Sparse(Unlearner):
    """Minimise CE(retain) + alpha_t ||theta||_1 with alpha_t falling to zero.

    Attributes:
        lr: Step size.
        epochs: E, passes over the retain set.
        alpha: Weight of the penalty in the first epoch.
        penalised_frac: Share of the epochs with a penalty; the last ones are without.
        penalised: `all` parameters, or `weights` of convolutions and linear layers and the like.
    """

    name: ClassVar[str] = "l1-sparse"
    reference: ClassVar[str] = "Jia et al., NeurIPS 2023"
    needs: ClassVar = frozenset({"retain", "gradients"})

    lr: Annotated[float, Field(gt=0), Range(1e-3, 1e-1, log=True)] = 0.01
    epochs: Annotated[int, Field(ge=1), Range(1, 10)] = 10
    alpha: Annotated[float, Field(ge=0), Range(1e-5, 1e-1, log=True)] = 1e-4
    penalised_frac: Annotated[float, Field(ge=0, le=1), Range(0.1, 1)] = 1.0
    penalised: Annotated[Literal["all", "weights"], Unsearched()] = "all"

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Go on training on the retain set, with the penalty of the epoch."""
        from torch.nn import functional as F  # noqa: N812

        optimizer = task.optimizer(model, lr=self.lr)
        for epoch in range(self.epochs):
            weight = self.weight(epoch)

            def loss(model: nn.Module, batch: Batch, weight: float = weight) -> Tensor:
                fitting = F.cross_entropy(model(batch.images), batch.labels)
                return fitting + weight * self.norm(model) if weight else fitting

            task.fit(model, task.retain, optimizer, loss=loss)
        return model

    def weight(self, epoch: int) -> float:
        """alpha_t = alpha (1 - t / (E - E_no)), and 0 in the last E_no epochs."""
        penalised = round(self.penalised_frac * self.epochs)  # E - E_no
        return self.alpha * (1 - epoch / penalised) if epoch < penalised else 0.0

    def norm(self, model: nn.Module) -> Tensor:
        """||theta||_1, a sum of magnitudes."""
        import torch

        least = 1 if self.penalised == "all" else 2
        parts = [p.abs().sum() for p in model.parameters() if p.dim() >= least]
        return torch.stack(parts).sum()
