"""Several networks of one architecture as a single network that computes all of them at once.

Activations lie side by side in the channels: `(B, M*C, H, W)` holds M models, each with its own
images. A convolution becomes a grouped one, a linear layer a batch of matrix products, and batch
normalisation of `M*C` channels is exact as it is, running statistics included, because it treats
every channel apart. Whatever acts on each channel by itself stays as it is.

Source: the construction is ours; stacking by `torch.func.vmap`, the usual way, has no running
statistics of BatchNorm (https://docs.pytorch.org/docs/stable/func.batch_norm.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from timm.layers.linear import Linear
from timm.layers.norm import GroupNorm
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

LINEAR = (nn.Linear, Linear)
# widened to M times the channels and groups
WIDENED = (nn.Conv2d, nn.BatchNorm2d, BatchNormAct2d, nn.GroupNorm, GroupNorm)
SIZES = ("in_channels", "out_channels", "groups", "num_features", "num_channels", "num_groups")
# of torch.nn and timm.layers: an output channel depends on the same input channel alone, and in
# the same way whichever channel it is
CHANNELWISE = {
    *("Identity", "Flatten", "Upsample", "ZeroPad2d"),
    *("MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d"),
    *("ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "GELUTanh", "SiLU", "Swish"),
    *("Mish", "HardMish", "Sigmoid", "Tanh", "Softplus", "Hardtanh", "Hardswish", "HardSwish"),
    *("Hardsigmoid", "HardSigmoid"),
}
# harmless where their rate is zero
RANDOM = {"Dropout", "Dropout2d", "AlphaDropout", "DropPath", "DropBlock2d", "PatchDropout"}
LIBRARIES = ("torch.nn.", "timm.layers.")


class StackedLinear(nn.Module):
    """M linear layers, each on its own features.

    Args:
        layer: Gives the widths, and says whether there is a bias.
        count: M.

    Attributes:
        weight: `(M, O, F)`.
        bias: `(M, O)`, or None.
    """

    def __init__(self, layer: nn.Linear, count: int) -> None:
        super().__init__()
        weight = layer.weight
        self.weight = nn.Parameter(weight.new_empty(count, *weight.shape), weight.requires_grad)
        self.bias = None
        if layer.bias is not None:
            empty = layer.bias.new_empty(count, *layer.bias.shape)
            self.bias = nn.Parameter(empty, layer.bias.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, M*F)` features to `(B, M*O)`."""
        count, _, width = self.weight.shape
        if x.dim() != 2 or x.shape[1] != count * width:
            raise ValueError(f"features of shape {tuple(x.shape)} are not of {count} models")
        features = x.view(-1, count, width).transpose(0, 1)
        weight = self.weight.transpose(1, 2)
        if self.bias is None:
            out = torch.bmm(features, weight)
        else:
            out = torch.baddbmm(self.bias[:, None], features, weight)
        return out.transpose(0, 1).flatten(1)


def stack_models(models: Sequence[nn.Module]) -> nn.Module:
    """Build the network that computes all models at once.

    Args:
        models: M networks of the same architecture for which `layer_reasons` gives no reason;
            they are not changed.

    Returns:
        A network with the same names in its state, from `(B, M*C, H, W)` images to `(B, M*K)`
        logits, model after model; with the weights of the models, on their device.
    """
    count = len(models)
    stacked = deepcopy(models[0])
    for name, module in list(stacked.named_modules()):
        if isinstance(module, LINEAR):
            stacked.set_submodule(name, StackedLinear(module, count))
        elif type(module) in WIDENED:
            _widen(module, count)
    for key, tensor in stacked.state_dict().items():
        parts = torch.stack([model.state_dict()[key] for model in models])
        tensor.copy_(parts[0] if _is_shared(tensor, parts[0]) else parts.view_as(tensor))
    return stacked


def unstack(stacked: nn.Module, models: Sequence[nn.Module]) -> None:
    """Copy weights and buffers of a stacked network back into its models."""
    state = stacked.state_dict()
    for number, model in enumerate(models):
        for key, own in model.state_dict().items():
            tensor = state[key]
            if not _is_shared(tensor, own):
                tensor = tensor.view(len(models), *own.shape)[number]
            own.copy_(tensor)


def layer_reasons(models: Sequence[nn.Module]) -> list[str]:
    """Say why models cannot be stacked, as far as their layers tell.

    Operations outside layers are not seen here: compare the outputs as well.

    Returns:
        Sentences without a full stop; empty if every layer is known.
    """
    reasons = []
    if any(_layout(model) != _layout(models[0]) for model in models[1:]):
        reasons.append("the models are not of the same architecture")
    elif any(not _same_counters(model, models[0]) for model in models[1:]):
        reasons.append("the models' counters of batches differ")
    first = models[0]
    if len(list(first.parameters())) < len(list(first.named_parameters(remove_duplicate=False))):
        reasons.append("layers share parameters")
    found: dict[tuple[str, str], list[str]] = {}
    for name, module in first.named_modules():
        fault = _fault(module)
        if fault is not None:
            found.setdefault((type(module).__name__, fault), []).append(name or "the network")
    for (kind, fault), names in found.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        reasons.append(f"{kind} (`{names[0]}`{more}) {fault}")
    return reasons


def _widen(module: nn.Module, count: int) -> None:
    """Make a convolution or a normalisation that of `count` models, with tensors to be filled."""
    for name in SIZES:
        if hasattr(module, name):
            setattr(module, name, count * getattr(module, name))
    for name, parameter in list(module.named_parameters(recurse=False)):
        wide = parameter.new_empty(count * len(parameter), *parameter.shape[1:])
        setattr(module, name, nn.Parameter(wide, parameter.requires_grad))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.dim():
            setattr(module, name, buffer.new_empty(count * len(buffer)))


def _is_shared(stacked: Tensor, own: Tensor) -> bool:
    """Whether a tensor is one for all models: the counter of batches."""
    return not own.dim() and not stacked.dim()


def _layout(model: nn.Module) -> list[object]:
    """What must agree between models: the layers, and shapes and kinds of all tensors."""
    layers = [(name, str(m)) for name, m in model.named_modules() if not list(m.children())]
    tensors = [(k, t.shape, t.dtype, t.device) for k, t in model.state_dict().items()]
    return [layers, tensors, [p.requires_grad for p in model.parameters()]]


def _same_counters(model: nn.Module, other: nn.Module) -> bool:
    pairs = zip(model.buffers(), other.buffers(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs if not a.dim())


def _fault(module: nn.Module) -> str | None:
    """Why a layer, looked at without those inside it, cannot be stacked; None if it can."""
    kind = type(module)
    if kind in (*LINEAR, *WIDENED):
        return None
    known = kind.__module__.startswith(LIBRARIES)
    if known and kind.__name__ in RANDOM:
        return "draws random numbers" if _rate(module) else None
    if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
        return "holds parameters in a way that is not known"
    if not list(module.children()) and not (known and kind.__name__ in CHANNELWISE):
        return "is not known to treat every channel apart"
    return None


def _rate(module: nn.Module) -> float:
    """The probability of a layer that drops something; 1 if it cannot be told."""
    rate = getattr(module, "p", getattr(module, "drop_prob", 1.0))
    return float(rate or 0.0)
