"""What the attack found on the rows of a table, and whether that counts.

The attack is on a method over all shadow models, not on one seed: every record of a row carries
the same figures, which are taken once and not averaged. The references are the controls of the
attack. It must see something on the original model, and nothing on the retrained one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pandas as pd
from scipy import special

from .record import Record
from .tablecell import Row, known

PRIVACY = "ulira.privacy/"
EFFICACY = "ulira.efficacy/"
ACC = f"{PRIVACY}acc"
RMIA = "rmia/auc"
CELL_ATTACKS = ("mia_svc_efficacy", "mia_entropy_member_rate", "mia_challenge_accuracy")
COUNTS = ("attack_shadows", "attack_examples", "attack_views")
# there are many tables: at 1 % one of a hundred good set-ups would be thrown away on either side
ALPHA = 0.001

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


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Put the figures of the attack before the accuracies, with `attack_validity` of each row.

    `suspected`: the method may have seen what it must not see. `biased`: the retrained model is
    too far outside its null band. `nothing to see`: the original model is inside its own, and
    this method too. Else `ok`; empty without U-LIRA.
    """
    empty = [n for n in _columns(rows) if n.startswith(CELL_ATTACKS) and rows[n].isna().all()]
    rows = rows.drop(columns=empty)
    names = [name for name in _columns(rows) if name.startswith(("attack_", *_FIGURES))]
    if not names:
        return rows
    texts = [f"attack_{key}" for key in (*_TEXTS, "differing")]
    rows[texts] = rows[texts].fillna("")
    controls = {recipe: list(controls_of(rows, recipe)) for recipe in rows["recipe"].unique()}
    validity = [_validity(row, controls[row["recipe"]]) for row in plain_rows(rows)]
    others = [name for name in _columns(rows) if name not in names]
    place = others.index("forget_acc_mean")
    names.sort(key=lambda name: not name.startswith(PRIVACY))
    rows = rows[[*others[:place], *names, *others[place:]]].copy()  # in one piece again
    rows.insert(place, "attack_validity", validity)
    return rows


class Control(NamedTuple):
    """What a reference row says of the attack.

    Attributes:
        name: `identity` or `retrain`.
        row: The row.
        fault: `nothing to see` if the original model is inside its null band; `outside` if the
            retrained one is not; `biased` if it is so far outside that chance is no explanation;
            else empty.
        p: One-sided p-value. For the original the record's own, which counts redraws. For the
            retrained, on the side where it lies, by the normal law with the redraws' mean and
            standard deviation: a record has no p-value for the lower side, and some hundred
            redraws cannot tell 0.1 % from less.
    """

    name: str
    row: Row
    fault: str
    p: float


def controls_of(rows: pd.DataFrame, recipe: str) -> Iterator[Control]:
    """Judge the reference rows of a recipe that have a figure and a null band.

    A 95 % band is left by chance in 5 % of tables, so that being outside is noted and no more;
    the figures of a table stop counting where the p-value is below 0.1 %, on either side.
    """
    of_recipe = rows[(rows["recipe"] == recipe) & (rows["kind"] == "reference")]
    for row in plain_rows(of_recipe):
        acc, low, high = (figure(row, f"{PRIVACY}{name}") for name in ("acc", "null_lo", "null_hi"))
        if not (known(acc) and known(low) and known(high)):
            continue
        if row["name"] == "identity":
            fault = "nothing to see" if acc <= high else ""
            yield Control("identity", row, fault, figure(row, f"{PRIVACY}p"))
        elif row["name"] == "retrain":
            p = _tail(acc, figure(row, f"{PRIVACY}null_mean"), figure(row, f"{PRIVACY}null_sd"))
            outside = "biased" if p < ALPHA else "outside"
            yield Control("retrain", row, "" if low <= acc <= high else outside, p)


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


def _validity(row: Row, controls: list[Control]) -> str:
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


def _tail(value: float, mean: float, sd: float) -> float:
    """Chance of a value so far from the mean, on its own side, under a normal law."""
    if not (known(mean) and known(sd)):
        return math.nan
    return float(special.ndtr(-abs(value - mean) / sd)) if sd > 0 else float(value == mean)
