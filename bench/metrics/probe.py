"""What a new classifier on frozen features still finds: a linear head, and nearest centres.

A method that edits the last layer only has the features of the original, and a head that is
fitted anew on few examples recovers the class. So does the retrained model to some degree, from
what it learned of other classes: its value is what to compare with, not 0.

The head is ridge regression onto one-hot labels in closed form. Features are centred and divided
by one scale, the root of their mean variance over the sample, so that the answer does not depend
on rotation, shift and scale of the feature space. Examples are weighted so that all classes
count alike: else a representation that tells nothing would name the largest class.

    W = (X'DX + ridge n I)^-1 X'DY,   D = diag(n / (C n_class))

Where several classes score the same, an example counts as 1 / (their number): the chance that a
blind choice among them is right. Features that are all equal thus score 1 / C.

Source: evaluation specification, section 4.7; the argument after "Are we truly forgetting? A
critical re-examination of machine unlearning evaluation protocols", 2025,
https://arxiv.org/abs/2503.06991.

Changes:
    1: first version.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .lrt import FloatArray
from .margin import MarginError, Values, as_array, check_finite, plain_array

VERSION = 1
RIDGE = 0.01  # share of the mean variance of a feature, which is 1 after scaling
CONSTANT = 1e-6  # spread below this share of their size is rounding of float32 features
TIE = 1e-9


class Sample(NamedTuple):
    """Examples on which a probe is fitted.

    Attributes:
        features: `(n, p)` of the frozen network.
        labels: `(n,)` int64; every class that is to be found is among them.
    """

    features: Values
    labels: Values


def ridge_hits(sample: Sample, features: Values, labels: Values) -> FloatArray:
    """Fit a linear head on a sample, and say on which examples it is right.

    Args:
        sample: What it is fitted on.
        features: `(m, p)` of other examples.
        labels: `(m,)` int64.

    Returns:
        `(m,)` in [0, 1]: 1 where the true class scores highest, a share where classes tie, 0
        elsewhere and for classes that the sample lacks.

    Raises:
        MarginError: If shapes do not fit, the sample is empty, or a feature is not finite.

    Example:
        >>> sample = Sample([[0.0, 1.0], [0.2, 1.0], [1.0, 0.0], [0.8, 0.0]], [0, 0, 1, 1])
        >>> ridge_hits(sample, [[0.1, 0.9], [0.9, 0.2]], [0, 0]).tolist()
        [1.0, 0.0]
    """
    x, y, z, truth = _checked(sample, features, labels)
    classes, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    n, c = len(x), len(classes)
    weight = n / (c * counts[place])
    centre = weight @ x / n
    x, z = _scaled(x - centre, z - centre, centre, weight)
    targets = np.eye(c)[place] - 1 / c
    left, right = (weight[:, None] * x).T, RIDGE * n
    if x.shape[1] <= n:
        head = np.linalg.solve(left @ x + right * np.eye(x.shape[1]), left @ targets)
    else:  # the same by a system of n equations, for fewer examples than features
        gram = x @ x.T + right * np.diag(1 / weight)
        head = x.T @ np.linalg.solve(gram, targets)
    return _hits(z @ head, classes, truth)


def centre_hits(sample: Sample, features: Values, labels: Values) -> FloatArray:
    """Say which examples are nearest to the centre of their class, in Euclidean distance.

    Args:
        sample: What the centres are means of.
        features: `(m, p)` of other examples.
        labels: `(m,)` int64.

    Returns:
        As `ridge_hits`.

    Raises:
        MarginError: Likewise.
    """
    x, y, z, truth = _checked(sample, features, labels)
    classes, place = np.unique(y, return_inverse=True)
    centre = x.mean(0)
    x, z = _scaled(x - centre, z - centre, centre, np.ones(len(x)))
    centres = np.stack([x[place == k].mean(0) for k in range(len(classes))])
    # -|z - m|^2 less the part that all classes share
    return _hits(2 * z @ centres.T - np.square(centres).sum(1), classes, truth)


def _checked(
    sample: Sample, features: Values, labels: Values
) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray, npt.NDArray[np.int64]]:
    x, z = as_array(sample.features), as_array(features)
    y, truth = plain_array(sample.labels), plain_array(labels)
    if x.ndim != 2 or z.ndim != 2 or x.shape[1] != z.shape[1] or not x.size:
        raise MarginError(
            f"features must be `(n, p)` and `(m, p)`, n and p at least 1; "
            f"got shapes {x.shape} and {z.shape}."
        )
    for name, of, wanted in (("sample", y, x), ("examples", truth, z)):
        if of.dtype.kind not in "iu" or of.shape != (len(wanted),):
            raise MarginError(
                f"labels of the {name} must be {len(wanted)} integers; "
                f"got dtype {of.dtype}, shape {of.shape}."
            )
    check_finite(x, "features of the sample")
    check_finite(z, "features")
    return x, y.astype(np.int64), z, truth.astype(np.int64)


def _scaled(
    x: FloatArray, z: FloatArray, centre: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Divide by one scale; features that do not vary become 0."""
    scale = float(np.sqrt(weight @ np.square(x).mean(1) / len(x)))
    if scale <= CONSTANT * float(np.sqrt(np.square(centre).mean())):
        return np.zeros_like(x), np.zeros_like(z)
    return x / scale, z / scale


def _hits(
    scores: FloatArray, classes: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]
) -> FloatArray:
    best = scores.max(1, keepdims=True) if len(scores) else scores[:, :1]
    tied = scores >= best - TIE * np.maximum(1, np.abs(best))
    right = tied & (classes == truth[:, None])
    hits: FloatArray = right.sum(1) / np.maximum(1, tied.sum(1))
    return hits
