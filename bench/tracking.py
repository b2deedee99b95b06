"""MLflow as a view of the store: one writer thread, one parent run a sweep, one child a cell.

The records in the store are the truth and are complete without MLflow. `Tracker` copies them into
MLflow from a thread of the parent process, so that a sweep waits neither for MLflow's import, nor
for the migration of an empty database, nor for a server. What fails here costs a warning, never a
record: the same command run again compares the records with MLflow and adds what is missing.

Layout in MLflow:
    experiment    the sweep's name
    parent run    tag `unlearnbench.kind=sweep`; one for each store, so that two people who run the
                  same sweep into one server do not overwrite one another; artifacts `spec.json`,
                  what `start` was given, and `leaderboard/`
    child run     tags `unlearnbench.kind=cell`, `.store`, `.key`, `.digest` and those of
                  `cell_tags`; parameters of `cell_params`; metrics of `cell_metrics`; artifact
                  `record.json`

A child is FINISHED when the cell is ok, FAILED when it failed, and FINISHED with the tag
`status=skipped` when it was skipped: a method that declines a cell has not failed, and MLflow has
no better word (KILLED reads as an accident). A child is complete once it has ended and its digest
is that of the record. A cell whose record changed gets a new run, and the old one is deleted
MLflow's way, so that it can be restored; what a cell gains while the sweep runs is added to its
run. Runs of cells that are no longer in the sweep are left alone.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import logging
import math
import os
import re
import shlex
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from .files import write_text_atomically
from .record import Record
from .tracking_layout import cell_metrics, cell_params, cell_tags, digest_of, mlflow_name
from .tracking_memory import Logged, Memory, read_memory, store_id
from .tracking_uri import check_uri as check_uri
from .tracking_uri import hide_secrets, redact, resolve_uri, sqlite_path

# How long to wait for another process that logs the same sweep; and without a sign of life for
# STALL_S, or after FINISH_S in all, `finish` stops waiting for MLflow.
LOCK_S = 5.0
STALL_S = 60.0
FINISH_S = 300.0

_STATUS = {"ok": "FINISHED", "skipped": "FINISHED", "failed": "FAILED"}
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

    Call `start` once, `log` for every cell and `finish` at the end. None of them raises when
    MLflow fails; there is then one warning, and `finish` returns False.

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
        self._queue: SimpleQueue[Record | _End] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._environment: list[str] = []
        self._experiment: str | None = None
        self._warned = threading.Event()
        self._complete = False
        self._sign_of_life = time.monotonic()

    def start(self, spec: Mapping[str, Any], files: Sequence[Path] = ()) -> None:
        """Start the writer thread and return at once.

        Args:
            spec: The sweep as JSON values; becomes `spec.json` of the parent run.
            files: Further files for the parent run.
        """
        if self._thread is not None:
            return
        # Set here, not in the thread: a change of os.environ while another thread copies it for a
        # new process can break that copy.
        self._environment = [name for name in _DEFAULTS if name not in os.environ]
        os.environ.update({name: _DEFAULTS[name] for name in self._environment})
        self._thread = threading.Thread(
            target=self._write, args=(dict(spec), tuple(files)), name="mlflow-writer", daemon=True
        )
        self._thread.start()

    def log(self, record: Record) -> None:
        """Hand over the record of a cell and return at once."""
        if not self._warned.is_set():
            self._queue.put(record)

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

    def is_current(self, records: Sequence[Record]) -> bool:
        """Whether MLflow holds every one of these records with exactly this content.

        Told from what the last complete `finish` remembered, without importing MLflow. Runs
        deleted since then are noticed in a SQLite database, not on a server.
        """
        memory = read_memory(self._memory_path)
        return memory is not None and memory.holds(records, sqlite_path(self.uri))

    def ui_command(self) -> str:
        """Return the shell command, or for a server the address, that shows the results."""
        if not self.uri.startswith("http"):
            uri = self.uri if sqlite_path(self.uri) else redact(self.uri)
            return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        memory = read_memory(self._memory_path)
        experiment = self._experiment or (memory.experiment if memory else None)
        address = redact(self.uri).replace("***@", "").partition("?")[0].rstrip("/")
        return f"{address}/#/experiments/{experiment}/runs" if experiment else address

    def _write(self, spec: dict[str, Any], files: tuple[Path, ...]) -> None:
        """Body of the writer thread."""
        try:
            lock = self._memory_path.with_suffix(".lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            with _quiet(), FileLock(lock, timeout=LOCK_S):
                writer = _Writer(self.uri, self._store, self._sweep)
                self._experiment = writer.experiment
                writer.describe(
                    hide_secrets(json.dumps(spec, indent=2, default=str), self.uri), files
                )
                while True:
                    self._sign_of_life = time.monotonic()
                    item = self._queue.get()
                    if self._warned.is_set():
                        return
                    if isinstance(item, _End):
                        break
                    writer.log(item)
                writer.end(item)
                write_text_atomically(self._memory_path, writer.memory().model_dump_json())
            self._complete = not writer.refused
            if writer.refused:
                count = f"{len(writer.refused)} of the cells"
                self._warn(f"it refused {count}: {writer.refused[0]}", "the store has them all")
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


class _Writer:
    """The calls to MLflow. Lives in the writer thread; raises what MLflow raises."""

    def __init__(self, uri: str, store: Path, sweep: str) -> None:
        from mlflow import MlflowClient

        location = None  # a server knows where its artifacts go
        if not uri.startswith("http"):
            path = sqlite_path(uri)
            root = (path.parent if path else store) / "mlartifacts"
            location = (root / _slug(sweep)).as_uri()
            _prepare_database(uri, path, root)
        self.refused: list[str] = []
        self._client = MlflowClient(uri)
        self.experiment = self._find_experiment(sweep, location)
        self._common = {
            "mlflow.user": _user(),
            "mlflow.source.name": "unlearnbench",
            "mlflow.source.type": "LOCAL",
        }
        # Runs of every cell: run id -> digest of the record, empty where the run is not complete.
        self._runs: dict[str, dict[str, str]] = {}
        # What this writer has logged.
        self._records: dict[str, Record] = {}
        self._store_tag = {"unlearnbench.store": store_id(store)}
        self.parent = self._find_parent(sweep)

    def describe(self, spec: str, files: Sequence[Path]) -> None:
        """Put the spec and further files into the parent run."""
        self._client.log_text(self.parent, spec, "spec.json")
        for file in files:
            self._client.log_artifact(self.parent, str(file))

    def log(self, record: Record) -> None:
        """Bring the run of a cell up to date; do nothing where it is."""
        from mlflow.exceptions import MlflowException

        digest, runs = digest_of(record), self._runs.get(record.key, {})
        kept = next((run_id for run_id, known in runs.items() if known == digest), None)
        try:
            kept = kept or self._amend(record, digest) or self._create(record, digest)
        except MlflowException as error:
            # One cell that MLflow will not take must not keep the others out.
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self.refused.append(f"{record.method} seed {record.seed}, {error}")
            return
        for stale in set(runs) - {kept}:
            self._client.delete_run(stale)
        self._runs[record.key] = {kept: digest}
        self._records[record.key] = record

    def end(self, end: _End) -> None:
        """Put the leaderboard into the parent run and end it."""
        for file in end.files:
            self._client.log_artifact(self.parent, str(file), "leaderboard")
        finite = {mlflow_name(k): float(v) for k, v in end.summary.items() if math.isfinite(v)}
        self._log_batch(self.parent, {}, finite)
        # Left by a writer that was killed, or by a request that was repeated after a time-out.
        for run in self._search("cell", " and attributes.status = 'RUNNING'"):
            self._client.delete_run(run.info.run_id)
        self._client.set_terminated(self.parent, "FINISHED")

    def memory(self) -> Memory:
        """Return which cells are complete, for the next process."""
        cells = {
            key: Logged(digest=digest, run_id=run_id)
            for key, runs in self._runs.items()
            for run_id, digest in runs.items()
            if digest
        }
        return Memory(experiment=self.experiment, parent=self.parent, cells=cells)

    def _find_experiment(self, name: str, location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:  # another process was faster
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        if location and found.artifact_location.startswith("mlflow-artifacts:"):
            raise RuntimeError(
                f"experiment `{name}` was made through an MLflow server; use the server's address"
            )
        return str(found.experiment_id)

    def _find_parent(self, sweep: str) -> str:
        """Take up the sweep's run and list its cells, or make it."""
        found = sorted(self._search("sweep"), key=lambda run: run.info.start_time)
        if found:
            parent = str(found[0].info.run_id)
            self._client.update_run(parent, status="RUNNING")
        else:
            tags = self._common | self._store_tag | {"unlearnbench.kind": "sweep"}
            run = self._client.create_run(self.experiment, tags=tags, run_name=sweep)
            parent = str(run.info.run_id)
        for run in self._search("cell"):
            tags = run.data.tags
            ended = run.info.status in ("FINISHED", "FAILED")
            complete = ended and tags.get("mlflow.parentRunId") == parent
            digest = tags.get("unlearnbench.digest", "") if complete else ""
            self._runs.setdefault(tags.get("unlearnbench.key", ""), {})[run.info.run_id] = digest
        return parent

    def _search(self, kind: str, further: str = "") -> list[Any]:
        """Return the runs of this store's sweep, parent (`sweep`) or children (`cell`)."""
        tags = self._store_tag | {"unlearnbench.kind": kind}
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        page = self._client.search_runs([self.experiment], wanted + further)
        runs = list(page)
        while page.token:
            page = self._client.search_runs(
                [self.experiment], wanted + further, page_token=page.token
            )
            runs += page
        return runs

    def _create(self, record: Record, digest: str) -> str:
        end_ms = int(time.time() * 1000)
        # So that the UI's duration is that of the cell, not that of these calls.
        seconds = sum(
            record.times.get(f"{part}_s", 0) for part in ("prepare", "unlearn", "evaluate")
        )
        tags = cell_tags(record) | {
            "unlearnbench.kind": "cell",
            "unlearnbench.key": record.key,
            "unlearnbench.digest": digest,
            "mlflow.parentRunId": self.parent,
        }
        run = self._client.create_run(
            self.experiment,
            start_time=end_ms - int(seconds * 1000),
            tags=self._common | self._store_tag | tags,
            run_name=f"{record.method} seed {record.seed}",
        )
        run_id = str(run.info.run_id)
        self._log_batch(run_id, cell_params(record), cell_metrics(record))
        self._client.log_text(run_id, record.to_json() + "\n", "record.json")
        self._client.set_terminated(run_id, _STATUS[record.status], end_ms)
        return run_id

    def _amend(self, record: Record, digest: str) -> str | None:
        """Add what a cell has gained since this writer logged it; None where that is not all.

        The usual case: its gaps, once the retrained model is there.
        """
        old = self._records.get(record.key)
        if old is None or (cell_params(old), cell_tags(old)) != (
            cell_params(record),
            cell_tags(record),
        ):
            return None
        known, metrics = cell_metrics(old), cell_metrics(record)
        if not known.keys() <= metrics.keys():
            return None
        (run_id,) = self._runs[record.key]
        changed = {name: value for name, value in metrics.items() if known.get(name) != value}
        self._log_batch(run_id, {}, changed)
        self._client.log_text(run_id, record.to_json() + "\n", "record.json")
        # Last, so that a run that was amended by half does not count as complete.
        self._client.set_tag(run_id, "unlearnbench.digest", digest)
        return run_id

    def _log_batch(
        self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        """Log in one call, or in as many as MLflow's limits of 100 and 900 ask for."""
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        all_params = [Param(name, value) for name, value in params.items()]
        all_metrics = [Metric(name, value, now_ms, 0) for name, value in metrics.items()]
        while all_params or all_metrics:
            self._client.log_batch(run_id, metrics=all_metrics[:900], params=all_params[:100])
            all_params, all_metrics = all_params[100:], all_metrics[900:]


def _prepare_database(uri: str, path: Path | None, root: Path) -> None:
    """Make MLflow's SQLite file where there is none, and see that a database can be opened.

    MLflow's migrations survive neither a second process at the same time nor a kill: both leave
    a database that never opens again. So they run on a file of our own that is then renamed.
    """
    import sqlalchemy
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    def migrate(uri: str) -> None:
        SqlAlchemyStore(uri, str(root)).engine.dispose()  # type: ignore[no-untyped-call]

    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists() or (path.is_file() and not path.stat().st_size):
                with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
                    migrate(f"sqlite:///{folder}/{path.name}")
                    Path(folder, path.name).replace(path)
                # Where this process has used a file of that name before, its pooled connections
                # still lead to the deleted one.
                migrate(uri)
    # A database that cannot be opened shows here at once; MLflow would try for minutes.
    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


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


def _slug(name: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", name)[:80].strip(".") or "sweep"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user id has no name
        return "unknown"
