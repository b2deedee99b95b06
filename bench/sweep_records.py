"""All that a leaderboard is made from, as files in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .attack_record import AttackRecord, read_attacks, write_attacks
from .bank_record import BankRecord, read_banks, write_banks
from .record import Record, latest_by_key, read_records, write_records


class SweepRecords(NamedTuple):
    """The records of one sweep or several.

    Attributes:
        records: One a cell.
        banks: The shadow models that attacked them.
        attacks: What the attacks found pair by pair.
    """

    records: list[Record]
    banks: list[BankRecord]
    attacks: list[AttackRecord]


def read_folder(folder: Path) -> SweepRecords:
    """Read `records.jsonl` and, where they are, `banks.jsonl` and `attacks.jsonl`.

    Raises:
        DataError: If there are no records.
        InputError: For every line that is not valid.
    """
    records = latest_by_key(read_records(folder))
    return SweepRecords(records, read_banks(folder), read_attacks(folder))


def write_folder(folder: Path, found: SweepRecords) -> list[Path]:
    """Write the files; of those that would be empty, none is left.

    Returns:
        The files beside the records.
    """
    write_records(folder / "records.jsonl", found.records)
    banks, attacks = folder / "banks.jsonl", folder / "attacks.jsonl"
    write_banks(banks, found.banks)
    write_attacks(attacks, found.attacks)
    beside = {banks: found.banks, attacks: found.attacks}
    for path, held in beside.items():
        if not held:
            path.unlink()
    return [path for path, held in beside.items() if held]
