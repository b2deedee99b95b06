"""Methods ranked over tasks: Borda, with intervals of the mean rank and what is beside chance.

Source: evaluation specification, section 4 ("Aggregating to a ranking"). For the points see
`metrics.ranking.task_ranks`; for the redraws, `rank_redraws`; for the pairs, `paired`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from .attack_record import AttackRecord
from .attack_rows import ACC, figure, plain_rows
from .gate import FAIL
from .metrics.lrt import FloatArray
from .metrics.ranking import friedman_test, nemenyi_difference, task_ranks, win_shares
from .paired import COLUMNS, differences
from .rank_redraws import DRAWS, redrawn_excess, redrawn_tasks
from .tablecell import known

if TYPE_CHECKING:
    from .leaderboard import Table

Name = tuple[str, str]  # recipe and method, as in the rows of the tables


@dataclass(frozen=True)
class Standing:
    """One method over all tasks that count.

    Attributes:
        method: As in the rows of the tables.
        recipe: Likewise.
        place: By Borda points, 1 is best; ties share the least.
        tied: Whether it shares its place.
        borda: Points, summed over tasks.
        tasks: Tasks on which it has a place.
        missing: Tasks on which it has none: no record, declined, no figure of the attack, or one
            that says nothing on its recipe. They give 0 points.
        failed: Of the tasks with a place, those on which it failed the gate.
        mean_rank: Mean over tasks of its rank; a missing one counts as the last.
        rank_lo: Lower end of the bootstrap 95 % interval of the mean rank.
        rank_hi: Upper end.
        win_rate: Share of comparisons won, ties half: one with every other method on every task
            that ranks both. NaN if there is none.
    """

    method: str
    recipe: str
    place: int
    tied: bool
    borda: float
    tasks: int
    missing: int
    failed: int
    mean_rank: float
    rank_lo: float
    rank_hi: float
    win_rate: float


@dataclass(frozen=True, eq=False)
class Standings:
    """The ranking over tasks.

    Attributes:
        rows: By place; ties by speed-up, then by name.
        tasks: Titles of the tasks that count, sorted.
        left_out: Titles of those that do not, with the reason.
        wins: Share of tasks on which the row's method is ahead of the column's, ties half, over
            the tasks that rank both; NaN where there is none. Labels as `names`.
        differences: Paired differences in U-LIRA of every pair, task by task; see `paired`.
        friedman: Chi-square with ties, over the methods that have a place on every task; NaN with
            fewer than 2 tasks or methods.
        friedman_p: Its p-value.
        critical_difference: Nemenyi's least difference of mean ranks at 5 %; NaN where a method
            lacks a task, as the mean ranks here are then not those that it is about.
        compared: What the methods are called that have a place on every task, in table order.
    """

    rows: tuple[Standing, ...]
    tasks: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    wins: pd.DataFrame
    differences: pd.DataFrame
    friedman: float
    friedman_p: float
    critical_difference: float
    compared: tuple[str, ...] = ()

    @property
    def names(self) -> dict[Name, str]:
        """What each method is called: with its recipe where there are several."""
        return shown_names([(row.recipe, row.method) for row in self.rows])


class _Task(NamedTuple):
    """A task that counts: its rows with a place, by name."""

    title: str
    rows: dict[Name, dict[str, Any]]


def standings_of(
    tables: Sequence[Table], attacks: Mapping[str, AttackRecord] | None = None
) -> Standings | None:
    """Rank methods over the tasks that rank any; None where there is none.

    The order of tables and records makes no difference.

    Args:
        tables: With places.
        attacks: What the attacks found pair by pair, by the key of their scores.
    """
    tasks = [_task(table) for table in tables if not table.unranked]
    if not tasks:
        return None
    tasks.sort(key=lambda task: task.title)
    names = sorted({name for task in tasks for name in task.rows})
    scores, failed = _scores(tasks, names)
    there = failed | ~np.isnan(scores)
    ranks = task_ranks(scores, failed)
    points = len(names) - ranks
    borda = points.sum(0)
    low, high = _rank_interval(tasks, names, ranks, failed, attacks or {})
    shares = win_shares(np.where(there, ranks, math.nan))
    rates = _win_rates(ranks, there)
    mean = ranks.mean(0)
    places = 1 + (borda[:, None] < borda).sum(1)  # points are halves, whose sums are exact
    order = sorted(range(len(names)), key=lambda i: (places[i], -_speed(tasks, names[i]), names[i]))
    complete = np.asarray(there.all(0))
    chi_square, p, difference = _distinguishable(scores[:, complete], failed[:, complete])
    shown = shown_names(names)
    called = pd.Index([shown[names[i]] for i in order])
    return Standings(
        rows=tuple(
            Standing(
                method=names[i][1],
                recipe=names[i][0],
                place=int(places[i]),
                tied=bool((places == places[i]).sum() > 1),
                borda=float(borda[i]),
                tasks=int(there[:, i].sum()),
                missing=int((~there[:, i]).sum()),
                failed=int(failed[:, i].sum()),
                mean_rank=float(mean[i]),
                rank_lo=float(min(low[i], mean[i])),
                rank_hi=float(max(high[i], mean[i])),
                win_rate=float(rates[i]),
            )
            for i in order
        ),
        tasks=tuple(task.title for task in tasks),
        left_out=tuple(sorted((table.title, table.unranked) for table in tables if table.unranked)),
        wins=pd.DataFrame(shares[np.ix_(order, order)], index=called, columns=called),
        differences=_differences(tasks, shown, attacks or {}),
        friedman=chi_square,
        friedman_p=p,
        critical_difference=difference if complete.all() else math.nan,
        compared=tuple(shown[names[i]] for i in order if complete[i]),
    )


def shown_names(names: Sequence[Name]) -> dict[Name, str]:
    """`method`, or `method (recipe)` where there are several recipes."""
    several = len({recipe for recipe, _ in names}) > 1
    return {(r, m): f"{m} ({r})" if several else m for r, m in names}


def _task(table: Table) -> _Task:
    rows = (row for row in plain_rows(table.rows) if known(row["place"]))
    return _Task(table.title, {(row["recipe"], row["method"]): row for row in rows})


def _scores(
    tasks: Sequence[_Task], names: Sequence[Name]
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """`(tasks, methods)` scores, higher is better, NaN where missing or failed; and who failed."""
    scores = np.full((len(tasks), len(names)), math.nan)
    failed = np.zeros(scores.shape, dtype=bool)
    for i, task in enumerate(tasks):
        for j, name in enumerate(names):
            if name in task.rows:
                failed[i, j] = task.rows[name]["gate"] == FAIL
                if not failed[i, j]:
                    scores[i, j] = -task.rows[name]["excess"]
    return scores, failed


def _rank_interval(
    tasks: Sequence[_Task],
    names: Sequence[Name],
    ranks: FloatArray,
    failed: npt.NDArray[np.bool_],
    attacks: Mapping[str, AttackRecord],
) -> FloatArray:
    """`(2, methods)`, the ends of the 95 % interval of the mean rank.

    Every draw redraws the tasks and, in each, what the attack found. Who fails stays so. Redraws
    add their noise to that of the figures, which moves ranks towards the middle: over several
    tasks they are moved back, so that the mean over draws is the rank itself. In simulations with
    6 methods and 2 to 60 tasks such intervals held the true mean rank in 95 % or more.
    """
    drawn = redrawn_tasks([task.title for task in tasks])
    total = np.zeros((DRAWS, len(names)))
    at = {name: place for place, name in enumerate(names)}
    for i, task in enumerate(tasks):
        passing = sorted(name for name, row in task.rows.items() if row["gate"] != FAIL)
        scores = np.full((DRAWS, len(names)), math.nan)
        labels = [" on ".join(reversed(name)) for name in passing]
        rows = [task.rows[name] for name in passing]
        scores[:, [at[name] for name in passing]] = -redrawn_excess(
            task.title, labels, rows, attacks
        )
        redrawn = task_ranks(scores, failed[i])
        if len(tasks) > 1:
            redrawn += ranks[i] - redrawn.mean(0)
        total += drawn[:, i, None] * redrawn
    means = np.clip(total / len(tasks), 1, len(names))
    ends: FloatArray = np.quantile(means, (0.025, 0.975), axis=0)
    return ends


def _win_rates(ranks: FloatArray, there: npt.NDArray[np.bool_]) -> FloatArray:
    """`(methods,)` share of comparisons won, ties half, where both have a place."""
    won, met = np.zeros(ranks.shape[1]), np.zeros(ranks.shape[1])
    for task, here in zip(ranks, there, strict=True):
        ahead = (task[:, None] < task) + (task[:, None] == task) / 2
        both = here[:, None] & here & ~np.eye(len(task), dtype=bool)
        won += (ahead * both).sum(1)
        met += both.sum(1)
    rates: FloatArray = np.divide(won, met, out=np.full_like(won, math.nan), where=met > 0)
    return rates


def _speed(tasks: Sequence[_Task], name: Name) -> float:
    """Geometric mean of the speed-ups of a method, as a logarithm; 0 where none is known."""
    found = [figure(task.rows[name], "speedup_mean") for task in tasks if name in task.rows]
    logs = sorted(math.log(speedup) for speedup in found if speedup > 0)
    return sum(logs) / len(logs) if logs else 0.0


def _distinguishable(
    scores: FloatArray, failed: npt.NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Friedman's chi-square with its p-value, and Nemenyi's critical difference."""
    tasks, methods = scores.shape
    if tasks < 2 or methods < 2:
        return math.nan, math.nan, math.nan
    return *friedman_test(task_ranks(scores, failed)), nemenyi_difference(methods, tasks)


def _differences(
    tasks: Sequence[_Task], shown: Mapping[Name, str], attacks: Mapping[str, AttackRecord]
) -> pd.DataFrame:
    parts = []
    for task in tasks:
        # a method that fails the gate for its accuracy has a figure that counts all the same
        there = [
            name
            for name, row in sorted(task.rows.items())
            if known(figure(row, ACC)) and row.get("attack_validity") == "ok"
        ]
        rows = [task.rows[name] for name in there]
        parts.append(differences(task.title, [shown[name] for name in there], rows, attacks))
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(COLUMNS))
