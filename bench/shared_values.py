"""Values that many places name, each kept once."""

from __future__ import annotations

import math
from typing import Any

from .keys import canonical_json


class SharedValues:
    """A list of JSON values in order of first use.

    Attributes:
        values: The values; a place in this list stands for each.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:  # noqa: ANN401
        """Return where the value stands, adding it if it is new."""
        text = canonical_json(value)
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values.append(value)
        return self._places[text]


def rounded(value: float | None, digits: int = 5) -> float | int | None:
    """A number with few significant digits, whole numbers as such; None where there is none."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short
