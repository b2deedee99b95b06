"""Fisher forgetting: noise on every weight, the more the less the retain set depends on it.

Source: Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net: Selective Forgetting in
    Deep Networks", CVPR 2020, https://arxiv.org/abs/1911.04933.
Reference code: https://github.com/AdityaGolatkar/SelectiveForgetting (read for its facts; none
    used).
Differences: the variance is that of the authors' code, alpha / F, with its limits and factors; the
    paper has a fourth root of 1 / F for the deviation, which is 1 / sqrt(F) for the variance. The
    information F is that of the labels that the model gives (all C of them, by their
    probability), over `samples` retain images drawn at random and not all. The classifier is found
    as the layer that gives the logits; the code takes every tensor with C rows for it.
Norms: BatchNorm is in eval mode; its weights and biases take noise, its statistics stay.
Cost: C gradients of every single sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..bench import Batch, UnlearningTask

LARGEST, LARGEST_IN_HEAD = 1e3, 1e2  # of 1 / F
ROW_VARIANCE = 1e-4  # of what takes the place of a forgotten class's row


class Fisher(Unlearner):
    """Add noise of variance alpha / F, with F the Fisher information of the retain set.

    Attributes:
        alpha: Scale of the variance.
        samples: Retain images for the information.
    """

    name: ClassVar[str] = "fisher"
    reference: ClassVar[str] = "Golatkar et al., CVPR 2020, arXiv 1911.04933"
    needs: ClassVar = frozenset({"retain", "gradients"})

    alpha: Annotated[float, Field(ge=0), Range(1e-9, 1e-5, log=True)] = 1e-6
    samples: Annotated[int, Field(ge=1), Range(200, 5000, log=True)] = 1000

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Draw the weights anew around what they are; rows of forgotten classes around zero."""
        import torch

        with task.phase("statistics"):
            information = self.information(model, task)
        heads = [layer.module for layer in task.layers(model) if layer.is_head]
        in_head = {id(parameter) for head in heads for parameter in head.parameters()}
        rng, gone = task.noise_rng(), list(task.forget_classes)
        with torch.no_grad():
            for name, weights in model.named_parameters():
                is_head = id(weights) in in_head
                variance = self.variance(information[name], is_head=is_head)
                if is_head and len(weights) == task.num_classes:
                    weights[gone] = 0
                    variance[gone] = ROW_VARIANCE
                noise = torch.randn(weights.shape, generator=rng, device=weights.device)
                weights.add_(variance.sqrt() * noise)
        return model

    def variance(self, information: Tensor, *, is_head: bool) -> Tensor:
        """Variance of the noise on a tensor, the same for all inputs of an output."""
        inverse = 1 / (information + 1e-8)
        variance = self.alpha * inverse.clamp(max=LARGEST_IN_HEAD if is_head else LARGEST)
        if variance.dim() > 1:
            variance = variance.mean(1, keepdim=True).expand_as(variance).clone()
        return variance * 10 if is_head or variance.dim() == 1 else variance

    def information(self, model: nn.Module, task: UnlearningTask) -> dict[str, Tensor]:
        """Mean over x of sum over y of p(y|x) (grad log p(y|x))^2, by parameter."""
        examples = task.retain.sample(self.samples)
        total: dict[str, Tensor] = {}
        for label in range(task.num_classes):
            some = task.gradient_moment(model, examples, loss=weighted_loss(label))
            total = {name: total[name] + some[name] for name in some} if total else some
        task.report(fisher_samples=len(examples))
        return total


def weighted_loss(label: int) -> Callable[[nn.Module, Batch], Tensor]:
    """-sqrt(p) log p of one label, p in front held, so that the square of its gradient has p."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        log_p: Tensor = model(batch.images).log_softmax(1)[:, label]
        return -((log_p / 2).exp().detach() * log_p).mean()

    return loss
