"""Boundary expanding: give the forget set a class of its own, then take that class away.

Source: Chen, Gao, Liu, Peng, Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via
    Shifting the Decision Boundary", CVPR 2023, https://arxiv.org/abs/2303.11570.
Reference code: https://github.com/TY-LEE-KR/Boundary-Unlearning-Code (read for its facts; none
    used).
Differences: the new row of the classifier is drawn as PyTorch draws one. SGD has Nesterov momentum
    and the recipe's weight decay.
Norms: BatchNorm is in eval mode, for batches of one class would destroy its running statistics.
Cost: `epochs` passes over the forget set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import DeclinedError, Range, Unlearner

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..bench import UnlearningTask


class BoundaryExpand(Unlearner):
    """Train the forget set on an additional output, and delete that.

    Attributes:
        lr: Step size; nothing protects the retain set but a small one.
        epochs: Passes over the forget set.
    """

    name: ClassVar[str] = "boundary-expand"
    reference: ClassVar[str] = "Chen et al., CVPR 2023, arXiv 2303.11570"
    needs: ClassVar = frozenset({"forget", "gradients"})
    known_failures: ClassVar = {
        "forgets": "the published step size is for many more steps than a few images give"
    }

    lr: Annotated[float, Field(gt=0), Range(1e-6, 1e-3, log=True)] = 1e-5
    epochs: Annotated[int, Field(ge=1), Range(1, 20)] = 10

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Widen the classifier, train, and cut it back."""
        import torch

        heads = [layer.module for layer in task.layers(model) if layer.is_head]
        if len(heads) != 1 or heads[0].weight.shape[0] != task.num_classes:
            raise DeclinedError("the classifier is not one layer, so no output can be added to it.")
        widen(heads[0], task.rng)
        optimizer = task.optimizer(model, lr=self.lr)
        new = torch.full((task.forget_size,), task.num_classes)
        examples = task.forget.relabelled(new)
        task.fit(model, examples, optimizer, epochs=self.epochs, batch_norm="eval")
        narrow(heads[0])
        return model


def widen(head: nn.Conv2d | nn.Linear, rng: torch.Generator) -> None:
    """Add an output: the same uniform draw for weights and bias as in a new layer."""
    import torch
    from torch import nn

    bound = head.weight[0].numel() ** -0.5
    for name, tensor in list(head.named_parameters()):
        row = torch.empty(1, *tensor.shape[1:]).uniform_(-bound, bound, generator=rng)
        setattr(head, name, nn.Parameter(torch.cat([tensor.detach(), row.to(tensor)])))


def narrow(head: nn.Conv2d | nn.Linear) -> None:
    """Take the last output away."""
    from torch import nn

    for name, tensor in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(tensor.detach()[:-1].clone()))
