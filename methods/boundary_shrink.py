"""Boundary shrink: give every forget example to the class across the nearest boundary.

Source: Chen, Gao, Liu, Peng, Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via
    Shifting the Decision Boundary", CVPR 2023, https://arxiv.org/abs/2303.11570.
Reference code: https://github.com/TY-LEE-KR/Boundary-Unlearning-Code (read for its facts; none
    used).
Differences: the nearest class is never the true one, which public code takes when the attack fails
    (`exclude_own=false` does so too). It is looked up once, with the original, on images that are
    not augmented. The step of the attack is in pixels between 0 and 1, and not in images as the
    dataset normalises them. The optional curvature term and weights of public code are not here.
    SGD has Nesterov momentum and the recipe's weight decay.
Norms: BatchNorm is in eval mode, for batches of one class would destroy its running statistics.
Cost: `epochs` passes over the forget set, and one more with an attack, forward and backward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import DeclinedError, InputError, Range, Unlearner, Unsearched

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import UnlearningTask


class BoundaryShrink(Unlearner):
    """Train the forget set on the class that an adversarial step reaches.

    Attributes:
        lr: Step size; nothing protects the retain set but a small one.
        epochs: Passes over the forget set.
        epsilon: Length of the adversarial step, in pixels between 0 and 1.
        exclude_own: Never take the true class for the nearest.
    """

    name: ClassVar[str] = "boundary-shrink"
    reference: ClassVar[str] = "Chen et al., CVPR 2023, arXiv 2303.11570"
    needs: ClassVar = frozenset({"forget", "gradients"})
    known_failures: ClassVar = {
        "forgets": "the published step size is for many more steps than a few images give"
    }

    lr: Annotated[float, Field(gt=0), Range(1e-6, 1e-3, log=True)] = 1e-5
    epochs: Annotated[int, Field(ge=1), Range(1, 20)] = 10
    epsilon: Annotated[float, Field(gt=0, le=1), Range(0.01, 0.5, log=True)] = 0.1
    exclude_own: Annotated[bool, Unsearched()] = True

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Find the nearest classes with the original, then train on them."""
        nearest = self.nearest_labels(model, task)
        optimizer = task.optimizer(model, lr=self.lr)
        examples = task.forget.relabelled(nearest)
        task.fit(model, examples, optimizer, epochs=self.epochs, batch_norm="eval")
        return model

    def nearest_labels(self, model: nn.Module, task: UnlearningTask) -> Tensor:
        """What x + epsilon sign(grad CE) is taken for, `(N,)`, in the order of the forget set."""
        import torch
        from torch.nn import functional as F  # noqa: N812

        if not task.forget_size:
            raise InputError("the forget set is empty.")
        if task.num_classes < 2:
            raise DeclinedError("crosses into another class, and there is only one class.")
        scale, found = task.forget.pixel_scale, []
        for batch in task.forget.batches():
            images = batch.images.requires_grad_()
            loss = F.cross_entropy(model(images), batch.labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, images)
            with torch.no_grad():
                # a channel's deviation is positive, so the sign is that of the slope in pixels
                moved = scale.to_pixels(images) + self.epsilon * slope.sign()
                outputs = model(scale.normalised(moved.clamp(0, 1)))
            if self.exclude_own:
                outputs.scatter_(1, batch.labels[:, None], float("-inf"))
            found.append(outputs.argmax(1))
        nearest = torch.cat(found)
        task.report(crossed_frac=float((nearest != task.forget.labels).float().mean()))
        return nearest
