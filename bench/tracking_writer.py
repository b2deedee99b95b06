"""The calls to MLflow: makes a sweep's runs, brings them up to date, and knows what is there."""

from __future__ import annotations

import getpass
import math
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from .errors import StoreError
from .store import TENSORS, Store
from .tracking_layout import ChildRun, mlflow_name
from .tracking_memory import Logged, Memory, store_id
from .tracking_uri import sqlite_path

KINDS = ("cell", "bank")
SCORES = "ulira"  # kind of artefact in the store, and folder in the parent run


class Writer:
    """The calls to MLflow. Lives in the writer thread; raises what MLflow raises.

    Args:
        uri: Tracking URI.
        store: Folder of the store.
        sweep: Name of the sweep.

    Attributes:
        experiment: Id of the experiment.
        parent: Id of the sweep's run.
        missing: Why a run could not be logged, or the scores of one, by what is missing.
    """

    def __init__(self, uri: str, store: Path, sweep: str) -> None:
        from mlflow import MlflowClient

        location = None  # a server knows where its artifacts go
        if not uri.startswith("http"):
            path = sqlite_path(uri)
            root = (path.parent if path else store) / "mlartifacts"
            location = (root / _slug(sweep)).as_uri()
            _prepare_database(uri, path, root)
        self.missing: dict[str, str] = {}
        self._client = MlflowClient(uri)
        self.experiment = self._find_experiment(sweep, location)
        self._common = {
            "mlflow.user": _user(),
            "mlflow.source.name": "unlearnbench",
            "mlflow.source.type": "LOCAL",
        }
        # Runs of every cell and bank: run id -> digest, empty where the run is not complete.
        self._runs: dict[tuple[str, str], dict[str, str]] = {}
        # What this writer has logged.
        self._children: dict[tuple[str, str], ChildRun] = {}
        self._scores: set[str] = set()
        self._store = Store(store, create=False)
        self._store_tag = {"unlearnbench.store": store_id(store)}
        self.parent = self._find_parent(sweep)

    def describe(self, spec: str) -> None:
        """Put the spec into the parent run."""
        self._client.log_text(self.parent, spec, "spec.json")

    def log(self, child: ChildRun) -> None:
        """Bring a child run and its scores up to date; do nothing where they are."""
        from mlflow.exceptions import MlflowException

        if child.scores is not None:
            self._log_scores(child.scores)
        name = (child.kind, child.key)
        runs = self._runs.get(name, {})
        kept = next((run_id for run_id, known in runs.items() if known == child.digest), None)
        try:
            kept = kept or self._amend(child) or self._create(child)
        except MlflowException as error:
            # One run that MLflow will not take must not keep the others out.
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self.missing[child.key] = f"{child.name} was refused, {error}"
            return
        for stale in set(runs) - {kept}:
            self._client.delete_run(stale)
        self._runs[name] = {kept: child.digest}
        self._children[name] = child

    def end(self, files: Sequence[Path], summary: Mapping[str, float]) -> None:
        """Put the leaderboard into the parent run and end it."""
        for file in files:
            self._client.log_artifact(self.parent, str(file), "leaderboard")
        finite = {mlflow_name(k): float(v) for k, v in summary.items() if math.isfinite(v)}
        self._log_batch(self.parent, {}, finite)
        # Left by a writer that was killed, or by a request that was repeated after a time-out.
        for kind in KINDS:
            for run in self._search(kind, " and attributes.status = 'RUNNING'"):
                self._client.delete_run(run.info.run_id)
        self._client.set_terminated(self.parent, "FINISHED")

    def memory(self) -> Memory:
        """Return what is complete, for the next process."""
        complete: dict[str, dict[str, Logged]] = {kind: {} for kind in KINDS}
        for (kind, key), runs in self._runs.items():
            for run_id, digest in runs.items():
                if digest:
                    complete[kind][key] = Logged(digest=digest, run_id=run_id)
        return Memory(
            experiment=self.experiment,
            parent=self.parent,
            cells=complete["cell"],
            banks=complete["bank"],
            scores=self._scores,
        )

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
        """Take up the sweep's run and list its children, or make it."""
        found = sorted(self._search("sweep"), key=lambda run: run.info.start_time)
        if found:
            parent = str(found[0].info.run_id)
            self._client.update_run(parent, status="RUNNING")
        else:
            tags = self._common | self._store_tag | {"unlearnbench.kind": "sweep"}
            run = self._client.create_run(self.experiment, tags=tags, run_name=sweep)
            parent = str(run.info.run_id)
        for kind in KINDS:
            for run in self._search(kind):
                tags = run.data.tags
                ended = run.info.status in ("FINISHED", "FAILED")
                complete = ended and tags.get("mlflow.parentRunId") == parent
                digest = tags.get("unlearnbench.digest", "") if complete else ""
                runs = self._runs.setdefault((kind, tags.get("unlearnbench.key", "")), {})
                runs[run.info.run_id] = digest
        return parent

    def _search(self, kind: str, further: str = "") -> list[Any]:
        """Return the runs of this store's sweep, parent (`sweep`) or children."""
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

    def _create(self, child: ChildRun) -> str:
        end_ms = int(time.time() * 1000)
        tags = {
            "unlearnbench.kind": child.kind,
            "unlearnbench.key": child.key,
            "unlearnbench.digest": child.digest,
            "mlflow.parentRunId": self.parent,
        }
        run = self._client.create_run(
            self.experiment,
            # So that the UI's duration is not that of these calls.
            start_time=end_ms - int(child.seconds * 1000),
            tags=self._common | self._store_tag | {**child.tags, **tags},
            run_name=child.name,
        )
        run_id = str(run.info.run_id)
        self._log_batch(run_id, child.params, child.metrics)
        self._client.log_text(run_id, child.text, child.file)
        self._client.set_terminated(run_id, child.status, end_ms)
        return run_id

    def _amend(self, child: ChildRun) -> str | None:
        """Add what a child has gained since this writer logged it; None where that is not all.

        The usual cases: a cell's gaps, once the retrained model is there, and its attack.
        """
        name = (child.kind, child.key)
        old = self._children.get(name)
        if old is None or not child.extends(old):
            return None
        (run_id,) = self._runs[name]
        params = {k: v for k, v in child.params.items() if k not in old.params}
        metrics = {k: v for k, v in child.metrics.items() if old.metrics.get(k) != v}
        self._log_batch(run_id, params, metrics)
        for tag in child.tags.keys() - old.tags.keys():
            self._client.set_tag(run_id, tag, child.tags[tag])
        self._client.log_text(run_id, child.text, child.file)
        # Last, so that a run that was amended by half does not count as complete.
        self._client.set_tag(run_id, "unlearnbench.digest", child.digest)
        return run_id

    def _log_scores(self, key: str) -> None:
        """Put the score arrays of an attack into the parent run, unless they are there whole."""
        if key in self._scores:
            return
        try:
            file = self._scores_file(key)
        except StoreError as error:
            self.missing[key] = str(error)
            return
        name = f"{key}.safetensors"
        # The key stands for the content, so a size that differs is an upload that was cut off.
        if self._uploaded_scores.get(f"{SCORES}/{name}") != file.stat().st_size:
            with tempfile.TemporaryDirectory() as folder:
                copy = shutil.copy(file, Path(folder, name))
                self._client.log_artifact(self.parent, str(copy), SCORES)
        self._scores.add(key)

    def _scores_file(self, key: str) -> Path:
        artifact = self._store.get(SCORES, key)
        if artifact is None:
            raise StoreError(
                f"the scores `{key}` are not in the store; run again to make them anew."
            )
        return artifact.file(TENSORS)

    @cached_property
    def _uploaded_scores(self) -> dict[str, int | None]:
        """Sizes in bytes of the score arrays that the parent run held at first."""
        return {
            info.path: info.file_size for info in self._client.list_artifacts(self.parent, SCORES)
        }

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


def _slug(name: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", name)[:80].strip(".") or "sweep"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user id has no name
        return "unknown"
