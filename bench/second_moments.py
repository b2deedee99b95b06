"""Second moments of the inputs of layers, in one pass and without keeping any activation.

A layer's moments are M = sum of x x^T over its input columns x: all patches of all images, or all
tokens. Its eigenvectors and eigenvalues are the left singular vectors and squared singular values
of the matrix that has all columns side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from .batches import ExampleSet
from .column_draws import ColumnDraws
from .observe import observe
from .patches import Window, columns_per_image, crop, layer_columns
from .toeplitz_moments import ToeplitzSum, moment_dtype

BLOCK = 128  # rows of the product that are computed at once, without what symmetry gives
UNFOLDED = 2**21  # numbers that a map is unfolded into at once, or half those of the moments


def second_moments(
    model: nn.Module,
    modules: Sequence[nn.Module],
    examples: Iterable[ExampleSet],
    rng: torch.Generator,
    *,
    windows: Sequence[Window] | None = None,
    max_columns: int | None = None,
    augmented: bool = False,
) -> list[Tensor]:
    """Second moments of the inputs of every layer, over all examples and positions.

    Needs memory for the moments, whatever the number of examples.

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
        One `(G, d, d)` tensor a layer in the order of `layer_columns`; float64 up to d = 1200
        where the device has it, else float32.
    """
    sets = list(examples)
    sums: dict[nn.Module, _ColumnSum | ToeplitzSum] = {}
    draws = ColumnDraws(model, modules, sets, rng, windows, max_columns)

    def watch(place: int, module: nn.Module) -> Callable[[Tensor], None]:
        def add(inputs: Tensor) -> None:
            if windows is not None and isinstance(module, nn.Conv2d):
                inputs = crop(module, inputs, windows[place])
            if module not in sums:
                toeplitz = max_columns is None and is_toeplitz(module)
                sums[module] = ToeplitzSum(module) if toeplitz else _ColumnSum(module, draws)
            sums[module].add(inputs)

        return add

    watches = {module: watch(place, module) for place, module in enumerate(modules)}
    for part in sets:
        observe(model, part, inputs=watches, augmented=augmented)
    return [sums.pop(module).total() for module in modules]


def is_toeplitz(module: nn.Module) -> bool:
    """Whether moments of patches are found without unfolding, which is faster whenever it can be.

    With stride 1 the product of taps a and b at one position of the kernel is that of a + t and
    b + t at the position before it, so that the moments are Toeplitz but for the borders.
    """
    several = isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
    return several and module.stride == (1, 1)


class _ColumnSum:
    """Moments as a product of the columns with themselves; half of it, for it is symmetric."""

    def __init__(self, module: nn.Module, draws: ColumnDraws) -> None:
        self.module, self.draws = module, draws
        self.sum: Tensor | None = None

    def add(self, inputs: Tensor) -> None:
        for part in self._parts(inputs):
            columns = self.draws.some(self.module, layer_columns(self.module, part))
            groups, width, _ = columns.shape
            if self.sum is None:
                self.sum = columns.new_zeros(
                    groups, width, width, dtype=moment_dtype(width, columns)
                )
            for i in range(0, width, BLOCK):
                block = columns[:, i : i + BLOCK] @ columns[:, i:].mT
                self.sum[:, i : i + BLOCK, i:] += block

    def _parts(self, inputs: Tensor) -> Iterable[Tensor]:
        if not isinstance(self.module, nn.Conv2d):
            return (inputs,)
        width = self.module.weight[0].numel()
        each = self.module.groups * width * columns_per_image(self.module, inputs)
        return inputs.split(max(1, max(UNFOLDED, width**2 // 2) // each))

    def total(self) -> Tensor:
        moments = self.sum
        assert moments is not None
        for i in range(0, moments.shape[-1], BLOCK):
            moments[:, i + BLOCK :, i : i + BLOCK] = moments[:, i : i + BLOCK, i + BLOCK :].mT
        return moments
