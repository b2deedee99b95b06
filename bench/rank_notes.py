"""Sentences on ranks: who fails the gate, why nothing is ranked, and what can be told apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from .attack_rows import plain_rows
from .gate import FAIL
from .places import NOT_ATTACKED, Placed, on_attack
from .standings import Standings
from .tablecell import FAILS, known

if TYPE_CHECKING:
    from .leaderboard import Leaderboard, Table

ALPHA = 0.05
MOST_PAIRS = 8


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
    if unranked != NOT_ATTACKED:
        notes += _not_judged(rows, several)
    if unranked and unranked != NOT_ATTACKED:
        notes.append(f"No method is ranked here: {unranked}.")
    elif not unranked:
        methods = rows[(rows["kind"] == "method") & rows["excess"].notna()]
        for attack in dict.fromkeys(zip(methods["recipe"], methods["attack_bank"], strict=True)):
            if faults[attack]:
                said = on_attack(*attack, faults)
                notes.append(f"Methods {said} are not ranked: {faults[attack]}.")
    return notes


def _not_judged(rows: pd.DataFrame, several: bool) -> Iterator[str]:
    """Recipes with methods that ran and no retrained model, which the gate compares them with."""
    ran = rows[rows["n_ok"] > 0]
    retrained = set(ran.loc[(ran["name"] == "retrain") & (ran["kind"] == "reference"), "recipe"])
    for recipe in dict.fromkeys(ran.loc[ran["kind"] == "method", "recipe"]):
        if recipe not in retrained:
            where = f" on recipe {recipe}" if several else ""
            yield (
                f"There is no retrained model{where}: whether methods keep its accuracy, as the "
                "gate asks, was not judged."
            )


def told_apart(table: Table, board: Leaderboard) -> list[str]:
    """Which methods of a table differ in U-LIRA by more than noise; nothing for a single one."""
    if board.standings is None:
        return []
    pairs = board.standings.differences
    pairs = pairs[pairs["task"] == table.title]
    if pairs.empty:
        return []
    differing = pairs[pairs["p_holm"] < ALPHA]
    named = [
        f"`{first}` and `{second}`"
        for first, second in zip(differing["method"], differing["other"], strict=True)
    ]
    told = f": {', '.join(named)}" if 0 < len(named) <= MOST_PAIRS else ""
    paired = bool(pairs["paired"].all())
    how = "paired differences" if paired else "differences, where possible paired"
    count = f"{len(differing)} of {len(pairs)} pair{'s' if len(pairs) > 1 else ''} of methods"
    return [f"U-LIRA tells {count} apart at 5 % ({how}, Holm's correction){told}."]


def standings_notes(standings: Standings) -> list[str]:
    """How the ranking over tasks was made, and how far it can be trusted."""
    tasks = len(standings.tasks)
    notes = [
        f"Over {tasks} task{'s' if tasks > 1 else ''} by Borda points. Methods with the same "
        "points are tied (=). Where intervals of the mean rank overlap, the order may be chance."
    ]
    for reason in dict.fromkeys(reason for _, reason in standings.left_out):
        titles = [title for title, why in standings.left_out if why == reason]
        notes.append(f"Left out, for {reason}: {'; '.join(titles)}.")
    if sentence := distinguishable(standings):
        notes.append(sentence)
    return notes


def distinguishable(standings: Standings) -> str:
    """One sentence on Friedman's test and Nemenyi's difference; empty where there is neither."""
    if not known(standings.friedman_p):
        return ""
    p = standings.friedman_p
    shown = f"p = {p:.2g}" if p >= 0.0001 else "p below 0.0001"
    what = (
        f"the {len(standings.compared)} methods with a place on every task (Friedman, "
        f"chi-square = {standings.friedman:.1f}, {shown})"
    )
    if p >= ALPHA:
        return f"Ranks do not distinguish {what}."
    if not known(standings.critical_difference):
        return f"Ranks distinguish {what}."
    return (
        f"Ranks distinguish {what}; two of them differ at 5 % if their mean ranks are "
        f"{standings.critical_difference:.2f} or more apart (Nemenyi)."
    )
