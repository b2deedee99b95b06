"""Relearn time: how many steps bring a forgotten set back, and the anamnesis index (AIN).

A model that has really forgotten needs as many steps as the retrained model does. Fewer tell
that knowledge is left, more that the model is worse than one that never knew (Streisand).

    AIN = steps of the unlearned model / steps of the retrained model;   1 is ideal

Source: Golatkar, Achille, Soatto, "Eternal sunshine of the spotless net", CVPR 2020,
https://arxiv.org/abs/1911.04933 (relearn time); Chundawat, Tarun, Mandal, Kankanhalli, "Zero-shot
machine unlearning", IEEE TIFS 2023, https://arxiv.org/abs/2201.05629 (AIN).
Differences: steps instead of epochs; accuracy in eval mode; the median of several orderings;
nothing is added to either number, so that AIN is undefined where the retrained model needs none.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from .margin import MarginError

VERSION = 1


class RelearnTime(NamedTuple):
    """Steps until a set is known again, over several orderings of it.

    Attributes:
        steps: Median; the limit where at least half of the orderings did not get there.
        censored: Share of the orderings that did not get there, in [0, 1].
    """

    steps: float
    censored: float

    @property
    def is_bound(self) -> bool:
        """Whether the median is only a lower bound of the true one."""
        return self.censored >= 0.5


def relearn_time(steps: Sequence[int | None], limit: int) -> RelearnTime:
    """Summarise orderings.

    Args:
        steps: Steps of each ordering, at most the limit; None where it did not get there.
        limit: Number of steps after which was given up.

    Raises:
        MarginError: If there is no ordering, or a number outside [0, limit].

    Example:
        >>> relearn_time([3, None, 4, 9, 2], limit=100)
        RelearnTime(steps=4, censored=0.2)
    """
    if not steps or any(s is not None and not 0 <= s <= limit for s in steps):
        raise MarginError(f"steps must be numbers from 0 to {limit} or None; got {list(steps)}.")
    return RelearnTime(
        median(limit if s is None else s for s in steps),
        sum(s is None for s in steps) / len(steps),
    )


def anamnesis_index(unlearned: RelearnTime, retrained: RelearnTime) -> float | None:
    """AIN; a lower bound where the unlearned model's time is one.

    Returns:
        None where it is not defined: the retrained model needs no step, or its time is only a
        lower bound.

    Example:
        >>> anamnesis_index(RelearnTime(5, 0.0), RelearnTime(20, 0.0))
        0.25
    """
    if retrained.steps <= 0 or retrained.is_bound:
        return None
    return unlearned.steps / retrained.steps
