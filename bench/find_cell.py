"""Finds the cell that a person means among the records of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .cell_frame import cell_frame
from .errors import InputError
from .record import Record
from .spec_string import parse_spec
from .table_rows import REFERENCES

SHORTEST = 8  # characters of a key
LISTED = 20


def short_keys(records: Sequence[Record]) -> dict[str, str]:
    """The beginning of every key, so long that no other key begins with it."""
    keys = sorted({record.key for record in records})
    short = {}
    for place, key in enumerate(keys):
        length = SHORTEST
        for other in keys[max(0, place - 1) : place + 2]:
            while other != key and length < len(key) and other.startswith(key[:length]):
                length += 1
        short[key] = key[:length]
    return short


def find_cell(
    records: Sequence[Record],
    text: str,
    *,
    seed: int | None = None,
    scenario: str | None = None,
    where: str = "the records",
) -> Record:
    """The one cell that is meant.

    Args:
        records: Where to look; of each cell the last record.
        text: The beginning of a key; or a method's name as a row of the tables has it, which
            comes first, bare, or with some of its hyper-parameters.
        seed: Seed of the cell.
        scenario: Scenario of the cell as in the tables, or its bare name.
        where: What the records are, for messages.

    Raises:
        InputError: If no cell is meant, or more than one; lists those that could be.
    """
    rows = _row_names(records)
    named = [record for record in records if text in rows[id(record)]]
    if not named:
        named = [record for record in records if _is_named(record, text)]
    if not named and text:
        named = [record for record in records if record.key.startswith(text.lower())]
    short = short_keys(records)
    if not named:
        methods = ", ".join(f"`{name}`" for name in dict.fromkeys(r.method for r in records))
        raise InputError(
            f"`{text}` is no method in {where}, and no cell's key begins so; there are "
            f"{methods}; for example {_listed(records[:3], short, rows)}."
        )
    met = [
        record
        for record in named
        if (seed is None or record.seed == seed)
        and (scenario is None or scenario in (record.scenario, record.scenario.split("[")[0]))
    ]
    if not met:
        wanted = [
            *([] if seed is None else [f"seed {seed}"]),
            *([] if scenario is None else [f"scenario `{scenario}`"]),
        ]
        raise InputError(
            f"`{text}` has no cell with {' and '.join(wanted)} in {where}; it has "
            f"{_listed(named, short, rows)}."
        )
    if len(met) > 1:
        raise InputError(
            f"`{text}` is {len(met)} cells of {where}; name one by its key, or with `--seed` and "
            f"`--scenario`: {_listed(met, short, rows)}."
        )
    return met[0]


def _is_named(record: Record, text: str) -> bool:
    """Whether a text is the method's name, with no more hyper-parameters than the record has."""
    try:
        name, params = parse_spec(text, "method")
    except InputError:
        return False
    return name == record.method and _holds(record.hyperparameters, params)


def _holds(all_: Mapping[str, Any], some: Mapping[str, Any]) -> bool:
    return all(key in all_ and all_[key] == value for key, value in some.items())


def _row_names(records: Sequence[Record]) -> dict[int, tuple[str, str]]:
    """What the row of each record is called, by its identity: with its own name, and as shown."""
    tasks: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        tasks.setdefault((record.dataset, record.model, record.scenario), []).append(record)
    found: dict[int, tuple[str, str]] = {}
    for members in tasks.values():
        frame = cell_frame(members)
        for record, name, label in zip(members, frame["name"], frame["label"], strict=True):
            found[id(record)] = (label, REFERENCES.get(name, name) + label.removeprefix(name))
    return found


def _listed(
    records: Sequence[Record], short: Mapping[str, str], rows: Mapping[int, tuple[str, str]]
) -> str:
    """Candidates with their short keys and with what tells them apart."""
    told = [
        (rows[id(r)][0], r.dataset, r.model, r.scenario, r.recipe, f"seed {r.seed}")
        for r in records
    ]
    differing = [len(set(values)) > 1 for values in zip(*told, strict=True)]
    differing[-1] = True
    named = [
        f"{short[record.key]} ({', '.join(v for v, d in zip(values, differing, strict=True) if d)})"
        for record, values in zip(records[:LISTED], told, strict=False)
    ]
    more = f" and {len(records) - LISTED} more" if len(records) > LISTED else ""
    return ", ".join(named) + more
