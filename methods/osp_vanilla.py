"""OSP on a plain original: what soft pruning does without orthogonal training. An ablation.

Source: ablation of Gong et al., 2025, https://arxiv.org/abs/2506.19891; see `osp`.
Reference code: none.
Differences: the original is trained without the penalty.
Cost: that of `osp` without the penalty.
"""

from __future__ import annotations

from typing import ClassVar

from .osp import Osp


class OspVanilla(Osp):
    """OSP on an ordinarily trained original (ablation)."""

    name: ClassVar[str] = "osp-vanilla"
    variant_of: ClassVar[str | None] = "osp"
    recipe: ClassVar[str | None] = None
