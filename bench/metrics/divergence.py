"""Distances between what two models say, and the adaptive unlearning score.

Source: Chundawat, Tarun, Mandal, Kankanhalli, "Can bad teaching induce forgetting?", AAAI 2023,
https://arxiv.org/abs/2205.08096 (ZRF); Cotogni, Bonato, Sabetta, Pelosin, Nicolosi, "DUCK:
distance-based unlearning via centroid kinematics", 2023, https://arxiv.org/abs/2312.02052 (AUS).
Differences: the Jensen-Shannon divergence is the mean over examples of the defined one, in nats;
common code averages over classes too, which makes published ZRF values near 1 an artefact.

Changes:
    1: first version.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from .margin import MarginError, as_array, check_finite

VERSION = 1


def js_divergence(p: npt.ArrayLike, q: npt.ArrayLike) -> float:
    """Mean Jensen-Shannon divergence of predictions.

    Args:
        p: `(n, C)` probabilities.
        q: `(n, C)` probabilities of the same examples.

    Returns:
        Nats, in [0, ln 2].

    Raises:
        MarginError: If shapes differ, or rows are not probabilities.

    Example:
        >>> p, q = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [[0.6, 0.3, 0.1], [0.3, 0.3, 0.4]]
        >>> round(js_divergence(p, q), 6)
        0.046632
    """
    a, b = as_array(p), as_array(q)
    if a.ndim != 2 or a.shape != b.shape or not a.size:
        raise MarginError(f"predictions must be `(n, C)` twice; got {a.shape} and {b.shape}.")
    for rows, name in ((a, "p"), (b, "q")):
        check_finite(rows, name)
        if (rows < 0).any() or not np.allclose(rows.sum(1), 1, atol=1e-5):
            raise MarginError(f"rows of `{name}` must be probabilities that sum to 1.")
    middle = (a + b) / 2
    return float((special.rel_entr(a, middle) + special.rel_entr(b, middle)).sum(1).mean() / 2)


def zero_retrain_forgetting(unlearned: npt.ArrayLike, untrained: npt.ArrayLike) -> float:
    """ZRF: one less the divergence from an untrained model, on the forget set.

    Args:
        unlearned: `(n, C)` probabilities of the unlearned model.
        untrained: `(n, C)` of a randomly initialised one.
    """
    return 1 - js_divergence(unlearned, untrained)


def adaptive_unlearning_score(
    original_test_acc: float,
    test_acc: float,
    forget_acc: float,
    *,
    whole_classes: bool = False,
) -> float:
    """AUS; it rewards a forget accuracy equal to the test accuracy, or 0 for whole classes.

    Args:
        original_test_acc: Fraction; of the model before unlearning.
        test_acc: Fraction; of the unlearned model.
        forget_acc: Fraction; of the unlearned model on the forget set.
        whole_classes: Whether whole classes are forgotten.

    Example:
        >>> round(adaptive_unlearning_score(0.94, 0.93, 0.96), 6)
        0.961165
    """
    missed = forget_acc if whole_classes else abs(test_acc - forget_acc)
    return (1 - (original_test_acc - test_acc)) / (1 + missed)
