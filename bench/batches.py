"""Images on the device, cut into batches; guarded, counted, augmented example by example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .dataset import ImageData
from .errors import InputError
from .pixel_scale import PixelScale


@dataclass(frozen=True, eq=False)
class Batch:
    """Some examples.

    Attributes:
        images: `(N, C, H, W)` float32, normalised.
        labels: `(N,)` int64.
        ids: `(N,)` int64 ids of the examples in the training (or test) arrays.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Pixels:
    """Images of one split, resident on the device, with their two transforms.

    Args:
        data: The dataset.
        split: `train` or `test`.
        device: Where the images live.
        ids: The examples wanted, `(N,)` distinct ids; None for all of the split.

    Attributes:
        ids: `(N,)` int64, the example of every row.
        images: `(N, C, H, W)` uint8.
        labels: `(N,)` int64.
        scale: How the images are normalised.
    """

    def __init__(
        self,
        data: ImageData,
        split: str,
        device: torch.device,
        ids: NDArray[np.int64] | None = None,
    ) -> None:
        images: NDArray[np.uint8] = getattr(data, f"{split}_images")
        labels: NDArray[np.int64] = getattr(data, f"{split}_labels")
        rows = np.arange(len(labels)) if ids is None else np.array(ids)
        self.ids = torch.from_numpy(rows).to(device)
        self.images = torch.from_numpy(np.array(images[rows])).to(device)
        self.labels = torch.from_numpy(np.array(labels[rows])).to(device)
        self.flip, self.crop_pad, self.device = data.flip, data.crop_pad, device
        mean, std = torch.tensor(data.mean, device=device), torch.tensor(data.std, device=device)
        self.scale = PixelScale(mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1))

    def only(self, ids: Tensor) -> Pixels:
        """Copy the examples named, in that order; nothing else can be reached from the copy.

        Raises:
            InputError: If an example is not among these.
        """
        if torch.equal(ids, self.ids):
            return self
        order = torch.argsort(self.ids)
        places = torch.searchsorted(self.ids[order], ids).clamp(max=max(0, len(order) - 1))
        rows = order[places] if len(order) else ids
        if len(ids) and (not len(order) or not torch.equal(self.ids[rows], ids)):
            raise InputError("an example set may only have examples whose images it was given.")
        chosen = copy(self)
        chosen.ids, chosen.images, chosen.labels = ids.clone(), self.images[rows], self.labels[rows]
        return chosen

    def batch(self, rows: Tensor, generator: torch.Generator | None) -> Batch:
        """Return the examples in the given rows; augmented if a generator is given."""
        images = self.images[rows]
        if generator is not None:
            images = augment(images, generator, self.crop_pad, flip=self.flip)
        images = self.scale.normalised(images.float() / 255)
        return Batch(images, self.labels[rows], self.ids[rows])


def augment(images: Tensor, generator: torch.Generator, pad: int, *, flip: bool) -> Tensor:
    """Crop and mirror every image by its own draw.

    torchvision's random transforms draw once for a whole batch, which is not augmentation.

    Args:
        images: `(N, C, H, W)` of any dtype.
        generator: CPU generator.
        pad: Pixels of zero padding before a crop of the original size; 0 for no crop.
        flip: Mirror half of the images left to right.

    Returns:
        `(N, C, H, W)` of the same dtype.
    """
    n, _, height, width = images.shape
    if pad:
        shifts = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator)
        shifts = shifts.to(images.device)
        rows = shifts[0] + torch.arange(height, device=images.device)
        cols = shifts[1] + torch.arange(width, device=images.device)
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        which = torch.arange(n, device=images.device)[:, None, None]
        # indexing over dimensions 0, 2, 3 puts channels last; move them back
        images = padded[which, :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(n, generator=generator).lt(0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images.contiguous()


class ExampleSet:
    """Examples of one role that a method may use; it counts what it serves.

    It holds the images of its members and no others, so that a method cannot reach the controls
    of an attack by way of a set that it was given.

    Args:
        role: `forget`, `retain`, `training` or `validation`, for messages and counts.
        pixels: Where the images are copied from; kept as it is if it is exactly the members.
        ids: Ids of the members, `(N,)`.
        batch_size: Default size of a batch.
        generator: CPU generator that shuffles and augments.
        served: Counts by role; shared with the task.
        augment: Whether training batches are augmented, as the recipe says.

    Raises:
        InputError: If a member is not in `pixels`.
    """

    def __init__(
        self,
        role: str,
        pixels: Pixels,
        ids: NDArray[np.int64] | Tensor,
        batch_size: int,
        generator: torch.Generator,
        served: dict[str, int],
        *,
        augment: bool = True,
    ) -> None:
        self.role = role
        self.batch_size = batch_size
        self._pixels = pixels.only(torch.as_tensor(ids, device=pixels.device))
        self._rows = torch.arange(len(self._pixels.ids), device=pixels.device)
        self._generator, self._served = generator, served
        self._augment = augment

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> Tensor:
        """Ids of the members, `(N,)` int64."""
        return self._pixels.ids[self._rows]

    @property
    def labels(self) -> Tensor:
        """Labels of the members, `(N,)` int64, in the order of `ids`."""
        return self._pixels.labels[self._rows]

    @property
    def generator(self) -> torch.Generator:
        """What shuffles and augments."""
        return self._generator

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of every image."""
        channels, height, width = self._pixels.images.shape[1:]
        return channels, height, width

    @property
    def pixel_scale(self) -> PixelScale:
        """How the images are normalised, to take steps in pixels."""
        return self._pixels.scale

    def batches(self, batch_size: int | None = None, *, training: bool = False) -> Iterator[Batch]:
        """One pass over the set.

        Args:
            batch_size: Examples a batch; default is the recipe's.
            training: Shuffle, augment if the recipe does, and never give a lone last example,
                which BatchNorm refuses: it joins the batch before. Else the examples come in
                order, as they are.
        """
        order = torch.arange(len(self))
        if training:
            order = torch.randperm(len(self), generator=self._generator)
        order = order.to(self._rows.device)
        for positions in cut(order, batch_size or self.batch_size, training=training):
            yield self.take(positions, training=training)

    def take(self, positions: Tensor, *, training: bool = False) -> Batch:
        """The members at the given positions as one batch.

        Args:
            positions: `(N,)` int64, each in [0, number of members).
            training: Augment, if the recipe does.
        """
        self._served[self.role] = self._served.get(self.role, 0) + len(positions)
        augmenting = training and self._augment
        rows = self._rows[positions.to(self._rows.device)]
        return self._pixels.batch(rows, self._generator if augmenting else None)

    def endless(self, batch_size: int | None = None) -> Iterator[Batch]:
        """Training batches without end; every pass is shuffled and augmented anew.

        Raises:
            InputError: If the set is empty.
        """
        if not len(self):
            raise InputError(f"the {self.role} set is empty.")
        while True:
            yield from self.batches(batch_size, training=True)

    def subset(self, positions: Tensor) -> ExampleSet:
        """The members at the given positions, under the same role and count."""
        part = copy(self)  # shares images and counts
        part._rows = self._rows[positions.to(self._rows.device)]
        return part

    def parted(self, classes: Sequence[int]) -> tuple[ExampleSet, ExampleSet]:
        """The members outside and inside some classes."""
        inside = torch.isin(self.labels, torch.tensor(classes, device=self.ids.device))
        return self.subset((~inside).nonzero()[:, 0]), self.subset(inside.nonzero()[:, 0])

    def relabelled(self, labels: Tensor) -> ExampleSet:
        """The same members under other labels, and the same role and count.

        Args:
            labels: `(N,)` int64, in the order of `ids`.

        Raises:
            InputError: If there is not one label for every member.
        """
        if labels.shape != self._rows.shape:
            raise InputError(f"{len(self)} examples need as many labels; got {labels.numel()}.")
        other, pixels = copy(self), copy(self._pixels)  # the images are shared
        pixels.labels = pixels.labels.clone()
        pixels.labels[self._rows] = labels.to(pixels.labels)
        other._pixels = pixels
        return other

    def with_generator(self, generator: torch.Generator) -> ExampleSet:
        """The same members in an order of their own; what is served is not counted."""
        other = copy(self)
        other._generator, other._served = generator, {}
        return other

    def sample(self, size: int, *, balanced: bool = False) -> ExampleSet:
        """A random subset without replacement.

        Args:
            size: Examples wanted; the whole set if it has no more.
            balanced: The same number from every class present, or all that a small class has;
                `size` in all at most, but never fewer than one of each.
        """
        order = torch.randperm(len(self), generator=self._generator)
        if not balanced:
            return self.subset(order[:size])
        labels = self.labels.cpu()[order]
        present = sorted(set(labels.tolist()))
        each = max(1, size // max(1, len(present)))
        chosen = [order[labels == label][:each] for label in present]
        return self.subset(torch.cat(chosen) if chosen else order)


def cut(order: Tensor, size: int, *, training: bool) -> list[Tensor]:
    """Cut positions into batches; in training a lone last one joins the batch before."""
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    if training and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
