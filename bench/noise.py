"""Whether a difference over seeds is more than noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from .comparison import Compared, How, Verdict
from .metrics.ranking import holm

LEVEL = 0.05  # p-values below it, corrected over all numbers, are more than noise
LEAST = 0.005  # of an accuracy, a gap or U-LIRA; half a percentage point
NEGLIGIBLE = 1e-12  # rounding of sums

Sample = Sequence[tuple[tuple[int, str], float]]  # values by seed and forget set


def comparable(old: Sample, new: Sample) -> tuple[Sample, Sample]:
    """What is compared: where seeds and forget sets are partly the same, those that are.

    At least two must be, unless a side has no more than one value; else all are taken, apart.
    """
    before, after = dict(old), dict(new)
    common = [which for which in before if which in after]
    unique = (len(before), len(after)) == (len(old), len(new))
    if unique and (len(common) > 1 or (common and min(len(old), len(new)) == 1)):
        return [(w, before[w]) for w in common], [(w, after[w]) for w in common]
    return old, new


def difference_of_means(old: Sample, new: Sample) -> tuple[float, float | None, float | None, How]:
    """Difference of means, new less old, with its standard error and degrees of freedom.

    Paired if both have the same seeds and forget sets, each once; else by Welch.

    Args:
        old: Values, at least one, each with what it is of.
        new: Likewise.

    Returns:
        Difference; standard error and degrees of freedom, None with a single value; and which.
    """
    before, after = dict(old), dict(new)
    if set(before) == set(after) and (len(before), len(after)) == (len(old), len(new)):
        apart = np.array([after[which] - before[which] for which in before])
        n = len(apart)
        se = float(apart.std(ddof=1)) / math.sqrt(n) if n > 1 else None
        return float(apart.mean()), se, n - 1 if n > 1 else None, "paired"
    sides = [np.array([value for _, value in side]) for side in (old, new)]
    difference = float(sides[1].mean() - sides[0].mean())
    if min(len(old), len(new)) < 2:
        return difference, None, None, "apart"
    parts = [float(side.var(ddof=1)) / side.size for side in sides]
    total = sum(parts)
    weights = [part**2 / (side.size - 1) for part, side in zip(parts, sides, strict=True)]
    dof = total**2 / sum(weights) if total > 0 else len(old) + len(new) - 2
    return difference, math.sqrt(total), float(dof), "apart"


def judged(
    quantity: str,
    old: float,
    new: float,
    difference: float,
    se: float | None,
    dof: float | None,
    how: How,
    *,
    least: float = LEAST,
) -> Compared:
    """Say whether a difference, taken alone, is noise; `corrected` judges all of them together.

    It moved if it is more than the least amount and its two-sided p-value is below 5 %: by
    Student's t with the degrees of freedom, by the normal law without. Where the standard error is
    0 there is no p-value, and more than the least amount is enough. Without a standard error it is
    not judged.

    Args:
        quantity: What differs.
        old: Value of before, for the reader.
        new: Value of after.
        difference: What is judged.
        se: Its standard error; None with a single seed.
        dof: Degrees of freedom of that; None where it is not over seeds.
        how: Whether it is of pairs.
        least: Differences up to this size are noise.
    """
    size = abs(difference)
    p = None if se is None or se <= NEGLIGIBLE else _two_sided(size / se, dof)
    verdict: Verdict = "within noise"
    if size > least:
        if se is None:
            verdict = "not judged"
        elif p is None or p < LEVEL:
            verdict = "moved"
    return Compared(
        quantity=quantity,
        old=float(old),
        new=float(new),
        difference=difference,
        se=se,
        dof=dof,
        p=p,
        how=how,
        verdict=verdict,
    )


def corrected(found: Sequence[Compared]) -> list[Compared]:
    """Correct the p-values by Holm for all numbers that have one, and judge by these.

    With many numbers some are beyond any limit by chance; so corrected, the chance that even one
    unchanged number is called moved is at most 5 %.

    Args:
        found: All numbers of a comparison.
    """
    values = holm([math.nan if one.p is None else one.p for one in found])
    result = []
    for one, value in zip(found, values.tolist(), strict=True):
        if one.p is None:
            result.append(one)
            continue
        by_chance = one.verdict == "moved" and value >= LEVEL
        verdict = "within noise" if by_chance else one.verdict
        result.append(one.model_copy(update={"p_holm": value, "verdict": verdict}))
    return result


def _two_sided(errors: float, dof: float | None) -> float:
    law = stats.norm if dof is None else stats.t(dof)
    return 2 * float(law.sf(errors))
