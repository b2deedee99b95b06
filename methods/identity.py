"""Identity: the original, unchanged. The control that shows where everybody starts.

Source: none; evaluation controls.
Reference code: none.
Differences: none.
Cost: nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..bench import Unlearner

if TYPE_CHECKING:
    from torch import nn

    from ..bench import UnlearningTask


class Identity(Unlearner):
    """Return the original unchanged (control)."""

    name: ClassVar[str] = "identity"
    reference: ClassVar[str] = "control"
    known_failures: ClassVar = {"forgets": "the control that changes nothing"}

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Return the model as it came."""
        return model
