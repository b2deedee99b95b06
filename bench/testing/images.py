"""Checks of the images that a dataset gives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..scenario import split_validation
from .check import CheckFailure, check
from .laboratory import VALIDATION_FRACTION

if TYPE_CHECKING:
    from .dataset_subject import DatasetSubject

NEAR = 0.05  # how far means and deviations may be from those of the images; pixels are in [0, 1]


@check("images", "dataset")
def loads(subject: DatasetSubject) -> None:
    """`load` gives `ImageData`: uint8 images `(N, C, H, W)` and int64 labels that fit."""
    data = subject.images
    for split in ("train", "test"):
        if not len(getattr(data, f"{split}_labels")):
            raise CheckFailure(f"give examples: the {split} set is empty")
    if data.train_images.shape[1:] != data.test_images.shape[1:]:
        raise CheckFailure(
            f"give all images one shape: {data.train_images.shape[1:]} for training, "
            f"{data.test_images.shape[1:]} for testing"
        )


@check("images", "dataset")
def same_images_every_time(subject: DatasetSubject) -> None:
    """Loaded again it gives the same images in the same order, for an id is a row number."""
    if subject.load().digest != subject.images.digest:
        raise CheckFailure("sort files and seed generators: a second `load` gives other images")


@check("images", "dataset")
def every_class_present(subject: DatasetSubject) -> None:
    """Every class has training examples left when validation is held out, and test examples."""
    data = subject.images
    split = split_validation(data, VALIDATION_FRACTION)
    for what, labels in (
        ("training", data.train_labels[split.training]),
        ("test", data.test_labels),
    ):
        absent = np.setdiff1d(np.arange(data.num_classes), labels)
        if len(absent):
            raise CheckFailure(
                f"leave out of `class_names` what has no {what} examples: "
                f"`{data.class_names[absent[0]]}`"
            )


@check("images", "dataset")
def distinct_class_names(subject: DatasetSubject) -> None:
    """Classes have names of their own, since requests name them."""
    names = subject.images.class_names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckFailure(f"rename a class: two are called `{twice}`")


@check("images", "dataset")
def normalisation(subject: DatasetSubject) -> None:
    """`mean` and `std` are those of the training images, after division by 255."""
    data = subject.images
    for name, wanted in (
        ("mean", data.train_images.mean(axis=(0, 2, 3), dtype=np.float64) / 255),
        ("std", data.train_images.std(axis=(0, 2, 3), dtype=np.float64) / 255),
    ):
        given = getattr(data, name)
        for channel, (has, should) in enumerate(zip(given, wanted, strict=True)):
            if not math.isfinite(has) or abs(has - should) > NEAR or (name == "std" and has <= 0):
                raise CheckFailure(
                    f"correct `{name}`: channel {channel} has {should:.3f}, not {has:.3f}"
                )
