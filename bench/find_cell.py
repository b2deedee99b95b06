"""Finds the cell that a person means among the records of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .cell_frame import cell_frame
from .errors import InputError
from .leaderboard import REFERENCES
from .record import Record
from .spec_string import parse_spec

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
        text: The beginning of a key, or a method's name: bare, as in the tables, or with some of
            its hyper-parameters.
        seed: Seed of the cell.
        scenario: Scenario of the cell as in the tables, or its bare name.
        where: What the records are, for messages.

    Raises:
        InputError: If no cell is meant, or more than one; lists those that could be.
    """
    named = [record for record in records if _is_named(record, text)]
    if not named:
        labels = _labels(records)
        named = [r for r in records if text in labels[id(r)]]
    if not named and text:
        named = [record for record in records if record.key.startswith(text.lower())]
    short = short_keys(records)
    if not named:
        methods = ", ".join(f"`{name}`" for name in dict.fromkeys(r.method for r in records))
        raise InputError(
            f"`{text}` is no method in {where}, and no cell's key begins so; there are "
            f"{methods}; for example {_listed(records[:3], short)}."
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
            f"{_listed(named, short)}."
        )
    if len(met) > 1:
        raise InputError(
            f"`{text}` is {len(met)} cells of {where}; name one by its key, or with `--seed` and "
            f"`--scenario`: {_listed(met, short)}."
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


def _labels(records: Sequence[Record]) -> dict[int, set[str]]:
    """What the rows of the tables are called, by the identity of the record."""
    tasks: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        tasks.setdefault((record.dataset, record.model, record.scenario), []).append(record)
    found: dict[int, set[str]] = {}
    for members in tasks.values():
        frame = cell_frame(members)
        for record, name, label in zip(members, frame["name"], frame["label"], strict=True):
            shown = REFERENCES.get(name, name)
            found[id(record)] = {label, shown, shown + label.removeprefix(name)}
    return found


def _listed(records: Sequence[Record], short: Mapping[str, str]) -> str:
    """Candidates with their short keys and with what tells them apart."""
    fields = ("method", "dataset", "model", "scenario", "recipe")
    differing = [name for name in fields if len({getattr(r, name) for r in records}) > 1]
    named = [
        f"{short[record.key]} ("
        + ", ".join([*(str(getattr(record, name)) for name in differing), f"seed {record.seed}"])
        + ")"
        for record in records[:LISTED]
    ]
    more = f" and {len(records) - LISTED} more" if len(records) > LISTED else ""
    return ", ".join(named) + more
