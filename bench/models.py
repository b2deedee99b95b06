"""Any timm architecture by name, with a stem that suits the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import timm
import torch
from torch import nn

from .errors import InputError, UnknownNameError
from .modelspec import ModelSpec

SMALL_IMAGE = 64  # pixels; above it, the architecture's own stem is kept
PATCH_GRID = 8  # patches along a side that a small image is cut into


@dataclass(frozen=True)
class ModelInfo:
    """What was built.

    Attributes:
        stem: `small` if the stem was adapted to small images, else `own`.
        parameters: Number of trainable parameters.
        input_size: Channels, height, width.
    """

    stem: Literal["small", "own"]
    parameters: int
    input_size: tuple[int, int, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"stem": self.stem, "parameters": self.parameters,
                "input_size": list(self.input_size)}


def build_model(
    spec: ModelSpec, num_classes: int, image_shape: tuple[int, int, int], seed: int
) -> nn.Module:
    """Build a freshly initialised (or pretrained) model.

    A stem that would throw a small image away is replaced by a 3x3 convolution of stride 1
    without max-pooling; models that cut patches get patches of an eighth of the side. This is
    done for images of at most 64 pixels unless `stem=own` says otherwise.

    Args:
        spec: Architecture and keyword arguments.
        num_classes: Number of outputs.
        image_shape: Channels, height, width.
        seed: Seed of the initialisation; global random state is left as found.

    Returns:
        Model in float32 on the CPU that maps `(N, C, H, W)` to `(N, num_classes)` logits.

    Raises:
        InputError: If there is no such architecture, or it refuses its arguments or the image.
    """
    if not timm.is_model(spec.name):
        raise UnknownNameError("model", spec.name, timm.list_models(),
                               note="`unlearnbench ls models PATTERN` lists them.")
    small = _wants_small_stem(spec, image_shape)
    kwargs: dict[str, Any] = {"num_classes": num_classes, "in_chans": image_shape[0]}
    config = timm.get_pretrained_cfg(spec.name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        kwargs["img_size"] = image_shape[1:]
        if small and str(config.first_conv).endswith("proj"):
            kwargs["patch_size"] = max(1, image_shape[1] // PATCH_GRID)
    kwargs |= spec.kwargs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = timm.create_model(spec.name, pretrained=False, **kwargs)
            if small:
                _adapt_stem(model)
            _check_forward(model, image_shape, num_classes)
        except Exception as error:  # timm and torch raise many kinds for a bad argument
            reason = str(error).strip().split("\n", 1)[0].rstrip(".")
            raise InputError(
                f"timm cannot build model `{spec}` for images of shape {image_shape}: "
                f"{type(error).__name__}: {reason}."
            ) from error
    return cast(nn.Module, model)


def describe_model(
    spec: ModelSpec, model: nn.Module, image_shape: tuple[int, int, int]
) -> ModelInfo:
    """Say what was built."""
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    stem: Literal["small", "own"] = "small" if _wants_small_stem(spec, image_shape) else "own"
    return ModelInfo(stem, count, image_shape)


def list_models(pattern: str = "") -> list[str]:
    """Architecture names known to timm that match a wildcard pattern."""
    return cast("list[str]", timm.list_models(pattern))


def _wants_small_stem(spec: ModelSpec, image_shape: tuple[int, int, int]) -> bool:
    if spec.stem == "auto":
        return max(image_shape[1:]) <= SMALL_IMAGE
    return spec.stem == "small"


def _adapt_stem(model: nn.Module) -> None:
    """Make the first convolution 3x3 with stride 1 and drop the pooling that follows it."""
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    first = config.get("first_conv")
    for named in [first] if isinstance(first, str) else list(first or ()):
        name, conv = _first_convolution(model, named)
        if conv is None or name.endswith("proj"):
            continue  # patch embeddings are set by `patch_size`
        if max(conv.stride) == 1 and max(conv.kernel_size) <= 3:
            continue
        small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1,
                          groups=conv.groups, bias=conv.bias is not None)
        nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
        if small.bias is not None:
            nn.init.zeros_(small.bias)
        model.set_submodule(name, small)
    for name in ("maxpool", "features.pool0", "stem.pool", "stem_pool"):
        if _submodule(model, name) is not None:
            model.set_submodule(name, nn.Identity())


def _first_convolution(model: nn.Module, name: str) -> tuple[str, nn.Conv2d | None]:
    """The convolution of that name, or the first within the module of that name (deep stems)."""
    within = _submodule(model, name)
    for inner, module in within.named_modules() if within is not None else ():
        if isinstance(module, nn.Conv2d):
            return f"{name}.{inner}" if inner else name, module
    return name, None


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _check_forward(model: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run one blank image through, so that a bad combination is found before any training."""
    model.eval()
    with torch.no_grad():
        out = model(torch.zeros(1, *image_shape))
    model.train()
    if out.shape != (1, num_classes):
        raise ValueError(f"it gives {tuple(out.shape)} where (1, {num_classes}) is needed")
