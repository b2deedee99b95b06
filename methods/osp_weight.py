"""OSP that damps kernels and not the norms behind them. An ablation.

Source: ablation of Gong et al., 2025, https://arxiv.org/abs/2506.19891; see `osp`.
Reference code: none.
Differences: `target=weight` is the default. Behind a damped kernel a norm with running statistics
    moves its channel towards a constant, beta - gamma mu / sigma, and not towards 0.
Cost: that of `osp`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from ..bench import Unsearched
from .osp import Osp


class OspWeight(Osp):
    """OSP with the gate on kernels instead of norms (ablation)."""

    name: ClassVar[str] = "osp-weight"
    variant_of: ClassVar[str | None] = "osp"

    target: Annotated[Literal["bn_affine", "weight", "gate"], Unsearched()] = "weight"
