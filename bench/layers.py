"""Finds the layers of any timm network, and what normalises and activates each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from .evaluate import in_eval_mode

_EXCITATION = re.compile(r"Squeeze|Excite|^SE($|Module|Layer)")
NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer, with its surroundings.

    Attributes:
        name: Qualified name in the model.
        module: `nn.Conv2d` or `nn.Linear`.
        norm: Normalisation fed by this layer's output and nothing else, or None.
        output: Module whose output is the layer's channel activation: the activation function
            that directly follows (before any residual addition) and serves no other layer, else
            `norm`, else the layer.
        is_stem: Whether it is the first layer that the image meets.
        is_head: Whether it gives the logits.
        consumer: The one layer that takes the activation, if it takes nothing else, or None.
        is_excitation: Whether it is part of a squeeze-and-excitation block, which scales
            channels; what it gives is no feature map.
    """

    name: str
    module: nn.Conv2d | nn.Linear
    norm: nn.Module | None
    output: nn.Module
    is_stem: bool
    is_head: bool
    consumer: nn.Conv2d | nn.Linear | None = None
    is_excitation: bool = False

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return isinstance(self.module, nn.Conv2d)

    @property
    def channels(self) -> int:
        """Number of output channels (or features)."""
        module = self.module
        return module.out_channels if isinstance(module, nn.Conv2d) else module.out_features


@dataclass
class _Trace:
    """What one forward pass showed: which module's output went, untouched, into which."""

    takers: dict[nn.Module, set[nn.Module]] = field(default_factory=dict)
    uses: dict[nn.Module, int] = field(default_factory=dict)  # calls that took its output
    makers: dict[nn.Module, set[nn.Module | None]] = field(default_factory=dict)
    order: list[nn.Module] = field(default_factory=list)

    def follower(self, module: nn.Module) -> nn.Module | None:
        """The one module that takes this one's output, if it takes nothing else."""
        takers = self.takers.get(module, set())
        return next((t for t in takers if len(takers) == 1 and self.makers[t] == {module}), None)


def find_layers(model: nn.Module, image: Tensor) -> list[Layer]:
    """List convolutions and linear layers in the order in which they run.

    A layer and the norm behind it are linked when the norm's input is the very tensor that the
    layer gave, untouched in between; so a norm behind a residual addition, even one done in
    place, is linked to nothing.

    Args:
        model: Any network.
        image: `(N, C, H, W)` float example batch on the model's device; one image is enough.
    """
    trace = _trace(model, image)
    heads, excited = heads_of(model), excitations(model)
    layers = [m for m in trace.order if isinstance(m, (nn.Conv2d, nn.Linear))]
    names = {module: name for name, module in model.named_modules()}
    found = []
    for position, module in enumerate(layers):
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        norm = trace.follower(module)
        norm = norm if isinstance(norm, NORMS) else None
        last = norm if norm is not None else module
        behind = trace.follower(last)
        output = behind if behind is not None and _is_activation(behind) else last
        is_head = module in heads if heads else position == len(layers) - 1
        consumer = trace.follower(output) if trace.uses.get(output) == 1 else None
        found.append(
            Layer(
                names[module],
                module,
                norm,
                output,
                is_stem=position == 0,
                is_head=is_head,
                consumer=consumer if isinstance(consumer, (nn.Conv2d, nn.Linear)) else None,
                is_excitation=names[module] in excited,
            )
        )
    return found


def excitations(model: nn.Module) -> set[str]:
    """Names of all modules inside squeeze-and-excitation blocks, by the names of their classes."""
    blocks = [n for n, m in model.named_modules() if _EXCITATION.search(type(m).__name__)]
    return {
        name
        for name, _ in model.named_modules()
        for block in blocks
        if name.startswith(f"{block}.")
    }


def stages(model: nn.Module, last: int) -> list[str]:
    """Names of all modules of the last stages of a network and of what comes after.

    A stage ends where timm's `feature_info` says that a feature map is taken; for a network
    without it, the second half of its layers is as good as any.
    """
    names = [name for name, _ in model.named_modules() if name]
    info: Any = getattr(model, "feature_info", None) or []
    ends = [item["module"] for item in info if isinstance(item, dict) and item.get("module")]
    ends = [end for end in ends if end in names]
    if len(ends) <= last:
        return names if ends else names[len(names) // 2 :]
    end = ends[-last - 1]
    position = max(i for i, n in enumerate(names) if n == end or n.startswith(f"{end}."))
    return names[position + 1 :]


def heads_of(model: nn.Module) -> set[nn.Module]:
    """The classifier as timm names it, which may be several layers; empty for other networks."""
    named: Any = getattr(model, "get_classifier", tuple)()
    parts = named if isinstance(named, (tuple, list)) else [named]
    return {module for part in parts for module in part.modules()}


def _is_activation(module: nn.Module) -> bool:
    """An activation function has no parameters and no children, and is not a pass-through."""
    return (
        not list(module.parameters())
        and not list(module.children())
        and type(module).__module__.startswith(("torch.nn.modules.activation", "timm.layers.act"))
    )


def _trace(model: nn.Module, image: Tensor) -> _Trace:
    """Run the model once with hooks on every leaf that can link a layer to its surroundings."""
    trace = _Trace()
    produced: dict[int, tuple[nn.Module | None, int]] = {}  # id of a tensor -> maker, version
    alive: list[Tensor] = []  # so that no id is used twice
    interesting = [
        m
        for m in model.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear, *NORMS)) or _is_activation(m)
    ]

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tensor = inputs[0] if inputs else None  # None if it was given by keyword
        maker, version = produced.get(id(tensor), (None, -1))
        # the version rises with every change in place, so equal versions mean untouched
        if tensor is None or tensor._version != version:
            maker = None
        trace.makers.setdefault(module, set()).add(maker)
        if maker is not None:
            trace.takers.setdefault(maker, set()).add(module)

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        alive.append(output)
        produced[id(output)] = (module, output._version)
        if module not in trace.order:
            trace.order.append(module)

    handles: list[RemovableHandle] = []
    try:
        for module in interesting:
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
        with in_eval_mode(model), torch.no_grad(), _Uses() as uses:
            model(image)
        for identity, (maker, _) in produced.items():
            if maker is not None:
                trace.uses[maker] = trace.uses.get(maker, 0) + uses.count[identity]
    finally:
        for handle in handles:
            handle.remove()
    return trace


class _Uses(TorchFunctionMode):
    """Counts the operations that make another tensor of each tensor, by `id`."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self._alive: list[Tensor] = []  # so that no id is used twice

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        taken = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, Tensor)]
        makes = isinstance(result, (Tensor, tuple, list)) and not isinstance(result, torch.Size)
        if makes and all(result is not tensor for tensor in taken):
            self.count.update({id(tensor) for tensor in taken})
            self._alive += taken
        return result
