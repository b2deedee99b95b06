"""Published attacks on the one unlearned model of a cell, each under its own name.

Their ideal is the retrained model's value, not 0 and not 1. They are in the records to be compared
with tables elsewhere; what they miss, U-LIRA shows.

For whole classes, the test images that an attack is fitted on are those of the kept classes where
it compares with the retain set, and those of the forgotten classes where it compares with the
forget set: else it would learn classes instead of membership.

Source: see `population`, which has the attacks themselves.
Differences: `mia_svc_efficacy` is fitted on at most 2,000 examples a side, since a support vector
machine takes time that grows with their square.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..evaluate import Outputs
from .population import (
    confidence,
    cross_entropy,
    entropy,
    mia_challenge_accuracy,
    mia_entropy_member_rate,
    mia_svc_efficacy,
)

VERSION = 1
MOST = 2000
LEAST = 20

Array = npt.NDArray[np.float64]


def single_model_attacks(
    outputs: Mapping[str, Outputs], forget_classes: tuple[int, ...]
) -> dict[str, float]:
    """Attack one unlearned model.

    Args:
        outputs: Under `retain`, `forget` and `test`.
        forget_classes: The forgotten classes, or empty if the forget set is not whole classes.

    Returns:
        `mia_svc_efficacy` and `mia_entropy_member_rate`, shares of the forget set, and
        `mia_challenge_accuracy`; each in [0, 1], and absent where a side has fewer than 20
        examples.
    """
    arrays = {
        role: (part.logits.cpu().double().numpy(), part.labels.cpu().numpy())
        for role, part in outputs.items()
    }
    forget, retain, test = arrays["forget"], arrays["retain"], arrays["test"]
    inside = np.isin(test[1], forget_classes)
    kept, same = (test[0][~inside], test[1][~inside]), test
    if forget_classes:
        same = (test[0][inside], test[1][inside])
    rng = np.random.default_rng(0)  # ids may be sorted by class, and not all are used
    retain, kept = (_shuffled(*part, rng) for part in (retain, kept))
    found = {}
    if min(len(retain[1]), len(kept[1])) >= LEAST:
        found["mia_svc_efficacy"] = mia_svc_efficacy(
            confidence(*retain), confidence(*kept)[:MOST], confidence(*forget)
        )
        found["mia_entropy_member_rate"] = mia_entropy_member_rate(
            entropy(retain[0]), entropy(kept[0]), entropy(forget[0])
        )
    if min(len(forget[1]), len(same[1])) >= LEAST:
        found["mia_challenge_accuracy"] = mia_challenge_accuracy(
            cross_entropy(*forget), cross_entropy(*same)
        )
    return found


def _shuffled(
    logits: Array, labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[Array, npt.NDArray[np.int64]]:
    order = rng.permutation(len(labels))
    return logits[order], labels[order]
