"""Small-norm channels: OSP's own factors on the filters with the smallest norm. An ablation.

Source: the criterion of He, Kang, Dong, Fu, Yang, "Soft Filter Pruning for Accelerating Deep
    Convolutional Neural Networks", IJCAI 2018, in place of that of Gong et al., 2025,
    https://arxiv.org/abs/2506.19891.
Reference code: https://github.com/he-y/soft-filter-pruning (read for its facts; none used).
Differences: filters are damped once and not during training: only the criterion is theirs. Every
    layer has as many damped channels as with `osp`, by the same factors.
Cost: that of `osp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .osp import Osp

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..bench import ChannelUnit


class L2Channels(Osp):
    """OSP's damping on the filters with the smallest l2 norm (ablation)."""

    name: ClassVar[str] = "l2-channels"
    reference: ClassVar[str] = "criterion of He et al., IJCAI 2018"
    variant_of: ClassVar[str | None] = "osp"

    def rearrange(
        self, gate: Tensor, unit: ChannelUnit, model: nn.Module, rng: torch.Generator | None
    ) -> Tensor:
        """Give the smallest factors to the smallest filters."""
        weight: Tensor = model.get_submodule(unit.layer).weight.detach()  # type: ignore[operator]
        smallest_first = weight.flatten(1).norm(dim=1).argsort(stable=True).to(gate.device)
        moved = gate.clone()
        moved[smallest_first] = gate.sort().values
        return moved
