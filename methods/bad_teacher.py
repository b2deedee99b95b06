"""Bad Teacher: on the forget set, imitate a network that knows nothing; elsewhere, the original.

Source: Chundawat, Tarun, Mandal, Kankanhalli, "Can Bad Teaching Induce Forgetting? Unlearning in
    Deep Networks Using an Incompetent Teacher", AAAI 2023, https://arxiv.org/abs/2205.08096,
    equation 3.
Reference code: https://github.com/vikram2000b/bad-teaching-unlearning (read for its facts; none
    used).
Differences: the divergence is summed over classes and averaged over examples; the authors' code
    averages over classes too, which makes the loss smaller by their number C. Adam takes steps of
    the same length for both; SGD does not. Adam is AdamW without weight decay.
Norms: the student is in eval mode, as in the authors' code (`batch_norm`). So is the bad teacher,
    whose BatchNorm has never seen an image: with mean 0 and variance 1 in every norm its outputs
    hardly depend on the image (`teacher_norms=fresh`). With `measured`, its statistics are those of
    the retain images in use, and it tells images apart, at random.
    Outputs near uniform on the forget set are what this asks for, and are easily detected.
Cost: `epochs` passes over the forget set and `retain_frac` of the retain set, with a forward pass
    of each teacher beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Batch, UnlearningTask


class BadTeacher(Unlearner):
    """Follow the original on retain images, and a random network on the forget set.

    Attributes:
        lr: Step size.
        epochs: Passes over the mixture of both sets.
        retain_frac: Share of the retain set that is used.
        temperature: T of the softened outputs.
        optimizer: `adamw` without weight decay, or `sgd` with the recipe's momentum and decay.
        batch_norm: Mode of the student's BatchNorm (and dropout).
        teacher_norms: BatchNorm statistics of the bad teacher: as initialised, or `measured`.
    """

    name: ClassVar[str] = "bad-teacher"
    reference: ClassVar[str] = "Chundawat et al., AAAI 2023"
    needs: ClassVar = frozenset({"forget", "retain", "gradients"})
    known_failures: ClassVar = {
        "forgets": "one epoch at the authors' step size does nothing on a hundred images"
    }

    lr: Annotated[float, Field(gt=0), Range(1e-5, 1e-2, log=True)] = 1e-4
    epochs: Annotated[int, Field(ge=1), Range(1, 10)] = 1
    retain_frac: Annotated[float, Field(gt=0, le=1), Range(0.1, 1)] = 0.3
    temperature: Annotated[float, Field(gt=0)] = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    batch_norm: Literal["eval", "train"] = "eval"
    teacher_norms: Literal["fresh", "measured"] = "fresh"

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Imitate the good teacher or the bad one, as the example is kept or forgotten."""
        import torch

        from ..bench import Mixture, frozen_copy, measure_batch_norm, softened_kl

        kept = task.retain.sample(max(2, round(self.retain_frac * len(task.retain))))
        competent = frozen_copy(model)
        incompetent = frozen_copy(task.fresh_model(untrained=True))
        if self.teacher_norms == "measured":
            measure_batch_norm(incompetent, kept)

        def loss(student: nn.Module, batch: Batch) -> Tensor:
            forget = torch.isin(batch.ids, task.forget.ids)[:, None]
            target = torch.where(forget, incompetent(batch.images), competent(batch.images))
            return softened_kl(student(batch.images), target, self.temperature)

        decay = 0.0 if self.optimizer == "adamw" else None  # else the recipe's
        task.fit(
            model,
            Mixture(kept, task.forget),
            task.optimizer(model, lr=self.lr, name=self.optimizer, weight_decay=decay),
            epochs=self.epochs,
            loss=loss,
            batch_norm=self.batch_norm,
        )
        return model
