"""The course of unlearning, epoch by epoch: what a curve in MLflow is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

from .batches import ExampleSet
from .evaluate import in_eval_mode
from .scenario import Ids
from .task import quiet_randomness

EXAMPLES = 1000  # of a larger forget set, no more are looked at
EPOCHS = 1000  # no curve needs more points
DIGITS = 6


class Course:
    """Loss and forget accuracy after every epoch of the harness's training loop.

    A method with a loop of its own has no course. Looking changes no result: modules stay in their
    modes, and no random number is drawn from any generator. Where a look could be noticed, for
    something hooks into the forward pass, or is not possible, there is no forget accuracy. (A
    module that counts its calls notices; so does the mark of peak memory, where a step of the
    method takes less than a look.)

    Args:
        examples: Gives some examples of the forget set whenever they are looked at, so that in
            between they take no memory of the method's.
        batch_size: Examples that pass at once; with the recipe's, a look takes less memory than
            a step of training.

    Attributes:
        losses: Mean loss of every epoch.
        forget_acc: Share of the forget set that was classified correctly after every epoch;
            outputs that are not finite are wrong.
    """

    def __init__(self, examples: Callable[[], ExampleSet], batch_size: int) -> None:
        self._examples, self._batch_size = examples, batch_size
        self._looking = True
        self.losses: list[float] = []
        self.forget_acc: list[float] = []

    def epoch_done(self, model: nn.Module, loss: float) -> None:
        """Note an epoch that has ended.

        Args:
            model: As it is after the epoch.
            loss: Mean loss of the epoch.
        """
        if len(self.losses) >= EPOCHS:
            return
        self.losses.append(loss)
        self._looking = self._looking and not _has_hooks(model)
        if self._looking:
            try:
                self.forget_acc.append(self._accuracy(model))
            except Exception:  # a curve must not cost a cell
                self._looking = False

    def as_dict(self) -> dict[str, list[float]]:
        """The curves that there are, `loss` and `forget_acc`, as JSON values."""
        curves = {"loss": rounded(self.losses)}
        if len(self.forget_acc) == len(self.losses):
            curves["forget_acc"] = rounded(self.forget_acc)
        return curves if self.losses else {}

    def _accuracy(self, model: nn.Module) -> float:
        examples = self._examples()
        device = examples.ids.device
        off = torch.autocast(device.type, enabled=False)
        quiet = quiet_randomness(torch.Generator(), device)
        with in_eval_mode(model), torch.no_grad(), off, quiet:
            batches = examples.batches(self._batch_size)
            hits = [_hits(model(batch.images), batch.labels) for batch in batches]
        return float(torch.cat(hits).cpu().double().mean())


def spread(ids: Ids) -> Ids:
    """At most `EXAMPLES` of the ids, evenly spread over their order."""
    return ids[:: max(1, -(-len(ids) // EXAMPLES))]


def rounded(values: Sequence[float]) -> list[float]:
    """Values to six significant digits: more would not show in a curve, and fill records."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels) & logits.isfinite().all(1)


def _has_hooks(model: nn.Module) -> bool:
    """Whether something watches the forward pass, which a further pass would be told to."""
    everywhere = (_module._global_forward_hooks, _module._global_forward_pre_hooks)
    return any(everywhere) or any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
