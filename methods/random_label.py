"""Random label: teach the forget set wrong labels, and go on with the retain set.

Source: the baseline `RL` of Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net",
    CVPR 2020, https://arxiv.org/abs/1911.04933; Graves, Nagisetty, Ganesh, "Amnesiac Machine
    Learning", AAAI 2021, https://arxiv.org/abs/2010.10981, whose relabelling it is too
    (`amnesiac-rewind` is their other method).
Reference code: https://github.com/OPTML-Group/Unlearn-Saliency (read for its facts; none used).
Differences: labels are drawn from the other classes, where that code draws from all of them
    (`exclude_own=false`). Its two orders are both here: on small data sets a forget pass and then
    a retain pass in every epoch (`alternate`, the default), on large ones common batches
    (`mixed`). SGD has Nesterov momentum and the recipe's weight decay.
Norms: BatchNorm is in train mode in both passes, as in that code. For a whole class the forget
    pass shows it batches of one class, which the retain pass has to make good;
    `forget_batch_norm=eval` keeps its running statistics out of it.
Cost: `epochs` passes over the forget set and the retain set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import Range, Unlearner, Unsearched, When

if TYPE_CHECKING:
    from torch import nn

    from ..bench import ExampleSet, UnlearningTask


class RandomLabel(Unlearner):
    """Minimise CE(forget, random labels) and CE(retain).

    Attributes:
        lr: Step size.
        epochs: Passes over both sets.
        order: `alternate` a forget pass and a retain pass, or serve both sets `mixed` in common
            batches.
        redraw: Draw labels anew in every epoch, and not once.
        exclude_own: Never draw the true label.
        forget_batch_norm: Mode of BatchNorm in forget passes.
    """

    name: ClassVar[str] = "random-label"
    reference: ClassVar[str] = "baseline; Golatkar et al., CVPR 2020"
    needs: ClassVar = frozenset({"forget", "retain", "gradients"})

    lr: Annotated[float, Field(gt=0), Range(5e-4, 5e-2, log=True)] = 0.013
    epochs: Annotated[int, Field(ge=1), Range(1, 10)] = 10
    order: Literal["alternate", "mixed"] = "alternate"
    redraw: bool = True
    exclude_own: Annotated[bool, Unsearched()] = True
    forget_batch_norm: Annotated[Literal["train", "eval"], When(order="alternate")] = "train"

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Train on both sets, the forget set under drawn labels."""
        from ..bench import Mixture

        optimizer = task.optimizer(model, lr=self.lr)
        relabelled = self.relabel(task)
        for epoch in range(self.epochs):
            if epoch and self.redraw:
                relabelled = self.relabel(task)
            if self.order == "mixed":
                task.fit(model, Mixture(task.retain, relabelled), optimizer)
            else:
                task.fit(model, relabelled, optimizer, batch_norm=self.forget_batch_norm)
                task.fit(model, task.retain, optimizer)
        return model

    def relabel(self, task: UnlearningTask) -> ExampleSet:
        """The forget set under labels drawn uniformly."""
        labels = task.random_labels(task.forget.labels, exclude_own=self.exclude_own)
        return task.forget.relabelled(labels)
