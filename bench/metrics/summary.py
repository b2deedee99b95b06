"""Summary of held-out scores: accuracy, area, low rates, errors; and paired differences.

Source: evaluation specification, sections 2.6 (step 9) and 4.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .clustering import two_way_se
from .lrt import FloatArray
from .margin import MarginError
from .pairs import PairError
from .rates import auc, calibrated_rates, placements

VERSION = 1
FPRS = (0.05, 0.01, 0.001)


@dataclass(frozen=True, eq=False, kw_only=True)
class Summary:
    """What held-out scores say; all rates are fractions in [0, 1].

    Attributes:
        acc: Balanced accuracy of calling IN what has a log likelihood ratio above 0.
        se: Standard error of `acc`, clustered by pairs and by examples.
        auc: Area under the pooled ROC, ties half.
        auc_se: Standard error of `auc`, clustered likewise.
        tpr: True positive rate by the false positive rate aimed at; thresholds of a pair are set
            on the OUT scores of the other pairs.
        fpr: Realised false positive rate at those thresholds.
        tpr_supported: Whether there are the 10 / rate OUT scores that a threshold needs.
        per_example: `(E,)` balanced accuracy of each example over pairs.
        per_example_p5: Its 5 % quantile over examples.
        per_example_p50: Its median.
        per_example_p95: Its 95 % quantile: how exposed the most exposed are.
        in_scores: `(P, E)` log likelihood ratios of models trained on the example, nats.
        out_scores: `(P, E)` of the others.
    """

    acc: float
    se: float
    auc: float
    auc_se: float
    tpr: dict[float, float]
    fpr: dict[float, float]
    tpr_supported: dict[float, bool]
    per_example: FloatArray = field(repr=False)
    per_example_p5: float
    per_example_p50: float
    per_example_p95: float
    in_scores: FloatArray = field(repr=False)
    out_scores: FloatArray = field(repr=False)

    def check_alike(self, other: Summary) -> None:
        """Make sure that another summary is of the same pairs and examples.

        Raises:
            PairError: If it is not.
        """
        if self.in_scores.shape != other.in_scores.shape:
            raise PairError(
                "only results of the same pairs and examples can be compared; got "
                f"{self.in_scores.shape} and {other.in_scores.shape} pairs and examples."
            )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Paired difference of two attacks on the same pairs and examples.

    Attributes:
        acc: Difference in balanced accuracy.
        acc_se: Its clustered standard error.
        auc: Difference in AUC.
        auc_se: Its clustered standard error.
    """

    acc: float
    acc_se: float
    auc: float
    auc_se: float


def summarise(
    in_scores: FloatArray, out_scores: FloatArray, fprs: Sequence[float] = FPRS
) -> Summary:
    """Summarise held-out scores.

    Args:
        in_scores: `(P, E)` log likelihood ratios of models trained on the example.
        out_scores: `(P, E)` of the other models of the pairs.
        fprs: False positive rates, in (0, 1), at which to report true positive rates.

    Raises:
        MarginError: If a rate is not in (0, 1).
    """
    if any(not 0 < rate < 1 for rate in fprs):
        raise MarginError(f"false positive rates must be in (0, 1); got {tuple(fprs)}.")
    hits = _hits(in_scores, out_scores)
    per_example = hits.mean(0)
    low, middle, high = np.quantile(per_example, [0.05, 0.5, 0.95])
    rates = {rate: calibrated_rates(in_scores, out_scores, rate) for rate in fprs}
    return Summary(
        acc=float(hits.mean()),
        se=two_way_se(hits),
        auc=auc(in_scores, out_scores),
        auc_se=two_way_se(placements(in_scores, out_scores)),
        tpr={rate: pair[0] for rate, pair in rates.items()},
        fpr={rate: pair[1] for rate, pair in rates.items()},
        tpr_supported={rate: out_scores.size * rate >= 10 for rate in fprs},
        per_example=per_example,
        per_example_p5=float(low),
        per_example_p50=float(middle),
        per_example_p95=float(high),
        in_scores=in_scores,
        out_scores=out_scores,
    )


def compare(result: Summary, other: Summary) -> Difference:
    """Subtract another attack on the same pairs and examples; far tighter than two intervals.

    Raises:
        PairError: If the two are not of the same pairs and examples.
    """
    result.check_alike(other)
    hits = _hits(result.in_scores, result.out_scores) - _hits(other.in_scores, other.out_scores)
    places = placements(result.in_scores, result.out_scores)
    places -= placements(other.in_scores, other.out_scores)
    return Difference(
        acc=float(hits.mean()),
        acc_se=two_way_se(hits),
        auc=result.auc - other.auc,
        auc_se=two_way_se(places),
    )


def _hits(in_scores: FloatArray, out_scores: FloatArray) -> FloatArray:
    hits: FloatArray = ((in_scores > 0).astype(np.float64) + (out_scores <= 0)) / 2
    return hits
