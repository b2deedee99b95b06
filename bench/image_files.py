"""Image files of a folder of classes, decoded once into arrays that are mapped, not held.

Decoding takes most of the time that a sweep on large images needs to begin, so the arrays stay in a
hidden folder of the data root, under a name that follows from the files (path, size, time of
change) and from what was done to them. It may be deleted at any time.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from .environment import cpu_count
from .errors import DataError
from .keys import content_key

CACHE = ".decoded-images"
DECODE_VERSION = 1  # raise it when decoding changes a pixel
MOST_THREADS = 8

Pixels = NDArray[np.uint8]


class Transform(NamedTuple):
    """What is done to every image.

    Attributes:
        resize: Pixels of the shorter side after bicubic resizing.
        size: Pixels of the square that is then cut from the centre.
        grey: One channel instead of three.
    """

    resize: int
    size: int
    grey: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of every result."""
        return (1 if self.grey else 3), self.size, self.size


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, hidden ones left out, sorted.

    Raises:
        OSError: If it cannot be listed.
    """
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """All files below a folder that Pillow can open by their name, sorted by path."""
    readable = _readable_suffixes()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in readable
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def read_images(files: Sequence[Path], transform: Transform, data_root: Path) -> Pixels:
    """Decode images, or map them where that was done before.

    Args:
        files: The images, in the order wanted.
        transform: What is done to each.
        data_root: Where the arrays are kept; if it cannot be written, they stay in memory.

    Returns:
        `(N, C, H, W)` uint8, read-only where it is mapped.

    Raises:
        DataError: If an image cannot be read; it is named.
    """
    about = [[str(f.absolute()), (s := f.stat()).st_size, s.st_mtime_ns] for f in files]
    key = content_key("images", version=DECODE_VERSION, files=about, transform=list(transform))
    target = data_root / CACHE / f"{key}.npy"
    if not target.is_file():
        partial = target.with_suffix(f".{uuid4().hex}")
        shape = (len(files), *transform.shape)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(target.parent).free < math.prod(shape):
                raise OSError("the disk is full")  # writing to a map would end the process
            written = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        except OSError:
            held = np.empty(shape, dtype=np.uint8)
            _decode_all(files, transform, held)
            return held
        try:
            _decode_all(files, transform, written)
            written.flush()
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    mapped: Pixels = np.load(target, mmap_mode="r", allow_pickle=False)
    return mapped


def decode(path: Path, transform: Transform) -> Pixels:
    """Read one image: upright by its EXIF note, in grey or colour, without transparency.

    Returns:
        `(C, H, W)` uint8.

    Raises:
        DataError: If it cannot be read, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):  # Pillow would cut off all above 255
                raise ValueError(f"more than 8 bits a channel (mode {image.mode})")
            if "transparency" in image.info:
                image = image.convert("RGBA")
            image = image.convert("L" if transform.grey else "RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(
            f"the image `{path}` cannot be read: "
            f"{' '.join(str(error).split()).rstrip('.') or type(error).__name__}."
        ) from None
    pixels = np.asarray(_centre(image, transform), dtype=np.uint8)
    return pixels[None] if transform.grey else pixels.transpose(2, 0, 1)


def _centre(image: Image.Image, transform: Transform) -> Image.Image:
    """Resize so that the shorter side fits, then cut out the centre."""
    width, height = image.size
    short = min(width, height)
    wide, high = (int(transform.resize * side / short) for side in (width, height))
    image = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((wide - transform.size) / 2), round((high - transform.size) / 2)
    return image.crop((left, top, left + transform.size, top + transform.size))


def _decode_all(files: Sequence[Path], transform: Transform, into: Pixels) -> None:
    """Fill an array; Pillow decodes in several threads at once."""

    def one(row: int) -> None:
        into[row] = decode(files[row], transform)

    pool = ThreadPoolExecutor(min(MOST_THREADS, cpu_count()))
    try:
        done = pool.map(one, range(len(files)))
        for _ in tqdm(done, total=len(files), unit="image", desc="decoding", disable=None):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


@cache
def _readable_suffixes() -> frozenset[str]:
    suffixes = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in suffixes.items() if kind in Image.OPEN)
