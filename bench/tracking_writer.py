"""The calls to MLflow: makes a sweep's runs, brings them up to date, and knows what is there."""

from __future__ import annotations

import getpass
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import safe_open

from .datastore import KIND as IMAGES
from .errors import StoreError
from .model_card import CARD, WEIGHTS, model_card
from .record import Record
from .store import TENSORS, Store
from .tracking_client import open_database
from .tracking_layout import ENDED, ChildRun, DatasetUse, mlflow_name
from .tracking_memory import Logged, Memory, store_id
from .tracking_uri import slug, sqlite_path

KINDS = ("cell", "bank", "trial")
SCORES = "ulira"  # kind of artefact in the store, and folder in the parent run
MODEL = "model"  # folder in the run of a cell
MODEL_TAG = "unlearnbench.model"


class Writer:
    """The calls to MLflow. Lives in the writer thread; raises what MLflow raises.

    Args:
        uri: Tracking URI.
        store: Folder of the store.
        sweep: Name of the sweep.
        owner: Name of the store that the runs belong to; None for this one's.
        log_models: Log the unlearned models as well.
        alive: Called before every call to MLflow.

    Attributes:
        experiment: Id of the experiment.
        parent: Id of the sweep's run.
        missing: Why a run could not be logged, or the scores or the model of one, by what is
            missing.
        made: Number of child runs that were made or added to.
    """

    def __init__(
        self,
        uri: str,
        store: Path,
        sweep: str,
        owner: str | None = None,
        *,
        log_models: bool = False,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        from mlflow import MlflowClient

        location = None  # a server knows where its artifacts go
        if not uri.startswith("http"):
            path = sqlite_path(uri)
            root = (path.parent if path else store) / "mlartifacts"
            location = (root / slug(sweep)).as_uri()
            _prepare_database(uri, path, root)
        self.missing: dict[str, str] = {}
        self.made = 0
        self._log_models = log_models
        self._client: Any = _Lively(MlflowClient(uri), alive)
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
        self._models: set[str] = set()  # ids of the runs that hold one
        self._store = Store(store, create=False)
        self._store_tag = {"unlearnbench.store": owner or store_id(store)}
        self.parent = self._find_parent(sweep)

    def describe(self, name: str, text: str) -> None:
        """Put what the sweep is into the parent run, as `<name>.json`."""
        self._client.log_text(self.parent, text, f"{name}.json")

    def log(self, child: ChildRun) -> None:
        """Bring a child run, its scores and its model up to date; do nothing where they are."""
        from mlflow.exceptions import MlflowException

        if child.scores is not None:
            self._log_scores(child.scores)
        name = (child.kind, child.key)
        runs = self._runs.get(name, {})
        kept = next((run_id for run_id, known in runs.items() if known == child.digest), None)
        try:
            if kept is None:
                kept = self._amend(child) or self._create(child)
                self.made += 1
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
        if self._log_models and child.unlearned is not None and kept not in self._models:
            self._log_model(kept, child.unlearned)

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
                    complete[kind][key] = Logged(
                        digest=digest, run_id=run_id, model=run_id in self._models
                    )
        return Memory(
            experiment=self.experiment,
            parent=self.parent,
            cells=complete["cell"],
            banks=complete["bank"],
            trials=complete["trial"],
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
                ended = run.info.status in ENDED
                complete = ended and tags.get("mlflow.parentRunId") == parent
                digest = tags.get("unlearnbench.digest", "") if complete else ""
                runs = self._runs.setdefault((kind, tags.get("unlearnbench.key", "")), {})
                runs[run.info.run_id] = digest
                if MODEL_TAG in tags:
                    self._models.add(run.info.run_id)
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
        self._log_batch(run_id, child.params, child.metrics, child.curves)
        if child.datasets:
            self._client.log_inputs(run_id, [_dataset_input(use) for use in child.datasets])
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

    def _log_model(self, run_id: str, record: Record) -> None:
        """Put the unlearned model of a cell into its run."""
        cell = self._store.get("cell", record.key)
        images = self._store.get(IMAGES, record.data_digest) if record.data_digest else None
        if cell is None or images is None or TENSORS not in cell.files:
            self.missing[f"{record.key} {MODEL}"] = (
                f"the unlearned model of `{record.method}` seed {record.seed} is not in the store, "
                "run the sweep again with `--log-models`"
            )
            return
        try:
            file = cell.file(TENSORS)
        except StoreError as error:
            self.missing[f"{record.key} {MODEL}"] = str(error)
            return
        from .channel_units import GATE  # loads torch, which nobody else needs here

        with safe_open(file, framework="np") as held:
            gated = any(name.endswith(f".{GATE}") for name in held.keys())  # noqa: SIM118
        if gated:
            self.missing[f"{record.key} {MODEL}"] = (
                f"the unlearned model of `{record.method}` seed {record.seed} has gates on its "
                "activations (`target=gate`), and is no plain timm network"
            )
            return
        card = model_card(record, images.meta, cell.files[TENSORS])
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(file, Path(folder, WEIGHTS))
            Path(folder, CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
            self._client.log_artifacts(run_id, folder, MODEL)
        # Last, so that an upload that was cut off does not count.
        self._client.set_tag(run_id, MODEL_TAG, cell.files[TENSORS])
        self._models.add(run_id)

    def _log_batch(
        self,
        run_id: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Log in one call, or in as many as MLflow's limits of 100 and 900 ask for."""
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        all_params = [Param(name, value) for name, value in params.items()]
        all_metrics = [Metric(name, value, now_ms, 0) for name, value in metrics.items()]
        for name, values in (curves or {}).items():
            all_metrics += [Metric(name, v, now_ms, step) for step, v in enumerate(values, start=1)]
        while all_params or all_metrics:
            self._client.log_batch(run_id, metrics=all_metrics[:900], params=all_params[:100])
            all_params, all_metrics = all_params[100:], all_metrics[900:]


class _Lively:
    """A client that gives a sign of life before every call."""

    def __init__(self, client: Any, alive: Callable[[], None]) -> None:  # noqa: ANN401
        self._client, self._alive = client, alive

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        self._alive()
        return getattr(self._client, name)


def _prepare_database(uri: str, path: Path | None, root: Path) -> None:
    """Make MLflow's SQLite file where there is none, and see that a database can be opened.

    MLflow's migrations survive neither a second process at the same time nor a kill: both leave
    a database that never opens again. So they run on a file of our own that is then renamed.
    """
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
    open_database(uri)


def _dataset_input(use: DatasetUse) -> Any:  # noqa: ANN401 - MLflow has no types
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps({"num_rows": use.count})
    dataset = Dataset(use.name, use.digest, "unlearnbench", use.source, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", use.context)])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user id has no name
        return "unknown"
