"""Orthogonality of filters: penalties for training, and how far from it a network is.

W is a kernel reshaped to `(C_out, C_in k k)`, one filter a row. Unless said otherwise G is its
smaller Gram matrix, because W W^T = I cannot hold where there are more filters than inputs.

Source: Bansal, Chen, Wang, "Can We Gain More from Orthogonality Regularizations in Training Deep
CNNs?", NeurIPS 2018, https://arxiv.org/abs/1810.09102 (`so`, `dso`, `srip`); Wang, Chen,
Chakraborty, Yu, "Orthogonal Convolutional Neural Networks", CVPR 2020,
https://arxiv.org/abs/1911.12207 (`oconv`).
Differences: `srip` takes the spectral norm of G - I itself, not its square. `oconv` is squared, and
of the row form alone, to which the column form is equal up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .layers import excitations, stages

Form = Literal["so", "cosine", "dso", "srip", "oconv"]
Selection = Literal["default", "all", "first", "last_two"]
DEEP_STEM = 3  # convolutions in the deepest stem of timm's ResNets


def orthogonality_penalty(model: nn.Module, form: Form, selection: Selection = "default") -> Tensor:
    """Distance of a network's convolutions from orthogonal ones, as a scalar with gradients.

    Args:
        model: The network; 0 if it has no convolution of the selection.
        form: Which distance. The sum over the layers, for `cosine` the mean.
        selection: See `chosen_convolutions`.
    """
    layers = chosen_convolutions(model, selection)
    if not layers:
        return torch.zeros((), device=next(model.parameters()).device)
    each = torch.stack([FORMS[form](layer) for layer in layers])
    return each.mean() if form == "cosine" else each.sum()


def gram_error(W: Tensor) -> Tensor:
    """`so`: ||G - I||_F^2 of `(rows, columns)` filters."""
    return _error(W).square().sum()


def double_gram_error(W: Tensor) -> Tensor:
    """`dso`: ||W^T W - I||_F^2 + ||W W^T - I||_F^2 of `(rows, columns)` filters.

    Both Gram matrices have the same norm and trace, so that only the smaller one is formed.
    """
    gram = _gram(W)
    return 2 * gram.square().sum() - 4 * W.square().sum() + sum(W.shape)


def spectral_error(W: Tensor, iterations: int = 2) -> Tensor:
    """`srip`: spectral norm of G - I by power iteration.

    Args:
        W: `(rows, columns)` filters.
        iterations: Steps from a random vector, which is drawn from torch's global generator; a
            lower bound of the norm after few of them. Gradients flow through the last step.
    """
    error = _error(W)
    with torch.no_grad():
        vector = torch.randn(len(error), device=W.device, dtype=W.dtype)
        for _ in range(iterations):
            vector = F.normalize(error @ vector, dim=0)
    norm: Tensor = (error @ vector).norm()
    return norm


def mean_squared_cosine(W: Tensor) -> Tensor:
    """`cosine`: mean over pairs of different rows of their squared cosine; blind to norms.

    A filter that a norm follows may have any length, so that this is all that shapes the function.
    """
    n = len(W)
    rows = F.normalize(W, dim=1)
    squares = (rows @ rows.T).square()
    return (squares.sum() - squares.diagonal().sum()) / max(1, n * (n - 1))


def convolution_error(kernel: Tensor, stride: tuple[int, ...]) -> Tensor:
    """`oconv`: ||Conv(K, K, padding P, stride S) - I_r0||_F^2, equation 8.

    Rows of the convolution's matrix are orthonormal where it is 0, which orthogonal kernels alone
    do not give. P = floor((k - 1) / S) S.

    Args:
        kernel: `(C_out, C_in, k_h, k_w)`.
        stride: Of the convolution, down and across.
    """
    padding = [(k - 1) // s * s for k, s in zip(kernel.shape[2:], stride, strict=True)]
    out = F.conv2d(kernel, kernel, stride=stride, padding=padding)
    target = torch.zeros_like(out)
    centre = [p // s for p, s in zip(padding, stride, strict=True)]
    target[:, :, centre[0], centre[1]] = torch.eye(len(out), device=out.device, dtype=out.dtype)
    return (out - target).square().sum()


FORMS: dict[str, Callable[[nn.Conv2d], Tensor]] = {
    "so": lambda layer: gram_error(layer.weight.flatten(1)),
    "cosine": lambda layer: mean_squared_cosine(layer.weight.flatten(1)),
    "dso": lambda layer: double_gram_error(layer.weight.flatten(1)),
    "srip": lambda layer: spectral_error(layer.weight.flatten(1)),
    "oconv": lambda layer: convolution_error(layer.weight, layer.stride),
}


def chosen_convolutions(model: nn.Module, selection: Selection = "default") -> list[nn.Conv2d]:
    """The convolutions that are penalised, in order of definition.

    Grouped ones, whose filters see different inputs, are never among them; nor are those of
    squeeze-and-excitation blocks, which are no filters of an image.

    Args:
        model: The network.
        selection: `default`: all but the stem, whose penalty is reported to make training
            unstable, and the 1x1 of shortcuts, which have more filters than inputs. `all`: these
            too. `first`: of the default those that come first in their block, as in orthogonal
            convolutional networks. `last_two`: of the default those of the last two stages.
    """
    convolutions = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1
    }
    for name in excitations(model):
        convolutions.pop(name, None)
    if selection == "all":
        return list(convolutions.values())
    first = next((n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), "")
    container = first.rpartition(".")[0]
    stem = [n for n in convolutions if container and n.startswith(f"{container}.")]
    deep = len(stem) <= DEEP_STEM and len(stem) < len(convolutions)  # else it is the network
    excluded = {first, *(stem if deep else ())}
    kept = {
        name: module
        for name, module in convolutions.items()
        if name not in excluded and not _is_shortcut(name, module)
    }
    if selection == "first":
        blocks: dict[str, nn.Conv2d] = {}
        for name, module in kept.items():
            blocks.setdefault(_block_of(name, model), module)
        return list(blocks.values())
    if selection == "last_two":
        late = set(stages(model, last=2))
        return [module for name, module in kept.items() if name in late]
    return list(kept.values())


def _block_of(name: str, model: nn.Module) -> str:
    """The innermost module around a convolution that has another one too."""
    block = name.rpartition(".")[0]
    while block:
        inner = model.get_submodule(block).modules()
        if sum(isinstance(module, nn.Conv2d) for module in inner) > 1:
            break
        block = block.rpartition(".")[0]
    return block


def _is_shortcut(name: str, module: nn.Conv2d) -> bool:
    within = "downsample" in name or "shortcut" in name
    return within and module.kernel_size == (1, 1)


def filter_cosine(layers: Sequence[nn.Conv2d]) -> float:
    """Mean |cosine| between different filters of a layer, over layers; 0 is orthogonal.

    Args:
        layers: Convolutions; those with a single filter do not count.

    Returns:
        In [0, 1]; NaN if there is no pair of filters.
    """
    found = []
    for layer in layers:
        rows = F.normalize(layer.weight.detach().flatten(1).cpu().double(), dim=1)
        n = len(rows)
        if n > 1:
            cosines = (rows @ rows.T).abs()
            found.append((cosines.sum() - cosines.diagonal().sum()) / (n * (n - 1)))
    return float(torch.stack(found).mean()) if found else float("nan")


class CorrelationSum:
    """Correlations between the channels of an activation, in one pass and K x K memory."""

    def __init__(self) -> None:
        self._count, self._sum, self._products = 0, torch.zeros(0), torch.zeros(0)
        self._shift = torch.zeros(0)

    def add(self, maps: Tensor) -> None:
        """Take in `(N, K, H, W)` or `(N, K)`; every position of every example counts.

        Rows are shifted by the first batch's means, so that nothing is lost to a large offset.
        """
        rows = maps.detach().transpose(0, 1).flatten(1).cpu().double()
        if not self._count:
            self._shift = rows.mean(1, keepdim=True)
            self._sum = torch.zeros(len(rows), dtype=torch.float64)
            self._products = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        rows = rows - self._shift
        self._count += rows.shape[1]
        self._sum += rows.sum(1)
        self._products += rows @ rows.T

    def mean(self) -> float:
        """Mean |correlation| between different channels.

        Returns:
            In [0, 1]; channels that do not vary are left out. NaN if there is no pair of others.
        """
        if not self._count:
            return float("nan")
        covariance = self._products - torch.outer(self._sum, self._sum) / self._count
        spread = covariance.diagonal().clamp(min=0).sqrt()
        varies = spread > 1e-9 * spread.max()
        n = int(varies.sum())
        if n < 2:
            return float("nan")
        scaled = covariance[varies][:, varies] / torch.outer(spread[varies], spread[varies])
        correlations = scaled.abs().clamp(max=1)
        return float((correlations.sum() - correlations.diagonal().sum()) / (n * (n - 1)))


def channel_correlation(maps: Tensor) -> float:
    """Mean |correlation| between different channels of `(N, K, H, W)` or `(N, K)` maps."""
    total = CorrelationSum()
    total.add(maps)
    return total.mean()


def _gram(W: Tensor) -> Tensor:
    return W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W


def _error(W: Tensor) -> Tensor:
    gram = _gram(W)
    return gram - torch.eye(len(gram), device=W.device, dtype=W.dtype)
