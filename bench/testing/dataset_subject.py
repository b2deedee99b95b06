"""A dataset under the checks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ..dataset import Dataset, ImageData
from ..errors import describe
from .check import CheckFailure, Kind


class DatasetSubject:
    """A dataset, and its images, loaded when a check first asks for them.

    Args:
        dataset: The dataset.
        data_root: Where datasets keep their files.
    """

    kind: ClassVar[Kind] = "dataset"

    def __init__(self, dataset: Dataset, data_root: Path) -> None:
        self.dataset, self.data_root = dataset, data_root

    @property
    def plugin(self) -> Dataset:
        """The dataset."""
        return self.dataset

    @property
    def known_failures(self) -> Mapping[str, str]:
        """Checks that the dataset is known to fail, with the reasons."""
        return self.dataset.known_failures

    @cached_property
    def images(self) -> ImageData:
        """The images.

        Raises:
            CheckFailure: If they cannot be loaded.
        """
        return self.load()

    def load(self) -> ImageData:
        """Load the images once more.

        Raises:
            CheckFailure: If they cannot be loaded, or are none.
        """
        try:
            images = self.dataset.load(self.data_root)
        except Exception as error:
            raise CheckFailure(f"mend `load`, which raises {describe(error)}") from None
        if not isinstance(images, ImageData):
            raise CheckFailure(f"return `ImageData` from `load`; got {type(images).__name__}")
        return images
