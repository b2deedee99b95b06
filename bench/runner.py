"""Runs a sweep: data, plan, originals, cells, records, MLflow, leaderboard; in this order."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .datastore import put_images
from .environment import cpu_count, resolve_device, threads
from .errors import Problems, StoreError
from .executor import Outcome, execute, start_server
from .files import write_text_atomically
from .jobs import WorkerSettings
from .plan import LoadedData, Plan, load_data, make_plan
from .record import Record, write_records
from .results import assemble, stored_results
from .store import Store
from .sweep import Sweep, SweepSpec, resolve
from .tracking import Tracker

FAILURES = "failures"


@dataclass(frozen=True)
class RunOptions:
    """Where and how a sweep runs; on the CPU nothing here changes a result.

    Attributes:
        store: Root of the store.
        out: Folder of records and leaderboard.
        data_root: Where datasets keep their files.
        tracking_uri: MLflow server; None for the database in the store.
        workers: Processes at a time; None to choose; 0 for this process.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    """

    store: Path
    out: Path
    data_root: Path
    tracking_uri: str | None = None
    workers: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class RunResult:
    """What came of a sweep.

    Attributes:
        records: One record a cell, in plan order.
        out: Folder of records and leaderboard.
        ui_command: Command that opens the MLflow UI.
        tracked: Whether everything is in MLflow.
        trained: Originals trained and cells run by this call.
        summary: Seconds and counts of this call.
    """

    records: list[Record]
    out: Path
    ui_command: str
    tracked: bool
    trained: int
    summary: dict[str, float] = field(default_factory=dict)


def plan_sweep(
    spec: SweepSpec,
    options: RunOptions,
    problems: Problems | None = None,
    *,
    check_models: bool = False,
) -> tuple[Sweep, list[LoadedData], Plan, str]:
    """Resolve a spec, load its data and lay out its cells, without training anything.

    Args:
        spec: The sweep.
        options: Where and how.
        problems: What is known to be wrong already; raised together with the rest.
        check_models: Build every architecture, which takes timm's import.

    Raises:
        InputError: For all that is wrong with the spec or its data, together.
    """
    problems = problems or Problems()
    sweep = resolve(spec, problems)
    device = "cpu"
    with problems.noted():
        device = resolve_device(options.device)
    data: list[LoadedData] = []
    for dataset in sweep.datasets:
        if problems and dataset.downloads:
            continue  # nobody waits for a download to be told of a misspelt name
        with problems.noted():
            data.append(load_data(dataset, options.data_root, spec.validation_fraction))
    plan = make_plan(sweep, data, device, problems)
    if problems or check_models:
        _check_models(sweep, data, problems)
    problems.raise_any()
    return sweep, data, plan, device


def run_sweep(spec: SweepSpec, options: RunOptions) -> RunResult:
    """Run a sweep to its end, or to the first interrupt; nothing computed is lost either way.

    Raises:
        InputError: For bad input, before anything is trained.
        StoreError: If store or output folder cannot be written.
        KeyboardInterrupt: After the records of all finished cells are written.
    """
    began = time.perf_counter()
    if options.workers != 0 and not Store(options.store, create=False).holds("cell"):
        start_server()  # there will be work: load torch there while we load it here
    sweep, data, plan, device = plan_sweep(spec, options)
    store = Store(options.store, create=False)
    todo = [cell for cell in plan.cells if not cell.skip and not store.has("cell", cell.key)]
    originals = [
        job
        for key, job in plan.originals.items()
        if not store.has("original", key) and any(c.job.original.key == key for c in todo)
    ]
    workers = _workers(options.workers, device)
    if todo:
        if workers:
            start_server()
        problems = Problems()
        _check_models(sweep, data, problems)
        problems.raise_any()
    store = Store(options.store)  # from here on there are no mistakes left to report
    store.tidy()
    _check_writable(options.out)
    if todo:
        for loaded in data:
            put_images(store, loaded.images)
    tracker = Tracker(options.tracking_uri, options.store, spec.name)
    reporter = _Reporter(spec, store, plan, options, tracker, fresh=bool(todo))
    reporter.begin()
    settings = WorkerSettings(
        store=str(options.store),
        plugins=tuple(map(str, spec.plugins)),
        device=device,
        threads=threads(),
    )
    limit = spec.time_limit_s
    exempt = {c.key for c in plan.cells if c.method.name == "retrain"}
    if todo:
        outcomes = execute(
            originals,
            [cell.job for cell in todo],
            settings,
            workers=workers,
            ready=lambda key: store.has("original", key),
            time_limit_s=lambda job: None if job.key in exempt else limit,
        )
        try:
            reporter.follow(outcomes, len(originals) + len(todo))
        except KeyboardInterrupt:
            outcomes.close()  # ends the workers; what they put into the store until then counts
            reporter.interrupted()
            raise
        finally:
            outcomes.close()
    return reporter.end(began, workers, len(originals) + len(todo))


class _Reporter:
    """Turns outcomes into records, and hands them to file, MLflow and leaderboard."""

    def __init__(
        self,
        spec: SweepSpec,
        store: Store,
        plan: Plan,
        options: RunOptions,
        tracker: Tracker,
        *,
        fresh: bool,
    ) -> None:
        self.spec, self.store, self.plan = spec, store, plan
        self.out, self.tracker = options.out, tracker
        self.cells = {cell.key: cell for cell in plan.cells}
        self.results = stored_results(store, self.cells)
        self.failures: dict[str, str] = {}
        self.declined: dict[str, str] = {}
        self.busy_s = 0.0
        self.path = options.out / "records.jsonl"
        self._fresh = fresh
        self._next_write = 0.0
        self._logged: dict[str, str] = {}

    def begin(self) -> None:
        """Write what is known already, and start what works beside the workers."""
        records = self.records()
        if self._fresh or not self.tracker.is_current(records):
            self.tracker.start(self.spec.model_dump(mode="json"))
            self._log(records)
        if self._fresh:
            shutil.rmtree(self.out / FAILURES, ignore_errors=True)  # they are tried again
            threading.Thread(target=_import_renderer, daemon=True).start()
            self.write()

    def follow(self, outcomes: Iterable[Outcome], total: int) -> None:
        """Note every outcome, with a progress bar on stderr."""
        with tqdm(outcomes, total=total, unit="job", disable=None, desc=self.spec.name) as bar:
            for outcome in bar:
                cell = self.cells.get(outcome.key)
                label = cell.label if cell else "original"
                bar.set_postfix_str(label[:60], refresh=False)
                self.busy_s += outcome.busy_s
                if outcome.declined:
                    self.declined[outcome.key] = outcome.reason or "unknown"
                elif outcome.reason is not None:
                    self._fail(outcome, label, bar)
                if cell is not None:
                    self.results |= stored_results(self.store, [outcome.key])
                    if time.perf_counter() >= self._next_write:
                        self.write()

    def _fail(self, outcome: Outcome, label: str, bar: Any) -> None:  # noqa: ANN401
        self.failures[outcome.key] = outcome.reason or "unknown"
        bar.write(f"failed: {label}: {outcome.reason}.", file=sys.stderr)
        if outcome.details:
            path = self.out / FAILURES / f"{outcome.key[:12]}.log"
            write_text_atomically(path, f"{label}\n\n{outcome.details}")

    def records(self) -> list[Record]:
        """Records of all cells that have ended, in plan order."""
        return assemble(self.spec, self.plan, self.results, self.failures, self.declined)

    def write(self) -> None:
        """Write the records so far, and log those that are complete.

        The results are in the store in any case. Each writing is of all records, so the pause
        until the next grows with their number.
        """
        began = time.perf_counter()
        records = self.records()
        write_records(self.path, records)
        self._log([r for r in records if r.status != "ok" or "tow" in r.metrics])
        ended = time.perf_counter()
        self._next_write = ended + max(1.0, 20 * (ended - began))

    def interrupted(self) -> None:
        """Write the records of all that is in the store, whether it was reported or not."""
        self.results |= stored_results(self.store, self.cells)
        self.write()

    def _log(self, records: Sequence[Record]) -> None:
        """Hand records to MLflow that are new or changed."""
        for record in records:
            text = record.to_json()
            if self._logged.get(record.key) != text:
                self._logged[record.key] = text
                self.tracker.log(record)

    def end(self, began: float, workers: int, jobs: int) -> RunResult:
        """Write records and leaderboard, and close MLflow."""
        records = self.records()
        text = "".join(record.to_json() + "\n" for record in records)
        same = self.path.is_file() and self.path.read_text(encoding="utf-8") == text
        files = [self.out / f"leaderboard.{kind}" for kind in ("md", "csv", "html")]
        if not (same and not self._fresh and all(path.is_file() for path in files)):
            write_records(self.path, records)
            from .render import write_leaderboard

            write_leaderboard(records, self.out)
        wall_s = time.perf_counter() - began
        lanes = max(1, workers)
        summary = {
            "jobs": jobs,
            "workers": workers,
            "wall_s": wall_s,
            "busy_s": self.busy_s,
            "busy_share": self.busy_s / (wall_s * lanes),
            **{
                f"cells_{status}": sum(r.status == status for r in records)
                for status in ("ok", "failed", "skipped")
            },
        }
        tracked = True
        if self._fresh or not self.tracker.is_current(records):
            self._log(records)
            write_text_atomically(self.out / "run.json", json.dumps(summary, indent=1) + "\n")
            tracked = self.tracker.finish([*files, self.path], summary)
        return RunResult(records, self.out, self.tracker.ui_command(), tracked, jobs, summary)


def _check_models(sweep: Sweep, data: Sequence[LoadedData], problems: Problems) -> None:
    """Build every architecture once for every dataset, so that a bad one is known at once."""
    from .models import build_model, check_name

    for model in sweep.models:
        with problems.noted():
            check_name(model)
            for loaded in data:
                build_model(model, loaded.images.num_classes, loaded.images.image_shape, 0)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"the output folder `{out}` cannot be written: {error.strerror}."
        ) from None


def _workers(wish: int | None, device: str) -> int:
    """One process a core on the CPU, where small models gain nothing from threads; else one."""
    if wish is not None:
        return wish
    return cpu_count() if device == "cpu" else 1


def _import_renderer() -> None:
    """Load pandas and seaborn while the workers are busy, instead of at the end."""
    import_module(".render", __package__)
