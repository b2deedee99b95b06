"""RMIA: the fallback where there are too few shadow models for a fit per example.

An example's confidence is set against its mean over reference models, and that ratio against the
ratios of examples that were never trained on. Blind to forgetting too much, and without a natural
threshold, so that it has no accuracy.

Source: Zarifzadeh, Liu, Shokri, "Low-cost high-power membership inference attacks", ICML 2024,
https://arxiv.org/abs/2312.03262.
Differences: references are unlearned shadow models of the other pairs, half of them trained on
the example, so that no correction for references that never saw it is needed; scores that
saturate are told apart by the ratio itself.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import special

from .clustering import two_way_se
from .folds import select
from .lrt import FloatArray
from .margin import MarginError, Values, as_array, check_finite
from .rates import auc, calibrated_rates, placements
from .summary import FPRS

VERSION = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class RmiaResult:
    """Rates of the attack, fractions in [0, 1].

    Attributes:
        auc: Area under the pooled ROC.
        auc_se: Its standard error, clustered by pairs and examples.
        tpr: True positive rate by the false positive rate aimed at, with thresholds of a pair set
            on the other pairs' OUT scores.
        fpr: Realised false positive rate at those thresholds.
        in_scores: `(P, E)` scores in [0, 1 + 1/Z] of models trained on the example.
        out_scores: `(P, E)` of the other models of the pairs.
    """

    auc: float
    auc_se: float
    tpr: dict[float, float]
    fpr: dict[float, float]
    in_scores: FloatArray = field(repr=False)
    out_scores: FloatArray = field(repr=False)


def rmia(
    margins: Values,
    keep: npt.ArrayLike,
    population: Values,
    pool: npt.ArrayLike | None = None,
    *,
    gamma: float = 1.0,
    fprs: Sequence[float] = FPRS,
) -> RmiaResult:
    """Attack unlearned shadow models by likelihood ratios against a population.

    Args:
        margins: `(2P, D)` or `(2P, V, D)` logit margins, P >= 2; confidences are averaged over
            views.
        keep: `(2P, D)` bool, whether a model was trained on an example before it forgot it.
        population: `(2P, Z)` logit margins of examples that no model was trained on.
        pool: Ids or mask of the target examples; None is all D.
        gamma: How many times likelier an example must be than one of the population.
        fprs: False positive rates at which to report true positive rates.

    Raises:
        MarginError: If margins are not finite, shapes do not fit or `gamma` is not positive.
        PairError: If `keep` is not of complementary pairs, or pairs or examples are too few.
    """
    values, matrix = select(margins, keep, pool, least_pairs=2)
    never = as_array(population)
    if never.ndim != 2 or len(never) != len(values) or not never.shape[1]:
        raise MarginError(f"`population` must be `({len(values)}, Z)`; got shape {never.shape}.")
    check_finite(never, "population")
    if not gamma > 0:
        raise MarginError(f"`gamma` must be positive; got {gamma}.")
    ratios = _log_ratios(special.expit(values).mean(1))
    bar = np.sort(_log_ratios(special.expit(never)), axis=1) + np.log(gamma)
    rank = np.stack([np.searchsorted(row, x, "right") for row, x in zip(bar, ratios, strict=True)])
    scores = (rank + special.expit(ratios)) / never.shape[1]
    inside = np.where(matrix[0::2], scores[0::2], scores[1::2])
    outside = np.where(matrix[0::2], scores[1::2], scores[0::2])
    rates = {rate: calibrated_rates(inside, outside, rate) for rate in fprs}
    return RmiaResult(
        auc=auc(inside, outside),
        auc_se=two_way_se(placements(inside, outside)),
        tpr={rate: pair[0] for rate, pair in rates.items()},
        fpr={rate: pair[1] for rate, pair in rates.items()},
        in_scores=inside,
        out_scores=outside,
    )


def _log_ratios(p: FloatArray) -> FloatArray:
    """Log of confidence over its mean in the models of all other pairs, `(2P, E)`.

    Each other pair has one model that was trained on the example and one that was not, so that
    the plain mean is the half-and-half one.
    """
    p = np.maximum(p, np.finfo(np.float64).tiny)
    pairs = p[0::2] + p[1::2]
    others = np.stack([np.delete(pairs, own, axis=0).mean(0) / 2 for own in range(len(pairs))])
    ratios: FloatArray = np.log(p) - np.log(np.repeat(others, 2, axis=0))
    return ratios
