"""Held-out likelihood-ratio scores of paired shadow models.

Every model of a bank is a target in turn and all other pairs are its reference. Leaving out the
target alone is not enough: its partner's margins are on the other side of the fit, so that the
sides differ by one and by nothing at random, and a harmless method scores an AUC of 0.44 to 0.47.
Leaving out the pair gives 0.5 exactly: swapping the labels of one pair changes no fit of its own.

Source: evaluation specification, sections 2.6 (steps 7 and 8) and 5.3; the attack after Hayes,
Shumailov, Triantafillou, Khalifa, Papernot, "Inexact unlearning needs more careful evaluations to
avoid a false sense of privacy", SaTML 2025, https://arxiv.org/abs/2403.01218.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .lrt import (
    Centre,
    FloatArray,
    Side,
    Variance,
    check_choice,
    fit_side,
    lrt,
    variance_floor,
)
from .margin import MarginError, Values, as_array, check_finite, plain_array
from .pairs import BoolArray, LeakyReferenceError, PairError, check_pairs, pool_ids

VERSION = 1
LEAST_PAIRS = 3  # leaving one out, two scores a side are left for a variance
LEAST_EXAMPLES = 2


@dataclass(frozen=True, eq=False)
class Cells:
    """Two margins for every pair and example, one of which is IN; V views, P pairs, E examples.

    Attributes:
        x: `(V, P, E)` margins, centred per view and example.
        y: `(V, P, E)` the others.
        offset: `(V, 1, E)` what was subtracted, less its mean.
        floor: `(V, E)` variance of rounding noise.
    """

    x: FloatArray
    y: FloatArray
    offset: FloatArray
    floor: FloatArray

    @classmethod
    def of(cls, x: FloatArray, y: FloatArray) -> Cells:
        """Centre two arrays `(V, P, E)`; those that are constant become exact zeros."""
        first = x[:, :1]
        x, y = x - first, y - first
        mean = (x.mean(1, keepdims=True) + y.mean(1, keepdims=True)) / 2
        x -= mean
        y -= mean
        offset = first + mean
        floor = np.stack([variance_floor(both) for both in np.concatenate([x, y], axis=1)])
        return cls(x, y, offset - offset.mean(2, keepdims=True), floor)

    def score(
        self, take_x: BoolArray, variance: Variance, centre: Centre
    ) -> tuple[FloatArray, FloatArray]:
        """Score both members of every pair by the other pairs; views are averaged.

        Args:
            take_x: `(P, E)`, where `x` is the margin of the model that is IN.
            variance: How variances are estimated.
            centre: How locations are estimated.

        Returns:
            Log likelihood ratios of the IN and of the OUT margins, each `(P, E)`.
        """
        totals = [
            _score_view(
                np.where(take_x, x, y), np.where(take_x, y, x), offset, floor, variance, centre
            )
            for x, y, offset, floor in zip(self.x, self.y, self.offset, self.floor, strict=True)
        ]
        inside = sum((pair[0] for pair in totals[1:]), totals[0][0])
        outside = sum((pair[1] for pair in totals[1:]), totals[0][1])
        return inside / len(totals), outside / len(totals)


def leave_pair_out(
    margins: Values,
    keep: npt.ArrayLike,
    pool: npt.ArrayLike | None = None,
    *,
    variance: Variance = "eb_t",
    centre: Centre = "mean",
) -> tuple[FloatArray, FloatArray]:
    """Score every model on every example of a pool by all pairs but its own.

    Args:
        margins: `(2P, D)` or `(2P, V, D)` margins of all models, V views, P >= 3.
        keep: `(2P, D)` bool, whether a model was trained on an example.
        pool: Ids or mask of the E target examples, E >= 2; None is all D.
        variance: How variances are estimated; see `lrt`.
        centre: How locations are estimated.

    Returns:
        Log likelihood ratios in nats of the model of each pair that was trained on the example
        and of the one that was not, each `(P, E)`; means over views.

    Raises:
        MarginError: If margins are not finite or shapes do not fit.
        PairError: If `keep` is not of complementary pairs, or pairs or examples are too few.
        UnknownNameError: If `variance` or `centre` is unknown.
    """
    check_choice(variance, centre)
    values, matrix = select(margins, keep, pool)
    return privacy_cells(values).score(matrix[0::2], variance, centre)


def held_out(
    margins: Values,
    keep: npt.ArrayLike,
    targets: Sequence[int],
    references: Sequence[int],
    pool: npt.ArrayLike | None = None,
    *,
    variance: Variance = "eb_t",
    centre: Centre = "mean",
) -> FloatArray:
    """Score chosen models by chosen others, as when thresholds come from shadow models alone.

    Args:
        margins: `(2P, D)` or `(2P, V, D)` margins of all models.
        keep: `(2P, D)` bool, whether a model was trained on an example.
        targets: Row numbers of the T models to score.
        references: Row numbers of the models to fit to, in whole pairs, two pairs at least.
        pool: Ids or mask of the E target examples; None is all D.
        variance: How variances are estimated; see `lrt`.
        centre: How locations are estimated.

    Returns:
        `(T, E)` log likelihood ratios in nats; means over views.

    Raises:
        LeakyReferenceError: If a target or its pair partner is among the references.
        MarginError: If margins are not finite or shapes do not fit.
        PairError: If `keep` or the references are not of complementary pairs or too few, or a
            model does not exist.
    """
    values, matrix = select(margins, keep, pool)
    for model in (*targets, *references):
        if not 0 <= model < len(values):
            raise PairError(f"models must be in [0, {len(values)}); got {model}.")
    of_reference = {int(r) // 2 for r in references}
    for target in targets:
        if int(target) // 2 in of_reference:
            raise LeakyReferenceError(
                f"target model {target} is in pair {int(target) // 2}, of which the references "
                "hold a member; leave whole pairs out, or the fit knows the answer."
            )
    if len(set(references)) != len(references) or len(references) != 2 * len(of_reference):
        raise PairError(f"references must be whole pairs, each model once; got {list(references)}.")
    if len(of_reference) < LEAST_PAIRS - 1:
        raise PairError(f"references must be at least {LEAST_PAIRS - 1} pairs; got {references}.")
    pairs = sorted(of_reference)
    first = matrix[0::2][pairs]
    scores = np.zeros((len(targets), values.shape[2]))
    for view in range(values.shape[1]):
        even, odd = values[0::2, view][pairs], values[1::2, view][pairs]
        inside, outside = np.where(first, even, odd), np.where(first, odd, even)
        scores += lrt(values[list(targets), view], inside, outside, variance, centre)
    mean: FloatArray = scores / values.shape[1]
    return mean


def select(
    margins: Values,
    keep: npt.ArrayLike,
    pool: npt.ArrayLike | None,
    least_pairs: int = LEAST_PAIRS,
) -> tuple[FloatArray, BoolArray]:
    """Check margins and keep matrix, and cut out a pool.

    Returns:
        Margins `(2P, V, E)` float64 and keep `(2P, E)`.

    Raises:
        MarginError: If margins in the pool are not finite or shapes do not fit.
        PairError: If `keep` is not of complementary pairs, or pairs or examples are too few.
    """
    matrix, rows = np.asarray(keep), plain_array(margins)
    if rows.ndim not in (2, 3) or matrix.ndim != 2:
        raise MarginError(
            "`margins` must be `(models, examples)` or `(models, views, examples)` and `keep` "
            f"`(models, examples)`; got shapes {rows.shape} and {matrix.shape}."
        )
    if (len(rows), rows.shape[-1]) != matrix.shape or 0 in rows.shape:
        raise MarginError(
            f"`margins` and `keep` must be of the same models and examples; "
            f"got shapes {rows.shape} and {matrix.shape}."
        )
    ids = pool_ids(pool, matrix.shape[1])
    if len(ids) < LEAST_EXAMPLES:
        raise PairError(f"a pool must have at least {LEAST_EXAMPLES} examples; got {len(ids)}.")
    matrix = check_pairs(matrix[:, ids], least_pairs)
    values = as_array(rows[..., ids])
    values = values[:, None] if values.ndim == 2 else values
    check_finite(values, "margins")
    return values, matrix


def privacy_cells(values: FloatArray) -> Cells:
    """Cells of which `x` is the margin of the even and `y` of the odd model of a pair."""
    return Cells.of(values[0::2].swapaxes(0, 1), values[1::2].swapaxes(0, 1))


def fit_others(
    x: FloatArray,
    variance: Variance,
    centre: Centre,
    *,
    floor: FloatArray,
    heap: FloatArray | None = None,
) -> Side:
    """Fit one side for each fold p to all rows of `x`, `(P, E)`, but p.

    Sums and sums of squares without one row are rank-one updates of the whole ones.
    """
    n = len(x) - 1
    mean = x.mean(0)
    deviation = x - mean
    location = mean - deviation / n if centre == "mean" else _other_medians(x)
    deviation *= deviation
    v = deviation.sum(0) - deviation * ((n + 1) / n)
    v /= n - 1
    np.maximum(v, 0, out=v)
    return fit_side(location, v, n, variance, floor=floor, heap=heap)


def _score_view(
    inside: FloatArray,
    outside: FloatArray,
    offset: FloatArray,
    floor: FloatArray,
    variance: Variance,
    centre: Centre,
) -> tuple[FloatArray, FloatArray]:
    heap = _other_heap(inside + offset) if variance == "reference_fixed" else None
    side_in = fit_others(inside, variance, centre, floor=floor, heap=heap)
    side_out = fit_others(outside, variance, centre, floor=floor, heap=heap)
    scores_in = side_in.log_density(inside)
    scores_in -= side_out.log_density(inside)
    scores_out = side_in.log_density(outside)
    scores_out -= side_out.log_density(outside)
    return scores_in, scores_out


def _other_heap(x: FloatArray) -> FloatArray:
    """Variance (divisor n) of all values but those of row p, `(P, 1)`."""
    count = (len(x) - 1) * x.shape[1]
    x = x - x.mean()
    first, second = x.sum(1, keepdims=True), np.square(x).sum(1, keepdims=True)
    mean = (first.sum() - first) / count
    heap: FloatArray = np.maximum((second.sum() - second) / count - mean**2, 0)
    return heap


def _other_medians(x: FloatArray) -> FloatArray:
    """Median over all rows but p, `(P, E)`: a sorted column without one of its elements."""
    rank = np.argsort(np.argsort(x, axis=0), axis=0)
    column = np.sort(x, axis=0)

    def other(k: int) -> FloatArray:
        kth: FloatArray = np.where(rank > k, column[k], column[k + 1])
        return kth

    n = len(x) - 1
    middle = other(n // 2)
    return middle if n % 2 else (other(n // 2 - 1) + middle) / 2
