"""CIFAR-10 and CIFAR-100 through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ..bench import Dataset, ImageData
from ..bench.torchvision_data import TorchvisionFiles, first_of_each_class, open_splits

# Superclass of each of the 100 classes, in label order, as the official files pair them.
# torchvision drops the column, and a constant spares a second look into pickled files.
# fmt: off
FINE_TO_COARSE = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11,
    6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5,
    5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
    10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)
# fmt: on


class _Cifar(Dataset):
    """What the two have in common; means and deviations are those of the literature."""

    reference = "Krizhevsky, Learning multiple layers of features from tiny images, 2009"
    downloads = True

    source: ClassVar[str]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    coarse: ClassVar[tuple[int, ...] | None] = None

    per_class: int | None = None

    def load(self, data_root: Path) -> ImageData:
        """Read the images through torchvision; download them if they are absent."""
        import torchvision.datasets

        source = getattr(torchvision.datasets, self.source)
        # torchvision compares these MD5s again before it unpickles anything.
        files = TorchvisionFiles(
            folder=source.base_folder,
            md5={
                **{file: md5 for file, md5 in source.train_list + source.test_list},
                source.meta["filename"]: source.meta["md5"],
            },
            archives={source.filename: source.tgz_md5},
        )
        train, test = open_splits(self.name, source, files, data_root)
        labels = np.asarray(train.targets, dtype=np.int64)
        rows = first_of_each_class(labels, self.per_class)
        labels = labels[rows]
        coarse = None if self.coarse is None else np.asarray(self.coarse, dtype=np.int64)[labels]
        return ImageData(
            train_images=np.ascontiguousarray(train.data.transpose(0, 3, 1, 2)[rows]),
            train_labels=labels,
            test_images=np.ascontiguousarray(test.data.transpose(0, 3, 1, 2)),
            test_labels=np.asarray(test.targets, dtype=np.int64),
            class_names=tuple(train.classes),
            mean=self.mean,
            std=self.std,
            flip=True,
            crop_pad=4,
            coarse_labels=coarse,
        )


class Cifar10(_Cifar):
    """Small colour photographs of ten kinds of animals and vehicles.

    Read from `cifar-10-batches-py` under the data root.

    Attributes:
        per_class: Take only the first so many training images of each class; the test set
            stays whole. None takes all 5,000.
    """

    name = "cifar10"
    about = "50,000 + 10,000 colour images of 32x32, 10 classes"
    source = "CIFAR10"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)

    per_class: Annotated[int, Field(ge=1, le=5000)] | None = None


class Cifar100(_Cifar):
    """Small colour photographs of a hundred kinds of things in twenty superclasses.

    Read from `cifar-100-python` under the data root; `coarse_labels` are the superclasses. 14
    training images occur twice, and 10 test images are also in the training set.

    Attributes:
        per_class: Take only the first so many training images of each class; the test set
            stays whole. None takes all 500.
    """

    name = "cifar100"
    about = "50,000 + 10,000 colour images of 32x32, 100 classes in 20 superclasses"
    source = "CIFAR100"
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    coarse = FINE_TO_COARSE

    per_class: Annotated[int, Field(ge=1, le=500)] | None = None
