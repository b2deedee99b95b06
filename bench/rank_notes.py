"""Sentences on the places of a table: who fails the gate, and why nothing is ranked."""

from __future__ import annotations

from .attack_rows import plain_rows
from .gate import FAIL
from .places import NOT_ATTACKED, Placed
from .tablecell import FAILS


def rank_notes(found: Placed) -> list[str]:
    """What a reader must know of the places of a table."""
    rows, unranked, faults = found
    several = rows["recipe"].nunique() > 1
    notes = []
    for row in plain_rows(rows):
        if row["gate"] == FAIL:
            where = f" on {row['recipe']}" if several else ""
            notes.append(
                f"`{row['method']}`{where} fails the gate ({FAILS}): {row['gate_reason']}."
            )
    if unranked and unranked != NOT_ATTACKED:
        notes.append(f"No method is ranked here: {unranked}.")
    elif not unranked:
        methods = rows.loc[rows["kind"] == "method", "recipe"]
        for recipe in dict.fromkeys(methods):
            if faults[recipe]:
                notes.append(f"Methods on recipe {recipe} are not ranked: {faults[recipe]}.")
    return notes
