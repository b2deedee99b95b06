"""Projections whose directions count by their share of the energy, without eigenvectors.

With E the second moments divided by their trace, U its eigenvectors and e its eigenvalues, the
scaled projection (Kodge, Saha, Roy, TMLR 2024, equations 2 and 3) is

    P(alpha) = U diag(alpha e / ((alpha - 1) e + 1)) U^T = alpha E ((alpha - 1) E + I)^-1,

and the matrix that is inverted is symmetric, with eigenvalues between 1 and alpha. A Cholesky
factorisation does that with a small part of the work of an eigendecomposition, and as exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

SINGLE_UP_TO = 1e4  # largest condition number that float32 is trusted with
DOUBLE_UP_TO = 1e12  # and float64


def energies(moments: Tensor) -> Tensor:
    """Second moments divided by their trace.

    Args:
        moments: `(G, d, d)`, a sum of x x^T.

    Returns:
        `(G, d, d)` of the same dtype, trace 1; zeros where the layer saw nothing but zeros.
    """
    trace = moments.diagonal(dim1=1, dim2=2).sum(-1)
    return moments / trace.clamp(min=torch.finfo(moments.dtype).tiny)[:, None, None]


def divide_by_scaling(rows: Tensor, energy: Tensor, alpha: float) -> Tensor:
    """The rows times ((alpha - 1) E + I)^-1.

    Args:
        rows: `(G, n, d)` of the dtype of `energy`.
        energy: `(G, d, d)`, E: symmetric, eigenvalues in [0, 1].
        alpha: Positive.

    Returns:
        `(G, n, d)` of the same dtype and device. Worked out in float64 where alpha is so far from
        1 that float32 would not do, and by eigenvectors where float64 would not.
    """
    condition = max(alpha, 1 / alpha)
    on_cpu = energy.device.type == "mps"  # has neither float64 nor every factorisation
    scaling = (energy.cpu() if on_cpu else energy) * (alpha - 1)
    if condition > SINGLE_UP_TO:
        scaling = scaling.double()
    scaling.diagonal(dim1=1, dim2=2).add_(1)
    right = rows.to(scaling).mT
    factor, failed = torch.linalg.cholesky_ex(scaling)
    if condition <= DOUBLE_UP_TO and not bool(failed.any()):
        return torch.cholesky_solve(right, factor).mT.to(rows)
    values, vectors = torch.linalg.eigh(scaling.double())
    low, high = min(1.0, alpha), max(1.0, alpha)  # where rounding may have left them a little
    inverse = vectors / values.clamp(low, high).unsqueeze(1) @ vectors.mT
    return (inverse @ right.double()).mT.to(rows)
