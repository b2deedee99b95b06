"""Channels of a network that can be damped one by one, and the ways to damp them.

A unit is a group of channels: the output channels of a convolution as its norm and activation
leave them, before any residual addition; or the hidden units of a multilayer perceptron.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from .errors import DeclinedError
from .layers import NORMS, Layer, stages

Kind = Literal["conv", "mlp"]
Target = Literal["bn_affine", "weight", "gate"]
GATE = "channel_gate"
# f(g y) = g f(y) for g >= 0
_HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity)


class ChannelUnit(NamedTuple):
    """Channels that are scored and damped together; plain values, so that it can be stored.

    Attributes:
        layer: Name of the convolution or linear layer whose outputs they are.
        output: Name of the module whose output is their activation.
        norm: Name of the affine norm in between, or None.
        consumer: Name of the one layer that takes the activation and nothing else, or None.
        kind: `conv` or `mlp`.
        channels: How many.
        homogeneous: Whether scaling what goes into the activation function scales what comes out.
        late: Stages behind it: 0 in the last, 1 in the last but one, 2 in any other.
    """

    layer: str
    output: str
    norm: str | None
    consumer: str | None
    kind: Kind
    channels: int
    homogeneous: bool
    late: int

    def values(self, activation: Tensor) -> Tensor:
        """Bring an activation into the form `(N, positions, channels)`.

        Raises:
            DeclinedError: If its channels are not where they are expected.
        """
        if self.kind == "mlp":
            flat = activation.reshape(len(activation), -1, activation.shape[-1])
        else:
            flat = activation.reshape(*activation.shape[:2], -1).transpose(1, 2)
        if flat.shape[-1] != self.channels:
            raise DeclinedError(
                f"`{self.output}` gives {tuple(activation.shape)}, in which the {self.channels} "
                f"channels of `{self.layer}` cannot be told."
            )
        return flat


class Units(NamedTuple):
    """The units of a network, and the layers of their kind that cannot be damped."""

    found: list[ChannelUnit]
    left: list[str]


def find_channel_units(model: nn.Module, layers: Sequence[Layer], kinds: Sequence[Kind]) -> Units:
    """Find the units of a network.

    Convolutions of squeeze-and-excitation blocks and the classifier are no candidates.

    Args:
        model: The network.
        layers: Its layers, as `find_layers` gives them.
        kinds: `conv`, `mlp` or both.

    Raises:
        DeclinedError: If the network has no unit of these kinds, or can only be damped in part:
            fewer than half of its convolutions have a norm or activation to themselves.
    """
    names = {module: name for name, module in model.named_modules()}
    late = [set(stages(model, last=n)) for n in (1, 2)]
    found, left = [], []
    inner = [x for x in layers if not (x.is_head or x.is_excitation)]
    convolutions = sum(layer.is_conv for layer in inner)
    if "mlp" not in kinds and len(inner) > 2 * convolutions > 0:
        raise DeclinedError(
            f"only {convolutions} of {len(inner)} layers are convolutions, so that channels could "
            "be damped in part only; `units=mlp` damps the hidden units of MLPs instead."
        )
    for layer in layers:
        if layer.is_head or layer.is_excitation:
            continue
        kind: Kind = "conv" if layer.is_conv else "mlp"
        feeds = isinstance(layer.consumer, nn.Linear)
        if kind not in kinds or (kind == "mlp" and not feeds):
            continue
        affine = layer.norm is None or getattr(layer.norm, "weight", None) is not None
        # without a norm a kernel is damped, to which a forward of its own may be blind
        if layer.norm is None and kind == "conv" and not _takes_weight(layer.module):
            left.append(layer.name)
            continue
        if layer.output is layer.module or not affine:
            left.append(layer.name)
            continue
        found.append(
            ChannelUnit(
                layer=layer.name,
                output=names[layer.output],
                norm=None if layer.norm is None else names[layer.norm],
                consumer=names[layer.consumer]
                if layer.consumer is not None and _takes_weight(layer.consumer)
                else None,
                kind=kind,
                channels=layer.channels,
                homogeneous=_is_homogeneous(layer.output),
                late=sum(layer.name not in members for members in late),
            )
        )
    minority = len(inner) > 2 * convolutions
    names_of = {layer.name for layer in inner if layer.is_conv}
    counted: list[Kind] = [kind for kind in kinds if kind == "mlp" or not minority]
    _check_coverage(found, [name for name in left if name in names_of], counted)
    return Units(found, left)


def _check_coverage(
    found: Sequence[ChannelUnit], left: Sequence[str], kinds: Sequence[Kind]
) -> None:
    convolutions = sum(unit.kind == "conv" for unit in found)
    if "conv" in kinds and convolutions + len(left) == 0:
        raise DeclinedError("the network has no convolution whose channels could be damped.")
    if "conv" in kinds and convolutions < len(left):
        raise DeclinedError(
            f"only {convolutions} of {convolutions + len(left)} convolutions have a norm or "
            f"activation to themselves (`{left[0]}` has none), so that channels could be damped "
            "in part only; `units=mlp` damps the hidden units of MLPs instead."
        )
    if not found:
        raise DeclinedError("the network has no MLP whose hidden units feed one linear layer.")


def _takes_weight(module: nn.Module) -> bool:
    """Whether a layer multiplies its weight as it is, and does not standardise it first."""
    plain = (nn.Conv2d.forward, nn.Linear.forward)
    return type(module).forward in plain or type(module).__name__ == "Conv2dSame"


def _is_homogeneous(output: nn.Module) -> bool:
    inner = getattr(output, "act", output)  # timm's norms may hold their activation
    return isinstance(inner, (*_HOMOGENEOUS, *NORMS))


def damp_channels(model: nn.Module, unit: ChannelUnit, gate: Tensor, target: Target) -> None:
    """Multiply the channels of a unit by a gate, in place.

    Args:
        model: The network.
        unit: One of its units.
        gate: `(channels,)` factors, not negative.
        target: `bn_affine`: scale and shift of the norm, or kernel and bias where there is no
            norm, which is exact if the activation is positively homogeneous, as ReLU is; where it
            is not, the weights of the one layer that takes the activation, if there is one, which
            is exact too. `weight`: kernel and bias; in front of a norm, a channel then tends to a
            constant and not to 0. `gate`: the activation itself, by a hook, exact everywhere; the
            factors are kept as the buffer `channel_gate`, so that a file with them is not taken
            for one without.
    """
    gate = gate.to(next(model.parameters()).device)  # statistics from a file are on the CPU
    if target == "gate":
        _hook(model.get_submodule(unit.output), unit, gate)
    elif target == "bn_affine" and unit.consumer and (unit.kind == "mlp" or not unit.homogeneous):
        _scale_inputs(model.get_submodule(unit.consumer), gate)
    else:
        place = unit.norm if target == "bn_affine" and unit.norm else unit.layer
        module = model.get_submodule(place)
        for parameter in (module.weight, module.bias):
            if isinstance(parameter, Tensor):
                shape = (-1,) + (1,) * (parameter.dim() - 1)
                parameter.data.mul_(gate.to(parameter.dtype).view(shape))


def is_exact(unit: ChannelUnit, target: Target) -> bool:
    """Whether the activation of a unit is scaled exactly by `damp_channels`."""
    if target == "gate":
        return True
    if target == "bn_affine":
        return unit.homogeneous or unit.consumer is not None
    return unit.homogeneous and unit.norm is None


def restore_channels(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Take a network back to a former state: gates that it did not have are taken off."""
    for name, module in model.named_modules():
        if GATE in module._buffers and f"{name}.{GATE}" not in state:
            del module._buffers[GATE]
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(hook, _Gate):
                    del module._forward_hooks[key]
    model.load_state_dict(state)


class _Gate:
    """Forward hook that multiplies channels by the module's own buffer; can be pickled."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        gate: Tensor = module._buffers[GATE]  # type: ignore[assignment]
        if self.kind == "conv":
            gate = gate.view(-1, *(1,) * (output.dim() - 2))
        return output * gate


def _hook(module: nn.Module, unit: ChannelUnit, gate: Tensor) -> None:
    if GATE in module._buffers:
        module.get_buffer(GATE).mul_(gate)
        return
    module.register_buffer(GATE, gate.clone())
    module.register_forward_hook(_Gate(unit.kind))


def _scale_inputs(consumer: nn.Module, gate: Tensor) -> None:
    """Scale the weights by which a layer takes each of its inputs."""
    weight: Tensor = consumer.weight.data  # type: ignore[assignment]
    gate = gate.to(weight.dtype)
    if isinstance(consumer, nn.Conv2d) and consumer.groups > 1:
        per_group = weight.shape[1]
        rows = len(weight) // consumer.groups
        grouped = gate.view(consumer.groups, 1, per_group).expand(-1, rows, -1)
        weight.mul_(grouped.reshape(len(weight), per_group, 1, 1))
    else:
        weight.mul_(gate.view(1, -1, *(1,) * (weight.dim() - 2)))
