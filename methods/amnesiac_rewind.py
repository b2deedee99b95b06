"""Amnesiac rewind: take back what the training steps that held the forget set changed.

Source: Graves, Nagisetty, Ganesh, "Amnesiac Machine Learning", AAAI 2021,
    https://arxiv.org/abs/2010.10981, equation 2. (Their other method, relabelling, which is often
    called amnesiac too, is `random-label`.)
Reference code: https://github.com/lmgraves/AmnesiacML (read for its facts; none used). It notes the
    difference over ten batches at a time, of which one held sensitive data; here it is that of the
    batch itself.
Differences: the authors know while they train which examples are sensitive and note the steps that
    hold those. Here the request comes later, so the changes of all steps are kept: `prepare` trains
    the original again from its own seed, in the same order, and stores every step. That takes a
    training and `4 x steps x parameters` bytes; beyond `max_bytes` the method declines, and so it
    serves small networks only. It declines too where the training does not repeat itself, since it
    would then take back steps that were never taken, and where too many of the steps held the
    forget set: each epoch cuts its batches anew, so that soon all of them do.
    As in the paper, running statistics of BatchNorm are not taken back, and later steps stay as
    they were, though without the earlier ones they would have been others.
Cost: one training in `prepare`, once for an original; then a sum over the stored steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import Callback, DeclinedError, Unlearner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Batch, TaskInfo, UnlearningTask

SAME = 0.01  # distance of the replayed from the original weights, in norms of the originals'


class AmnesiacRewind(Unlearner):
    """Subtract the parameter changes of all steps whose batch held a forget example.

    Attributes:
        max_bytes: Largest size of the stored changes.
        max_touched_frac: Largest share of the steps that may be taken back, as expected.
    """

    name: ClassVar[str] = "amnesiac-rewind"
    reference: ClassVar[str] = "Graves et al., AAAI 2021"
    needs: ClassVar = frozenset({"forget", "training", "history", "gradients"})
    scope: ClassVar = frozenset({"sample"})
    prepare_fields: ClassVar = frozenset({"max_bytes"})
    known_failures: ClassVar = {
        "keeps-utility": "of a hundred images, one is in a quarter of the steps, and all are undone"
    }

    max_bytes: Annotated[int, Field(ge=0)] = 2 * 2**30
    max_touched_frac: Annotated[float, Field(ge=0, le=1)] = 0.5

    def prepare(self, model: nn.Module, task: UnlearningTask) -> Mapping[str, Tensor]:
        """Change of all parameters, `(S, P)`, and ids of the batch, `(S, B)`, of every step."""
        import torch
        from torch.nn.utils import parameters_to_vector

        settings = task.recipe.settings
        examples, size = len(task.training), settings.batch_size
        steps = settings.epochs * max(1, -(-(examples - 1) // size))
        original = parameters_to_vector(model.parameters()).detach()
        self._check_size(steps, len(original))
        changes = torch.zeros(steps, len(original))
        ids = torch.full((steps, size + 1), -1)

        class Note(Callback):
            done = 0

            def before_step(self, model: nn.Module, batch: Batch) -> None:
                self.before = parameters_to_vector(model.parameters()).detach()

            def after_step(self, model: nn.Module, batch: Batch) -> None:
                after = parameters_to_vector(model.parameters()).detach()
                changes[self.done] = (after - self.before).cpu()
                ids[self.done, : len(batch)] = batch.ids.cpu()
                self.done += 1

        again = parameters_to_vector(task.replay([Note()]).parameters()).detach()
        gap = float((again - original).norm() / original.norm())
        if gap > SAME:
            raise DeclinedError(
                "needs the history of training, and the training does not repeat itself here: "
                f"trained again, the weights differ by {100 * gap:.0f} %."
            )
        return {"changes": changes, "ids": ids}

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Take the changes of the steps that held a forget example from the parameters."""
        import torch
        from torch.nn.utils import parameters_to_vector, vector_to_parameters

        touched = torch.isin(task.prepared["ids"], task.forget.ids).any(1)
        with torch.no_grad():
            theta = parameters_to_vector(model.parameters())
            theta = theta - task.prepared["changes"][touched].sum(0)
            vector_to_parameters(theta, model.parameters())
        task.report(steps=len(touched), steps_taken_back=int(touched.sum()))
        return model

    def _check_size(self, steps: int, parameters: int) -> None:
        size = 4 * steps * parameters
        if size > self.max_bytes:
            raise DeclinedError(
                f"would store {steps} steps of {parameters} parameters, {size / 2**30:.1f} GiB; "
                f"`max_bytes` allows {self.max_bytes / 2**30:.1f} GiB."
            )

    def unsupported_reasons(self, task: TaskInfo) -> list[str]:
        """Add: no history, or one that would be taken back for the most part."""
        reasons = super().unsupported_reasons(task)
        settings = task.recipe.settings
        if not settings.epochs or task.recipe.fine_tuning is not None:
            reasons.append("needs the history of training, and the original was not trained here")
        others = task.retain_size / (task.forget_size + task.retain_size)
        touched = 1 - others**settings.batch_size
        if touched > self.max_touched_frac:
            reasons.append(
                f"would take back {100 * touched:.0f} % of the training, since so many batches "
                "held a forget example"
            )
        return reasons
