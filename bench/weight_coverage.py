"""Which weight matrices of a network are not those of a layer that we know how to edit."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from .evaluate import in_eval_mode
from .layers import NORMS, Layer
from .patches import layer_columns, weight_matrix

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag)
# biases, tokens and positions, by the last part of a parameter's name or that of its module
ADDED = re.compile(r"bias|tokens?$|pos_?emb|position|(^|_)pos(_|$)|(^|_)rel(_|$)")
TOLERANCE = 1e-2  # of the norm of the output; TF32 has 1e-3


def uncovered_weights(model: nn.Module, layers: Collection[Layer], image: Tensor) -> list[str]:
    """Name every weight matrix that is multiplied by something else than a layer's input.

    A method that edits the weights of layers by the statistics of their inputs reaches a matrix
    only if it is the weight of a layer whose `forward` runs, and multiplies what goes in: not if
    a block multiplies it itself, if the layer first changes it, or if two layers share it.
    What such methods leave alone is no gap: parameters of norms; vectors, such as biases, class
    tokens and scales of channels or heads, whatever their shape; what the network keeps from
    weight decay outside its layers; and tables of positions, biases and tokens, by their name.

    Args:
        model: Any network.
        layers: Its convolutions and linear layers, as `find_layers` gives them.
        image: `(1, C, H, W)` float batch that the network accepts; only its shape counts.

    Returns:
        Names of parameters, each with the reason, in the order of the network.
    """
    listed = {layer.module for layer in layers}
    plain = set(_plain(model, listed, image))
    gaps: dict[str, str] = {}
    seen: set[Tensor] = set()
    undecayed: Collection[str] = getattr(model, "no_weight_decay", list)()
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{own}" if path else own
            shared = parameter in seen
            seen.add(parameter)
            if module in listed and own == "weight":
                reason = "" if module in plain else "is not the plain product of weight and input"
                reason = "is shared by two layers" if shared else reason
            elif _is_left_alone(module, name, parameter, undecayed):
                continue
            else:
                reason = f"of {type(module).__name__} is not multiplied by a layer's input"
            if reason:
                gaps[name] = reason
    return [f"`{name}` {reason}" for name, reason in gaps.items()]


def _is_left_alone(
    module: nn.Module, name: str, parameter: Tensor, undecayed: Collection[str]
) -> bool:
    own = name.rpartition(".")[2]
    if isinstance(module, WEIGHTED) and own == "weight":
        return False
    if isinstance(module, NORMS) or sum(size > 1 for size in parameter.shape) < 2:
        return True
    if isinstance(module, WEIGHTED):
        return False
    return name in undecayed or any(ADDED.search(part) for part in name.split(".")[-2:])


def _plain(model: nn.Module, listed: Collection[nn.Module], image: Tensor) -> Iterator[nn.Module]:
    """The listed modules whose output is their weight times their input, plus their bias.

    The two classes of torch are known to be; others are tried on a random image.
    """
    plain = {m: False for m in listed}
    tried: dict[nn.Module, bool] = {}

    def check(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        tried[module] = (
            tried.get(module, True) and bool(inputs) and _is_product(module, inputs[0], output)
        )

    handles = []
    for module in listed:
        if type(module) in (nn.Conv2d, nn.Linear) and "forward" not in vars(module):
            plain[module] = True
        else:
            handles.append(module.register_forward_hook(check))
    try:
        if handles:
            noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
            with in_eval_mode(model), torch.no_grad():
                model(noise.to(image))
    finally:
        for handle in handles:
            handle.remove()
    return (module for module in listed if plain[module] or tried.get(module, False))


def _is_product(module: nn.Module, inputs: Tensor, output: Tensor) -> bool:
    matrix = weight_matrix(module)
    columns = layer_columns(module, inputs)
    expected = (matrix @ columns).flatten(0, 1)
    bias = module.bias
    if isinstance(bias, Tensor):
        expected = expected + bias[:, None]
    found = output.transpose(0, 1) if isinstance(module, nn.Conv2d) else output.movedim(-1, 0)
    found = found.flatten(1)
    if found.shape != expected.shape:
        return False
    return bool((found - expected).norm() <= TOLERANCE * found.norm())
