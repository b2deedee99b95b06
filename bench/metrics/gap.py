"""Distance to the retrained model: gaps, tug-of-war, speed-up.

Source: tug-of-war (ToW) after Zhao et al., "What makes unlearning hard and what to do about it",
NeurIPS 2024: the product over forget, retain and test set of one minus the absolute difference
in accuracy to the retrained model.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

VERSION = 1
TOW_PARTS = ("forget_acc", "retain_acc", "test_acc")


def gaps(metrics: Mapping[str, float], retrained: Mapping[str, float]) -> dict[str, float]:
    """Absolute differences to the retrained model of the same seed.

    Args:
        metrics: Accuracies of a model, fractions.
        retrained: The same of the retrained model.

    Returns:
        `gap_<name>` for every accuracy that both have.
    """
    return {
        f"gap_{name}": abs(value - retrained[name])
        for name, value in metrics.items()
        if name.endswith("_acc") and not name.startswith("gap_") and name in retrained
    }


def tug_of_war(metrics: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """ToW in [0, 1]; 1 for a model with the retrained model's accuracies.

    Example:
        >>> round(tug_of_war({"forget_acc": .98, "retain_acc": .999, "test_acc": .93},
        ...                  {"forget_acc": .94, "retain_acc": 1.0, "test_acc": .942}), 6)
        0.947532
    """
    return prod(1 - abs(metrics[name] - retrained[name]) for name in TOW_PARTS)
