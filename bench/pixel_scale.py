"""Between the images that a network takes and pixels, for steps that are taken in pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class PixelScale:
    """How a dataset's images are normalised, channel by channel.

    A step in pixels that is taken on normalised images would have another length in every
    channel, and would not know where black and white are.

    Attributes:
        mean: `(1, C, 1, 1)` float32, subtracted from pixels.
        std: `(1, C, 1, 1)` float32, above 0, by which they are divided then.
    """

    mean: Tensor
    std: Tensor

    def to_pixels(self, images: Tensor) -> Tensor:
        """Normalised images `(N, C, H, W)` as pixels, where 0 is black and 1 is white."""
        return images * self.std + self.mean

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels `(N, C, H, W)` as a network takes them."""
        return (pixels - self.mean) / self.std
