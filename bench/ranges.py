"""Search range of a hyper-parameter, declared in its annotation."""

from __future__ import annotations

from dataclasses import dataclass


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
