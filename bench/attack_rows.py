"""What the attack found on the rows of a table, and whether that counts.

The attack is on a method over all shadow models, not on one seed: every record of a row carries
the same figures, which are taken once and not averaged. Whether they count, its controls say; see
`attack_controls`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from .record import Record
from .tablecell import Row, known

if TYPE_CHECKING:
    from .attack_controls import Control, Controls

PRIVACY = "ulira.privacy/"
EFFICACY = "ulira.efficacy/"
ACC = f"{PRIVACY}acc"
RMIA = "rmia/auc"
CELL_ATTACKS = ("mia_svc_efficacy", "mia_entropy_member_rate", "mia_challenge_accuracy")
COUNTS = ("attack_shadows", "attack_examples", "attack_views")

_FIGURES = ("ulira", "mia.population/", "rmia/", "klom", "forgetting_score/")
_TEXTS = ("variance", "tuning_track", "bank", "scores", "suspicion", "reason")


def attack_figures(records: Iterable[Record]) -> dict[str, Any]:
    """The figures of one row with the setting of the attack; empty if there was none.

    Where records disagree, as those of sweeps with different numbers of shadow models do, the
    figures of the most shadow models are taken, and of those the last.

    Returns:
        Metrics under their own names; `attack_<key>` of the setting; and `attack_differing`, the
        numbers of shadow models of the records that disagree.
    """
    asked = [(r, _figures(r)) for r in records if r.status == "ok"]
    asked = [(record, figures) for record, figures in asked if record.attack or figures]
    found = [pair for pair in asked if pair[1]] or asked
    if not found:
        return {}
    # max() takes the first of equals
    record, figures = max(reversed(found), key=lambda pair: _shadows(pair[0]))
    row: dict[str, Any] = dict(figures)
    for name in COUNTS:
        row[name] = record.attack.get(name.removeprefix("attack_"), math.nan)
    row |= {f"attack_{key}": str(record.attack.get(key) or "") for key in _TEXTS}
    if ACC in figures:
        row["attack_reason"] = ""
    differing = {
        (_shadows(r), tuple(sorted(other.items()))): None for r, other in found if other != figures
    }
    numbers = [number for number, _ in differing] + [_shadows(record)]
    row["attack_differing"] = ", ".join(map(str, sorted(numbers))) if differing else ""
    return row


def judged(rows: pd.DataFrame, controls: Controls) -> pd.DataFrame:
    """Put the figures of the attack before the accuracies, with `attack_validity` of each row.

    `suspected`: the method may have seen what it must not see. `biased`: the retrained model is
    too far outside its null band. `nothing to see`: the original model is inside its own, and
    this method too. Else `ok`; empty without U-LIRA. A row is judged by the controls that were
    attacked with the same shadow models, and by no others.
    """
    empty = [n for n in _columns(rows) if n.startswith(CELL_ATTACKS) and rows[n].isna().all()]
    rows = rows.drop(columns=empty)
    names = [name for name in _columns(rows) if name.startswith(("attack_", *_FIGURES))]
    if not names:
        return rows
    texts = [f"attack_{key}" for key in (*_TEXTS, "differing")]
    rows[texts] = rows[texts].fillna("")
    validity = [
        _validity(row, controls.get((row["recipe"], row["attack_bank"]), ()))
        for row in plain_rows(rows)
    ]
    others = [name for name in _columns(rows) if name not in names]
    place = others.index("forget_acc_mean")
    names.sort(key=lambda name: not name.startswith(PRIVACY))
    rows = rows[[*others[:place], *names, *others[place:]]].copy()  # in one piece again
    rows.insert(place, "attack_validity", validity)
    return rows


def plain_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as plain dictionaries, in order."""
    names = [str(name) for name in rows.columns]
    # `to_dict` takes several times as long where there are many columns
    return [dict(zip(names, row, strict=True)) for row in rows.to_numpy(dtype=object).tolist()]


def figure(row: Row, name: str) -> float:
    """A number of a row; NaN where it has none."""
    value = row.get(name)
    return math.nan if value is None else float(value)


def _columns(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows.columns]


def _validity(row: Row, controls: Sequence[Control]) -> str:
    if row["attack_suspicion"]:
        return "suspected"
    if not known(figure(row, ACC)):
        return ""
    faults = {control.fault for control in controls}
    if "biased" in faults:
        return "biased"
    inside = figure(row, ACC) <= figure(row, f"{PRIVACY}null_hi")
    if "nothing to see" in faults and row["kind"] in ("method", "control") and inside:
        return "nothing to see"
    return "ok"


def _figures(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.metrics.items() if name.startswith(_FIGURES)}


def _shadows(record: Record) -> int:
    return int(record.attack.get("shadows") or 0)
