"""The inputs of a layer as the columns that its weight multiplies, and the weight to match."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Window = tuple[float, float]  # where a crop lies in its map, as fractions: down, to the right


def layer_columns(module: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs of a layer as columns.

    Args:
        module: `nn.Conv2d` (any stride, padding, dilation, groups) or `nn.Linear`.
        inputs: `(N, C, H, W)` or `(..., d)` float.

    Returns:
        `(G, d, n)`, a view where that is possible. For a convolution of G groups every patch of
        every image is a column, images first, with its entries ordered kernel row, kernel column,
        channel; d = k k C / G.
    """
    if not isinstance(module, nn.Conv2d):
        return inputs.reshape(1, -1, inputs.shape[-1]).transpose(1, 2)
    padded = pad(module, inputs)
    count, channels, height, width = padded.shape
    (k, m), (down, right) = module.kernel_size, module.dilation
    rows, cols = positions(module, height, width)
    out = padded.new_empty(
        module.groups, k, m, channels // module.groups, count, rows, cols
    )  # one slice a tap, many times faster than `F.unfold`
    planes = padded.transpose(0, 1).view(module.groups, -1, count, height, width)
    for i in range(k):
        for j in range(m):
            out[:, i, j] = planes[
                ...,
                slice(i * down, i * down + (rows - 1) * module.stride[0] + 1, module.stride[0]),
                slice(j * right, j * right + (cols - 1) * module.stride[1] + 1, module.stride[1]),
            ]
    return out.reshape(module.groups, -1, count * rows * cols)


def weight_matrix(module: nn.Module) -> Tensor:
    """A copy of the weight as `(G, out / G, d)`, whose rows multiply `layer_columns`."""
    weight = _weight(module)
    groups = getattr(module, "groups", 1)
    return weight.reshape(groups, len(weight) // groups, -1).clone()


def set_weight_matrix(module: nn.Module, matrix: Tensor) -> None:
    """Write `(G, out / G, d)` back as the weight, in the weight's own dtype."""
    weight = _weight(module)
    weight.copy_(matrix.reshape(weight.shape))


def pad(conv: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Pad a map as the convolution does."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return F.pad(inputs, padding(conv, *inputs.shape[-2:]), mode)


def padding(conv: nn.Conv2d, height: int, width: int) -> list[int]:
    """What the convolution pads a map of that size with: left, right, top, bottom."""
    if type(conv).__name__ != "Conv2dSame":
        return list(conv._reversed_padding_repeated_twice)
    from timm.layers.padding import get_same_padding  # timm: pads by the size of the input

    sizes = zip((width, height), *(p[::-1] for p in _geometry(conv)), strict=True)
    totals = [get_same_padding(*size) for size in sizes]
    return [part for total in totals for part in (total // 2, total - total // 2)]


def positions(conv: nn.Conv2d, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the output for a padded map of that size."""
    sizes = zip((height, width), *_geometry(conv), strict=True)
    rows, cols = ((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in sizes)
    return rows, cols


def columns_per_image(conv: nn.Conv2d, inputs: Tensor) -> int:
    """Patches in one image."""
    height, width = inputs.shape[-2:]
    left, right, top, bottom = padding(conv, height, width)
    return prod(positions(conv, height + top + bottom, width + left + right))


def crop(conv: nn.Conv2d, inputs: Tensor, window: Window) -> Tensor:
    """Cut a map that is wider (or higher) than three kernels to three kernels.

    Args:
        conv: Gives the kernel size k.
        inputs: `(N, C, H, W)`.
        window: Where the window lies, the same for all images; each part in [0, 1).

    Returns:
        `(N, C, min(H, 3 k), min(W, 3 k))`.
    """
    for axis, kernel, place in zip((2, 3), conv.kernel_size, window, strict=True):
        size = min(inputs.shape[axis], 3 * kernel)
        start = int(place * (inputs.shape[axis] - size + 1))
        inputs = inputs.narrow(axis, start, size)
    return inputs


def _weight(module: nn.Module) -> Tensor:
    """The weight itself, with its inputs last."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach().movedim(1, -1)


def _geometry(conv: nn.Conv2d) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return conv.kernel_size, conv.stride, conv.dilation
