"""Generated images for tests and dry runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..bench import Dataset, ImageData


class Synthetic(Dataset):
    """Generated images of any size and number of classes, for tests and dry runs, not results.

    Every class has a smooth random pattern, a sum of plane waves that close on themselves at
    the border. An example is the pattern of its class, moved by up to an eighth of the width
    and height, plus Gaussian noise. Patterns, training set, test set and label noise draw from
    streams of their own, so that one parameter does not disturb what another determines.

    Attributes:
        classes: Number of classes.
        size: Width and height in pixels.
        channels: Colour channels.
        train_per_class: Training examples of each class.
        test_per_class: Test examples of each class.
        noise: Standard deviation of the noise, as a fraction of the range of pixel values.
        seed: Seed of everything random.
        label_noise: Fraction of the training labels replaced by another class, in [0, 1].
    """

    name = "synthetic"
    reference = "generated"
    about = "any size and number of classes; default 500 + 200 colour images of 8x8, 10 classes"

    classes: Annotated[int, Field(ge=2, le=1000)] = 10
    size: Annotated[int, Field(ge=4, le=512)] = 8
    channels: Annotated[int, Field(ge=1, le=16)] = 3
    train_per_class: Annotated[int, Field(ge=1)] = 50
    test_per_class: Annotated[int, Field(ge=1)] = 20
    noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    seed: Annotated[int, Field(ge=0)] = 0
    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0

    def load(self, data_root: Path) -> ImageData:
        """Generate the images; `data_root` is not used."""
        streams = [np.random.default_rng(s) for s in np.random.SeedSequence(self.seed).spawn(4)]
        patterns = self._patterns(streams[0])
        train_labels = np.arange(self.classes * self.train_per_class, dtype=np.int64) % self.classes
        test_labels = np.arange(self.classes * self.test_per_class, dtype=np.int64) % self.classes
        train_images = self._draw(patterns, train_labels, streams[1])
        scaled = train_images / np.float32(255)
        return ImageData(
            train_images=train_images,
            train_labels=self._replace_labels(train_labels, streams[3]),
            test_images=self._draw(patterns, test_labels, streams[2]),
            test_labels=test_labels,
            class_names=tuple(f"class-{label}" for label in range(self.classes)),
            # Rounded, so that the last bit of a sum never changes the data's content hash.
            mean=tuple(round(float(m), 4) for m in scaled.mean(axis=(0, 2, 3), dtype=np.float64)),
            std=tuple(round(float(s), 4) for s in scaled.std(axis=(0, 2, 3), dtype=np.float64)),
        )

    def _patterns(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return `(classes, C, H, W)` float32 in [0.1, 0.9], the mean of each near one half."""
        at = 2 * np.pi * np.arange(self.size) / self.size
        half_plane = [(v, h) for v in range(3) for h in range(-2, 3) if (v, h) > (0, 0)]
        angles = np.stack([v * at[:, None] + h * at[None, :] for v, h in half_plane])
        waves = np.concatenate([np.cos(angles), np.sin(angles)])
        # Slow waves carry more: what is left after a small move is what tells classes apart.
        weights = np.tile([1 / (v * v + h * h) for v, h in half_plane], 2)
        amounts = rng.standard_normal((self.classes, self.channels, len(waves))) * weights
        patterns = np.tensordot(amounts, waves, axes=1)
        patterns /= np.abs(patterns).max(axis=(1, 2, 3), keepdims=True)
        return (0.5 + 0.4 * patterns).astype(np.float32)

    def _draw(
        self, patterns: NDArray[np.float32], labels: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Return `(N, C, H, W)` uint8, one example for every label."""
        reach = self.size // 8
        moves = rng.integers(-reach, reach + 1, size=(2, len(labels), 1))
        rows, columns = (np.arange(self.size) + moves) % self.size
        images: NDArray[np.float32] = patterns[
            labels[:, None, None, None],
            np.arange(self.channels)[:, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]
        images += self.noise * rng.standard_normal(images.shape, dtype=np.float32)
        pixels: NDArray[np.uint8] = np.round(255 * images.clip(0, 1)).astype(np.uint8)
        return pixels

    def _replace_labels(
        self, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        replaced = labels.copy()
        rows = rng.permutation(len(labels))[: round(self.label_noise * len(labels))]
        others = rng.integers(1, self.classes, size=len(rows))
        replaced[rows] = (labels[rows] + others) % self.classes
        return replaced
