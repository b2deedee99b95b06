"""The name of an architecture and its keyword arguments, as written by a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

from .errors import InputError
from .keys import digest_file
from .spec_string import format_spec, parse_spec

Stem = Literal["auto", "small", "own"]
OURS = ("num_classes", "in_chans", "pretrained")
TIMM = "timm"


@dataclass(frozen=True)
class Weights:
    """What a model starts from instead of a random initialisation.

    The training images of whoever made them are not known here: they may well have held the
    forget set, and then a model that is retrained from them has seen it too.

    Attributes:
        name: The file's name, or `timm` for timm's own pretrained weights.
        digest: What determines the content: SHA-256 of the file, or the version of timm.
        file: Where the file lies; None for timm's.
    """

    name: str
    digest: str
    file: Path | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A timm architecture.

    Attributes:
        name: timm's name.
        kwargs: Keyword arguments of `timm.create_model`.
        stem: `auto` adapts the stem for images of at most 64 pixels; `small` always, `own` never.
            With weights, `auto` keeps the architecture's own stem unless only the small one fits.
        weights: What originals, retrained and shadow models start from; None for random weights.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    stem: Stem = "auto"
    weights: Weights | None = None

    def __str__(self) -> str:
        extra: dict[str, str] = {} if self.stem == "auto" else {"stem": self.stem}
        if self.weights is not None:
            extra["weights"] = self.weights.name
        return format_spec(self.name, {**self.kwargs, **extra})

    def as_built(self, stem: Stem) -> ModelSpec:
        """The same network, to be filled with weights of its own from the store.

        Args:
            stem: What was built. It is looked at only where the weights decided it.
        """
        return self if self.weights is None else replace(self, stem=stem, weights=None)


def create_model_spec(text: str | Mapping[str, Any]) -> ModelSpec:
    """Read `name[key=value,…]`; `stem` and `weights` are ours, every other key goes to timm.

    Raises:
        InputError: If the notation is wrong, a key is set that the dataset decides, or there is
            no such file of weights.
    """
    name, params = parse_spec(text, "model")
    stem = params.pop("stem", "auto")
    if stem not in ("auto", "small", "own"):
        raise InputError(f"model `{name}`: `stem` must be auto, small or own; got {stem!r}.")
    weights = params.pop("weights", None)
    for key in OURS:
        if key in params:
            instead = "; `weights=timm` asks for timm's weights" if key == "pretrained" else ""
            raise InputError(
                f"model `{name}`: `{key}` is set by the harness; leave it out{instead}."
            )
    found = None if weights is None else _find_weights(name, weights)
    return ModelSpec(name, params, cast(Stem, stem), found)


def _find_weights(model: str, wish: object) -> Weights:
    if not isinstance(wish, str) or not wish:
        raise InputError(f"model `{model}`: `weights` must be a file or timm; got {wish!r}.")
    if wish == TIMM:
        return Weights(TIMM, f"timm {version(TIMM)}")
    file = Path(wish).expanduser()
    if not file.is_file():
        raise InputError(
            f"model `{model}`: the weights file `{file}` does not exist; "
            "give a safetensors or torch file, or timm for timm's own."
        )
    try:
        return Weights(file.name, digest_file(file), file.absolute())
    except OSError as error:
        raise InputError(
            f"model `{model}`: the weights file `{file}` cannot be read: {error.strerror}."
        ) from None
