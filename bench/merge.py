"""Puts the records of several sweeps and machines together, and refuses what does not belong so.

What is refused: records of another layout, cells that two folders tell differently, one name for
two data sets or two files of weights. What is not: another recipe or other hyper-parameters, which
are rows of their own, and other machines, whose times no row mixes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from scipy.cluster.hierarchy import DisjointSet

from .cell_frame import as_text, hardware_of
from .errors import InputError, Problems
from .merge_reasons import Source, different_attacks, different_cells, different_names
from .record import SCHEMA, Record
from .sweep_records import SweepRecords, read_folder

VERSIONS = ("unlearnbench", "torch")


class Merged(NamedTuple):
    """All records together.

    Attributes:
        found: In the order of the folders; of a cell that several hold, one record.
        notes: Sentences that a reader should know.
    """

    found: SweepRecords
    notes: tuple[str, ...]


def read_sources(folders: Sequence[Path]) -> list[Source]:
    """Read folders with `records.jsonl` and, where they are, `banks.jsonl` and `attacks.jsonl`.

    Raises:
        InputError: For every folder that is named twice, has no records or holds a line that is
            not valid; all together.
    """
    problems = Problems()
    for one, other in combinations(folders, 2):
        if one.resolve() == other.resolve():
            problems.note(InputError(f"`{one}` and `{other}` are the same folder; name it once."))
    sources = []
    for folder in dict.fromkeys(folders):
        with problems.noted():
            _check_layout(folder / "records.jsonl")
            source = Source(folder, read_folder(folder))
            if not source.found.records:
                raise InputError(f"`{folder / 'records.jsonl'}` holds no records.")
            sources.append(source)
    problems.raise_any()
    return sources


def merge(sources: Sequence[Source]) -> Merged:
    """Put the records of several folders together.

    Of a cell that several hold, one record is kept: one that is ok before one that is not, then
    the one with the most figures (it was attacked or probed), then the first.

    Raises:
        InputError: With a sentence for each reason why they do not belong together.
    """
    cells = _same_cells(sources)
    problems = Problems()
    for sentence in (
        *different_names(sources),
        *different_cells(cells),
        *different_attacks(sources),
    ):
        problems.note(InputError(sentence))
    problems.raise_any()
    kept: list[Record] = []
    for cell in cells:
        records = [record for _, record in cell]
        # max() takes the first of equals; what one folder tells twice is left to the leaderboard
        several = len({folder for folder, _ in cell}) > 1
        kept += [max(records, key=_worth)] if several else records
    banks = {bank.bank: bank for source in reversed(sources) for bank in source.found.banks}
    attacks = {a.key: a for source in reversed(sources) for a in source.found.attacks}
    found = SweepRecords(
        kept,
        [banks[name] for name in _in_order(b.bank for s in sources for b in s.found.banks)],
        [attacks[name] for name in _in_order(a.key for s in sources for a in s.found.attacks)],
    )
    return Merged(found, (*_repeated(cells), *_notes(sources, kept)))


def _check_layout(path: Path) -> None:
    """Say in one sentence, not in one a line, that a file is of another version.

    Raises:
        InputError: If lines name another layout.
    """
    if not path.is_file():
        return
    layouts: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line).get("schema", SCHEMA)
        except (ValueError, AttributeError, RecursionError):
            continue  # told by its number when it is read
        layouts[str(found)] += 1
    others = [f"`{name}` ({count} lines)" for name, count in layouts.items() if name != SCHEMA]
    if others:
        raise InputError(
            f"`{path}` holds records of the layout {' and '.join(others)}; this version of "
            f"unlearnbench reads `{SCHEMA}`: use the version that wrote them, or run them again."
        )


def _records(sources: Iterable[Source]) -> Iterator[tuple[Path, Record]]:
    for source in sources:
        for record in source.found.records:
            yield source.folder, record


def _same_cells(sources: Sequence[Source]) -> list[list[tuple[Path, Record]]]:
    """The records of each cell, in order of first appearance, with the folders they are from.

    Cells are one if they have one key, and also if they are described alike: then other code or
    another kind of device made them. A record that does not say its parameters joins those of its
    key, whichever folder comes first.
    """
    names = DisjointSet()
    held: list[tuple[tuple[str, ...], tuple[Path, Record]]] = []
    for folder, record in _records(sources):
        named = (record.dataset, record.model, record.scenario)
        keyed: tuple[str, ...] = (*named, record.key)
        names.add(keyed)
        held.append((keyed, (folder, record)))
        # a cell that never ran may not say its parameters
        if record.status != "ok" and not record.hyperparameters:
            continue
        described: tuple[str, ...] = (
            *named,
            record.forget_request,
            record.recipe,
            as_text(record.training),
            record.method,
            as_text(record.hyperparameters),
            str(record.seed),
        )
        names.add(described)
        names.merge(keyed, described)
    cells: dict[tuple[str, ...], list[tuple[Path, Record]]] = {}
    for keyed, told in held:
        cells.setdefault(names[keyed], []).append(told)
    return list(cells.values())


def _worth(record: Record) -> tuple[bool, int]:
    return record.status == "ok", len(record.metrics)


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _notes(sources: Sequence[Source], kept: Sequence[Record]) -> Iterator[str]:
    """What is no reason to refuse, but should be known."""
    for name in VERSIONS:
        found: dict[str, dict[Path, None]] = {}
        for folder, record in _records(sources):
            if version := as_text(record.environment.get(name) or ""):
                found.setdefault(version, {})[folder] = None
        if len(found) > 1:
            told = "; ".join(
                f"{version} in {', '.join(f'`{folder}`' for folder in folders)}"
                for version, folders in found.items()
            )
            yield f"the records were made with different versions of {name}: {told}."
    machines = _in_order(hardware_of(r) for r in kept if hardware_of(r))
    if len(machines) > 1:
        yield (
            f"the records come from {len(machines)} machines ({'; '.join(machines)}): a row whose "
            "seeds ran on several of them has no time, and times of different machines cannot be "
            "compared."
        )
    recipes: dict[tuple[str, str, str], set[str]] = {}
    for record in kept:
        if record.training:
            trained = recipes.setdefault((record.dataset, record.model, record.recipe), set())
            trained.add(as_text(record.training))
    for (dataset, model, recipe), trainings in recipes.items():
        if len(trainings) > 1:
            yield (
                f"the recipe {recipe} of {dataset}, {model} was trained in {len(trainings)} ways; "
                "each is a recipe of its own in the tables, named by what differs."
            )


def _repeated(cells: Sequence[Sequence[tuple[Path, Record]]]) -> Iterator[str]:
    """Cells that several folders hold, which agree."""
    twice: Counter[tuple[Path, Path]] = Counter()
    mended: Counter[tuple[Path, Path]] = Counter()
    for (where, first), *others in cells:
        for folder, record in others:
            if folder == where:
                continue
            twice[where, folder] += 1
            if (first.status == "ok") != (record.status == "ok"):
                bad, good = (where, folder) if record.status == "ok" else (folder, where)
                mended[bad, good] += 1
    for (one, other), number in twice.items():
        yield (
            f"{number} cell{'s are' if number > 1 else ' is'} in `{one}` and in `{other}`; one "
            "record of each is kept: the first, or the one with more figures."
        )
    for (bad, good), number in mended.items():
        yield (
            f"{number} cell{'s that are' if number > 1 else ' that is'} not ok in `{bad}` "
            f"{'are' if number > 1 else 'is'} ok in `{good}`, and shown as ok."
        )
