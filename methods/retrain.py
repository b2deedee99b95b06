"""Retrain: a fresh model trained on the retain set alone. The reference of every distance.

Source: exact unlearning by definition.
Reference code: none.
Differences: epochs, not steps, are those of the original, so there are fewer steps by the share of
    the forget set. All outputs are kept, also those of forgotten classes.
Cost: one training on the retain set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..bench import Unlearner

if TYPE_CHECKING:
    from torch import nn

    from ..bench import UnlearningTask


class Retrain(Unlearner):
    """Train a fresh model on the retain set with the original's recipe (exact)."""

    name: ClassVar[str] = "retrain"
    reference: ClassVar[str] = "exact unlearning, by definition"
    needs: ClassVar = frozenset({"retain", "gradients"})
    exact: ClassVar[bool] = True

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Return a model that never saw the forget set."""
        return task.train(task.fresh_model(), task.retain)
