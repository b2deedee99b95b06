"""Why the records of two folders do not belong together, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .cell_frame import METRICS
from .record import Record
from .sweep_records import SweepRecords

COMPARED = (*METRICS, "val_acc")  # what two runs of one cell must agree in
SAME = 1e-9


class Source(NamedTuple):
    """A folder and what it holds."""

    folder: Path
    found: SweepRecords


def one_meaning(
    records: Mapping[Any, Sequence[Record]],
) -> dict[tuple[str, str], dict[str, Any]]:
    """Names of data and weights that do not mean one thing everywhere.

    Args:
        records: By where they are from.

    Returns:
        By what it is and its name, where each digest was found first.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for where, held in records.items():
        for record in held:
            if record.data_digest:
                place = found.setdefault(("images of dataset", record.dataset), {})
                place.setdefault(record.data_digest, where)
            if digest := (record.model_info.get("weights") or {}).get("digest"):
                place = found.setdefault(("weights of model", record.model), {})
                place.setdefault(str(digest), where)
    return {name: digests for name, digests in found.items() if len(digests) > 1}


def different_names(sources: Sequence[Source]) -> Iterator[str]:
    """One name must mean one thing."""
    held = {source.folder: source.found.records for source in sources}
    for (what, name), digests in one_meaning(held).items():
        told = " and ".join(f"{digest[:12]}… in `{f}`" for digest, f in digests.items())
        yield (
            f"the {what} `{name}` are not the same everywhere: {told}; what was measured on them "
            "cannot be compared."
        )


def different_cells(cells: Sequence[Sequence[tuple[Path, Record]]]) -> Iterator[str]:
    """Cells that two folders tell differently; one sentence for each two folders and cause."""
    found: dict[tuple[Path, Path, bool], list[tuple[Record, str]]] = {}
    for cell in cells:
        ok = [(folder, record) for folder, record in cell if record.status == "ok"]
        for folder, record in ok[1:]:
            where, first = ok[0]
            if where != folder and (differing := _difference(first, record)):
                place = (where, folder, first.key == record.key)
                found.setdefault(place, []).append((record, differing))
    for (one, other, same_key), differing_cells in found.items():
        record, differing = differing_cells[0]
        told = (
            f"`{record.method}` seed {record.seed} of {record.dataset}, {record.model}, "
            f"{record.scenario}: {differing}"
        )
        number = f"{len(differing_cells)} cell{'s' if len(differing_cells) > 1 else ''}"
        why = (
            "a rerun gave something else"
            if same_key
            else "their keys differ too, so that other code or another kind of device made them, "
            "and a row would count a seed twice"
        )
        which = "e.g. " if len(differing_cells) > 1 else ""
        yield (
            f"`{one}` and `{other}` hold {number} with different results ({which}{told}); {why}: "
            "leave one of the two out."
        )


def _difference(one: Record, other: Record) -> str:
    """The first figure in which two records of a cell disagree; empty if none."""
    names = [*COMPARED, *(n for n in one.metrics if n.startswith("ulira"))]
    if not (one.attack.get("scores") and one.attack.get("scores") == other.attack.get("scores")):
        names = list(COMPARED)  # attacks with different shadow models: the leaderboard says it
    for name in names:
        a, b = one.metrics.get(name), other.metrics.get(name)
        if a is not None and b is not None and abs(a - b) > SAME:
            return f"`{name}` {a:.4g} and {b:.4g}"
    return ""


def different_attacks(sources: Sequence[Source]) -> Iterator[str]:
    """Shadow models and attacks of one name that are not the same."""
    content: dict[tuple[str, str], tuple[Path, Any]] = {}
    found: dict[tuple[Path, Path, str], int] = {}
    for source in sources:
        described: list[tuple[Any, ...]] = [
            ("shadow banks", bank.bank, _without_times(bank.metrics), bank.shadows)
            for bank in source.found.banks
        ]
        described += [
            ("attacks", attack.key, attack.hits, attack.pool) for attack in source.found.attacks
        ]
        for what, name, *told in described:
            where, first = content.setdefault((what, name), (source.folder, told))
            if first != told:
                place = (where, source.folder, what)
                found[place] = found.get(place, 0) + 1
    for (one, other, what), number in found.items():
        yield (
            f"`{one}` and `{other}` hold {number} {what if number > 1 else what[:-1]} of the same "
            "name and different results; their shadow models were trained twice, and not alike: "
            "leave one of the two out."
        )


def _without_times(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(v, 9) for name, v in metrics.items() if not name.startswith("time/")}
