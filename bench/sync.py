"""Completes MLflow from the records on disk: plans nothing, trains nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .bank_record import read_banks
from .errors import DataError, InputError
from .record import Record, latest_by_key, read_records
from .sweep_files import LEADERBOARD_FILES, read_description
from .tracking import Tracker
from .tracking_client import check_answers
from .tracking_layout import trial_run
from .tracking_memory import known_store_id
from .tracking_uri import redact
from .trial_record import read_trials

RESULTS = Path("results")
PUBLISHED = (*LEADERBOARD_FILES, "banks.jsonl", "attacks.jsonl")


@dataclass(frozen=True)
class Synced:
    """What came of one sweep.

    Attributes:
        line: That in a sentence.
        complete: Whether MLflow holds everything now.
    """

    line: str
    complete: bool


def sync_sweeps(
    folders: Sequence[Path], store: Path, uri: str | None, log_models: bool
) -> Iterator[Synced]:
    """Complete the runs of some sweeps, one after the other; done twice, it changes nothing.

    Args:
        folders: Each a folder with records, or the name of one in `results/`.
        store: Where score arrays and models are; what is missing there is missing in MLflow.
        uri: MLflow server; None for the database in the store.
        log_models: Log the unlearned models as well.

    Raises:
        InputError: If there are no such records, or nothing answers at the URI; before anything
            is written.
    """
    found = [_find(folder) for folder in folders]
    sweeps = [(folder, *_records(folder)) for folder in found]
    trackers = [
        Tracker(uri, store, name, log_models=log_models, owner=_owner(folder, store))
        for folder, name, _ in sweeps
    ]
    for tracker in trackers[:1]:
        check_answers(tracker.uri)
    for (folder, name, records), tracker in zip(sweeps, trackers, strict=True):
        yield _sync(folder, name, records, tracker)


def _sync(folder: Path, name: str, records: Sequence[Record], tracker: Tracker) -> Synced:
    banks = read_banks(folder)
    tracker.start(read_description(folder))
    for bank in banks:
        tracker.log_bank(bank)
    for record in records:
        tracker.log(record)
    for trial in read_trials(folder):
        tracker.log_child(trial_run(trial))
    files = [folder / file for file in PUBLISHED if (folder / file).is_file()]
    files.append(folder / "records.jsonl")
    complete = tracker.finish(files, _summary(folder), limit_s=math.inf, stall_s=math.inf)
    counts = f"{len(records)} cells" + (f" and {len(banks)} shadow banks" if banks else "")
    if not complete:
        return Synced(f"{name}: MLflow at `{redact(tracker.uri)}` is not complete.", False)
    made = f"{tracker.made} runs written" if tracker.made else "nothing to do"
    return Synced(f"{name}: MLflow holds {counts}; {made}. {tracker.ui_command()}", True)


def _find(folder: Path) -> Path:
    for place in (folder, RESULTS / folder):
        if (place / "records.jsonl").is_file():
            return place
    known = sorted(path.parent.name for path in RESULTS.glob("*/records.jsonl"))
    raise DataError(
        f"there are no records in `{folder}`; give a folder that holds `records.jsonl`, or a "
        f"sweep in `{RESULTS}/`: {', '.join(known) or 'it has none yet, run one first'}."
    )


def _records(folder: Path) -> tuple[str, list[Record]]:
    """The records of a folder, and the sweep that they are of.

    Raises:
        InputError: If they are of no sweep, or of several, for a sweep is an experiment.
    """
    records = latest_by_key(read_records(folder))
    names = list(dict.fromkeys(record.sweep for record in records))
    if len(names) != 1:
        raise InputError(
            f"`{folder / 'records.jsonl'}` holds records of {len(names)} sweeps "
            f"({', '.join(names) or 'it is empty'}); an experiment in MLflow is of exactly one."
        )
    return names[0], records


def _owner(folder: Path, store: Path) -> str | None:
    """Name of the store that the sweep ran on, where that is not the one at hand."""
    owner = read_description(folder).get("plan", {}).get("store")
    return None if owner == known_store_id(store) else owner


def _summary(folder: Path) -> dict[str, float]:
    try:
        found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return {name: float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # the sweep was stopped before its end
