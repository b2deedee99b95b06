"""MLflow as a view of the store: one writer thread, one parent run a sweep, one child a cell.

The records in the store are the truth and are complete without MLflow. `Tracker` copies them into
MLflow from a thread of the parent process, so that a sweep waits neither for MLflow's import, nor
for the migration of an empty database, nor for a server. What fails here costs a warning, never a
record: `unlearnbench sync`, or the same command run again, compares the records with MLflow and
adds what is missing.

Layout in MLflow:
    experiment    the sweep's name
    parent run    tag `unlearnbench.kind=sweep`; one for each store, so that two people who run the
                  same sweep into one server do not overwrite one another; artifacts `spec.json`,
                  `plan.json` and `environment.json` (see `sweep_files`), `leaderboard/`, and
                  `ulira/<key>.safetensors`, the score arrays of each attack
    child run     one a cell, and one a shadow bank; tag `unlearnbench.kind=cell` or `bank`, tags
                  `.store`, `.key`, `.digest`; further tags, parameters, metrics, curves and
                  dataset inputs as in `tracking_layout.py`; artifact `record.json` or `bank.json`;
                  on request `model/`, the unlearned model (see `model_card`), and then the tag
                  `.model`

A search logs its trials as children likewise (`ChildRun` of the kind `trial`, by `log_child`).

A cell's parameters `ulira.*` tell how its method was attacked (`N` shadow models, `E` examples);
`ulira.shadow_bank_hash` is the key of the bank's run. The tag `ulira.suspicion` is there if the
figures do not count, `ulira.reason` if there are none. All seeds of a method share one attack, so
its scores are in the parent run, once; the tag `ulira.scores` of a cell is their key. From the
downloaded file, `safetensors.numpy.load_file` gives arrays by name: `ids` `(E,)`, the attacked
training examples; and, where there were enough shadow models, `privacy.in_scores` and
`privacy.out_scores` `(N/2, E)`, log likelihood ratios in nats, from the model of each pair that
was trained on the example and then forgot it, and from the other; `privacy.per_example` `(E,)`,
the attack's balanced accuracy on each example; likewise `efficacy.*`, of unlearned (in) against
retrained models (out).

A child is FINISHED when the cell is ok, FAILED when it failed, and FINISHED with the tag
`status=skipped` when it was skipped: a method that declines a cell has not failed, and MLflow has
no better word (KILLED reads as an accident). A child is complete once it has ended and its digest
is that of the record. A cell or bank whose record changed gets a new run, and the old one is
deleted MLflow's way, so that it can be restored; what a cell gains while the sweep runs is added
to its run. Runs of cells and banks that are no longer in the sweep are left alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import sys
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from filelock import FileLock, Timeout

from .bank_record import BankRecord
from .files import write_text_atomically
from .record import Record
from .sweep_files import Description, description_text
from .tracking_client import client_defaults, quiet_client, reason_of
from .tracking_layout import ChildRun, bank_run, cell_run
from .tracking_memory import read_memory
from .tracking_uri import check_uri as check_uri
from .tracking_uri import (
    default_uri,
    hide_secrets,
    redact,
    resolve_uri,
    sqlite_path,
    without_secrets,
)
from .tracking_writer import Writer

# How long to wait for another process that logs the same sweep; and without a sign of life for
# STALL_S, or after FINISH_S in all, `finish` stops waiting for MLflow.
LOCK_S = 5.0
STALL_S = 60.0
FINISH_S = 300.0

NICE = 10  # priority of the writer thread: it uses what the workers leave

_NOTHING_LOST = (
    "nothing is lost, for the records are in the store and "
    "`unlearnbench sync` or the same command run again completes MLflow"
)

_log = logging.getLogger(__name__)


class Tracker:
    """Writer of one sweep's records into MLflow.

    Call `start` once, `log` for every cell, `log_bank` for every shadow bank, `log_child` for
    anything else, and `finish` at the end. None of them raises when MLflow fails; there is then
    one warning, and `finish` returns False.

    Args:
        uri: Tracking URI; None for a SQLite database in the store.
        store: Folder of the store.
        sweep: Name of the sweep; becomes the experiment.
        log_models: Log the unlearned models as well, from the store.
        owner: Name of the store that the runs belong to, where it is not this one.

    Attributes:
        uri: The tracking URI as used. It may hold a password: show `redact(uri)`.
        made: Child runs that were made or added to, once `finish` has returned.

    Raises:
        InputError: If `check_uri` refuses the URI.
    """

    def __init__(
        self,
        uri: str | None,
        store: Path,
        sweep: str,
        *,
        log_models: bool = False,
        owner: str | None = None,
    ) -> None:
        self._store = store.absolute()
        self._sweep = sweep
        self._log_models, self._owner = log_models, owner
        self.uri = default_uri(self._store) if uri is None else resolve_uri(uri)
        self.made = 0
        about = "\n".join([redact(self.uri), sweep, *([owner] if owner else [])])
        name = hashlib.sha256(about.encode()).hexdigest()[:16]
        self._memory_path = self._store / "tracking" / f"{name}.json"
        self._queue: SimpleQueue[Record | BankRecord | ChildRun | _End] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._defaults = ExitStack()
        self._experiment: str | None = None
        self._warned = threading.Event()
        self._complete = False
        self._sign_of_life = time.monotonic()

    def start(self, description: Description) -> None:
        """Start the writer thread and return at once.

        Args:
            description: What the sweep is; each value becomes `<name>.json` of the parent run.
        """
        if self._thread is not None:
            return
        # Set here, not in the thread: a change of os.environ while another thread copies it for a
        # new process can break that copy.
        self._defaults.enter_context(client_defaults())
        self._thread = threading.Thread(
            target=self._write, args=(dict(description),), name="mlflow-writer", daemon=True
        )
        self._thread.start()

    def log(self, record: Record) -> None:
        """Hand over the record of a cell and return at once."""
        if not self._warned.is_set():
            self._queue.put(record)

    def log_bank(self, bank: BankRecord) -> None:
        """Hand over the record of a shadow bank and return at once."""
        if not self._warned.is_set():
            self._queue.put(bank)

    def log_child(self, child: ChildRun) -> None:
        """Hand over a run of any kind, such as a trial, and return at once."""
        if not self._warned.is_set():
            self._queue.put(child)

    def finish(
        self,
        files: Sequence[Path],
        summary: Mapping[str, float],
        limit_s: float | None = None,
        stall_s: float | None = None,
    ) -> bool:
        """Wait for the writer, end the parent run, and tell whether MLflow holds everything.

        Args:
            files: Leaderboard files; they go to `leaderboard/` of the parent run.
            summary: Metrics of the parent run.
            limit_s: How long to wait in all, even if MLflow is still at work; None for FINISH_S.
            stall_s: How long to wait for a single call; None for STALL_S.
        """
        if self._thread is None:
            return False
        self._queue.put(_End(tuple(files), dict(summary)))
        limit_s = FINISH_S if limit_s is None else limit_s
        stall_s = STALL_S if stall_s is None else stall_s
        began = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.5)
            now = time.monotonic()
            stalled = now - max(began, self._sign_of_life) > stall_s
            if self._thread.is_alive() and (stalled or now - began > limit_s):
                self._warn(f"no answer for {now - self._sign_of_life:.0f} s")
                break
        self._defaults.close()
        return self._complete and not self._warned.is_set()

    def is_current(
        self,
        records: Sequence[Record],
        banks: Sequence[BankRecord] = (),
        description: Description | None = None,
    ) -> bool:
        """Whether MLflow holds every one of these records with exactly this content.

        Told from what the last complete `finish` remembered, without importing MLflow. Runs
        deleted since then are noticed in a SQLite database, not on a server.
        """
        memory = read_memory(self._memory_path)
        if memory is None:
            return False
        if description is not None and memory.description != _digest(description):
            return False
        return memory.holds(records, banks, sqlite_path(self.uri), models=self._log_models)

    def ui_command(self) -> str:
        """Return the shell command, or for a server the address, that shows the results."""
        if not self.uri.startswith("http"):
            uri = self.uri if sqlite_path(self.uri) else redact(self.uri)
            return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        memory = read_memory(self._memory_path)
        experiment = self._experiment or (memory.experiment if memory else None)
        address = redact(self.uri).replace("***@", "").partition("?")[0].rstrip("/")
        return f"{address}/#/experiments/{experiment}/runs" if experiment else address

    def _write(self, description: Description) -> None:
        """Body of the writer thread."""
        _give_way()
        try:
            lock = self._memory_path.with_suffix(".lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            with quiet_client(), FileLock(lock, timeout=LOCK_S):
                writer = Writer(
                    self.uri,
                    self._store,
                    self._sweep,
                    self._owner,
                    log_models=self._log_models,
                    alive=self._is_alive,
                )
                self._experiment = writer.experiment
                for name, value in description.items():
                    told = without_secrets(value, self.uri) if name == "spec" else value
                    writer.describe(name, description_text(told))
                while True:
                    self._is_alive()
                    item = self._queue.get()
                    if self._warned.is_set():
                        return
                    if isinstance(item, _End):
                        break
                    writer.log(_child(item))
                writer.end(item.files, item.summary)
                memory = writer.memory().model_copy(update={"description": _digest(description)})
                write_text_atomically(self._memory_path, memory.model_dump_json())
            self.made = writer.made
            self._complete = not writer.missing
            if writer.missing:
                first = next(iter(writer.missing.values()))
                count = f"{len(writer.missing)} of the runs, score files or models"
                self._warn(f"it lacks {count}: {first}", "the store has all records")
        except Timeout:
            self._warn("another process is logging the same sweep")
        except Exception as error:  # whatever MLflow, SQLAlchemy or the network raise
            self._warn(reason_of(error, self.uri))

    def _is_alive(self) -> None:
        self._sign_of_life = time.monotonic()

    def _warn(self, reason: str, comfort: str = _NOTHING_LOST) -> None:
        if self._warned.is_set():
            return
        self._warned.set()
        reason = textwrap.shorten(hide_secrets(reason, self.uri), 240, placeholder=" …").rstrip(".")
        _log.warning("MLflow at `%s` is not complete (%s); %s.", redact(self.uri), reason, comfort)


class _End(NamedTuple):
    files: tuple[Path, ...]
    summary: dict[str, float]


def _child(item: Record | BankRecord | ChildRun) -> ChildRun:
    if isinstance(item, ChildRun):
        return item
    return bank_run(item) if isinstance(item, BankRecord) else cell_run(item)


def _give_way() -> None:
    """Let the workers have the processor first; where threads have priorities, that is on Linux."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _digest(description: Description) -> str:
    text = "".join(f"{name}\n{description_text(value)}" for name, value in description.items())
    return hashlib.sha256(text.encode()).hexdigest()
