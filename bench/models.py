"""Any timm architecture by name, with a stem that suits the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any, Literal

import timm
import torch
from torch import nn

from .errors import InputError, UnknownNameError
from .modelspec import ModelSpec
from .weights import MisfitError, check_unchanged, load_weights

SMALL_IMAGE = 64  # pixels; above it, the architecture's own stem is kept
PATCH_GRID = 8  # patches along a side that a small image is cut into
POOLS = ("maxpool", "features.pool0", "features.conv1_pool", "pool0", "stem.pool", "stem_pool")


@dataclass(frozen=True)
class ModelInfo:
    """What was built.

    Attributes:
        stem: `small` if the stem differs from the architecture's own, else `own`.
        parameters: Number of trainable parameters.
        input_size: Channels, height, width.
        weights: Name and digest of the weights that it starts from; empty for none.
    """

    stem: Literal["small", "own"]
    parameters: int
    input_size: tuple[int, int, int]
    weights: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "stem": self.stem,
            "parameters": self.parameters,
            "input_size": list(self.input_size),
            **({"weights": dict(self.weights)} if self.weights else {}),
        }


def build_model(
    spec: ModelSpec, num_classes: int, image_shape: tuple[int, int, int], seed: int
) -> nn.Module:
    """Build a freshly initialised model, or one that starts from weights.

    A stem that would throw a small image away is replaced by a 3x3 convolution of stride 1
    without max-pooling; models that cut patches get patches of about an eighth of the side. This
    is done for images of at most 64 pixels unless `stem=own` says otherwise. Where an
    architecture does not allow it, `auto` keeps its own stem and `small` is an error.

    Weights decide for themselves: with `auto` the architecture keeps its own stem, and gets the
    small one only where a file fits that one alone. A classifier of another width is left freshly
    initialised. Whoever made the weights may have used the images that are to be forgotten.

    Args:
        spec: Architecture and keyword arguments.
        num_classes: Number of outputs.
        image_shape: Channels, height, width.
        seed: Seed of the initialisation; global random state is left as found.

    Returns:
        Model in float32 on the CPU that maps `(N, C, H, W)` to `(N, num_classes)` logits.

    Raises:
        InputError: If there is no such architecture, it refuses its arguments or the image, or
            its weights do not fit or cannot be had.
    """
    check_name(spec)
    if spec.weights is not None:
        return _start_from_weights(spec, num_classes, image_shape, seed)
    small = _wants_small_stem(spec, image_shape)
    try:
        return _build(spec, num_classes, image_shape, seed, small=small)
    except InputError:
        if not small or spec.stem == "small":
            raise
    return _build(spec, num_classes, image_shape, seed, small=False)


def head_is_fresh(spec: ModelSpec, model: nn.Module) -> bool:
    """Whether the weights left the classifier as it was initialised, for its width is another.

    Args:
        spec: Architecture with its weights.
        model: What `build_model` made of it; its weights are read again.
    """
    if spec.weights is None:
        return True
    if spec.weights.file is not None:
        return not load_weights(model, spec.weights.file, str(spec))
    config = timm.get_pretrained_cfg(spec.name)
    return config is None or config.num_classes != getattr(model, "num_classes", None)


def check_name(spec: ModelSpec) -> None:
    """Check that timm knows the architecture.

    Raises:
        UnknownNameError: If it does not.
    """
    if not timm.is_model(spec.name):
        raise UnknownNameError(
            "model",
            spec.name,
            timm.list_models(),
            note="`unlearnbench ls models PATTERN` lists them.",
        )


def describe_model(
    spec: ModelSpec, model: nn.Module, image_shape: tuple[int, int, int]
) -> ModelInfo:
    """Say what was built, by comparison with the architecture as timm makes it."""
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    with torch.random.fork_rng(devices=[]):
        own = timm.create_model(spec.name, in_chans=image_shape[0], **spec.kwargs)
    same = _stem_parts(model) == _stem_parts(own)
    weights = spec.weights
    origin = {} if weights is None else {"name": weights.name, "digest": weights.digest}
    return ModelInfo("own" if same else "small", count, image_shape, origin)


def list_models(pattern: str = "") -> list[str]:
    """Architecture names known to timm that match a wildcard pattern."""
    names: list[str] = timm.list_models(pattern)
    return names


def _start_from_weights(
    spec: ModelSpec, num_classes: int, image_shape: tuple[int, int, int], seed: int
) -> nn.Module:
    """Build with weights; where the person leaves the stem open, the one that they fit."""
    assert spec.weights is not None
    if spec.weights.file is None:
        return _download(spec, num_classes, image_shape, seed)

    def start(*, small: bool) -> nn.Module:
        assert spec.weights is not None
        assert spec.weights.file is not None
        model = _build(spec, num_classes, image_shape, seed, small=small)
        check_unchanged(spec.weights.file, spec.weights.digest)
        load_weights(model, spec.weights.file, str(spec))
        return model

    try:
        return start(small=spec.stem == "small")
    except InputError as error:
        if spec.stem != "auto" or not _wants_small_stem(spec, image_shape):
            raise
        first = error
    try:
        return start(small=True)
    except MisfitError:
        raise first from None


def _download(
    spec: ModelSpec, num_classes: int, image_shape: tuple[int, int, int], seed: int
) -> nn.Module:
    """Build with the weights that timm offers."""
    if spec.stem == "small":
        raise InputError(
            f"model `{spec}`: timm's weights are for the architecture's own stem; "
            "leave out `stem=small`."
        )
    config = timm.get_pretrained_cfg(spec.name, allow_unregistered=True)
    if config is None or not config.has_weights:
        raise InputError(f"timm has no pretrained weights for the model `{spec.name}`.")
    # without weights first, so that a bad argument is not taken for a bad network
    _build(spec, num_classes, image_shape, seed, small=False)
    try:
        return _build(spec, num_classes, image_shape, seed, small=False, pretrained=True)
    except InputError as error:
        raise InputError(
            f"timm's pretrained weights of the model `{spec.name}` cannot be downloaded "
            f"({type(error.__cause__).__name__}); give a local file with `weights=FILE` instead."
        ) from error


def _wants_small_stem(spec: ModelSpec, image_shape: tuple[int, int, int]) -> bool:
    if spec.stem == "auto":
        return max(image_shape[1:]) <= SMALL_IMAGE
    return spec.stem == "small"


def _build(
    spec: ModelSpec,
    num_classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
    *,
    small: bool,
    pretrained: bool = False,
) -> nn.Module:
    kwargs: dict[str, Any] = {"num_classes": num_classes, "in_chans": image_shape[0]}
    config = timm.get_pretrained_cfg(spec.name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        kwargs["img_size"] = image_shape[1:]
        if small and str(config.first_conv).endswith("proj"):
            kwargs["patch_size"] = _patch_size(*image_shape[1:])
    kwargs |= spec.kwargs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = timm.create_model(spec.name, pretrained=pretrained, **kwargs)
            if small:
                _adapt_stem(model)
            _check_patches(model, image_shape)
            _check_forward(model, image_shape, num_classes)
        except Exception as error:  # timm and torch raise many kinds for a bad argument
            reason = str(error).strip().split("\n", 1)[0].rstrip(".")
            raise InputError(
                f"timm cannot build model `{spec}` for images of shape {image_shape}: "
                f"{type(error).__name__}: {reason}."
            ) from error
    return model


def _patch_size(height: int, width: int) -> int:
    """The side nearest to an eighth of the image's that cuts it without remainder."""
    common = gcd(height, width)
    sizes = [size for size in range(1, common + 1) if common % size == 0]
    return min(sizes, key=lambda size: abs(size - height / PATCH_GRID))


def _adapt_stem(model: nn.Module) -> None:
    """Make the first convolution 3x3 with stride 1 and drop the pooling that follows it."""
    for name, conv in _first_convolutions(model):
        if name.endswith("proj") and _config(model).get("fixed_input_size"):
            continue  # patch embeddings are set by `patch_size`
        if max(conv.stride) == 1 and max(conv.kernel_size) <= 3:
            continue
        kernel = min(3, max(conv.kernel_size))
        small = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            kernel,
            1,
            kernel // 2,
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
        if small.bias is not None:
            nn.init.zeros_(small.bias)
        model.set_submodule(name, small)
    for name in POOLS:
        if _submodule(model, name) is not None:
            model.set_submodule(name, nn.Identity())


def _stem_parts(model: nn.Module) -> list[object]:
    """All that `_build` may change: first convolutions, patches, pooling."""
    convolutions = [(conv.kernel_size, conv.stride) for _, conv in _first_convolutions(model)]
    return [convolutions, [type(_submodule(model, name)) for name in POOLS]]


def _first_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """The convolutions that timm names as first; of a deep stem that it names, the first."""
    names = _config(model).get("first_conv") or ()
    found = []
    for name in [names] if isinstance(names, str) else names:
        within = _submodule(model, name)
        inner = [
            (f"{name}.{n}" if n else name, m)
            for n, m in (within.named_modules() if within is not None else ())
            if isinstance(m, nn.Conv2d)
        ]
        found += inner[:1]
    return found


def _config(model: nn.Module) -> Mapping[str, Any]:
    return getattr(model, "pretrained_cfg", None) or {}


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _check_patches(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Refuse patches that leave a border of the image unseen."""
    if not _config(model).get("fixed_input_size"):
        return
    for _, conv in _first_convolutions(model):
        sizes = zip(image_shape[1:], conv.kernel_size, strict=True)
        if conv.kernel_size == conv.stride and any(side % patch for side, patch in sizes):
            raise ValueError(f"its patches of {conv.kernel_size} pixels do not divide the image")


def _check_forward(model: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run one blank image through, so that a bad combination is found before any training."""
    model.eval()
    with torch.no_grad():
        out = model(torch.zeros(1, *image_shape))
    model.train()
    if out.shape != (1, num_classes):
        raise ValueError(f"it gives {tuple(out.shape)} where (1, {num_classes}) is needed")
