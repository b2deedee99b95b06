"""What the open parts of a record must be like, where something reads them.

Methods and versions may put more into these tables; what is read has the type that it is read as,
so that a wrong line is told by its number and not by a later failure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Weights(_Part):
    name: str
    digest: str


class _ModelInfo(_Part):
    parameters: _Count = 0
    input_size: list[int] = []
    filter_cosine: float = 0.0
    feature_correlation: float = 0.0
    weights: _Weights | None = None

    @field_validator("weights", mode="before")
    @classmethod
    def _none_if_empty(cls, value: Any) -> Any:  # noqa: ANN401
        return value or None


class _Training(_Part):
    penalty: dict[str, Any] = {}


class _Tuning(_Part):
    seconds: float = 0.0
    development_models: _Count = 0


class _Attack(_Part):
    shadows: _Count = 0
    examples: _Count = 0
    views: _Count = 0
    bank: str | None = None
    scores: str | None = None


class _Probe(_Part):
    notes: list[Any] = []
    probes: list[str] = []


PARTS: dict[str, type[_Part]] = {
    "hyperparameters": _Part,
    "model_info": _ModelInfo,
    "training": _Training,
    "tuning": _Tuning,
    "method_info": _Part,
    "environment": _Part,
    "attack": _Attack,
    "probe": _Probe,
}


def check_parts(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Make sure that values of the open parts of a record have the types that they are read as.

    Args:
        parts: By the names of the fields.

    Raises:
        ValueError: If one has not.
    """
    for name, kind in PARTS.items():
        try:
            kind.model_validate(parts[name])
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (name, *first["loc"])))
            raise ValueError(f"{where}: {first['msg']}") from None


def check_finite(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Make sure that no number in the open parts is infinite or NaN, which JSON does not have.

    Raises:
        ValueError: If one is.
    """
    for name, held in parts.items():
        if where := _not_finite(held, name):
            raise ValueError(f"{where} is not a finite number")


def _not_finite(value: Any, where: str) -> str:  # noqa: ANN401
    """Where the first number is that JSON cannot hold; empty if there is none."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else where
    if isinstance(value, Mapping):
        inner = ((f"{where}.{key}", held) for key, held in value.items())
    elif isinstance(value, list | tuple):
        inner = ((f"{where}.{number}", held) for number, held in enumerate(value))
    else:
        return ""
    return next((found for place, held in inner if (found := _not_finite(held, place))), "")
