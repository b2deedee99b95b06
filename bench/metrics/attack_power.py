"""Power of the attack: what a number of shadow models can find at best.

A weak leak is underestimated by few shadow models, so that a good score says little unless the
power stands beside it.

Source: evaluation specification, sections 5.2 and 6.1 (T6); elementary normal theory.

Changes:
    1: first version.
"""

from __future__ import annotations

from math import inf, sqrt

from scipy import special

from ..errors import InputError

VERSION = 1


def plug_in_accuracy(d: float, n: float) -> float:
    """Balanced accuracy of the plug-in test on two normal laws of one known variance.

    With a = Phi(d sqrt(n/2)), the chance that the two means are in the right order, and
    b = Phi(d / (2 sqrt(1 + 1/(2n)))), the accuracy if they are, it is a b + (1 - a)(1 - b).

    Args:
        d: Distance of the means in standard deviations.
        n: Reference margins on either side, positive; may be infinite.

    Example:
        >>> [round(plug_in_accuracy(1.0, n), 3) for n in (2, 8, 32, float("inf"))]
        [0.618, 0.678, 0.69, 0.691]
    """
    if not n > 0:
        raise InputError(f"`n` must be positive; got {n}.")
    right = 1.0 if n == inf and d else float(special.ndtr(d * sqrt(n / 2))) if d else 0.5
    split = float(special.ndtr(d / (2 * sqrt(1 + 1 / (2 * n)))))
    return right * split + (1 - right) * (1 - split)


def attack_power(n_models: int, d: float = 0.5) -> float:
    """Balanced accuracy that leave-pair-out scoring reaches on a leak of d standard deviations.

    Args:
        n_models: Number of shadow models, even, at least 4; n_models / 2 - 1 a side are fitted.
        d: The leak. Compare with `plug_in_accuracy(d, inf)`, that of unlimited models.

    Example:
        >>> round(attack_power(64), 3), round(plug_in_accuracy(0.5, float("inf")), 3)
        (0.593, 0.599)
    """
    if n_models < 4 or n_models % 2:
        raise InputError(f"`n_models` must be even and at least 4; got {n_models}.")
    return plug_in_accuracy(d, n_models / 2 - 1)
