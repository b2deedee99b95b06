"""Influence unlearning: one Newton step that takes the forget set out of the training loss.

Source: Koh, Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017,
    https://arxiv.org/abs/1703.04730; in unlearning Izzo, Smart, Chaudhuri, Zou, AISTATS 2021,
    https://arxiv.org/abs/2002.10077, and, as WoodFisher, Jia et al., NeurIPS 2023,
    https://arxiv.org/abs/2304.04934. Step: theta + alpha H^-1 (G_f / n - n_f G_r / (n n_r)), with
    G the sums of gradients over the forget and the retain set.
Reference code: https://github.com/OPTML-Group/Unlearn-Sparse (read for its facts; none used).
Differences: H is the damped Gauss-Newton matrix of `samples` retain images, and its inverse is
    applied by conjugate gradients: with alpha = 1 the Newton step. The recursion in public code
    corrects the gradient along one direction only, that of the first sample's gradient, so that
    its H is nearly the identity: `solver=public` is that recursion, on samples in random order, to
    compare with published tables; their alpha are 0.2 to 20.
Norms: BatchNorm is in eval mode; its weights and biases move, its statistics stay.
Cost: one pass over the forget and the retain set, forward and backward; then `iterations` passes
    over the samples, once forward and three times backward; or the gradients of single samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner, Unsearched, When

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from ..bench import UnlearningTask

Gradient = dict[str, "Tensor"]


class Influence(Unlearner):
    """Step by the inverse curvature of the retain set times the gradient of the forget set.

    Attributes:
        alpha: Length of the step; 1 is Newton's.
        solver: `cg`, conjugate gradients; or `public`, the recursion in public code.
        damping: Added to the curvature; directions of less count as if they had this.
        iterations: Largest number of steps of conjugate gradients.
        samples: Retain images for the curvature.
    """

    name: ClassVar[str] = "influence"
    reference: ClassVar[str] = "Koh and Liang, ICML 2017; Jia et al., NeurIPS 2023"
    needs: ClassVar = frozenset({"forget", "retain", "gradients"})

    alpha: Annotated[float, Field(ge=0), Range(0.1, 50, log=True)] = 1.0
    solver: Annotated[Literal["cg", "public"], Unsearched()] = "cg"
    damping: Annotated[float, Field(gt=0), Range(1e-3, 1, log=True), When(solver="cg")] = 0.1
    iterations: Annotated[int, Field(ge=1)] = 20
    samples: Annotated[int, Field(ge=1), Range(200, 5000, log=True)] = 1000

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Gradient, inverse curvature, step."""
        import torch

        with task.phase("statistics"):
            vector = self.vector(model, task)
            samples = task.retain.sample(self.samples)
            if self.solver == "cg":
                found = task.damped_inverse_product(
                    model, samples, vector, damping=self.damping, iterations=self.iterations
                )
                step = found.values
                task.report(residual=found.residual, iterations_done=found.iterations)
            else:
                each = (
                    {name: stack[place] for name, stack in some.items()}
                    for some in task.gradients(model, samples)
                    for place in range(len(next(iter(some.values()))))
                )
                step = public_recursion(vector, each, len(samples))
        with torch.no_grad():
            for name, weights in model.named_parameters():
                weights.add_(step[name], alpha=self.alpha)
        return model

    def vector(self, model: nn.Module, task: UnlearningTask) -> Gradient:
        """What the loss of the retain set alone slopes down, to first order."""
        n_f, n_r = task.forget_size, task.retain_size
        of_forget = task.gradient_sum(model, task.forget)
        of_retain = task.gradient_sum(model, task.retain)
        return {
            name: (of_forget[name] - n_f / n_r * of_retain[name]) / (n_f + n_r)
            for name in of_forget
        }


def public_recursion(vector: Gradient, gradients: Iterable[Gradient], count: int) -> Gradient:
    """From k = v and o = the first g: k -= (k g) / (N + o g) o, then o -= (o g) / (N + o g) o."""
    k = {name: tensor.clone() for name, tensor in vector.items()}
    o: Gradient = {}
    for g in gradients:
        if not o:
            o = {name: tensor.clone() for name, tensor in g.items()}
            continue
        along_o, along_k = inner(o, g), inner(k, g)
        for name in k:
            k[name] -= along_k / (count + along_o) * o[name]
            o[name] -= along_o / (count + along_o) * o[name]
    return k


def inner(a: Gradient, b: Gradient) -> float:
    """Inner product over all parameters."""
    return float(sum((tensor * b[name]).sum() for name, tensor in a.items()))
