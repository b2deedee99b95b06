"""Redraws of what the attack found, to see how firm the ranks of methods are.

Source: evaluation specification, section 4; Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 1(2), 2007.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .attack_record import AttackRecord
from .attack_rows import ACC, PRIVACY, figure
from .keys import derive_seed
from .metrics.clustering import redrawn_means
from .metrics.lrt import FloatArray
from .paired import paired_groups
from .tablecell import Row, known

DRAWS = 1000
SEED = 0
_ROUNDING = 1e-9


def redrawn_excess(
    task: str, names: Sequence[str], rows: Sequence[Row], attacks: Mapping[str, AttackRecord]
) -> FloatArray:
    """Redraw how far U-LIRA lies above the null band, for the methods of a task at once.

    Pairs of shadow models and examples are redrawn with replacement, the same for all methods
    whose attacks are paired. A method of which only the standard error is known is redrawn by the
    normal law. Bands are not redrawn.

    Args:
        task: Title of the task; the draws depend on it and on the bank, on nothing else.
        names: What the methods are called.
        rows: Their rows, with a figure and a band.
        attacks: What the attacks found, by the key of their scores.

    Returns:
        `(DRAWS, methods)` fractions, 0 inside the band; without an error, the figure itself.
    """
    accs = np.array([figure(row, ACC) for row in rows])
    high = np.array([figure(row, f"{PRIVACY}null_hi") for row in rows])
    redrawn = np.tile(accs, (DRAWS, 1))
    left = set(range(len(rows)))
    for places, matrices in paired_groups(rows, attacks):
        attack = attacks[rows[places[0]]["attack_scores"]]
        seed = derive_seed(SEED, "ranks", task, attack.bank, attack.pool)
        # around the figure of the record, should it be rounded
        shift = accs[places] - matrices.mean((1, 2))
        redrawn[:, places] = redrawn_means(matrices, draws=DRAWS, seed=seed) + shift
        left -= set(places)
    for place in sorted(left):
        error = figure(rows[place], f"{PRIVACY}se")
        if known(error):
            rng = np.random.default_rng(derive_seed(SEED, "ranks", task, names[place]))
            redrawn[:, place] += rng.normal(0, error, DRAWS)
    excess: FloatArray = np.maximum(redrawn - high, 0)
    excess[excess < _ROUNDING] = 0
    return excess


def redrawn_tasks(tasks: Sequence[str]) -> FloatArray:
    """`(DRAWS, tasks)` how often each task was drawn, with replacement."""
    rng = np.random.default_rng(derive_seed(SEED, "tasks", *tasks))
    drawn = rng.multinomial(len(tasks), np.full(len(tasks), 1 / len(tasks)), DRAWS)
    counts: FloatArray = drawn.astype(np.float64)
    return counts
