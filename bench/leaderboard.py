"""The leaderboard as tables of numbers: records in, one tidy frame for each task out.

A table belongs to one (dataset, model, scenario). Its rows are the reference rows of every
recipe, then the controls, then the methods by their place within the task; see `places`. Methods
are ranked over tasks in `standings`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from .attack_controls import Controls, controls_of
from .attack_record import AttackRecord
from .attack_rows import COUNTS, attack_figures, judged
from .bank_record import BankRecord
from .cell_frame import METRICS, Labels, as_text, cell_frame, hardware_of, labels_of, with_retrained
from .origin_notes import origin_notes
from .places import placed
from .probe_columns import probe_reasons, without_empty_probes
from .rank_notes import rank_notes
from .recipe import is_plain
from .record import DECORRELATION, Record, latest_by_key
from .standings import Standings, standings_of
from .table_rows import NOISE_FLOOR as NOISE_FLOOR
from .table_rows import NOT_RUN as NOT_RUN
from .table_rows import shown_name, table_rows


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
        rows: One row per (recipe, method variant): references, controls, methods by `place` within
            the task (`tied` ones by speed-up), then methods without a place. Accuracies are
            fractions; what is not known is NaN. `kind` is `reference`, `noise floor`, `control` or
            `method`; `gate` is `pass`, `fail` (with `gate_reason`) or empty; `excess` is how far
            U-LIRA lies above its null band, 0 inside it. `lost_*` is the accuracy lost against
            the retrained models, `gap_*_sd` the gap in standard deviations of theirs. Figures of
            the attack stand under their names in the records; see `attack_rows`.
        costs: What each recipe costs: accuracy and training time of its original models.
        reasons: Every distinct reason of a failed or skipped cell or absent figure, once.
        recipes: Recipe labels in order of first appearance.
        seeds: All seeds, sorted.
        hardware: Machines on which the ok cells ran, in order of first appearance.
        notes: Sentences on the originals, where they start from weights, and on what is not ranked.
        origins: Of these, the former.
        unranked: Why no method has a place here; empty if one has.
        controls: What the references say of the attack, by recipe and shadow bank.
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
    origins: tuple[str, ...] = ()
    unranked: str = ""
    controls: Controls = field(default_factory=dict)

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
        standings: The methods ranked over tasks; None where no task ranks any.
    """

    tables: list[Table]
    environment: dict[str, tuple[str, ...]]
    sweeps: tuple[str, ...]
    banks: dict[str, BankRecord]
    attacks: dict[str, AttackRecord]
    standings: Standings | None

    def frame(self) -> pd.DataFrame:
        """All rows in one frame, with the task in the first three columns."""
        parts = []
        for table in self.tables:
            part = table.rows.copy()
            for place, name in enumerate(("dataset", "model", "scenario")):
                part.insert(place, name, getattr(table, name))
            whole = [n for n in ("peak_memory_bytes", "place", *COUNTS) if n in part]
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
    labels, found = labels_of(records), {attack.key: attack for attack in attacks}
    tables = [_table(*task, group, labels, found) for task, group in tasks.items()]
    return Leaderboard(
        tables=tables,
        environment={key: tuple(values) for key, values in environment.items()},
        sweeps=tuple(dict.fromkeys(record.sweep for record in records)),
        banks={bank.bank: bank for bank in banks},
        attacks=found,
        standings=standings_of(tables, found),
    )


def _table(
    dataset: str,
    model: str,
    scenario: str,
    records: list[Record],
    labels: Labels,
    attacks: Container[str],
) -> Table:
    cells = with_retrained(cell_frame(records, labels))
    recipes = tuple(dict.fromkeys(cells["recipe"]))
    ok = cells[cells["status"] == "ok"]
    # a recipe whose methods all declined has nothing to be compared with
    used = [r for r in recipes if (cells.loc[cells["recipe"] == r, "status"] != "skipped").any()]
    controls = controls_of(cells)
    judged_rows = judged(table_rows(cells, used), controls)
    found = placed(without_empty_probes(judged_rows), controls)
    rows = found.rows.copy()
    if "attack_scores" in rows:
        rows["attack_scores"] = [key if key in attacks else "" for key in rows["attack_scores"]]
    origins = origin_notes(records)
    return Table(
        title=f"{dataset} · {model} · {scenario}",
        dataset=dataset,
        model=model,
        scenario=scenario,
        rows=rows,
        costs=_recipe_costs(recipes, ok),
        reasons=_reasons(cells),
        recipes=recipes,
        seeds=tuple(sorted({record.seed for record in records})),
        hardware=tuple(dict.fromkeys(name for name in ok["hardware"] if name)),
        notes=(*origins, *rank_notes(found)),
        origins=origins,
        unranked=found.unranked,
        controls=controls,
    )


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
        where = (shown_name(cell["name"], cell["label"]), cell["recipe"])
        by_method = found.setdefault((cell["status"], cell["reason"]), {})
        by_method.setdefault(where, []).append(int(cell["seed"]))
    for cell in cells[cells["status"] == "ok"].to_dict("records"):
        where = (shown_name(cell["name"], cell["label"]), cell["recipe"])
        for text in probe_reasons(cell["record"].probe):
            by_method = found.setdefault(("not probed", text), {})
            by_method.setdefault(where, []).append(int(cell["seed"]))
    for (recipe, label), group in cells.groupby(["recipe", "label"], sort=False):
        if reason := " ".join(attack_figures(group["record"]).get("attack_reason", "").split()):
            where = (shown_name(group["name"].iloc[0], str(label)), str(recipe))
            found.setdefault(("not attacked", reason), {})[where] = []
    return tuple(
        Reason(
            status,
            text,
            tuple((*where, tuple(sorted(seeds))) for where, seeds in by_method.items()),
        )
        for (status, text), by_method in found.items()
    )
