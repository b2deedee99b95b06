"""Second moments of the inputs of layers, in one pass and without keeping any activation.

A layer's moments are M = sum of x x^T over its input columns x: all patches of all images, or all
tokens. Its eigenvectors and eigenvalues are the left singular vectors and squared singular values
of the matrix that has all columns side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batches import ExampleSet
from .column_draws import ColumnDraws
from .observe import observe
from .patches import Window, columns_per_image, crop, layer_columns
from .toeplitz_moments import ToeplitzSum, moment_dtype

BLOCK = 128  # rows of the product that are computed at once, without what symmetry gives
UNFOLDED = (2**21, 2**24)  # least and most numbers that maps are unfolded into at once


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of a layer's inputs, as a matrix or as the columns it is the product of.

    Attributes:
        values: `(G, d, d)` sums of x x^T for G groups; or, if there are few, `(G, d, n)` columns
            x. Float64 up to d = 1200 where the device has it, else float32; in the order of
            `layer_columns`.
        factored: Whether it is columns: if there are no more than d / 2 of them.
    """

    values: Tensor
    factored: bool

    def matrix(self) -> Tensor:
        """`(G, d, d)` sums of x x^T."""
        return self.values @ self.values.mT if self.factored else self.values


def second_moments(
    model: nn.Module,
    modules: Sequence[nn.Module],
    examples: Iterable[ExampleSet],
    rng: torch.Generator,
    *,
    windows: Sequence[Window] | None = None,
    max_columns: int | None = None,
    augmented: bool = False,
) -> list[Moments]:
    """Second moments of the inputs of every layer, over all examples and positions.

    Needs memory for the moments, d x d numbers a layer at most, whatever the number of examples.

    Args:
        model: Run in eval mode, without gradients; left as it came.
        modules: Its `nn.Conv2d` and `nn.Linear` layers that are wanted.
        examples: Sets of images; their moments are added.
        rng: Draws the columns, if they are limited.
        windows: One for each layer: maps wider than three kernels are cut there to three
            kernels, in every image alike, and then padded as the layer does.
        max_columns: Columns of a layer to use, drawn without replacement from all images and
            positions; None uses all.
        augmented: Serve the images with the training transform.

    Returns:
        One for each layer.
    """
    sets = list(examples)
    images = sum(map(len, sets))
    sums: dict[nn.Module, _ColumnSum | ToeplitzSum] = {}
    draws = ColumnDraws(model, modules, sets, rng, windows, max_columns)

    def watch(place: int, module: nn.Module) -> Callable[[Tensor], None]:
        def add(inputs: Tensor) -> None:
            if windows is not None and isinstance(module, nn.Conv2d):
                inputs = crop(module, inputs, windows[place])
            if module not in sums:
                toeplitz = max_columns is None and is_toeplitz(module, inputs, images)
                sums[module] = ToeplitzSum(module) if toeplitz else _ColumnSum(module, draws)
            sums[module].add(inputs)

        return add

    watches = {module: watch(place, module) for place, module in enumerate(modules)}
    for part in sets:
        observe(model, part, inputs=watches, augmented=augmented)
    totals = []
    for module in modules:
        total = sums.pop(module).total()
        totals.append(total if isinstance(total, Moments) else Moments(total, factored=False))
    return totals


def is_toeplitz(module: nn.Module, inputs: Tensor, images: int) -> bool:
    """Whether moments of patches are found without unfolding, which is faster where it can be.

    With stride 1 the product of taps a and b at one position of the kernel is that of a + t and
    b + t at the position before it, so that the moments are Toeplitz but for the borders.
    Few patches are kept as they are.
    """
    if not isinstance(module, nn.Conv2d) or module.kernel_size == (1, 1):
        return False
    few = 2 * images * columns_per_image(module, inputs) <= module.weight[0].numel()
    return module.stride == (1, 1) and not few


class _ColumnSum:
    """Moments from the columns: kept while they are few, then multiplied with themselves."""

    def __init__(self, module: nn.Module, draws: ColumnDraws) -> None:
        self.module, self.draws = module, draws
        self.kept: list[Tensor] = []
        self.sum: Tensor | None = None

    def add(self, inputs: Tensor) -> None:
        for part in self._parts(inputs):
            columns = self.draws.some(self.module, layer_columns(self.module, part))
            width = columns.shape[1]
            if self.sum is not None:
                self._multiply(columns)
            elif 2 * (sum(kept.shape[2] for kept in self.kept) + columns.shape[2]) <= width:
                self.kept.append(columns.clone())  # what comes in may be worked on in place
            else:
                dtype = moment_dtype(width, columns)
                self.sum = columns.new_zeros(len(columns), width, width, dtype=dtype)
                for some in (*self.kept, columns):
                    self._multiply(some)
                self.kept.clear()

    def _multiply(self, columns: Tensor) -> None:
        """Add the product; half of it, for it is symmetric."""
        assert self.sum is not None
        for i in range(0, columns.shape[1], BLOCK):
            product = columns[:, i : i + BLOCK] @ columns[:, i:].mT
            self.sum[:, i : i + BLOCK, i:] += product

    def _parts(self, inputs: Tensor) -> Iterable[Tensor]:
        if not isinstance(self.module, nn.Conv2d):
            return (inputs,)
        width = self.module.weight[0].numel()
        each = self.module.groups * width * columns_per_image(self.module, inputs)
        at_once = min(max(width**2 // 2, UNFOLDED[0]), UNFOLDED[1])  # beside the moments' own
        step = max(1, at_once // each)
        return (inputs[start : start + step] for start in range(0, len(inputs), step))

    def total(self) -> Moments:
        if self.sum is None:
            columns = torch.cat(self.kept, 2)
            return Moments(columns.to(moment_dtype(columns.shape[1], columns)), factored=True)
        for i in range(0, self.sum.shape[-1], BLOCK):
            self.sum[:, i + BLOCK :, i : i + BLOCK] = self.sum[:, i : i + BLOCK, i + BLOCK :].mT
        return Moments(self.sum, factored=False)
