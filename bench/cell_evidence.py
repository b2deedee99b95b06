"""All that the records say of one cell: its row, its references, its attack and its controls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .attack_controls import Control
from .attack_record import AttackRecord
from .attack_rows import ACC, PRIVACY, figure, plain_rows
from .bank_record import BankRecord
from .cell_frame import cell_frame
from .leaderboard import Table, build
from .record import Record, latest_by_key
from .sweep_records import SweepRecords
from .table_rows import NOISE_FLOOR, REFERENCES
from .tablecell import Row

POWER = "ulira/power_d0.5"


@dataclass(frozen=True, eq=False)
class Evidence:
    """One cell with all that it is compared with.

    Attributes:
        record: The cell.
        row: The row of the leaderboard that it is in: means over seeds, the attack's figures and
            whether they count.
        cells: The cells of that row, one a seed, by seed.
        table: The table of the row.
        original: The cell with the original of the same seed; None if there is none that is ok.
        retrained: The cell with the retrained model of the same seed likewise.
        floor: The row with the distances between retrained models; NaN where there are none.
        retrained_row: The row of the retrained models, with their spread over seeds.
        controls: What the original and the retrained model say of the attack, by name.
        attacks: What the attack found pair by pair on the method, `identity` and `retrain`, by
            `method`, `identity` and `retrain`.
        bank: The shadow models.
    """

    record: Record
    row: Row
    cells: tuple[Record, ...]
    table: Table
    original: Record | None
    retrained: Record | None
    floor: Row
    retrained_row: Row
    controls: dict[str, Control]
    attacks: dict[str, AttackRecord]
    bank: BankRecord | None

    @property
    def acc(self) -> float:
        """Balanced accuracy of the attack; NaN if there is no figure."""
        return figure(self.row, ACC)

    @property
    def band(self) -> tuple[float, float]:
        """The null band, fractions; NaN where there is none."""
        return figure(self.row, f"{PRIVACY}null_lo"), figure(self.row, f"{PRIVACY}null_hi")

    @property
    def shadows(self) -> int:
        """Number of shadow models; 0 if it is not known."""
        count = figure(self.row, "attack_shadows")
        return 0 if math.isnan(count) else int(count)

    def text(self, name: str) -> str:
        """A text of the row on one line; empty where it has none."""
        value = self.row.get(name)
        return "" if value is None else " ".join(str(value).split())


def gather(record: Record, found: SweepRecords) -> Evidence:
    """Collect what the records say of a cell, which is one of them."""
    task = (record.dataset, record.model, record.scenario)
    same = [r for r in latest_by_key(found.records) if (r.dataset, r.model, r.scenario) == task]
    board = build(same, found.banks, found.attacks)
    table = board.tables[0]
    frame = cell_frame(same)
    place = next(i for i, r in enumerate(same) if r.key == record.key)
    recipe, name, label = (str(frame[key].iloc[place]) for key in ("recipe", "name", "label"))
    in_row = (frame["recipe"] == recipe) & (frame["label"] == label)
    of_recipe = table.rows[table.rows["recipe"] == recipe]
    shown = REFERENCES.get(name, name) + label.removeprefix(name)
    row = _first(of_recipe[(of_recipe["method"] == shown)])
    retrained_row = _first(of_recipe[of_recipe["method"] == REFERENCES["retrain"]])
    originals, retrained = (
        [
            other
            for other, other_recipe in zip(same, frame["recipe"], strict=True)
            if other_recipe == recipe
            and (other.method, other.status) == (reference, "ok")
            and (other.seed, other.forget_request) == (record.seed, record.forget_request)
        ]
        for reference in ("identity", "retrain")
    )
    bank = str(row.get("attack_bank") or "")
    controls = {control.name: control for control in table.controls.get((recipe, bank), ())}
    attacks = {}
    for role, member in (
        ("method", row),
        *((name, control.row) for name, control in controls.items()),
    ):
        attack = board.attacks.get(str(member.get("attack_scores") or ""))
        if attack is not None:
            attacks[role] = attack
    return Evidence(
        record=record,
        row=row,
        cells=tuple(
            sorted(
                (r for r, inside in zip(same, in_row, strict=True) if inside),
                key=lambda r: r.seed,
            )
        ),
        table=table,
        original=originals[0] if originals else None,
        retrained=retrained[0] if retrained else None,
        floor=_first(of_recipe[of_recipe["method"] == NOISE_FLOOR]),
        retrained_row=retrained_row,
        controls=controls,
        attacks=attacks,
        bank=board.banks.get(bank),
    )


def _first(rows: pd.DataFrame) -> dict[str, Any]:
    found = plain_rows(rows)
    return found[0] if found else {}
