"""Which rows of a leaderboard moved beyond noise from one set of records to another.

A difference of accuracies is over seeds: of those that both sides have, with the same forget sets,
paired; else by Welch's standard error. One of U-LIRA is over shadow models and examples: paired and
clustered where both attacks are on the same ones, else from the two standard errors.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .attack_record import AttackRecord
from .attack_rows import ACC, PRIVACY, attack_figures, plain_rows
from .cell_frame import METRICS, cell_frame
from .comparison import Compared, Comparison, RowChange, RowName
from .leaderboard import build
from .merge_reasons import one_meaning
from .metrics.clustering import two_way_se
from .noise import NEGLIGIBLE, Sample, comparable, corrected, difference_of_means, judged
from .record import Record
from .sweep_records import SweepRecords
from .table_rows import REFERENCES
from .tablecell import known

LEAST_RATIO = 1.2  # of seconds, either way
LEAST_S = 0.001
LEAST_ERROR = 1e-9
VOID = ("biased", "suspected")  # validity of figures that do not count

Task = tuple[str, str, str]  # dataset, model and scenario
Name = tuple[str, str]  # labels of recipe and method
Group = list[dict[str, Any]]  # cells of a row
Attacked = tuple[str, str, str, str, str, float]  # task, method, key of its scores and accuracy


def compare(old: SweepRecords, new: SweepRecords) -> Comparison:
    """Match the rows of both sides and compare their numbers.

    Rows are matched by task, recipe with its training, and method with its hyper-parameters; where
    a method has one row left on each side, these two are matched in spite of other settings.

    Args:
        old: Records of before.
        new: Records of after.
    """
    sides: list[dict[Task, list[Record]]] = [{}, {}]
    for side, records in zip(sides, (old.records, new.records), strict=True):
        for record in records:
            side.setdefault((record.dataset, record.model, record.scenario), []).append(record)
    found = Comparison(rows=[], vanished=[], appeared=[], notes=list(_notes(old, new)))
    attacks = [{attack.key: attack for attack in side.attacks} for side in (old, new)]
    void = [_void(side) for side in (old, new)]
    for task in dict.fromkeys((*sides[0], *sides[1])):
        groups = _groups(*(side.get(task, []) for side in sides))
        _compare_task(task, groups, attacks, void, found)
    settled = iter(corrected([number for row in found.rows for number in row.compared]))
    for row in found.rows:
        row.compared = [next(settled) for _ in row.compared]
    return found


def _groups(old: list[Record], new: list[Record]) -> list[dict[Name, Group]]:
    """The cells of a task by recipe and method, for each side; labels mean the same on both."""
    cells = plain_rows(cell_frame([*old, *new]))
    groups: list[dict[Name, Group]] = [{}, {}]
    for number, cell in enumerate(cells):
        side = groups[number >= len(old)]
        side.setdefault((cell["recipe"], cell["label"]), []).append(cell)
    return groups


def _void(side: SweepRecords) -> set[Attacked]:
    """Figures of U-LIRA that do not count on the leaderboard of a side."""
    if not any(ACC in record.metrics for record in side.records):
        return set()
    return {
        _attacked((table.dataset, table.model, table.scenario), row["name"], row)
        for table in build(*side).tables
        if table.attacked
        for row in plain_rows(table.rows)
        if row["attack_validity"] in VOID
    }


def _attacked(task: Task, method: str, row: Mapping[str, Any]) -> Attacked:
    return (*task, method, str(row["attack_scores"]), float(row[ACC]))


def _compare_task(
    task: Task,
    groups: Sequence[Mapping[Name, Group]],
    attacks: Sequence[Mapping[str, AttackRecord]],
    void: Sequence[set[Attacked]],
    found: Comparison,
) -> None:
    title = " · ".join(task)
    pairs = {name: name for name in groups[0] if name in groups[1]}
    pairs |= _only_candidates(groups, pairs)
    for name, one in groups[0].items():
        if name not in pairs:
            found.vanished.append(_name(title, name, one))
            continue
        other = groups[1][pairs[name]]
        recipe, label = pairs[name]
        before, after = _statuses(one), _statuses(other)
        found.rows.append(
            RowChange(
                task=title,
                recipe=recipe,
                method=_label(other, label),
                settings="" if name == pairs[name] else _other_settings(one, other),
                compared=[
                    *_seeds_compared(one, other),
                    *_attacks_compared(task, (one, other), attacks, void),
                    *_times_compared(one, other),
                ],
                newly_failed=[s for s, ok in before.items() if ok and not after.get(s, True)],
                mended=[s for s, ok in after.items() if ok and not before.get(s, True)],
            )
        )
    matched = set(pairs.values())
    found.appeared.extend(
        _name(title, name, group) for name, group in groups[1].items() if name not in matched
    )


def _only_candidates(
    groups: Sequence[Mapping[Name, Group]], pairs: Mapping[Name, Name]
) -> dict[Name, Name]:
    """Rows that are the only ones left of their method and recipe on both sides."""
    left: list[dict[Name, list[Name]]] = [{}, {}]
    taken = (set(pairs), set(pairs.values()))
    for side in (0, 1):
        for name, group in groups[side].items():
            if name not in taken[side]:
                first = group[0]["record"]
                left[side].setdefault((first.recipe, first.method), []).append(name)
    return {
        names[0]: left[1][key][0]
        for key, names in left[0].items()
        if len(names) == 1 and len(left[1].get(key, ())) == 1
    }


def _other_settings(one: Group, other: Group) -> str:
    """What differs in the settings of two rows, as `lr 0.01 -> 0.02`."""
    a, b = one[0]["record"], other[0]["record"]
    told = []
    for before, after in ((a.hyperparameters, b.hyperparameters), (a.training, b.training)):
        for key in dict.fromkeys((*before, *after)):
            if before.get(key) != after.get(key) or (key in before) != (key in after):
                told.append(f"{key} {_value(before, key)} -> {_value(after, key)}")
    return ", ".join(told)


def _value(params: Mapping[str, Any], key: str) -> str:
    return json.dumps(params[key], sort_keys=True) if key in params else "unknown"


def _label(group: Group, label: str) -> str:
    name = str(group[0]["name"])
    return REFERENCES.get(name, name) + label.removeprefix(name)


def _name(title: str, name: Name, group: Group) -> RowName:
    counts = Counter(cell["status"] for cell in group)
    status = ", ".join(f"{counts[s]} {s}" for s in ("ok", "failed", "skipped") if counts[s])
    return RowName(task=title, recipe=name[0], method=_label(group, name[1]), status=status)


def _statuses(group: Group) -> dict[int, bool]:
    """Whether each seed is ok; one that is ok in any cell is."""
    found: dict[int, bool] = {}
    for cell in group:
        found[cell["seed"]] = found.get(cell["seed"], False) or cell["status"] == "ok"
    return found


def _seeds_compared(one: Group, other: Group) -> Iterator[Compared]:
    for name in (*METRICS, *(f"gap_{metric}" for metric in METRICS)):
        old, new = comparable(_by_seed(one, name), _by_seed(other, name))
        if old and new:
            yield judged(name, _mean(old), _mean(new), *difference_of_means(old, new))


def _by_seed(group: Group, name: str) -> Sample:
    """The values of the ok cells by seed and forget set."""
    return [
        ((cell["seed"], cell["request"]), float(cell[name]))
        for cell in group
        if cell["status"] == "ok" and known(cell[name])
    ]


def _mean(sample: Sample) -> float:
    return math.fsum(value / len(sample) for _, value in sample)


def _attacks_compared(
    task: Task,
    groups: Sequence[Group],
    attacks: Sequence[Mapping[str, AttackRecord]],
    void: Sequence[set[Attacked]],
) -> Iterator[Compared]:
    """U-LIRA on both sides; not where a figure does not count."""
    rows = [attack_figures(cell["record"] for cell in group) for group in groups]
    for group, row, lost in zip(groups, rows, void, strict=True):
        if ACC not in row or row["attack_suspicion"]:
            return
        if _attacked(task, group[0]["name"], row) in lost:
            return
    old, new = (float(row[ACC]) for row in rows)
    details = [side.get(row["attack_scores"]) for side, row in zip(attacks, rows, strict=True)]
    a, b = details
    if a is not None and b is not None and a.is_paired_with(b) and min(a.pairs, a.examples) > 1:
        apart = b.hit_matrix() - a.hit_matrix()
        se = two_way_se(apart) if np.ptp(apart) > 0 else 0.0
        difference = float(apart.mean())
        yield judged(ACC, old, new, difference, se, None, "paired")
        return
    errors = [row.get(f"{PRIVACY}se") for row in rows]
    known = [float(e) for e in errors if e is not None]
    se_apart = math.hypot(*known) if len(known) == 2 else None
    yield judged(ACC, old, new, new - old, se_apart, None, "apart")


def _times_compared(one: Group, other: Group) -> Iterator[Compared]:
    """Seconds as a ratio of geometric means, where both sides ran on one and the same machine."""
    machines = {c["hardware"] for group in (one, other) for c in group if c["status"] == "ok"}
    if len(machines) != 1 or "" in machines or one[0]["name"] == "identity":
        return
    old, new = comparable(_by_seed(one, "unlearn_s"), _by_seed(other, "unlearn_s"))
    if not old or not new or any(seconds <= 0 for _, seconds in (*old, *new)):
        return
    logs = [[(which, math.log(seconds)) for which, seconds in side] for side in (old, new)]
    difference, se, dof, how = difference_of_means(*logs)
    before, after = _mean(old), _mean(new)
    least = math.log(LEAST_RATIO) if abs(after - before) > LEAST_S else math.inf
    # no two runs take exactly as long: unless they are the same, an error of 0 says nothing here
    noise = max(se, LEAST_ERROR) if se is not None and abs(difference) > NEGLIGIBLE else se
    found = judged("unlearn_s", before, after, difference, noise, dof, how, least=least)
    yield found.model_copy(update={"difference": math.exp(difference)})


def _notes(old: SweepRecords, new: SweepRecords) -> Iterator[str]:
    """What differs between the sides but for the results."""
    for what, name in one_meaning({"old": old.records, "new": new.records}):
        yield f"The {what} `{name}` are not the same in both: what moved may be due to that."
    for name in ("unlearnbench", "torch", "hardware"):
        sides = [
            list(dict.fromkeys(str(r.environment.get(name) or "") for r in side.records))
            for side in (old, new)
        ]
        told = [", ".join(filter(None, side)) or "not recorded" for side in sides]
        if set(sides[0]) != set(sides[1]):
            times = "; times are compared on the same machine only" if name == "hardware" else ""
            yield f"{name} differs: {told[0]} before, {told[1]} after{times}."
