"""Features of a network: what its classifier reads, and what its blocks give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .batches import ExampleSet
from .errors import UnlearnBenchError
from .evaluate import in_eval_mode, pass_size
from .layers import find_layers
from .metrics.lrt import FloatArray
from .probes import MOST_BLOCKS


class FeatureError(UnlearnBenchError):
    """A network whose features cannot be read."""


def penultimate(model: nn.Module, examples: ExampleSet) -> FloatArray:
    """The input of the classifier.

    The classifier is what timm calls so, or else the last layer that runs. Where it is several
    layers side by side, as with a distillation token, their inputs stand beside each other; what
    still has a spatial extent is averaged over it.

    Args:
        model: Left in the mode in which it came.
        examples: N examples; served with the evaluation transform.

    Returns:
        `(N, p)` float64.

    Raises:
        FeatureError: If the classifier is not found or does not run.
    """
    heads = _classifiers(model)
    if not heads:
        image = next(examples.batches(1)).images
        heads = [layer.module for layer in find_layers(model, image) if layer.is_head]
    if not heads:
        raise FeatureError("the network has no classifier whose input could be read")
    names = [f"head {place}" for place in range(len(heads))]
    read = dict(zip(names, heads, strict=True))
    found = _record(model, examples, read, lambda _, tensor: _pooled(tensor, None), inputs=True)
    if set(found) != set(names):
        raise FeatureError("the classifier of the network does not run")
    return np.concatenate([found[name] for name in names], axis=1)


def block_features(model: nn.Module, examples: ExampleSet) -> dict[str, FloatArray]:
    """The output of every block, averaged over space or tokens.

    Blocks are the stages that timm names, else the direct children that have parameters, without
    the classifier; at most 8, evenly spread, the last one always among them. Averages keep few
    numbers an example, and do not see where in the image something is.

    Args:
        model: Left in the mode in which it came.
        examples: N examples; served with the evaluation transform.

    Returns:
        `(N, p)` float64 by the name of the block, from input to output.

    Raises:
        FeatureError: If no block is found.
    """
    blocks = _blocks(model)
    modules = dict(model.named_modules())
    read = {name: modules[name] for name in blocks}
    last = getattr(model, "output_fmt", "") == "NHWC"
    found = _record(model, examples, read, lambda name, t: _pooled(t, blocks[name], last))
    if not found:
        raise FeatureError("the network has no blocks whose outputs could be read")
    return {name: found[name] for name in blocks if name in found}


def _classifiers(model: nn.Module) -> list[nn.Module]:
    """The classifier as timm names it; empty for other networks."""
    named: Any = getattr(model, "get_classifier", tuple)()
    parts = named if isinstance(named, (tuple, list)) else [named]
    return [part for part in parts if isinstance(part, nn.Module) and _has_parameters(part)]


def _blocks(model: nn.Module) -> dict[str, int | None]:
    """Names of the blocks, with the number of channels that each gives, where it is known."""
    modules = dict(model.named_modules())
    found: dict[str, int | None] = {}
    for info in _feature_info(model):
        name = str(info.get("module", ""))
        if name in modules:
            found[name] = info.get("num_chs")
    if not found:
        heads = set(_classifiers(model))
        for name, child in model.named_children():
            if _has_parameters(child) and not heads & set(child.modules()):
                found[name] = None
    names = list(found)
    if len(names) > MOST_BLOCKS:
        places = np.linspace(0, len(names) - 1, MOST_BLOCKS).round().astype(int)
        names = [names[place] for place in places]
    return {name: found[name] for name in names}


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _feature_info(model: nn.Module) -> Sequence[dict[str, Any]]:
    """What timm knows of the stages; empty for other networks."""
    info: Any = getattr(model, "feature_info", None)
    return [i for i in info if isinstance(i, dict)] if isinstance(info, (list, tuple)) else []


def _pooled(tensor: Tensor, channels: int | None, last: bool = False) -> Tensor:
    """Average over all but examples and channels: `(N, p)` float32.

    Args:
        tensor: `(N, p)`, `(N, tokens, p)`, `(N, C, H, W)`, or `(N, H, W, C)` where the number of
            channels says so.
        channels: Number of channels, where it is known.
        last: Whether the network keeps channels behind, where shapes do not tell.
    """
    values = tensor.float()
    if values.ndim <= 2:
        return values.flatten(1)
    last = last or values.ndim == 3  # tokens first
    if channels is not None and values.shape[1] != values.shape[-1]:
        last = values.shape[-1] == channels
    axes = range(1, values.ndim - 1) if last else range(2, values.ndim)
    return values.mean(dim=tuple(axes))


def _record(
    model: nn.Module,
    examples: ExampleSet,
    modules: dict[str, nn.Module],
    pool: Callable[[str, Tensor], Tensor],
    *,
    inputs: bool = False,
) -> dict[str, FloatArray]:
    """Run all examples through, and keep what some modules take or give, pooled at once.

    A later layer may overwrite a tensor in place, so that it is not kept as it is.
    """
    parts: dict[str, list[Tensor]] = {}

    def keep(name: str, value: Any) -> None:  # noqa: ANN401
        tensor = value[0] if isinstance(value, (tuple, list)) and value else value
        if isinstance(tensor, Tensor):
            parts.setdefault(name, []).append(pool(name, tensor).cpu())

    off = torch.autocast(examples.ids.device.type, enabled=False)
    with _hooked(modules, keep, inputs), in_eval_mode(model), torch.no_grad(), off:
        for batch in examples.batches(pass_size(examples)):
            model(batch.images)
    found = {name: torch.cat(values).double().numpy() for name, values in parts.items()}
    return {name: values for name, values in found.items() if len(values) == len(examples)}


@contextmanager
def _hooked(
    modules: dict[str, nn.Module], keep: Callable[[str, Any], None], inputs: bool
) -> Iterator[None]:
    handles = []
    try:
        for name, module in modules.items():
            if inputs:
                handles.append(
                    module.register_forward_pre_hook(lambda _, args, name=name: keep(name, args))
                )
            else:
                handles.append(
                    module.register_forward_hook(lambda _, __, out, name=name: keep(name, out))
                )
        yield
    finally:
        for handle in handles:
            handle.remove()
