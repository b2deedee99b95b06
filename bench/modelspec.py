"""The name of an architecture and its keyword arguments, as written by a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from .errors import InputError
from .spec_string import format_spec, parse_spec

Stem = Literal["auto", "small", "own"]
OURS = ("num_classes", "in_chans", "pretrained")


@dataclass(frozen=True)
class ModelSpec:
    """A timm architecture.

    Attributes:
        name: timm's name.
        kwargs: Keyword arguments of `timm.create_model`.
        stem: `auto` adapts the stem for images of at most 64 pixels; `small` always, `own` never.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    stem: Stem = "auto"

    def __str__(self) -> str:
        extra = {} if self.stem == "auto" else {"stem": self.stem}
        return format_spec(self.name, {**self.kwargs, **extra})


def create_model_spec(text: str | Mapping[str, Any]) -> ModelSpec:
    """Read `name[key=value,…]`; `stem` is ours, every other key goes to timm.

    Raises:
        InputError: If the notation is wrong or a key is set that the dataset decides.
    """
    name, params = parse_spec(text, "model")
    stem = params.pop("stem", "auto")
    if stem not in ("auto", "small", "own"):
        raise InputError(f"model `{name}`: `stem` must be auto, small or own; got {stem!r}.")
    for key in OURS:
        if key in params:
            raise InputError(f"model `{name}`: `{key}` is set by the harness; leave it out.")
    return ModelSpec(name, params, cast(Stem, stem))
