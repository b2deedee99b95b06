"""The interface of a dataset family, and the images it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, PluginError
from .keys import content_key, digest_bytes
from .plugin import Plugin, check_known_failures


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images and labels, whole in memory.

    An example's id is its row number in the training arrays, which a dataset never reorders.

    Attributes:
        train_images: `(N, C, H, W)` uint8.
        train_labels: `(N,)` int64.
        test_images: `(M, C, H, W)` uint8.
        test_labels: `(M,)` int64.
        class_names: One name a class, in label order.
        mean: Channel means of the training images after division by 255, `C` numbers.
        std: Channel standard deviations likewise.
        flip: Whether a mirrored image keeps its label.
        crop_pad: Pixels of padding before a random crop; 0 switches the crop off.
        coarse_labels: `(N,)` int64 superclass of every training example, or None.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False
    crop_pad: int = 0
    coarse_labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            if images.dtype != np.uint8 or images.ndim != 4:
                raise DataError(
                    f"`{split}_images` must be uint8 of shape (N, C, H, W); "
                    f"got {images.dtype} of shape {images.shape}."
                )
            if labels.dtype != np.int64 or labels.shape != (len(images),):
                raise DataError(
                    f"`{split}_labels` must be int64 of shape ({len(images)},); "
                    f"got {labels.dtype} of shape {labels.shape}."
                )
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
                raise DataError(
                    f"`{split}_labels` must lie in [0, {len(self.class_names)}); "
                    f"got {labels.min()} to {labels.max()}."
                )
        channels = self.train_images.shape[1]
        if not len(self.mean) == len(self.std) == channels:
            raise DataError(f"`mean` and `std` must have {channels} numbers, one a channel.")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """Content hash of everything above; part of the key of all that is made from it."""
        arrays: list[NDArray[Any]] = [
            self.train_images,
            self.train_labels,
            self.test_images,
            self.test_labels,
        ]
        if self.coarse_labels is not None:
            arrays.append(self.coarse_labels)
        return content_key(
            "data",
            arrays=[
                [
                    list(a.shape),
                    digest_bytes(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data),
                ]
                for a in arrays
            ],
            class_names=self.class_names,
            mean=self.mean,
            std=self.std,
            flip=self.flip,
            crop_pad=self.crop_pad,
        )


class Dataset(Plugin, ABC):
    """A dataset family; its fields are its parameters.

    Attributes:
        name: Registered name, kebab-case.
        reference: Where the data come from.
        about: Size and shape, in one phrase, for the listing.
        downloads: Whether `load` may fetch files; then nothing is loaded for a sweep spec that is
            known to be wrong already.
    """

    kind: ClassVar[str] = "dataset"
    reference: ClassVar[str]
    about: ClassVar[str]
    downloads: ClassVar[bool] = False

    @abstractmethod
    def load(self, data_root: Path) -> ImageData:
        """Read the images; fetch them first where that is possible and they are absent.

        Args:
            data_root: Folder under which datasets that live in files keep them, in
                torchvision's layout.

        Raises:
            DataError: If the data are absent and cannot be fetched, or are damaged.
        """


def check_dataset(dataset: type[Dataset]) -> None:
    """Refuse a dataset class that leaves out what listings show.

    Raises:
        PluginError: One sentence that says what to add.
    """
    for attribute in ("name", "reference", "about"):
        if not isinstance(getattr(dataset, attribute, None), str):
            raise PluginError(f"dataset class `{dataset.__name__}` needs `{attribute}`, a text.")
    check_known_failures(dataset)
