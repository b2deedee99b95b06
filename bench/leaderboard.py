"""The leaderboard as tables of numbers: records in, one tidy frame for each task out.

A table belongs to one (dataset, model, scenario). Its rows are the reference rows of every
recipe, then the methods in the order in which they first appear in the records. There is no
rank yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import pandas as pd

from .attack_record import AttackRecord
from .attack_rows import CELL_ATTACKS, COUNTS, attack_figures, judged
from .bank_record import BankRecord
from .cell_frame import (
    METRICS,
    PAIRED,
    SCORES,
    TIMES,
    as_text,
    cell_frame,
    hardware_of,
    with_retrained,
)
from .origin_notes import origin_notes
from .probe_columns import PROBE_METRICS, probe_reasons, without_empty_probes
from .recipe import is_plain
from .record import DECORRELATION, Record, latest_by_key

REFERENCES = {"identity": "original (identity)", "retrain": "retrained"}
NOISE_FLOOR = "retrained, other seed"
NOT_RUN = "not run"

_WORDS = {"ok": "ok", "failed": "failed", "skipped": "not applicable"}


class Reason(NamedTuple):
    """Why cells failed or were skipped, or rows have no figure of the attack.

    Attributes:
        status: `failed`, `skipped`, `not attacked` or `not probed`.
        text: The reason, on one line.
        cells: Row label, recipe and seeds, in order of first appearance; no seeds for the attack,
            which is on all of a row.
    """

    status: str
    text: str
    cells: tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one (dataset, model, scenario).

    Attributes:
        title: The three specs in one line.
        dataset: Dataset as `name[key=value,…]`.
        model: Architecture as `name[key=value,…]`.
        scenario: Scenario as `name[key=value,…]`.
        rows: One row per (recipe, method variant), references first. Accuracies are fractions;
            what is not known is NaN. `kind` is `reference`, `noise floor` or `method`. Figures
            of the attack stand under their names in the records; see `attack_rows`.
        costs: What each recipe costs: accuracy and training time of its original models.
        reasons: Every distinct reason of a failed or skipped cell or absent figure, once.
        recipes: Recipe labels in order of first appearance.
        seeds: All seeds, sorted.
        hardware: Machines on which the ok cells ran, in order of first appearance.
        notes: Sentences on the originals, where they start from weights.
    """

    title: str
    dataset: str
    model: str
    scenario: str
    rows: pd.DataFrame
    costs: pd.DataFrame
    reasons: tuple[Reason, ...]
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    hardware: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The accuracies that this scenario has; whole classes have two more."""
        return tuple(
            name
            for name in METRICS
            if self.rows[f"{name}_mean"].notna().any() or name in METRICS[:3]
        )

    @property
    def attacked(self) -> bool:
        """Whether an attack was made, even if it gave no figure."""
        return "attack_validity" in self.rows


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """All tables, and where their records come from.

    Attributes:
        tables: One for each (dataset, model, scenario), in order of first appearance.
        environment: Every value of `environment` in the records, by key.
        sweeps: Names of the sweeps.
        banks: The shadow models, by hash.
        attacks: What the attacks found pair by pair, by the key of their scores.
    """

    tables: list[Table]
    environment: dict[str, tuple[str, ...]]
    sweeps: tuple[str, ...]
    banks: dict[str, BankRecord]
    attacks: dict[str, AttackRecord]

    def frame(self) -> pd.DataFrame:
        """All rows in one frame, with the task in the first three columns."""
        parts = []
        for table in self.tables:
            part = table.rows.copy()
            for place, name in enumerate(("dataset", "model", "scenario")):
                part.insert(place, name, getattr(table, name))
            whole = [n for n in ("peak_memory_bytes", *COUNTS) if n in part]
            part[whole] = part[whole].astype("Int64")
            parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def build(
    records: Sequence[Record],
    banks: Sequence[BankRecord] = (),
    attacks: Sequence[AttackRecord] = (),
) -> Leaderboard:
    """Aggregate records over seeds; of several records of one cell the last one counts."""
    records = latest_by_key(records)
    tasks: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        tasks.setdefault((record.dataset, record.model, record.scenario), []).append(record)
    environment: dict[str, dict[str, None]] = {}
    for record in records:
        for key, value in record.environment.items():
            text = hardware_of(record) if key == "hardware" else as_text(value)
            if text and value is not None:
                environment.setdefault(key, {})[text] = None
    return Leaderboard(
        tables=[_table(*task, group) for task, group in tasks.items()],
        environment={key: tuple(values) for key, values in environment.items()},
        sweeps=tuple(dict.fromkeys(record.sweep for record in records)),
        banks={bank.bank: bank for bank in banks},
        attacks={attack.key: attack for attack in attacks},
    )


def _table(dataset: str, model: str, scenario: str, records: list[Record]) -> Table:
    cells = with_retrained(cell_frame(records))
    recipes = tuple(dict.fromkeys(cells["recipe"]))
    ok = cells[cells["status"] == "ok"]
    # a recipe whose methods all declined has nothing to be compared with
    used = [r for r in recipes if (cells.loc[cells["recipe"] == r, "status"] != "skipped").any()]
    rows = [row for recipe in used for row in _reference_rows(recipe, cells)]
    methods = cells[~cells["name"].isin(list(REFERENCES))]
    rows += [_row(group, "method") for _, group in methods.groupby(["recipe", "label"], sort=False)]
    return Table(
        title=f"{dataset} · {model} · {scenario}",
        dataset=dataset,
        model=model,
        scenario=scenario,
        rows=without_empty_probes(judged(_typed(pd.DataFrame(rows)))),
        costs=_recipe_costs(recipes, ok),
        reasons=_reasons(cells),
        recipes=recipes,
        seeds=tuple(sorted({record.seed for record in records})),
        hardware=tuple(dict.fromkeys(name for name in ok["hardware"] if name)),
        notes=origin_notes(records),
    )


def _reference_rows(recipe: str, cells: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    of_recipe = cells[cells["recipe"] == recipe]
    for name, label in REFERENCES.items():
        groups = of_recipe[of_recipe["name"] == name].groupby("label", sort=False)
        found = [
            {**_row(group, "reference"), "method": _shown(name, str(variant))}
            for variant, group in groups
        ]
        rows += found or [_empty_row(recipe, name, label, "reference", NOT_RUN)]
    return [*rows, _noise_floor(recipe, of_recipe)]


def _shown(name: str, variant: str) -> str:
    """The name of a row: references have names of their own."""
    return REFERENCES.get(name, name) + variant.removeprefix(name)


def _row(group: pd.DataFrame, kind: str) -> dict[str, Any]:
    """Mean and spread over the seeds of one method variant."""
    first = group.iloc[0]
    ok = group[group["status"] == "ok"]
    hardware = list(dict.fromkeys(name for name in ok["hardware"] if name))
    counts = {status: int((group["status"] == status).sum()) for status in _WORDS}
    row = _empty_row(first["recipe"], first["name"], first["label"], kind, _status(counts))
    row.update({f"n_{status}": count for status, count in counts.items()})
    row["hyperparameters"] = max(group["variant"], key=len)
    row["seeds"] = " ".join(str(seed) for seed in sorted(ok["seed"]))
    row["hardware"] = "; ".join(hardware)
    # a mean of times from different machines is a time of no machine
    numbers = SCORES if len(hardware) > 1 else (*SCORES, *TIMES)
    for name in numbers:
        mean, std = _columns(name)
        row[mean], row[std] = ok[name].mean(), ok[name].std()
    for name in PAIRED:
        row[f"{name}_retrained"] = ok[f"{name}_retrained"].mean()
    if len(hardware) <= 1:
        row["peak_memory_bytes"] = ok["peak_memory_bytes"].max()
    return row | attack_figures(group["record"])


def _columns(name: str) -> tuple[str, str]:
    """Column names of mean and spread; a gap is a mean already by its name."""
    return (name if name.startswith("gap_") else f"{name}_mean"), f"{name}_std"


def _empty_row(recipe: str, name: str, label: str, kind: str, status: str) -> dict[str, Any]:
    """A row in which no number is known, with its columns in their final order."""
    nan = float("nan")
    row: dict[str, Any] = {
        "recipe": recipe,
        "method": label,
        "name": name,
        "kind": kind,
        "hyperparameters": "",
        "status": status,
        "seeds": "",
        "n_ok": 0,
        "n_failed": 0,
        "n_skipped": 0,
        "n_pairs": 0,
    }
    for metric in METRICS:
        names = (*_columns(metric), f"{metric}_retrained", *_columns(f"gap_{metric}"))
        row |= dict.fromkeys(names, nan)
    for number in ("tow", *TIMES):
        row |= dict.fromkeys(_columns(number), nan)
    for name in (*CELL_ATTACKS, *PROBE_METRICS):
        row |= dict.fromkeys((*_columns(name), f"{name}_retrained"), nan)
    return row | {"peak_memory_bytes": nan, "hardware": ""}


def _status(counts: dict[str, int]) -> str:
    """`3 ok`, `2 ok, 1 failed`, or `not applicable` where every cell was skipped."""
    shown = {status: count for status, count in counts.items() if count}
    if list(shown) == ["skipped"]:
        return _WORDS["skipped"]
    return ", ".join(f"{count} {_WORDS[status]}" for status, count in shown.items())


def _noise_floor(recipe: str, cells: pd.DataFrame) -> dict[str, Any]:
    """How far two retrained models of different seeds lie apart: mean |a_i - a_j| over pairs.

    Pairs share their forget request, else the distance would also hold the difference of sets.
    """
    retrained = cells[(cells["name"] == "retrain") & (cells["status"] == "ok")]
    pairs = [
        (group.loc[i], group.loc[j])
        for _, group in retrained.groupby(["request", "label"], sort=False)
        for i, j in combinations(group.index, 2)
    ]
    if not pairs:
        why = "needs 2 seeds" if len(retrained) < 2 else "no two seeds share a forget set"
        wanted = cells.loc[cells["name"] == "retrain", "status"]
        if len(wanted) and (wanted == "skipped").all():
            why = _WORDS["skipped"]
        return _empty_row(recipe, "retrain", NOISE_FLOOR, "noise floor", why)
    status = f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of seeds"
    row = _empty_row(recipe, "retrain", NOISE_FLOOR, "noise floor", status)
    used = sorted({int(cell["seed"]) for pair in pairs for cell in pair})
    row |= {"n_ok": len(used), "n_pairs": len(pairs), "seeds": " ".join(map(str, used))}
    for name in METRICS:
        row[f"gap_{name}"] = pd.Series([abs(a[name] - b[name]) for a, b in pairs]).mean()
    return row


def _recipe_costs(recipes: Sequence[str], ok: pd.DataFrame) -> pd.DataFrame:
    """What each recipe does to its originals; accuracy and time also against the plain recipe."""
    originals = ok[ok["name"] == "identity"].drop_duplicates(["recipe", "seed"])
    plain = originals[originals["recipe"].map(is_plain).astype(bool)]
    plain = plain.drop_duplicates("seed").set_index("seed")
    rows = []
    for recipe in recipes:
        cells = originals[originals["recipe"] == recipe].set_index("seed")
        timed = ok[ok["recipe"] == recipe].dropna(subset=["original_s"]).drop_duplicates("seed")
        hardware = list(dict.fromkeys(name for name in timed["hardware"] if name))
        seconds = timed.set_index("seed")["original_s"] if len(hardware) <= 1 else pd.Series()
        same = list(plain["hardware"].unique()) == hardware and len(hardware) == 1
        ratio = seconds / plain["original_s"] if same else pd.Series(dtype=float)
        row = {
            "recipe": recipe,
            "n": len(cells),
            "hardware": "; ".join(hardware),
            "test_acc_mean": cells["test_acc"].mean(),
            "test_acc_std": cells["test_acc"].std(),
            "test_acc_cost": (plain["test_acc"] - cells["test_acc"]).mean(),
            "original_s_mean": seconds.mean(),
            "original_s_std": seconds.std(),
            "original_s_ratio": ratio.mean(),
        }
        rows.append(row | {name: cells[name].mean() for name in DECORRELATION})
    return pd.DataFrame(rows)


def _reasons(cells: pd.DataFrame) -> tuple[Reason, ...]:
    found: dict[tuple[str, str], dict[tuple[str, str], list[int]]] = {}
    for cell in cells[cells["status"] != "ok"].to_dict("records"):
        where = (_shown(cell["name"], cell["label"]), cell["recipe"])
        by_method = found.setdefault((cell["status"], cell["reason"]), {})
        by_method.setdefault(where, []).append(int(cell["seed"]))
    for cell in cells[cells["status"] == "ok"].to_dict("records"):
        where = (_shown(cell["name"], cell["label"]), cell["recipe"])
        for text in probe_reasons(cell["record"].probe):
            by_method = found.setdefault(("not probed", text), {})
            by_method.setdefault(where, []).append(int(cell["seed"]))
    for (recipe, label), group in cells.groupby(["recipe", "label"], sort=False):
        if reason := " ".join(attack_figures(group["record"]).get("attack_reason", "").split()):
            where = (_shown(group["name"].iloc[0], str(label)), str(recipe))
            found.setdefault(("not attacked", reason), {})[where] = []
    return tuple(
        Reason(
            status,
            text,
            tuple((*where, tuple(sorted(seeds))) for where, seeds in by_method.items()),
        )
        for (status, text), by_method in found.items()
    )


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    counts = [name for name in rows.columns if name.startswith("n_")]
    return rows.astype(dict.fromkeys(counts, "int64"))
