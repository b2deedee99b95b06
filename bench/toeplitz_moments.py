"""Second moments of the patches of a convolution of stride 1, without unfolding the map."""

from __future__ import annotations

from itertools import pairwise, product

import torch
from torch import Tensor, nn

from .patches import pad, padding

DOUBLE_UP_TO = 1200  # largest width whose moments are kept in float64
AT_ONCE = 2**20  # numbers of a map that are worked on at once: what fits a cache

Spans = list[tuple[int, int, tuple[int, ...]]]  # first, last + 1, and the taps that cover them
Part = tuple[int, int, tuple[int, ...], tuple[int, ...]]  # t down and right, taps down and right


class ToeplitzSum:
    """Moments of the patches of a convolution of stride 1, from the map itself.

    For taps a and b = a + t, M[a, b] is the sum of x[q] x[q + t]^T over the positions q that tap a
    visits. For one t, the windows of all its a differ at the borders only. So the map is parted
    where a window begins or ends, the product is summed for every part, and M[a, b] gathers the
    parts in the window of a. Of t and -t one is enough. Padding with zeros is not computed.

    Args:
        module: `nn.Conv2d` of stride 1.
    """

    def __init__(self, module: nn.Module) -> None:
        assert isinstance(module, nn.Conv2d)
        self.conv = module
        self.parts: dict[Part, Tensor] = {}

    def add(self, inputs: Tensor) -> None:
        """Add the patches of `(N, C, H, W)` maps."""
        step = max(1, AT_ONCE // inputs[0].numel())
        for start in range(0, len(inputs), step):
            self._add(inputs[start : start + step])

    def _add(self, inputs: Tensor) -> None:
        conv = self.conv
        left, right, top, bottom = padding(conv, *inputs.shape[2:])
        if conv.padding_mode != "zeros":
            inputs = pad(conv, inputs)
            left = right = top = bottom = 0
        (k, m), (down, over), (height, width) = conv.kernel_size, conv.dilation, inputs.shape[2:]
        vertical = spans(k, down, height, top, bottom)
        horizontal = spans(m, over, width, left, right)
        groups = conv.groups
        image_last = inputs.permute(1, 2, 0, 3).contiguous()  # C, H, N, W: rows are slices

        def taken(first: int, last: int) -> Tensor:
            some = image_last[..., first:last].contiguous()
            return some.view(groups, -1, *some.shape[1:])

        for u, (c, d, at) in ((u, span) for u, across in horizontal.items() for span in across):
            one = taken(c, d)
            other = taken(c + u * over, d + u * over) if u else one
            for t, (a, b, on) in ((t, span) for t, down_t in vertical.items() for span in down_t):
                if (t, u) >= (0, 0):
                    first = one[:, :, a:b].flatten(2)
                    second = other[:, :, a + t * down : b + t * down].flatten(2)
                    self._add_part((t, u, on, at), first @ second.mT)

    def _add_part(self, key: Part, part: Tensor) -> None:
        width = part.shape[-1] * self.conv.kernel_size[0] * self.conv.kernel_size[1]
        if key in self.parts:
            self.parts[key] += part
        else:
            self.parts[key] = part.to(moment_dtype(width, part))

    def total(self) -> Tensor:
        """`(G, d, d)` moments, in the order of `layer_columns`; the parts are given up."""
        k, m = self.conv.kernel_size
        some = next(iter(self.parts.values()))
        groups, channels, _ = some.shape
        moments = some.new_zeros(groups, k * m, channels, k * m, channels)
        for (t, u, rows, cols), part in self.parts.items():
            for i, j in product(rows, cols):
                moments[:, i * m + j, :, (i + t) * m + j + u] += part
        self.parts.clear()
        for a, b in product(range(k * m), repeat=2):
            if a > b:
                moments[:, a, :, b] = moments[:, b, :, a].mT
        return moments.reshape(groups, k * m * channels, k * m * channels)


def spans(kernel: int, dilation: int, size: int, before: int, after: int) -> dict[int, Spans]:
    """Part one side of a map where the windows of taps begin or end.

    Args:
        kernel: Taps k.
        dilation: Distance of two taps.
        size: Pixels of the map, without padding.
        before: Zeros in front of it.
        after: Zeros behind it.

    Returns:
        For every difference t of two taps, in (-k, k), the spans of pixels q for which both q and
        q + t taps are pixels of the map, and the taps a that visit q while a + t visits the other.
    """
    visited = size + before + after - dilation * (kernel - 1)
    table: dict[int, Spans] = {}
    for t in range(1 - kernel, kernel):
        taps = range(max(0, -t), kernel - max(0, t))
        starts = [a * dilation for a in taps]
        cuts = sorted({*starts, *(start + visited for start in starts)})
        first, last = before - min(0, t * dilation), before + size - max(0, t * dilation)
        found: Spans = []
        for low, high in pairwise(cuts):
            covering = tuple(
                a
                for a, start in zip(taps, starts, strict=True)
                if start <= low and high <= start + visited
            )
            low, high = max(low, first), min(high, last)
            if covering and low < high:
                found.append((low - before, high - before, covering))
        table[t] = found
    return table


def moment_dtype(width: int, like: Tensor) -> torch.dtype:
    """Type of the sums: float64 for a width of up to 1200 where the device has it."""
    exact = width <= DOUBLE_UP_TO and like.device.type != "mps"
    return torch.promote_types(like.dtype, torch.float64 if exact else torch.float32)
