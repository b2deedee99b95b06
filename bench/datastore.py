"""Images in the store, as arrays that every worker maps instead of decoding them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import ImageData
from .errors import StoreError
from .store import Store

KIND = "data"
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "coarse_labels")


def put_images(store: Store, data: ImageData) -> None:
    """Store the images under their digest, unless they are there."""
    if store.has(KIND, data.digest):
        return

    def write(folder: Path) -> None:
        for name in ARRAYS:
            array = getattr(data, name)
            if array is not None:
                np.save(folder / f"{name}.npy", array, allow_pickle=False)

    meta = {
        "class_names": data.class_names,
        "mean": data.mean,
        "std": data.std,
        "flip": data.flip,
        "crop_pad": data.crop_pad,
    }
    store.put(KIND, data.digest, meta, write=write)


def get_images(store: Store, digest: str) -> ImageData:
    """Map the images of a digest.

    Raises:
        StoreError: If they are not in the store, or damaged.
    """
    found = store.get(KIND, digest)
    if found is None:
        raise StoreError(f"the images `{digest}` are not in the store `{store.root}`.")
    arrays = {
        name: np.load(found.file(f"{name}.npy"), mmap_mode="r", allow_pickle=False)
        for name in ARRAYS
        if f"{name}.npy" in found.files
    }
    meta = found.meta
    return ImageData(
        **arrays,
        class_names=tuple(meta["class_names"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        flip=meta["flip"],
        crop_pad=meta["crop_pad"],
    )
