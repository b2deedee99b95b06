"""Differences in U-LIRA between the methods of a task, with their errors.

Attacks on the same shadow models and examples are paired: what is easy for one is easy for the
other, so that their difference is known better than either.

Source: evaluation specification, section 4 ("Statistical practice").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import special

from .attack_record import AttackRecord
from .attack_rows import ACC, PRIVACY, figure
from .metrics.clustering import two_way_se_of_differences
from .metrics.lrt import FloatArray
from .metrics.ranking import holm
from .tablecell import Row

COLUMNS = ("task", "method", "other", "difference", "se", "p", "p_holm", "paired")


def paired_groups(
    rows: Sequence[Row], attacks: Mapping[str, AttackRecord]
) -> list[tuple[list[int], FloatArray]]:
    """Rows whose attacks are paired, together.

    Args:
        rows: Rows of one task.
        attacks: What the attacks found, by the key of their scores.

    Returns:
        For each group the places of its rows, and `(M, P, E)` their hit matrices. Rows of which
        nothing is known pair by pair are in none.
    """
    groups: list[tuple[AttackRecord, list[int]]] = []
    for place, row in enumerate(rows):
        attack = attacks.get(row.get("attack_scores", ""))
        if attack is None:
            continue
        places = next((found for first, found in groups if attack.is_paired_with(first)), None)
        if places is None:
            groups.append((attack, places := []))
        places.append(place)
    return [
        (places, np.stack([attacks[rows[place]["attack_scores"]].hit_matrix() for place in places]))
        for _, places in groups
    ]


def differences(
    task: str, names: Sequence[str], rows: Sequence[Row], attacks: Mapping[str, AttackRecord]
) -> pd.DataFrame:
    """Every pair of methods of a task: difference in U-LIRA accuracy, and whether it is noise.

    Args:
        task: Title of the task.
        names: What the methods are called, in the order of `rows`.
        rows: Their rows, with a figure that counts.
        attacks: What the attacks found, by the key of their scores.

    Returns:
        `COLUMNS`, one row a pair. `difference` is that of `method` less `other`, a fraction; `se`
        is clustered by pairs of shadow models and by examples where the attacks are `paired`, else
        made of the two standard errors of the records. `p` is two-sided by the normal law, `p_holm`
        the same corrected for all pairs of the task (Holm). NaN where an error is not known.
    """
    accs = np.array([figure(row, ACC) for row in rows])
    own = np.array([figure(row, f"{PRIVACY}se") for row in rows])
    errors = np.sqrt(own[:, None] ** 2 + own**2)
    paired = np.zeros(errors.shape, dtype=bool)
    for places, matrices in paired_groups(rows, attacks):
        if min(matrices.shape[1:]) >= 2:
            here = np.ix_(places, places)
            errors[here], paired[here] = two_way_se_of_differences(matrices), True
    one, two = np.triu_indices(len(rows), 1)
    gaps, spreads = accs[one] - accs[two], errors[one, two]
    p = _two_sided(gaps, spreads)
    found = {
        "task": [task] * len(one),
        "method": [names[i] for i in one.tolist()],
        "other": [names[i] for i in two.tolist()],
        "difference": gaps,
        "se": spreads,
        "p": p,
        "p_holm": holm(p),
        "paired": paired[one, two],
    }
    return pd.DataFrame(found, columns=pd.Index(COLUMNS))


def _two_sided(differences: FloatArray, errors: FloatArray) -> FloatArray:
    """Chances of differences so large under a normal law around 0; NaN where one is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * special.ndtr(-np.abs(differences) / errors)
    certain = np.where(np.isnan(differences), math.nan, differences == 0)
    result: FloatArray = np.where(errors == 0, certain, p)
    return result
