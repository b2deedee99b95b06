"""The places of methods within one task: gate, then what the attack finds above its null band.

Source: evaluation specification, sections 4 ("Aggregating to a ranking") and 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from .attack_controls import Controls, banks_of, shown_bank
from .attack_rows import ACC, PRIVACY, figure, plain_rows
from .gate import FAIL, KEPT, Gate, gate
from .tablecell import Row, known

KINDS = {"reference": 0, "noise floor": 0, "control": 1, "method": 2}
NEW = ("place", "tied", "excess", "gate", "gate_reason")
IN_SPREADS = ("forget", "test")
FAULTS = {
    "nothing to see": "the original model shows nothing to forget",
    "biased": "the retrained model lies far outside its null band",
}
UNKNOWN = {
    ("identity",): "the original model has no U-LIRA figure with a null band",
    ("retrain",): "the retrained model has no U-LIRA figure with a null band",
    ("identity", "retrain"): (
        "neither the original nor the retrained model has a U-LIRA figure with a null band"
    ),
}
NOT_ATTACKED = "U-LIRA was not run"
NO_BAND = "U-LIRA gave no figure with a null band"
NONE_PASSES = "no method that passes the gate has a U-LIRA figure"
NO_METHOD = "there is no method to rank"
NONE_OK = "no method has a cell that is ok"

Faults = dict[tuple[str, str], str]


class Placed(NamedTuple):
    """The rows of a task in their order, and whether the task counts.

    Attributes:
        rows: With `NEW` columns and `gap_forget_sd`, `gap_test_sd`; references, controls, methods
            by place (ties by speed-up), then methods without a place in the order that they had.
        unranked: Why no method has a place; empty if one has.
        faults: By recipe and shadow bank of the figures on it, why they rank nothing; empty if
            they do.
    """

    rows: pd.DataFrame
    unranked: str
    faults: Faults


def placed(rows: pd.DataFrame, controls: Controls) -> Placed:
    """Give each method its place within the task.

    Methods that pass the gate, or of which nothing is known that fails it, are ordered by how far
    U-LIRA lies above the upper end of its null band; inside it they are tied. Those that fail
    share the last place. There is no place without a figure and a band, and none where the
    controls say that figures mean nothing, or say nothing at all.

    Args:
        rows: As `judged` gives them.
        controls: By recipe and shadow bank.
    """
    found = plain_rows(rows)
    spreads = {recipe: _spread(found, recipe) for recipe in dict.fromkeys(rows["recipe"])}
    faults = {
        (recipe, bank): _fault(controls, recipe, bank)
        for recipe in spreads
        for bank in banks_of(rows, recipe)
    }
    for row in found:
        spread = spreads[row["recipe"]]
        judged = gate(row, spread) if row["kind"] in ("method", "control") else Gate()
        over = figure(row, ACC) - figure(row, f"{PRIVACY}null_hi")
        row |= {"excess": max(0.0, over) if known(over) else math.nan, "place": math.nan}
        row |= {"gate": judged.verdict, "gate_reason": judged.reason, "tied": False}
        for part in IN_SPREADS:
            sd = spread.get(f"{part}_acc", math.nan)
            gap = figure(row, f"gap_{part}_acc")
            row[f"gap_{part}_sd"] = gap / sd if sd > 0 else math.nan
    methods = [row for row in found if row["kind"] == "method" and _counts(row, faults)]
    _give_places(methods)
    unranked = ""
    if not any(known(row["place"]) for row in methods):
        unranked = _why_none(found, faults, attacked="attack_validity" in rows)
    found.sort(key=_order)
    return Placed(pd.DataFrame(found, columns=_columns(rows)), unranked, faults)


def _fault(controls: Controls, recipe: str, bank: str) -> str:
    """Why figures of an attack rank nothing; empty if they do."""
    found = controls.get((recipe, bank), ())
    there = {control.name for control in found}
    absent = UNKNOWN.get(tuple(name for name in ("identity", "retrain") if name not in there))
    told = [FAULTS[control.fault] for control in found if control.fault in FAULTS]
    return " and ".join([*told, *([absent] if absent else [])])


def _counts(row: Row, faults: Faults) -> bool:
    """Whether a method may have a place: by its own attack; without one, by any on its recipe."""
    if known(figure(row, ACC)):
        return not faults[row["recipe"], row["attack_bank"]]
    return any(not fault for (recipe, _), fault in faults.items() if recipe == row["recipe"])


def _spread(found: Iterable[Row], recipe: str) -> dict[str, float]:
    """Standard deviations over seeds of the retrained models of a recipe, NaN for one seed."""
    for row in found:
        if row["recipe"] == recipe and row["name"] == "retrain" and row["n_ok"] > 0:
            names = {*KEPT, *(f"{part}_acc" for part in IN_SPREADS)}
            return {name: figure(row, f"{name}_std") for name in names}
    return {}


def _give_places(methods: list[dict[str, Any]]) -> None:
    passing = [r for r in methods if r["gate"] != FAIL and known(r["excess"])]
    if not passing:
        return
    for row in passing:
        row["place"] = 1 + sum(other["excess"] < row["excess"] for other in passing)
    failing = [row for row in methods if row["gate"] == FAIL]
    for row in failing:
        row["place"] = 1 + len(passing)
    counts = pd.Series([row["place"] for row in [*passing, *failing]]).value_counts()
    for row in [*passing, *failing]:
        row["tied"] = bool(counts[row["place"]] > 1)


def _why_none(found: list[dict[str, Any]], faults: Faults, *, attacked: bool) -> str:
    methods = [row for row in found if row["kind"] == "method"]
    if not attacked:
        return NOT_ATTACKED
    if not methods:
        return NO_METHOD
    if not any(row["n_ok"] for row in methods):
        return NONE_OK
    if not any(known(row["excess"]) for row in methods):
        return NO_BAND
    with_figure = [row for row in methods if known(row["excess"])]
    attacks = list(dict.fromkeys((row["recipe"], row["attack_bank"]) for row in with_figure))
    faulty = {where: faults[where] for where in attacks if faults[where]}
    if len(faulty) < len(attacks):
        return NONE_PASSES
    if len(set(faulty.values())) == 1:
        return faulty[attacks[0]]
    return "; ".join(f"{on_attack(*where, faults)} {fault}" for where, fault in faulty.items())


def on_attack(recipe: str, bank: str, faults: Faults) -> str:
    """Words for an attack: its recipe, and its shadow models where the recipe has several."""
    several = sum(other == recipe for other, _ in faults) > 1
    return f"on recipe {recipe}{f' with shadow models {shown_bank(bank)}' if several else ''}"


def _order(row: Row) -> tuple[Any, ...]:
    """Kind and place, then speed; rows without a place keep their order."""
    kind, place, faster = KINDS[row["kind"]], row["place"], figure(row, "speedup_mean")
    if not known(place):
        return kind, math.inf
    return kind, place, -faster if known(faster) else math.inf, row["recipe"], row["method"]


def _columns(rows: pd.DataFrame) -> list[str]:
    """The columns in their order with the new ones among them."""
    names = [str(name) for name in rows.columns]
    at = names.index("status") + 1
    names[at:at] = NEW
    for part in IN_SPREADS:
        names.insert(names.index(f"gap_{part}_acc_std") + 1, f"gap_{part}_sd")
    return names
