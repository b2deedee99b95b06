"""What MLflow already holds, remembered in the store so that a rerun need not import MLflow."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from .bank_record import BankRecord
from .files import write_text_atomically
from .record import Record
from .tracking_layout import digest_of

STORE_ID = "store-id"


class Logged(BaseModel):
    """A cell, bank or trial that is complete in MLflow.

    Attributes:
        digest: Of what its run was made from.
        run_id: Its run.
        model: Whether the run holds the unlearned model.
    """

    digest: str
    run_id: str
    model: bool = False


class Memory(BaseModel):
    """What the last complete `Tracker.finish` left in MLflow.

    Attributes:
        experiment: Id of the experiment.
        parent: Id of the sweep's run.
        cells: Complete cells by key.
        banks: Complete shadow banks by hash.
        trials: Complete trials by key.
        scores: Keys of the score arrays that the sweep's run holds.
        description: Digest of what the sweep's run says of the sweep.
    """

    experiment: str
    parent: str
    cells: dict[str, Logged]
    banks: dict[str, Logged] = {}
    trials: dict[str, Logged] = {}
    scores: set[str] = set()
    description: str = ""

    def holds(
        self,
        records: Sequence[Record],
        banks: Sequence[BankRecord],
        database: Path | None,
        *,
        models: bool = False,
    ) -> bool:
        """Whether every record was logged with this content, and the scores that it names.

        Args:
            records: Records of cells.
            banks: Records of shadow banks.
            database: MLflow's SQLite file, in which the runs must still be; None where MLflow is
                elsewhere and is not asked.
            models: Whether the unlearned models are to be there as well.
        """
        if models:
            ok = [self.cells.get(record.key) for record in records if record.status == "ok"]
            if not all(run is not None and run.model for run in ok):
                return False
        logged = [(self.cells.get(record.key), digest_of(record)) for record in records]
        logged += [(self.banks.get(bank.bank), digest_of(bank)) for bank in banks]
        needed = {self.parent}
        for run, digest in logged:
            if run is None or run.digest != digest:
                return False
            needed.add(run.run_id)
        if not {r.attack["scores"] for r in records if "scores" in r.attack} <= self.scores:
            return False
        return database is None or needed <= _active_runs(database, self.experiment)


def read_memory(path: Path) -> Memory | None:
    """Read a memory; None if there is none or it is damaged, for it can be made again."""
    try:
        return Memory.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def known_store_id(store: Path) -> str | None:
    """Return the name of a store; None if it has none yet."""
    try:
        return (store / STORE_ID).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def store_id(store: Path) -> str:
    """Return the random name that a store keeps for life."""
    path = store / STORE_ID
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            write_text_atomically(path, uuid.uuid4().hex + "\n")
    return path.read_text(encoding="utf-8").strip()


def _active_runs(path: Path, experiment: str) -> set[str]:
    """Ids of the runs of an experiment that are not deleted, read without MLflow."""
    query = "SELECT run_uuid FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'active'"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return {run_id for (run_id,) in database.execute(query, (experiment,))}
    except sqlite3.Error:  # no such file, or not MLflow's
        return set()
