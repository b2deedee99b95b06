"""Several sets of examples served as one, in common batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .batches import Batch, ExampleSet, cut
from .errors import InputError


class Mixture:
    """The union of some sets; every pass draws all their members in one random order.

    Nothing is copied: each set serves, augments and counts its own members.

    Args:
        *parts: Sets of one task, which may have labels of their own; the first gives the default
            size of a batch.

    Attributes:
        parts: The sets.
        batch_size: Default size of a batch.

    Raises:
        InputError: If there is no set.
    """

    def __init__(self, *parts: ExampleSet) -> None:
        if not parts:
            raise InputError("a mixture needs at least one set of examples.")
        self.parts = parts
        self.batch_size = parts[0].batch_size

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def ids(self) -> Tensor:
        """Ids of all members, `(N,)` int64, part by part."""
        return torch.cat([part.ids for part in self.parts])

    def batches(self, batch_size: int | None = None, *, training: bool = False) -> Iterator[Batch]:
        """One pass, as `ExampleSet.batches`; inside a batch the members stand part by part."""
        order = torch.arange(len(self))
        if training:
            order = torch.randperm(len(self), generator=self.parts[0].generator)
        for positions in cut(order, batch_size or self.batch_size, training=training):
            taken, start = [], 0
            for part in self.parts:
                inside = (positions >= start) & (positions < start + len(part))
                if bool(inside.any()):
                    taken.append(part.take(positions[inside] - start, training=training))
                start += len(part)
            yield Batch(
                torch.cat([batch.images for batch in taken]),
                torch.cat([batch.labels for batch in taken]),
                torch.cat([batch.ids for batch in taken]),
            )


Examples = ExampleSet | Mixture
