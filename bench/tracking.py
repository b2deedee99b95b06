"""MLflow as a view of the store: one writer thread, one parent run a sweep, one child a cell.

The records in the store are the truth and are complete without MLflow. `Tracker` copies them into
MLflow from a thread of the parent process, so that a sweep waits neither for MLflow's import, nor
for the migration of an empty database, nor for a server. What fails here costs a warning, never a
record: the same command run again compares the records with MLflow and adds what is missing.

Layout in MLflow:
    experiment    the sweep's name
    parent run    tag `unlearnbench.kind=sweep`; one for each store, so that two people who run the
                  same sweep into one server do not overwrite one another; artifacts `spec.json`,
                  what `start` was given, `leaderboard/`, and `ulira/<key>.safetensors`, the score
                  arrays of each attack
    child run     one a cell, and one a shadow bank; tag `unlearnbench.kind=cell` or `bank`, tags
                  `.store`, `.key`, `.digest`; further tags, parameters and metrics as in
                  `tracking_layout.py`; artifact `record.json` or `bank.json`

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

import contextlib
import hashlib
import json
import logging
import os
import shlex
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from .bank_record import BankRecord
from .files import write_text_atomically
from .record import Record
from .tracking_layout import bank_run, cell_run
from .tracking_memory import read_memory
from .tracking_uri import check_uri as check_uri
from .tracking_uri import hide_secrets, redact, resolve_uri, sqlite_path
from .tracking_writer import Writer

# How long to wait for another process that logs the same sweep; and without a sign of life for
# STALL_S, or after FINISH_S in all, `finish` stops waiting for MLflow.
LOCK_S = 5.0
STALL_S = 60.0
FINISH_S = 300.0

# MLflow's own defaults wait minutes for a server that is down, print links and send telemetry.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_NOTHING_LOST = (
    "nothing is lost, for the records are in the store and "
    "the same command run again completes MLflow"
)

_log = logging.getLogger(__name__)


class Tracker:
    """Writer of one sweep's records into MLflow.

    Call `start` once, `log` for every cell, `log_bank` for every shadow bank and `finish` at the
    end. None of them raises when MLflow fails; there is then one warning, and `finish` returns
    False.

    Args:
        uri: Tracking URI; None for a SQLite database in the store.
        store: Folder of the store.
        sweep: Name of the sweep; becomes the experiment.

    Attributes:
        uri: The tracking URI as used. It may hold a password: show `redact(uri)`.

    Raises:
        InputError: If `check_uri` refuses the URI.
    """

    def __init__(self, uri: str | None, store: Path, sweep: str) -> None:
        self._store = store.absolute()
        self._sweep = sweep
        self.uri = resolve_uri(uri, self._store)
        name = hashlib.sha256(f"{redact(self.uri)}\n{sweep}".encode()).hexdigest()[:16]
        self._memory_path = self._store / "tracking" / f"{name}.json"
        self._queue: SimpleQueue[Record | BankRecord | _End] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._environment: list[str] = []
        self._experiment: str | None = None
        self._warned = threading.Event()
        self._complete = False
        self._sign_of_life = time.monotonic()

    def start(self, spec: Mapping[str, Any]) -> None:
        """Start the writer thread and return at once.

        Args:
            spec: The sweep as JSON values; becomes `spec.json` of the parent run.
        """
        if self._thread is not None:
            return
        # Set here, not in the thread: a change of os.environ while another thread copies it for a
        # new process can break that copy.
        self._environment = [name for name in _DEFAULTS if name not in os.environ]
        os.environ.update({name: _DEFAULTS[name] for name in self._environment})
        self._thread = threading.Thread(
            target=self._write, args=(dict(spec),), name="mlflow-writer", daemon=True
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

    def finish(self, files: Sequence[Path], summary: Mapping[str, float]) -> bool:
        """Wait for the writer, end the parent run, and tell whether MLflow holds everything.

        Args:
            files: Leaderboard files; they go to `leaderboard/` of the parent run.
            summary: Metrics of the parent run.
        """
        if self._thread is None:
            return False
        self._queue.put(_End(tuple(files), dict(summary)))
        began = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.5)
            now = time.monotonic()
            stalled = now - max(began, self._sign_of_life) > STALL_S
            if self._thread.is_alive() and (stalled or now - began > FINISH_S):
                self._warn(f"no answer for {now - self._sign_of_life:.0f} s")
                break
        for name in self._environment:
            os.environ.pop(name, None)
        return self._complete and not self._warned.is_set()

    def is_current(self, records: Sequence[Record], banks: Sequence[BankRecord] = ()) -> bool:
        """Whether MLflow holds every one of these records with exactly this content.

        Told from what the last complete `finish` remembered, without importing MLflow. Runs
        deleted since then are noticed in a SQLite database, not on a server.
        """
        memory = read_memory(self._memory_path)
        return memory is not None and memory.holds(records, banks, sqlite_path(self.uri))

    def ui_command(self) -> str:
        """Return the shell command, or for a server the address, that shows the results."""
        if not self.uri.startswith("http"):
            uri = self.uri if sqlite_path(self.uri) else redact(self.uri)
            return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        memory = read_memory(self._memory_path)
        experiment = self._experiment or (memory.experiment if memory else None)
        address = redact(self.uri).replace("***@", "").partition("?")[0].rstrip("/")
        return f"{address}/#/experiments/{experiment}/runs" if experiment else address

    def _write(self, spec: dict[str, Any]) -> None:
        """Body of the writer thread."""
        try:
            lock = self._memory_path.with_suffix(".lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            with _quiet(), FileLock(lock, timeout=LOCK_S):
                writer = Writer(self.uri, self._store, self._sweep)
                self._experiment = writer.experiment
                writer.describe(hide_secrets(json.dumps(spec, indent=2, default=str), self.uri))
                while True:
                    self._sign_of_life = time.monotonic()
                    item = self._queue.get()
                    if self._warned.is_set():
                        return
                    if isinstance(item, _End):
                        break
                    writer.log(bank_run(item) if isinstance(item, BankRecord) else cell_run(item))
                writer.end(item.files, item.summary)
                write_text_atomically(self._memory_path, writer.memory().model_dump_json())
            self._complete = not writer.missing
            if writer.missing:
                first = next(iter(writer.missing.values()))
                count = f"{len(writer.missing)} of the runs or score files"
                self._warn(f"it lacks {count}: {first}", "the store has all records")
        except Timeout:
            self._warn("another process is logging the same sweep")
        except Exception as error:  # whatever MLflow, SQLAlchemy or the network raise
            # Of a failed request, the end of the text tells why.
            self._warn(f"{type(error).__name__}: {str(error).rpartition('(Caused by ')[2]}")

    def _warn(self, reason: str, comfort: str = _NOTHING_LOST) -> None:
        if self._warned.is_set():
            return
        self._warned.set()
        reason = textwrap.shorten(hide_secrets(reason, self.uri), 240, placeholder=" …").rstrip(".")
        _log.warning("MLflow at `%s` is not complete (%s); %s.", redact(self.uri), reason, comfort)


class _End(NamedTuple):
    files: tuple[Path, ...]
    summary: dict[str, float]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what MLflow, Alembic and urllib3 log in this thread off the terminal."""
    from mlflow.utils.logging_utils import suppress_logs_in_thread

    ours = threading.get_ident()
    retries = logging.getLogger("urllib3.connectionpool")

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != ours

    retries.addFilter(from_elsewhere)
    try:
        with suppress_logs_in_thread():
            yield
    finally:
        retries.removeFilter(from_elsewhere)
