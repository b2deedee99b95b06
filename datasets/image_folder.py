"""Images in folders, one folder a class: ImageNet's layout, and that of one's own data."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from ..bench import DataError, Dataset, ImageData
from ..bench.image_files import Transform, image_files, read_images, subfolders

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_GREY = (0.449,), (0.226,)  # means of the three, as is usual
RESIZE = 256 / 224  # how much larger than the crop an image is made where nobody says otherwise
SHOWN = 3


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Folders = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Means = Annotated[tuple[float, ...], Field(min_length=1)]


class ImageFolder(Dataset):
    """Folders of images, one folder a class, in any format that Pillow reads.

    The classes are those of all training folders together, sorted by name. Within a class the
    images of the first folder come first, those of one folder sorted by name. Every image is
    turned upright, its shorter side resized (bicubic), and the centre cut out; transparency is
    dropped. Decoded images are kept in a hidden folder of the data root.

    Attributes:
        path: Folder of the dataset, relative to the data root.
        train: Folders of classes in it, which together are the training images.
        test: Likewise the test images; a class may have none.
        size: Width and height in pixels.
        resize: Pixels of the shorter side before the centre is cut out; None for 8/7 of `size`.
        grey: One channel instead of three.
        mean: Channel means for normalisation; None for ImageNet's.
        std: Channel standard deviations likewise.
        flip: Whether a mirrored image keeps its label.
        crop_pad: Pixels of padding before a random crop; 0 switches it off.
        max_bytes: Largest size of all decoded images; every worker has to hold them in memory.
    """

    name: ClassVar[str] = "image-folder"
    reference: ClassVar[str] = "a folder of yours"
    about: ClassVar[str] = "any number of images, of any size, in one folder a class"

    path: Annotated[str, Field(min_length=1)]
    train: Folders = ("train",)
    test: Folders = ("val",)
    size: Annotated[int, Field(ge=8, le=2048)] = 224
    resize: Annotated[int, Field(ge=8)] | None = None
    grey: bool = False
    mean: Means | None = None
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = None
    flip: bool = True
    crop_pad: Annotated[int, Field(ge=0)] = 0
    max_bytes: Annotated[int, Field(ge=1)] = 8 * 2**30

    @model_validator(mode="after")
    def _fits_together(self) -> ImageFolder:
        channels = 1 if self.grey else 3
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) != channels:
                raise ValueError(f"`{name}` needs {channels} numbers, one a channel; got {given}")
        if self.resize is not None and self.resize < self.size:
            raise ValueError(
                f"`resize` must be at least `size`, {self.size}, which is cut from its result; "
                f"got {self.resize}"
            )
        listed = [Path(folder) for folder in (*self.train, *self.test)]
        if twice := [folder for folder in listed if listed.count(folder) > 1]:
            raise ValueError(f"the folder `{twice[0]}` is listed twice in `train` and `test`")
        return self

    def load(self, data_root: Path) -> ImageData:
        """Read the images, each only once as long as its file does not change."""
        data_root = data_root.expanduser()
        root = data_root / self.path
        self._check_folder(root)
        found = {folder: self._classes(root / folder) for folder in (*self.train, *self.test)}
        names = sorted(set(chain.from_iterable(found[folder] for folder in self.train)))
        self._check_test(found, names)
        splits = [self._files(root, folders, found, names) for folders in (self.train, self.test)]
        resize = round(RESIZE * self.size) if self.resize is None else self.resize
        transform = Transform(resize, self.size, self.grey)
        self._check_size(sum(len(files) for files, _ in splits), transform)
        (train, train_labels), (test, test_labels) = splits
        mean, std = IMAGENET_GREY if self.grey else IMAGENET
        return ImageData(
            train_images=read_images(train, transform, data_root),
            train_labels=np.array(train_labels, dtype=np.int64),
            test_images=read_images(test, transform, data_root),
            test_labels=np.array(test_labels, dtype=np.int64),
            class_names=tuple(names),
            mean=mean if self.mean is None else self.mean,
            std=std if self.std is None else self.std,
            flip=self.flip,
            crop_pad=self.crop_pad,
        )

    def _check_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(
                f"dataset `{self.name}`: the folder `{folder}` does not exist; put the images "
                "there, or name another with `path` or `--data-root`."
            )

    def _classes(self, folder: Path) -> list[str]:
        """Names of the classes of one folder."""
        self._check_folder(folder)
        try:
            names = subfolders(folder)
        except OSError as error:
            raise DataError(
                f"dataset `{self.name}`: the folder `{folder}` cannot be read: {error.strerror}."
            ) from None
        if not names:
            raise DataError(
                f"dataset `{self.name}`: the folder `{folder}` has no folders in it, and every "
                "class needs one."
            )
        return names

    def _check_test(self, found: dict[str, list[str]], names: list[str]) -> None:
        for folder in self.test:
            if strange := sorted(set(found[folder]) - set(names)):
                more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
                listed = ", ".join(f"`{name}`" for name in strange[:SHOWN])
                raise DataError(
                    f"dataset `{self.name}`: the test folder `{folder}` has classes that no "
                    f"training folder has: {listed}{more}."
                )

    def _files(
        self, root: Path, folders: tuple[str, ...], found: dict[str, list[str]], names: list[str]
    ) -> tuple[list[Path], list[int]]:
        """Files of a split with their labels, class by class."""
        files: list[Path] = []
        labels: list[int] = []
        has = {folder: set(found[folder]) for folder in folders}
        for label, name in enumerate(names):
            for folder in folders:
                if name not in has[folder]:
                    continue
                images = image_files(root / folder / name)
                if not images:
                    raise DataError(
                        f"dataset `{self.name}`: the class folder `{root / folder / name}` holds "
                        "no image that can be read; add some, or remove the folder."
                    )
                files += images
                labels += [label] * len(images)
        return files, labels

    def _check_size(self, count: int, transform: Transform) -> None:
        needed = count * int(np.prod(transform.shape))
        if needed > self.max_bytes:
            shape = "x".join(map(str, transform.shape))
            raise DataError(
                f"dataset `{self.name}`: {count} images of {shape} take {needed} bytes in memory, "
                f"and `max_bytes` allows {self.max_bytes}; take fewer images, a smaller `size`, "
                "or raise it."
            )
