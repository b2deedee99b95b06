"""U-LIRA: the per-example attack on unlearned models, on arrays of margins.

`ulira` asks the privacy question: does an unlearned model show whether it was ever trained on an
example? Both sides are unlearned models, so that a change that a method makes to all margins is
not taken for a leak. `efficacy` asks whether unlearned models can be told from retrained ones.
Exact unlearning scores 0.5 on both.

Source: Hayes, Shumailov, Triantafillou, Khalifa, Papernot, "Inexact unlearning needs more careful
evaluations to avoid a false sense of privacy", SaTML 2025, https://arxiv.org/abs/2403.01218.
Differences: complementary pairs and leave-pair-out scores, moderated variances, clustered errors,
re-randomised null (evaluation specification, sections 2.6, 4 and 5.3).

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .folds import LEAST_PAIRS, Cells, held_out, leave_pair_out, privacy_cells, select
from .lrt import Centre, Variance, check_choice
from .margin import MarginError, Values, plain_array
from .pairs import PairError, check_seeds, pool_ids
from .rerandomise import pool_strata, rerandomised_null, shuffled, swapped_models
from .summary import FPRS, Difference, Summary, compare, summarise
from .ulira_result import UliraResult, attack

__all__ = [
    "Difference",
    "Summary",
    "UliraResult",
    "compare",
    "efficacy",
    "held_out",
    "leave_pair_out",
    "rerandomised_null",
    "retain_privacy",
    "summarise",
    "ulira",
]

VERSION = 1


def ulira(
    margins: Values,
    keep: npt.ArrayLike,
    pool: npt.ArrayLike | None = None,
    *,
    variance: Variance = "eb_t",
    centre: Centre = "mean",
    fprs: Sequence[float] = FPRS,
    strata: npt.ArrayLike | None = None,
    seeds: Sequence[int] | None = None,
    redraws: int = 200,
    seed: int = 0,
) -> UliraResult:
    """Attack unlearned shadow models: privacy of the examples that they forgot.

    Row k of `margins` is read on the model that was trained on half k, then made to forget the
    members of the pool in that half. Rows 2p and 2p+1 are of complementary halves.

    Args:
        margins: `(2P, D)`, or `(2P, V, D)` with V views, logit margins in nats; P >= 3. With
            several views their log likelihood ratios are averaged.
        keep: `(2P, D)` bool, whether a model was trained on an example before it forgot it.
        pool: Ids or `(D,)` mask of the E target examples, E >= 2; None is all D.
        variance: How variances are estimated: `eb_t`, `pooled`, `per_example` or
            `reference_fixed`; see `lrt`.
        centre: Location of a side, `mean` or `median`.
        fprs: False positive rates at which to report true positive rates.
        strata: `(D,)` integers within which the null redraws membership, usually classes.
        seeds: Seeds of the 2P models, if at hand; they must differ.
        redraws: Number of null redraws; 0 leaves the null out.
        seed: Of the redraws.

    Returns:
        Rates, errors, null law, power and indicators.

    Raises:
        MarginError: If margins in the pool are not finite or shapes do not fit.
        PairError: If rows are not complementary pairs, seeds repeat, or there are too few pairs
            or examples.
        InputError: If another argument is bad.

    Example:
        Sixteen models remember a pool of 400 by one standard deviation.

        >>> import numpy as np
        >>> from unlearnbench.bench.metrics.pairs import pair_design
        >>> from unlearnbench.bench.metrics.ulira import ulira
        >>> keep = pair_design(np.zeros(400, int), n_pairs=8).keep
        >>> margins = np.random.default_rng(0).normal(size=keep.shape) + keep
        >>> result = ulira(margins, keep, redraws=50)
        >>> 0.65 < result.acc < 0.70, result.null.hi < 0.53, result.null.p < 0.05
        (True, True, True)
        >>> harmless = ulira(margins - keep, keep, redraws=50)
        >>> harmless.null.lo < harmless.acc < harmless.null.hi
        True
    """
    check_choice(variance, centre)
    values, matrix = select(margins, keep, pool)
    ids = pool_ids(pool, np.shape(keep)[1])
    _check_seeds(len(values), seeds)
    first = matrix[0::2]
    redraw = shuffled(first, pool_strata(strata, pool, np.shape(keep)[1]))
    cells = privacy_cells(values)
    return attack("privacy", cells, first, redraw, ids, variance, centre, fprs, redraws, seed)


def efficacy(
    margins: Values,
    retrained: Values,
    keep: npt.ArrayLike,
    pool: npt.ArrayLike | None = None,
    *,
    variance: Variance = "eb_t",
    centre: Centre = "mean",
    fprs: Sequence[float] = FPRS,
    seeds: tuple[Sequence[int], Sequence[int]] | None = None,
    redraws: int = 200,
    seed: int = 0,
) -> UliraResult:
    """Tell unlearned from retrained models, on the examples that they forgot.

    IN is the margin of the unlearned model that was trained on an example, OUT that of a model
    retrained on the same retain set with another seed. Where fewer models were retrained than
    unlearned, only the pairs that have both are scored: sides of unequal size are not comparable.
    The null trades whole models: see `rerandomise`.

    Args:
        margins: `(2P, D)` or `(2P, V, D)` margins of unlearned models.
        retrained: `(2Q, D)` or `(2Q, V, D)` margins of retrained models, 3 <= Q <= P; row k has
            the retain set of row k of `margins`.
        keep: `(2P, D)` bool, whether a model was trained on an example before it forgot it.
        pool: Ids or mask of the E target examples, E >= 2; None is all D.
        variance: As in `ulira`.
        centre: As in `ulira`.
        fprs: As in `ulira`.
        seeds: Seeds of the unlearned and of the retrained models; all must differ.
        redraws: As in `ulira`.
        seed: As in `ulira`.

    Returns:
        As `ulira`, with OUT being the retrained models.

    Raises:
        MarginError: If margins in the pool are not finite or shapes do not fit.
        PairError: If rows are not complementary pairs, seeds repeat, or pairs or examples are too
            few.
    """
    check_choice(variance, centre)
    values, matrix = select(margins, keep, pool)
    count = len(plain_array(retrained))
    if count % 2 or not 2 * LEAST_PAIRS <= count <= len(values):
        raise PairError(
            f"`retrained` must be an even number of models from {2 * LEAST_PAIRS} to "
            f"{len(values)}; got {count}."
        )
    others, matrix = select(retrained, np.asarray(keep)[:count], pool)
    if others.shape[1] != values.shape[1]:
        raise MarginError(
            f"`margins` and `retrained` must have as many views; "
            f"got {values.shape[1]} and {others.shape[1]}."
        )
    if seeds is not None:
        _check_seeds(len(values), seeds[0], count, seeds[1])
    first = matrix[0::2]
    # both are read on the member of the pair that was trained on the example
    chosen = [
        np.where(first[:, None], rows[0::2], rows[1::2]).swapaxes(0, 1)
        for rows in (values[:count], others)
    ]
    ids = pool_ids(pool, np.shape(keep)[1])
    cells, everywhere = Cells.of(*chosen), np.ones_like(first)
    redraw = swapped_models(first)
    return attack("efficacy", cells, everywhere, redraw, ids, variance, centre, fprs, redraws, seed)


def retain_privacy(
    margins: Values,
    originals: Values,
    keep: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    variance: Variance = "eb_t",
    centre: Centre = "mean",
) -> Difference:
    """Change that unlearning makes to the exposure of examples that were not forgotten.

    Args:
        margins: `(2P, D)` or `(2P, V, D)` margins of unlearned models.
        originals: The same of the models before unlearning.
        keep: `(2P, D)` bool, whether a model was trained on an example.
        targets: Ids or mask of examples outside the pool.
        variance: As in `ulira`.
        centre: As in `ulira`.

    Returns:
        Unlearned less original; positive means that retained examples became more exposed.

    Raises:
        InputError: If an argument is bad; see `leave_pair_out`.
    """
    after, before = (
        summarise(*leave_pair_out(values, keep, targets, variance=variance, centre=centre))
        for values in (margins, originals)
    )
    return compare(after, before)


def _check_seeds(
    count: int, seeds: Sequence[int] | None, other_count: int = 0, others: Sequence[int] = ()
) -> None:
    if seeds is None:
        return
    for number, group in ((count, seeds), (other_count, others)):
        if len(group) != number:
            raise PairError(f"there must be a seed for each of {number} models; got {len(group)}.")
    check_seeds(seeds, others)
