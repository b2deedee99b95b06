"""Handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..bench import Dataset, ImageData


class Digits(Dataset):
    """Handwritten digits of 8x8 pixels; ships with scikit-learn, needs no download.

    scikit-learn gives no test split, so this one is ours and never changes: within each class
    the images are put in order of the SHA-256 of `digits <row>`, the row being the one in
    `load_digits()`, and the first 20 % (rounded) are the test set. No random generator is
    involved, whose stream a new version of NumPy might alter. Both sets keep scikit-learn's
    order.

    Attributes:
        label_noise: Fraction of the training labels replaced by another class, in [0, 1], chosen
            likewise by SHA-256. A wrong label can only be learned by heart, so that there is
            something to forget that retraining does forget. A larger fraction replaces further
            labels beside the same ones.
    """

    name = "digits"
    reference = "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"
    about = "1,438 + 359 grey images of 8x8, 10 classes"

    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0

    def load(self, data_root: Path) -> ImageData:
        """Read the images from scikit-learn; `data_root` is not used."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.round(bunch.images[:, None] * (255 / 16)).astype(np.uint8)
        labels = bunch.target.astype(np.int64)
        is_test = _test_rows(labels)
        train = images[~is_test]
        scaled = train / 255
        return ImageData(
            train_images=train,
            train_labels=_replace_labels(labels[~is_test], self.label_noise),
            test_images=images[is_test],
            test_labels=labels[is_test],
            class_names=tuple(str(digit) for digit in range(10)),
            # Rounded, so that the last bit of a sum never changes the data's content hash.
            mean=(round(float(scaled.mean()), 4),),
            std=(round(float(scaled.std()), 4),),
            crop_pad=1,
        )


def _test_rows(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return `(N,)` bool, true for the examples of the test set."""
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label).tolist()
        rows.sort(key=lambda row: hashlib.sha256(f"digits {row}".encode()).digest())
        is_test[rows[: round(0.2 * len(rows))]] = True
    return is_test


def _replace_labels(labels: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Replace a fraction of the labels, each by one of the nine other classes."""
    digests = [
        hashlib.sha256(f"digits label {row}".encode()).digest() for row in range(len(labels))
    ]
    replaced = labels.copy()
    for row in sorted(range(len(labels)), key=digests.__getitem__)[: round(fraction * len(labels))]:
        replaced[row] = (labels[row] + 1 + digests[row][-1] % 9) % 10
    return replaced
