"""JiT: make outputs insensitive to noise around the forget set, without any other data.

Source: Foster, Fogarty, Schoepf, Dugue, Öztireli, Brintrup, "An Information Theoretic Approach to
    Machine Unlearning", TMLR 2025, https://arxiv.org/abs/2402.01401 (first called "Zero-Shot
    Machine Unlearning at Scale via Lipschitz Regularization").
Reference code: https://github.com/jwf40/Zeroshot-Unlearning-At-Scale (read for its facts; none
    used).
Differences: noise, clamping and distances are in pixels between 0 and 1, and not in images as the
    dataset normalises them. Public code sets gradients to zero only once, so that every step takes
    the sum of all gradients so far: published step sizes were found with that. `accumulate` does
    so; by default a step takes the gradient of its batch. No momentum and no weight decay.
Norms: BatchNorm is in eval mode.
Cost: one pass over the forget set, forward and backward, with `copies` forward passes beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import Range, Unlearner, Unsearched

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..bench import Batch, UnlearningTask


class Jit(Unlearner):
    """Minimise mean |f(x) - f(x + noise)| / |noise| over the forget set.

    Attributes:
        lr: Step size; what suits spans four orders of magnitude between architectures.
        sigma: Standard deviation of the noise, in pixels between 0 and 1.
        copies: Noisy copies of an image a step.
        epochs: Passes over the forget set.
        batch_size: Examples a step; None for the recipe's batch size.
        accumulate: Step by the sum of all gradients so far, as public code does.
    """

    name: ClassVar[str] = "jit"
    reference: ClassVar[str] = "Foster et al., TMLR 2025, arXiv 2402.01401"
    needs: ClassVar = frozenset({"forget", "gradients"})
    known_failures: ClassVar = {
        "forgets": "the published step size is for many more steps than a few images give"
    }

    lr: Annotated[float, Field(gt=0), Range(1e-4, 2, log=True)] = 3e-4
    sigma: Annotated[float, Field(gt=0), Range(0.01, 1.5, log=True)] = 0.5
    copies: Annotated[int, Field(ge=1), Range(5, 50)] = 25
    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] | None = None
    accumulate: Annotated[bool, Unsearched()] = False

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Descend the sensitivity to noise, a pass over the forget set."""
        import torch

        # with a momentum of 1 the step is the sum of all gradients so far
        momentum = 1.0 if self.accumulate else 0.0
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr, momentum=momentum)
        task.fit(
            model,
            task.forget,
            optimizer,
            epochs=self.epochs,
            loss=self.sensitivity(task),
            batch_size=self.batch_size,
            batch_norm="eval",
        )
        return model

    def sensitivity(self, task: UnlearningTask) -> Callable[[nn.Module, Batch], Tensor]:
        """Build the loss; only the branch without noise carries gradients."""
        import torch

        scale, rng = task.forget.pixel_scale, task.noise_rng()

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            outputs = model(batch.images).float()
            pixels = scale.to_pixels(batch.images)
            total = torch.zeros_like(outputs[:, 0])
            for _ in range(self.copies):
                noise = torch.randn(pixels.shape, generator=rng, device=pixels.device)
                noisy = (pixels + self.sigma * noise).clamp(0, 1)
                moved = (noisy - pixels).flatten(1).norm(dim=1).clamp(min=1e-12)
                with torch.no_grad():
                    others = model(scale.normalised(noisy)).float()
                total = total + (outputs - others).norm(dim=1) / moved
            return (total / self.copies).mean()

        return loss
