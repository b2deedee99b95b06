"""The logit margin: the score that every margin attack reads.

    phi = z_y - log(sum over j != y of exp(z_j))

It is the logit-scaled confidence log(p_y / (1 - p_y)) exactly, and never forms 1 - p_y, so that
it stays exact where a softmax saturates.

Source: Carlini, Chien, Nasr, Song, Terzis, Tramèr, "Membership inference attacks from first
principles", IEEE S&P 2022, https://arxiv.org/abs/2112.03570.

Changes:
    1: first version.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import InputError

VERSION = 1


@runtime_checkable
class TensorLike(Protocol):
    """What is asked of a torch tensor; torch itself is not imported here."""

    def detach(self) -> TensorLike:
        """Give the same values without their gradient."""

    def cpu(self) -> TensorLike:
        """Give the same values in main memory."""

    def double(self) -> TensorLike:
        """Give the same values in double precision."""

    def is_floating_point(self) -> bool:
        """Say whether the dtype is one of floats."""

    def numpy(self) -> npt.NDArray[Any]:
        """Give the values as an array."""


Values = npt.ArrayLike | TensorLike


class MarginError(InputError):
    """Logits, labels or margins from which no score can be computed."""


def logit_margin(logits: Values, labels: Values) -> npt.NDArray[np.float64]:
    """Compute the margin of the true class over all others.

    The arguments are never changed. Half and single precision are promoted before any arithmetic.

    Args:
        logits: `(..., C)` raw outputs, not softmaxed; any real dtype, numpy or torch, C >= 2.
        labels: `(...)` integers in [0, C), numpy or torch.

    Returns:
        `(...)` float64 margins in nats.

    Raises:
        MarginError: If a logit is not finite, a shape or dtype does not fit, or a label is not a
            class.

    Example:
        >>> logit_margin([[30.0, -20.0, 1.0]], [0]).round(6).tolist()
        [29.0]
    """
    z = as_array(logits)
    y = plain_array(labels)
    if z.ndim < 1 or z.shape[-1] < 2:
        raise MarginError(f"`logits` must be `(..., C)` with C >= 2; got shape {z.shape}.")
    if y.dtype.kind not in "iu":
        raise MarginError(f"`labels` must be integers; got dtype {y.dtype}.")
    if y.shape != z.shape[:-1]:
        raise MarginError(f"`labels` must have shape {z.shape[:-1]}; got {y.shape}.")
    if y.size and not (y.min() >= 0 and y.max() < z.shape[-1]):
        raise MarginError(
            f"`labels` must be in [0, {z.shape[-1]}); got values from {y.min()} to {y.max()}."
        )
    check_finite(z, "logits")
    column = y[..., None].astype(np.intp)
    true = np.take_along_axis(z, column, -1)[..., 0]
    others = z.copy()
    np.put_along_axis(others, column, -np.inf, -1)
    top = others.max(-1)
    others -= top[..., None]
    np.exp(others, out=others)
    margins: npt.NDArray[np.float64] = true - top - np.log(others.sum(-1))
    return margins


def as_array(values: Values) -> npt.NDArray[np.float64]:
    """Give a float64 array; of a float64 array, the same one.

    Raises:
        MarginError: If the values are not real numbers.
    """
    plain = plain_array(values)
    if plain.dtype.kind not in "fiub":
        raise MarginError(f"values must be real numbers; got dtype {plain.dtype}.")
    return plain.astype(np.float64, copy=False)


def plain_array(values: Values) -> npt.NDArray[Any]:
    """Give an array of the values; a tensor of floats becomes float64, as bfloat16 must."""
    if isinstance(values, TensorLike):
        tensor = values.detach().cpu()
        return (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    return np.asarray(values)


def check_finite(values: npt.NDArray[np.float64], name: str) -> None:
    """Refuse an array that holds anything but finite numbers.

    Raises:
        MarginError: If it does; says how many and where the first one is.
    """
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise MarginError(
            f"`{name}` must be finite; got {int((~finite).sum())} values that are not, "
            f"the first {values[first]} at index {first}."
        )
