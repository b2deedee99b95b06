"""SCRUB: move away from the teacher on the forget set, stay close on the retain set.

Source: Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning",
    NeurIPS 2023, https://arxiv.org/abs/2302.09880, equation 3 and algorithm 1.
Reference code: none used; the schedule is the paper's: a max pass before the min pass in the first
    `max_epochs` epochs, a min pass in every epoch, so that training ends with min passes.
Differences: max passes run BatchNorm in eval mode and min passes in train mode (the authors'
    networks have none). Gradients are clipped in both (theirs are not). The step size stays
    constant (theirs is divided by ten at given epochs). SGD has Nesterov momentum and the recipe's
    weight decay; the alternative is AdamW in place of Adam. Batches have the recipe's size unless
    given.
Cost: `epochs` passes over the retain set with a teacher's forward pass beside each, and
    `max_epochs` passes over the forget set likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Batch, UnlearningTask


class Scrub(Unlearner):
    """Alternate max passes on the forget set and min passes on the retain set.

    Attributes:
        lr: Step size.
        epochs: Min passes over the retain set.
        max_epochs: Epochs that begin with a max pass over the forget set (`msteps`).
        gamma: Weight of the cross-entropy in min passes.
        alpha: Weight of the distance to the teacher in min passes.
        temperature: T of the softened outputs.
        optimizer: `sgd` with the recipe's momentum, or `adamw`.
        forget_batch_size: Examples a step of a max pass; None for the recipe's batch size.
        clip_norm: Largest norm of the gradient of a step.
    """

    name: ClassVar[str] = "scrub"
    reference: ClassVar[str] = "Kurmanji et al., NeurIPS 2023"
    needs: ClassVar = frozenset({"forget", "retain", "gradients"})
    known_failures: ClassVar = {
        "forgets": "its step size is for passes of hundreds of steps, and these have three"
    }

    lr: Annotated[float, Field(gt=0), Range(1e-4, 5e-2, log=True)] = 5e-4
    epochs: Annotated[int, Field(ge=1), Range(2, 10)] = 3
    max_epochs: Annotated[int, Field(ge=0), Range(1, 10)] = 2
    gamma: Annotated[float, Field(ge=0), Range(0.1, 3, log=True)] = 0.99
    alpha: Annotated[float, Field(ge=0), Range(1e-3, 3, log=True)] = 1e-3
    temperature: Annotated[float, Field(gt=0), Range(1, 4)] = 4.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    forget_batch_size: Annotated[int, Field(ge=1)] | None = None
    clip_norm: Annotated[float, Field(gt=0), Range(0.1, 10, log=True)] = 1.0

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Run the max and min passes against a frozen copy of the original."""
        from torch.nn import functional as F  # noqa: N812

        from ..bench import frozen_copy, softened_kl

        teacher = frozen_copy(model)

        def distance(student: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            """T^2 KL(teacher || student), mean over the batch; and the student's logits."""
            outputs = student(batch.images)
            return softened_kl(outputs, teacher(batch.images), self.temperature), outputs

        def max_loss(student: nn.Module, batch: Batch) -> Tensor:
            return -distance(student, batch)[0]

        def min_loss(student: nn.Module, batch: Batch) -> Tensor:
            kl, outputs = distance(student, batch)
            return self.gamma * F.cross_entropy(outputs, batch.labels) + self.alpha * kl

        optimizer = task.optimizer(model, lr=self.lr, name=self.optimizer)
        for epoch in range(self.epochs):
            if epoch < self.max_epochs:
                task.fit(
                    model,
                    task.forget,
                    optimizer,
                    loss=max_loss,
                    batch_norm="eval",
                    batch_size=self.forget_batch_size,
                    clip_norm=self.clip_norm,
                )
            task.fit(model, task.retain, optimizer, loss=min_loss, clip_norm=self.clip_norm)
        return model
