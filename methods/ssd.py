"""SSD: selective synaptic dampening. Shrink the weights that matter to the forget set above all.

Source: Foster, Schoepf, Brintrup, "Fast Machine Unlearning without Retraining through Selective
    Synaptic Dampening", AAAI 2024, https://arxiv.org/abs/2308.07707.
Reference code: https://github.com/if-loops/selective-synaptic-dampening (read for its facts; none
    used).
Differences: none in the equations. The diagonal of the Fisher information is the mean square of
    gradients of single examples. Public code squares the gradient of the mean loss of a batch, so
    that importances depend on how batches are cut; the published values of alpha were found with
    that, so it is the default (`importance=batch`), on batches in random order and not augmented.
    `importance=example` is the information itself. Importances of the training set are taken once
    for an original, so that a request touches the forget set alone.
Norms: BatchNorm is in eval mode; its weights and biases are dampened as all others are.
Cost: one pass over the training set, forward and backward, once for an original; then one over the
    forget set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ..bench import Batch, ExampleSet, UnlearningTask


class Ssd(Unlearner):
    """Multiply a weight by min(lambda I_D / I_f, 1) where its importance I_f > alpha I_D.

    Attributes:
        alpha: How many times as important to the forget set as to the training set a weight must
            be to be dampened. With importances of single examples none is above n / n_f, since
            the training set has the forget set in it.
        dampening: lambda, the factor of what remains.
        importance: Whether it is of the gradients of batches or of single examples.
        batch_size: Examples a batch; None for the recipe's batch size.
    """

    name: ClassVar[str] = "ssd"
    reference: ClassVar[str] = "Foster et al., AAAI 2024, arXiv 2308.07707"
    needs: ClassVar = frozenset({"forget", "training", "gradients"})
    prepare_fields: ClassVar[frozenset[str] | None] = frozenset({"importance", "batch_size"})
    known_failures: ClassVar = {
        "keeps-utility": "at the published alpha some classes take the others with them; search it"
    }
    moment: ClassVar[Literal["square", "magnitude"]] = "square"

    alpha: Annotated[float, Field(gt=0), Range(0.1, 100, log=True)] = 10.0
    dampening: Annotated[float, Field(ge=0), Range(0.1, 5, log=True)] = 1.0
    importance: Literal["batch", "example"] = "batch"
    batch_size: Annotated[int, Field(ge=1)] | None = None

    def prepare(self, model: nn.Module, task: UnlearningTask) -> dict[str, Tensor]:
        """Importances I_D for the training set, the forget set to come included."""
        return self.importances(model, task, task.training)

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Select by the importances, and dampen."""
        import torch

        importances = self.importances(model, task, task.forget)
        parameters = dict(model.named_parameters())
        dampened = total = 0
        with torch.no_grad():
            for name, of_forget in importances.items():
                of_all = task.prepared[name]
                chosen = of_forget > self.alpha * of_all
                factor = (self.dampening * of_all / of_forget).clamp(max=1)
                parameters[name].mul_(torch.where(chosen, factor, 1))
                dampened += int(chosen.sum())
                total += chosen.numel()
        task.report(dampened_frac=dampened / total)
        return model

    def importances(
        self, model: nn.Module, task: UnlearningTask, examples: ExampleSet
    ) -> dict[str, Tensor]:
        """Importance of every weight for some examples, by parameter."""
        return task.gradient_moment(
            model,
            examples,
            loss=self.loss,
            moment=self.moment,
            each=self.importance,
            batch_size=self.batch_size,
        )

    @property
    def loss(self) -> Callable[[nn.Module, Batch], Tensor] | None:
        """Whose gradients tell importance; None is the cross-entropy."""
        return None
