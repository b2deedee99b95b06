"""The choices of the attack's estimator, as names; see `lrt` for what they mean."""

from __future__ import annotations

from typing import Literal

Variance = Literal["eb_t", "pooled", "per_example", "reference_fixed"]
Centre = Literal["mean", "median"]
