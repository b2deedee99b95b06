"""The controls of the attack: what it finds on the original and on the retrained models.

It must see something on the original model, and nothing on the retrained one. Attacks with other
shadow models are other attacks, with controls of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from scipy import special

from .attack_rows import ACC, PRIVACY, attack_figures, figure
from .record import Record
from .tablecell import Row, known

# there are many tables: at 1 % one of a hundred good set-ups would be thrown away on either side
ALPHA = 0.001


class Control(NamedTuple):
    """What a reference says of the attack.

    Attributes:
        name: `identity` or `retrain`.
        row: The figures and the setting of the attack on it; see `attack_figures`.
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


Controls = Mapping[tuple[str, str], tuple[Control, ...]]


def controls_of(cells: pd.DataFrame) -> Controls:
    """Judge the references that have a figure and a null band.

    A 95 % band is left by chance in 5 % of tables, so that being outside is noted and no more;
    the figures of a table stop counting where the p-value is below 0.1 %, on either side.

    Args:
        cells: As `cell_frame` gives them, of one task.

    Returns:
        Controls by recipe and shadow bank, `identity` first. All banks are there, also those of
        which no row of the table shows a figure.
    """
    found: dict[tuple[str, str], list[Control]] = {}
    for name in ("identity", "retrain"):
        groups: dict[tuple[str, str, str], list[Record]] = {}
        for cell in cells[cells["name"] == name].to_dict("records"):
            bank = str(cell["record"].attack.get("bank") or "")
            groups.setdefault((cell["recipe"], bank, cell["label"]), []).append(cell["record"])
        for (recipe, bank, _), records in groups.items():
            if control := _control(name, attack_figures(records)):
                found.setdefault((recipe, bank), []).append(control)
    return {where: tuple(controls) for where, controls in found.items()}


def _control(name: str, row: Row) -> Control | None:
    acc, low, high = (figure(row, f"{PRIVACY}{part}") for part in ("acc", "null_lo", "null_hi"))
    if not (known(acc) and known(low) and known(high)):
        return None
    if name == "identity":
        fault = "nothing to see" if acc <= high else ""
        return Control(name, row, fault, figure(row, f"{PRIVACY}p"))
    p = _tail(acc, figure(row, f"{PRIVACY}null_mean"), figure(row, f"{PRIVACY}null_sd"))
    outside = "biased" if p < ALPHA else "outside"
    return Control(name, row, "" if low <= acc <= high else outside, p)


def _tail(value: float, mean: float, sd: float) -> float:
    """Chance of a value so far from the mean, on its own side, under a normal law."""
    if not (known(mean) and known(sd)):
        return math.nan
    return float(special.ndtr(-abs(value - mean) / sd)) if sd > 0 else float(value == mean)


def banks_of(rows: pd.DataFrame, recipe: str) -> list[str]:
    """Shadow banks behind the figures of U-LIRA on a recipe, in order of first appearance."""
    if ACC not in rows:
        return []
    there = rows[(rows["recipe"] == recipe) & rows[ACC].notna()]
    return [str(bank) for bank in dict.fromkeys(there["attack_bank"])]


def shown_bank(bank: str) -> str:
    """A shadow bank as notes call it."""
    return f"`{bank[:8]}`" if bank else "of an unknown bank"
