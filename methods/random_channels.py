"""Random channels: OSP's own factors on channels drawn at random. A control.

Source: control of channel selection by Gong et al., 2025, https://arxiv.org/abs/2506.19891.
Reference code: none.
Differences: none: every layer has as many damped channels as with `osp`, by the same factors.
Cost: that of `osp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..bench import InputError
from .osp import Osp

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..bench import ChannelUnit


class RandomChannels(Osp):
    """OSP's damping on channels drawn at random (control)."""

    name: ClassVar[str] = "random-channels"
    reference: ClassVar[str] = "control"
    variant_of: ClassVar[str | None] = "osp"
    known_failures: ClassVar = {
        "keeps-utility": "the control that damps channels whatever they are good for"
    }

    def rearrange(
        self, gate: Tensor, unit: ChannelUnit, model: nn.Module, rng: torch.Generator | None
    ) -> Tensor:
        """Permute the factors.

        Raises:
            InputError: If there is no generator to draw from.
        """
        import torch

        if rng is None:
            raise InputError("`random-channels` draws, and needs a generator: `edit(…, rng=…)`.")

        return gate[torch.randperm(len(gate), generator=rng).to(gate.device)]
