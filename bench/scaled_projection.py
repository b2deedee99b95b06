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

from .input_moments import Moments

SINGLE_UP_TO = 1e4  # largest condition number that float32 is trusted with
DOUBLE_UP_TO = 1e12  # and float64


class Energy:
    """Second moments E of a layer's inputs, divided by their trace.

    Zeros where the layer saw nothing but zeros. Of few columns, Z with E = Z Z^T is kept.

    Args:
        moments: As measured.

    Attributes:
        dtype: That rows must have.
    """

    def __init__(self, moments: Moments) -> None:
        self._values, self._factored = moments.values, moments.factored
        self.dtype = self._values.dtype
        if self._factored:
            trace = self._values.square().sum((1, 2))
        else:
            trace = self._values.diagonal(dim1=1, dim2=2).sum(-1)
        self._trace = torch.where(trace > 0, trace, 1)[:, None, None]

    def times(self, rows: Tensor) -> Tensor:
        """`(G, n, d)` rows times E."""
        product = rows @ self._values / self._trace
        return product @ self._values.mT if self._factored else product

    def divide(self, rows: Tensor, alpha: float) -> Tensor:
        """`(G, n, d)` rows times ((alpha - 1) E + I)^-1, for a positive alpha."""
        if not self._factored:
            return _divide(rows, self._values, self._trace, alpha)
        # with M = Z Z^T: (I + c Z Z^T)^-1 = I - c Z (I + c Z^T Z)^-1 Z^T
        Z = self._values
        inner = _divide(rows @ Z, Z.mT @ Z, self._trace, alpha) / self._trace
        return rows - (alpha - 1) * inner @ Z.mT

    def project(self, product: Tensor, alpha: float) -> Tensor:
        """Rows times P(alpha), from `times(rows)`, which serves every alpha; zeros for alpha 0."""
        return alpha * self.divide(product, alpha) if alpha else torch.zeros_like(product)

    def project_out(self, rows: Tensor, alpha: float) -> Tensor:
        """`(G, n, d)` rows times I - P(alpha), which is (I - E) ((alpha - 1) E + I)^-1."""
        return self.divide(rows - self.times(rows), alpha)


def _divide(rows: Tensor, moments: Tensor, trace: Tensor, alpha: float) -> Tensor:
    """The rows times ((alpha - 1) E + I)^-1 for E the moments divided by their trace.

    Worked out in float64 where alpha is so far from 1 that float32 would not do, and by
    eigenvectors where float64 would not.
    """
    condition = max(alpha, 1 / alpha)
    if moments.device.type == "mps":  # has neither float64 nor every factorisation
        moments, trace = moments.cpu(), trace.cpu()
    if condition > SINGLE_UP_TO:
        moments, trace = moments.double(), trace.double()
    scaling = moments * ((alpha - 1) / trace)
    scaling.diagonal(dim1=1, dim2=2).add_(1)
    right = rows.to(scaling.device).to(scaling.dtype).mT
    factor, failed = torch.linalg.cholesky_ex(scaling)
    if condition <= DOUBLE_UP_TO and not bool(failed.any()):
        return torch.cholesky_solve(right, factor).mT.to(rows)
    values, vectors = torch.linalg.eigh(scaling.double())
    low, high = min(1.0, alpha), max(1.0, alpha)  # where rounding may have left them a little
    inverse = vectors / values.clamp(low, high).unsqueeze(1) @ vectors.mT
    divided: Tensor = (inverse @ right.double()).mT
    return divided.to(rows)
