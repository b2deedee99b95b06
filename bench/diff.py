"""Which rows of a leaderboard moved beyond noise from one set of records to another.

A difference of accuracies is over seeds: paired where both sides have the same seeds and forget
sets, else by Welch's standard error. One of U-LIRA is over shadow models and examples: paired and
clustered where both attacks are on the same ones, else from the two standard errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from .attack_record import AttackRecord
from .attack_rows import ACC, PRIVACY, attack_figures
from .cell_frame import METRICS, cell_frame
from .leaderboard import REFERENCES
from .merge import one_meaning
from .metrics.clustering import two_way_se
from .record import Finite, Record
from .sweep_records import SweepRecords

SCHEMA: Final = "unlearnbench.diff/1"
ERRORS = 2.0  # standard errors beyond which a difference is more than noise
LEAST = 0.005  # of an accuracy, a gap or U-LIRA; half a percentage point
LEAST_RATIO = 1.2  # of seconds, either way
LEAST_S = 0.001
NEGLIGIBLE = 1e-12  # rounding of sums

Verdict = Literal["moved", "within noise", "not judged"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Compared(_Part):
    """One number of a row, on both sides.

    Attributes:
        quantity: `forget_acc` and so on, `gap_*`, `ulira.privacy/acc`: fractions; `unlearn_s`.
        old: Mean over the seeds, or of the attack.
        new: Likewise.
        difference: New less old; of seconds the ratio, new over old.
        se: Standard error of the difference; of seconds that of the logarithm of the ratio. Null
            with one seed.
        dof: Degrees of freedom of that standard error; null where it is not over seeds.
        how: `paired` or `apart`.
        verdict: `moved` if beyond 2 standard errors and the least amount, or if the standard error
            is 0 and anything changed; `not judged` without a standard error.
    """

    quantity: str
    old: Finite
    new: Finite
    difference: Finite
    se: Finite | None
    dof: Finite | None
    how: Literal["paired", "apart"]
    verdict: Verdict


class RowChange(_Part):
    """A row that both sides have.

    Attributes:
        task: Title of the task.
        recipe: Label of the recipe, told apart by what differs on either side.
        method: Label of the method, likewise.
        settings: What differs in hyper-parameters or training, if the row was matched in spite of
            that; else empty.
        compared: Its numbers.
        newly_failed: Seeds that were ok and are not.
        mended: Seeds that were not ok and are.
    """

    task: str
    recipe: str
    method: str
    settings: str = ""
    compared: list[Compared]
    newly_failed: list[int] = []
    mended: list[int] = []


class RowName(_Part):
    """A row that one side has; `status` counts its cells, such as `2 ok, 1 failed`."""

    task: str
    recipe: str
    method: str
    status: str


class Comparison(_Part):
    """All rows of both sides.

    Attributes:
        schema_: Version of this layout; written as `schema`.
        rows: Rows of both.
        vanished: Rows of the old side alone.
        appeared: Rows of the new side alone.
        notes: Sentences that a reader should know.
    """

    schema_: Annotated[Literal["unlearnbench.diff/1"], Field(alias="schema")] = SCHEMA
    rows: list[RowChange]
    vanished: list[RowName]
    appeared: list[RowName]
    notes: list[str]

    @property
    def worth_a_look(self) -> bool:
        """Whether anything moved, is gone or newly fails."""
        moved = any(c.verdict == "moved" for row in self.rows for c in row.compared)
        return moved or bool(self.vanished) or any(row.newly_failed for row in self.rows)

    def to_json(self) -> str:
        """The content of a file; the same records give the same text."""
        content = self.model_dump(mode="json", by_alias=True)
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def compare(old: SweepRecords, new: SweepRecords) -> Comparison:
    """Match the rows of both sides and compare their numbers.

    Rows are matched by task, recipe with its training, and method with its hyper-parameters; where
    a method has one row left on each side, these two are matched in spite of other settings.

    Args:
        old: Records of before.
        new: Records of after.
    """
    sides = (old, new)
    tasks = dict.fromkeys(_task(record) for side in sides for record in side.records)
    found = Comparison(rows=[], vanished=[], appeared=[], notes=list(_notes(old, new)))
    attacks = [{attack.key: attack for attack in side.attacks} for side in sides]
    for task in tasks:
        _compare_task(" · ".join(task), _cells(task, sides), attacks, found)
    return found


def _task(record: Record) -> tuple[str, str, str]:
    return record.dataset, record.model, record.scenario


def _cells(task: tuple[str, str, str], sides: Sequence[SweepRecords]) -> pd.DataFrame:
    """The cells of a task on both sides in one frame, so that labels mean the same."""
    records = [[r for r in side.records if _task(r) == task] for side in sides]
    frame = cell_frame([*records[0], *records[1]])
    frame["side"] = [0] * len(records[0]) + [1] * len(records[1])
    return frame


def _compare_task(
    title: str,
    cells: pd.DataFrame,
    attacks: Sequence[Mapping[str, AttackRecord]],
    found: Comparison,
) -> None:
    groups: list[dict[tuple[str, str], pd.DataFrame]] = [
        {
            (str(recipe), str(label)): group
            for (recipe, label), group in cells[cells["side"] == side].groupby(
                ["recipe", "label"], sort=False
            )
        }
        for side in (0, 1)
    ]
    pairs = {name: name for name in groups[0] if name in groups[1]}
    pairs |= _only_candidates(groups, pairs)
    for name in groups[0]:
        if name not in pairs:
            found.vanished.append(_name(title, name, groups[0][name]))
            continue
        one, other = groups[0][name], groups[1][pairs[name]]
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
                    *_attacks_compared(one, other, attacks),
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
    groups: Sequence[Mapping[tuple[str, str], pd.DataFrame]],
    pairs: Mapping[tuple[str, str], tuple[str, str]],
) -> dict[tuple[str, str], tuple[str, str]]:
    """Rows that are the only ones left of their method and recipe on both sides."""
    left: list[dict[tuple[str, str], list[tuple[str, str]]]] = [{}, {}]
    taken = (set(pairs), set(pairs.values()))
    for side in (0, 1):
        for name, group in groups[side].items():
            if name not in taken[side]:
                first = group["record"].iloc[0]
                left[side].setdefault((first.recipe, first.method), []).append(name)
    return {
        names[0]: left[1][key][0]
        for key, names in left[0].items()
        if len(names) == 1 and len(left[1].get(key, ())) == 1
    }


def _other_settings(one: pd.DataFrame, other: pd.DataFrame) -> str:
    """What differs in the settings of two rows, as `lr 0.01 -> 0.02`."""
    a, b = one["record"].iloc[0], other["record"].iloc[0]
    told = []
    for before, after in ((a.hyperparameters, b.hyperparameters), (a.training, b.training)):
        for key in dict.fromkeys((*before, *after)):
            if before.get(key) != after.get(key) or (key in before) != (key in after):
                told.append(f"{key} {_value(before, key)} -> {_value(after, key)}")
    return ", ".join(told)


def _value(params: Mapping[str, Any], key: str) -> str:
    return json.dumps(params[key], sort_keys=True) if key in params else "unknown"


def _label(group: pd.DataFrame, label: str) -> str:
    name = str(group["name"].iloc[0])
    return REFERENCES.get(name, name) + label.removeprefix(name)


def _name(title: str, name: tuple[str, str], group: pd.DataFrame) -> RowName:
    counts = group["status"].value_counts()
    status = ", ".join(f"{counts[s]} {s}" for s in ("ok", "failed", "skipped") if s in counts)
    return RowName(task=title, recipe=name[0], method=_label(group, name[1]), status=status)


def _statuses(group: pd.DataFrame) -> dict[int, bool]:
    """Whether each seed is ok; one that is ok in any cell is."""
    found: dict[int, bool] = {}
    for seed, status in zip(group["seed"], group["status"], strict=True):
        found[int(seed)] = found.get(int(seed), False) or status == "ok"
    return found


def _seeds_compared(one: pd.DataFrame, other: pd.DataFrame) -> Iterator[Compared]:
    names = [*METRICS, *(f"gap_{name}" for name in METRICS)]
    for name in names:
        values = [_by_seed(group, name) for group in (one, other)]
        if values[0].empty or values[1].empty:
            continue
        difference, se, dof, how = _difference(*values)
        yield _judged(
            name, values[0].mean(), values[1].mean(), difference, se, dof, how, least=LEAST
        )


def _by_seed(group: pd.DataFrame, name: str) -> pd.Series[Any]:
    """The values of the ok cells by seed and forget set."""
    ok = group[(group["status"] == "ok") & group[name].notna()]
    index = pd.MultiIndex.from_arrays([ok["seed"], ok["request"]])
    return pd.Series(ok[name].to_numpy(dtype=float), index=index)


def _difference(
    old: pd.Series[Any], new: pd.Series[Any]
) -> tuple[float, float | None, float | None, Literal["paired", "apart"]]:
    """Difference of means with its standard error and degrees of freedom."""
    paired = old.index.is_unique and new.index.is_unique and set(old.index) == set(new.index)
    if paired:
        apart = (new - old.reindex(new.index)).to_numpy()
        n = len(apart)
        se = float(apart.std(ddof=1)) / math.sqrt(n) if n > 1 else None
        return float(apart.mean()), se, n - 1 if n > 1 else None, "paired"
    difference = float(new.mean() - old.mean())
    if min(len(old), len(new)) < 2:
        return difference, None, None, "apart"
    parts = [float(side.var(ddof=1)) / len(side) for side in (old, new)]
    total = sum(parts)
    weights = [p**2 / (len(s) - 1) for p, s in zip(parts, (old, new), strict=True)]
    dof = total**2 / sum(weights) if total > 0 else len(old) + len(new) - 2
    return difference, math.sqrt(total), float(dof), "apart"


def _judged(
    quantity: str,
    old: float,
    new: float,
    difference: float,
    se: float | None,
    dof: float | None,
    how: Literal["paired", "apart"],
    *,
    least: float,
) -> Compared:
    size = abs(difference)
    verdict: Verdict = "within noise"
    if size > NEGLIGIBLE:
        if se is None:
            verdict = "not judged" if size > least else "within noise"
        elif se <= NEGLIGIBLE or (size > ERRORS * se and size > least):
            verdict = "moved"
    return Compared(
        quantity=quantity,
        old=float(old),
        new=float(new),
        difference=difference,
        se=se,
        dof=dof,
        how=how,
        verdict=verdict,
    )


def _attacks_compared(
    one: pd.DataFrame, other: pd.DataFrame, attacks: Sequence[Mapping[str, AttackRecord]]
) -> Iterator[Compared]:
    """U-LIRA on both sides; not where a figure does not count."""
    rows = [attack_figures(group["record"]) for group in (one, other)]
    if any(ACC not in row or row["attack_suspicion"] for row in rows):
        return
    old, new = (float(row[ACC]) for row in rows)
    details = [side.get(row["attack_scores"]) for side, row in zip(attacks, rows, strict=True)]
    a, b = details
    if a is not None and b is not None and a.is_paired_with(b) and min(a.pairs, a.examples) > 1:
        apart = b.hit_matrix() - a.hit_matrix()
        se = two_way_se(apart) if np.ptp(apart) > 0 else 0.0
        difference = float(apart.mean())
        yield _judged(ACC, old, new, difference, se, None, "paired", least=LEAST)
        return
    errors = [row.get(f"{PRIVACY}se") for row in rows]
    known = [float(e) for e in errors if e is not None]
    se_apart = math.hypot(*known) if len(known) == 2 else None
    yield _judged(ACC, old, new, new - old, se_apart, None, "apart", least=LEAST)


def _times_compared(one: pd.DataFrame, other: pd.DataFrame) -> Iterator[Compared]:
    """Seconds as a ratio of geometric means, where both sides ran on one and the same machine."""
    ok = [group[group["status"] == "ok"] for group in (one, other)]
    machines = {name for group in ok for name in group["hardware"]}
    if len(machines) != 1 or "" in machines or one["name"].iloc[0] == "identity":
        return
    seconds = [_by_seed(group, "unlearn_s") for group in ok]
    if any(side.empty or (side <= 0).any() for side in seconds):
        return
    logs = [pd.Series(np.log(side.to_numpy()), index=side.index) for side in seconds]
    difference, se, dof, how = _difference(*logs)
    old, new = seconds[0].mean(), seconds[1].mean()
    least = math.log(LEAST_RATIO) if abs(new - old) > LEAST_S else math.inf
    # no two runs take exactly as long: a standard error of 0 says nothing here
    judged = _judged(
        "unlearn_s", old, new, difference, max(se, 1e-9) if se is not None else None, dof, how,
        least=least,
    )  # fmt: skip
    yield judged.model_copy(update={"difference": math.exp(difference)})


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
