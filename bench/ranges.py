"""What a hyper-parameter's annotation says of its search: where, when, and whether at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Where a search may look; not a check (write `Field(gt=0)` and the like beside it).

    `lr: Annotated[float, Field(gt=0), Range(1e-4, 1e-1, log=True)] = 0.01` declares default,
    check and search range of `lr` in one line. Choices need no range: `Literal` and `bool`
    fields are searched over their values.

    Attributes:
        low: Smallest value, included.
        high: Largest value, included.
        log: Search the logarithm.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high`; got {self.low} and {self.high}.")
        if self.log and self.low <= 0:
            raise ValueError(f"`low` must be positive when `log` is set; got {self.low}.")


class When:
    """That a hyper-parameter matters only where others have certain values.

    `tau: Annotated[float, Range(1, 3), When(selection="threshold")] = 2.0` is searched in trials
    with that selection, and has its default in the others. The others are declared before it.

    Args:
        fields: Value, or tuple of values, by the name of another field.

    Attributes:
        fields: The values by name.
    """

    def __init__(self, **fields: Any) -> None:  # noqa: ANN401
        self.fields: Mapping[str, tuple[Any, ...]] = {
            name: value if isinstance(value, tuple) else (value,) for name, value in fields.items()
        }

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether all of the others have one of their values."""
        return all(params[name] in values for name, values in self.fields.items())


@dataclass(frozen=True)
class Unsearched:
    """That a choice is not searched: it says what is asked for, and not how well it is done."""
