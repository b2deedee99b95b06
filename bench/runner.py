"""Runs a sweep: data, plan, originals, cells, records, MLflow, leaderboard; in this order."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .attack_record import AttackRecord, read_attacks
from .bank_record import BankRecord
from .datastore import put_images
from .environment import cpu_count, describe_environment, resolve_device, threads
from .errors import InputError, Problems, StoreError
from .executor import Outcome, execute, start_server
from .files import write_text_atomically
from .jobs import AttackJob, CellJob, Job, ProbeJob, WorkerSettings
from .plan import LoadedData, Plan, load_data, make_plan
from .probe_results import probe_keys
from .record import Record, write_records
from .results import assemble, attack_records, bank_records, stored_results
from .store import Store
from .sweep import Sweep, SweepSpec, resolve
from .sweep_files import (
    LEADERBOARD_FILES,
    Description,
    describe_sweep,
    known_environment,
    write_description,
)
from .sweep_records import SweepRecords, read_folder, write_folder
from .tracking import Tracker
from .tracking_layout import trial_run
from .tracking_memory import store_id
from .tracking_uri import without_secrets
from .work import Work, drop_models, find_work, finished_banks

if TYPE_CHECKING:
    from .tuning import Study

FAILURES = "failures"

_log = logging.getLogger(__name__)


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
        log_models: Whether the unlearned models go to MLflow as well.
    """

    store: Path
    out: Path
    data_root: Path
    tracking_uri: str | None = None
    workers: int | None = None
    device: str = "auto"
    log_models: bool = False


@dataclass(frozen=True)
class RunResult:
    """What came of a sweep.

    Attributes:
        records: One record a cell, in plan order.
        banks: One record a shadow bank.
        attacks: What the attacks found pair by pair, one record a scored attack.
        out: Folder of records and leaderboard.
        ui_command: Command that opens the MLflow UI.
        tracked: Whether everything is in MLflow.
        summary: Seconds and counts of this call.
    """

    records: list[Record]
    banks: list[BankRecord]
    attacks: list[AttackRecord]
    out: Path
    ui_command: str
    tracked: bool
    summary: dict[str, float] = field(default_factory=dict)


def plan_sweep(
    spec: SweepSpec,
    options: RunOptions,
    problems: Problems | None = None,
    *,
    build_models: bool = False,
) -> tuple[Sweep, list[LoadedData], Plan, str]:
    """Resolve a spec, load its data and lay out its cells, without training anything.

    Args:
        spec: The sweep.
        options: Where and how.
        problems: What is known to be wrong already; raised together with the rest.
        build_models: Build every architecture, which takes timm's import.

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
    if spec.hyperparameters is not None and not problems:
        with problems.noted():
            _check_use(sweep, spec.hyperparameters)
    if problems or build_models:
        check_models(sweep, data, problems)
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
    workers = count_workers(options.workers, device)
    studies: list[Study] = []
    if spec.tune is not None:
        check_models(sweep, data)
        check_writable(options.out)
        from .tuned_sweep import tune_sweep

        sweep, studies = tune_sweep(sweep, data, device, options.store, options.out, workers)
        plan = make_plan(sweep, data, device)
    work = find_work(plan, Store(options.store, create=False), workers, models=options.log_models)
    if work:
        if workers:
            start_server()
        check_models(sweep, data)
    store = Store(options.store)  # from here on there are no mistakes left to report
    store.tidy()
    check_writable(options.out)
    if work:
        for loaded in data:
            put_images(store, loaded.images)
    tracker = Tracker(options.tracking_uri, options.store, spec.name, log_models=options.log_models)
    reporter = _Reporter(spec, store, plan, work, options, tracker, studies)
    reporter.describe(device)
    reporter.begin()
    settings = WorkerSettings(
        store=str(options.store),
        plugins=tuple(map(str, spec.plugins)),
        device=device,
        threads=threads(),
    )
    if work:
        outcomes = execute(
            work.jobs, settings, workers=workers, time_limit_s=partial(_time_limit, spec)
        )
        try:
            reporter.follow(outcomes)
        except KeyboardInterrupt:
            outcomes.close()  # ends the workers; what they put into the store until then counts
            reporter.interrupted()
            raise
        finally:
            outcomes.close()
    for bank in finished_banks(plan, store):
        drop_models(bank, store)
    return reporter.end(began, workers)


def _time_limit(spec: SweepSpec, job: Job) -> float | None:
    """Seconds for a job; what everything is compared with is exempt, and so is our own work."""
    if isinstance(job, CellJob):
        return None if job.method.name == "retrain" else spec.time_limit_s
    if isinstance(job, AttackJob) and spec.time_limit_s is not None:
        exempt = job.cells[0].method.name == "retrain"
        return None if exempt else spec.time_limit_s * len(job.cells)
    return None


class _Reporter:
    """Turns outcomes into records, and hands them to file, MLflow and leaderboard."""

    def __init__(
        self,
        spec: SweepSpec,
        store: Store,
        plan: Plan,
        work: Work,
        options: RunOptions,
        tracker: Tracker,
        studies: Sequence[Study],
    ) -> None:
        self.spec, self.store, self.plan, self.work = spec, store, plan, work
        self.out, self.tracker, self.studies = options.out, tracker, studies
        self.cells = {cell.key: cell for cell in plan.cells}
        self.results = stored_results(store, self.cells)
        self.scores = stored_results(store, plan.attacks, "ulira")
        self.probes = stored_results(store, probe_keys(plan), "probe")
        self.failures: dict[str, str] = {}
        self.declined: dict[str, str] = {}
        self.busy_s = 0.0
        self.path = options.out / "records.jsonl"
        self._fresh = bool(work)
        self._labels = _labels(plan, work)
        self._next_write = 0.0
        self._logged: dict[str, str] = {}
        self._due = {job.key for job in work.cells}  # cells that are run, perhaps again
        self._description: Description = {}

    def describe(self, device: str) -> None:
        """Write what the sweep is; the environment as it was when there last was work."""
        environment = None if self._fresh else known_environment(self.out)
        if environment is None:
            environment = describe_environment(device, threads())
        found = describe_sweep(self.spec, self.plan, store_id(self.store.root), environment)
        # a sweep file may hold a password, in the parameters of somebody's plug-in
        self._description = {**found, "spec": without_secrets(found["spec"], self.tracker.uri)}
        write_description(self.out, self._description)

    def begin(self) -> None:
        """Write what is known already, and start what works beside the workers."""
        records, banks = self.records(), self.banks()
        if self._fresh or not self.tracker.is_current(records, banks, self._description):
            self.tracker.start(self._description)
            self._log([record for record in records if record.key not in self._due], banks)
            for trial in [trial for study in self.studies for trial in study.trials]:
                self.tracker.log_child(trial_run(trial))
        if self._fresh:
            shutil.rmtree(self.out / FAILURES, ignore_errors=True)  # they are tried again
            threading.Thread(target=_import_renderer, daemon=True).start()
            self.write()

    def follow(self, outcomes: Iterable[Outcome]) -> None:
        """Note every outcome, with progress bars on stderr."""
        shadows = {job.key: len(job.shadows) for job in self.work.shadows}
        with (
            tqdm(total=len(self.work.jobs), unit="job", disable=None, desc=self.spec.name) as bar,
            tqdm(
                total=sum(shadows.values()),
                unit="model",
                disable=None if shadows else True,
                desc="shadow bank",
                leave=False,
            ) as bank,
        ):
            for outcome in outcomes:
                label = self._labels[outcome.key]
                bar.set_postfix_str(label[:60], refresh=False)
                bar.update()
                bank.update(shadows.get(outcome.key, 0))
                self.busy_s += outcome.busy_s
                self._due.discard(outcome.key)
                if outcome.declined:
                    self.declined[outcome.key] = outcome.reason or "unknown"
                elif outcome.reason is not None:
                    self._fail(outcome, label, bar)
                if outcome.key in self.cells:
                    self.results |= stored_results(self.store, [outcome.key])
                elif outcome.key in self.plan.attacks:
                    self.scores |= stored_results(self.store, [outcome.key], "ulira")
                elif outcome.key in self.plan.probes:
                    self._read_probe(self.plan.probes[outcome.key])
                else:
                    continue
                if time.perf_counter() >= self._next_write:
                    self.write()

    def _read_probe(self, job: ProbeJob) -> None:
        self.probes |= stored_results(self.store, [job.own_key, job.key], "probe")

    def _fail(self, outcome: Outcome, label: str, bar: Any) -> None:  # noqa: ANN401
        self.failures[outcome.key] = outcome.reason or "unknown"
        if outcome.inherited and outcome.key not in self.cells:
            return  # the reason was told when the job failed that it stems from
        bar.write(f"failed: {label}: {outcome.reason}.", file=sys.stderr)
        if outcome.details:
            path = self.out / FAILURES / f"{outcome.key[:12]}.log"
            write_text_atomically(path, f"{label}\n\n{outcome.details}")

    def records(self) -> list[Record]:
        """Records of all cells that have ended, in plan order."""
        return assemble(
            self.spec,
            self.plan,
            self.results,
            self.failures,
            self.declined,
            self.scores,
            self.probes,
        )

    def banks(self) -> list[BankRecord]:
        """Records of all shadow banks that are described."""
        return bank_records(self.plan, self.store)

    def write(self) -> None:
        """Write the records so far, and log those that are complete.

        The results are in the store in any case. Each writing is of all records, so the pause
        until the next grows with their number.
        """
        began = time.perf_counter()
        records = self.records()
        write_records(self.path, records)
        self._log([r for r in records if self._complete(r)])
        ended = time.perf_counter()
        self._next_write = ended + max(1.0, 20 * (ended - began))

    def _complete(self, record: Record) -> bool:
        """Whether nothing will be added to a record any more."""
        cell = self.cells[record.key]
        attacked = bool(record.attack) or not cell.attack
        probed = bool(record.probe) or not cell.probe
        # there is nothing to wait for where retraining is not applicable
        reference = self.cells.get(cell.retrained)
        compared = "tow" in record.metrics or (reference is not None and bool(reference.skip))
        ended = record.key not in self._due
        return record.status != "ok" or (ended and compared and attacked and probed)

    def interrupted(self) -> None:
        """Write the records of all that is in the store, whether it was reported or not."""
        self.results |= stored_results(self.store, self.cells)
        self.scores |= stored_results(self.store, self.plan.attacks, "ulira")
        self.probes |= stored_results(self.store, probe_keys(self.plan), "probe")
        self.write()

    def _log(self, records: Sequence[Record], banks: Sequence[BankRecord] = ()) -> None:
        """Hand records to MLflow that are new or changed."""
        for record in records:
            text = record.to_json()
            if self._logged.get(record.key) != text:
                self._logged[record.key] = text
                self.tracker.log(record)
        for bank in banks:
            text = bank.to_json()
            if self._logged.get(bank.bank) != text:
                self._logged[bank.bank] = text
                self.tracker.log_bank(bank)

    def end(self, began: float, workers: int) -> RunResult:
        """Write records and leaderboard, and close MLflow."""
        records, banks = self.records(), self.banks()
        text = "".join(record.to_json() + "\n" for record in records)
        same = self.path.is_file() and self.path.read_text(encoding="utf-8") == text
        files = [self.out / name for name in LEADERBOARD_FILES]
        written = [*files, self.out / "banks.jsonl"] if banks else files
        if same and not self._fresh and all(path.is_file() for path in written):
            attacks = read_attacks(self.out)
        else:
            attacks = attack_records(self.plan, self.store)
            write_folder(self.out, SweepRecords(records, banks, attacks))
            from .render import write_leaderboard

            # what is rendered is what is on disk, so that rendering it again gives the same bytes
            found = read_folder(self.out)
            write_leaderboard(found.records, self.out, found.banks, found.attacks)
        written += [self.out / "attacks.jsonl"] if attacks else []
        wall_s = time.perf_counter() - began
        lanes = max(1, workers)
        summary = {
            "jobs": len(self.work.jobs),
            "workers": workers,
            "wall_s": wall_s,
            "busy_s": self.busy_s,
            "busy_share": self.busy_s / (wall_s * lanes),
            **{
                f"cells_{status}": sum(r.status == status for r in records)
                for status in ("ok", "failed", "skipped")
            },
            "attacks_failed": sum(key in self.failures for key in self.plan.attacks),
            "probes_failed": sum(key in self.failures for key in self.plan.probes),
            "studies_failed": sum(
                bool(study.tuned.tuning and study.tuned.tuning.reason) for study in self.studies
            ),
            "banks_failed": sum(job.key in self.failures for job in self.work.banks),
        }
        tracked = True
        if self._fresh or not self.tracker.is_current(records, banks, self._description):
            self._log(records, banks)
            write_text_atomically(self.out / "run.json", json.dumps(summary, indent=1) + "\n")
            tracked = self.tracker.finish([*written, self.path], summary)
        ui_command = self.tracker.ui_command()
        return RunResult(records, banks, attacks, self.out, ui_command, tracked, summary)


def _labels(plan: Plan, work: Work) -> dict[str, str]:
    """What every job is called in progress bars and messages."""
    labels = {job.key: "original" for job in work.originals}
    labels |= {job.key: "shadow model" for job in work.shadows}
    labels |= {job.key: "shadow bank" for job in work.banks}
    labels |= {cell.key: cell.label for cell in plan.cells}
    labels |= {attack.key: attack.label for attack in plan.attacks.values()}
    labels |= {cell.probe: f"probe of {cell.label}" for cell in plan.cells if cell.probe}
    of_cell = {cell.key: a.label for a in plan.attacks.values() for cell in a.cells}
    return labels | {job.key: of_cell[job.cells[0].key] for job in work.unlearnings}


def check_models(
    sweep: Sweep, data: Sequence[LoadedData], problems: Problems | None = None
) -> None:
    """Build every architecture once for every dataset, so that a bad one is known at once.

    Args:
        sweep: The sweep.
        data: Its datasets, loaded.
        problems: Where to note what is wrong; without it, it is raised.

    Raises:
        InputError: For every architecture that cannot be built, together.
    """
    from .models import build_model, check_name, head_is_fresh

    noted = Problems() if problems is None else problems
    for model in sweep.models:
        with noted.noted():
            check_name(model)
            for loaded in data:
                images = loaded.images
                built = build_model(model, images.num_classes, images.image_shape, 0)
                untrained = not sweep.spec.training.epochs and model.weights is not None
                if untrained and head_is_fresh(model, built):
                    raise InputError(
                        f"`training.epochs` is 0, but the weights of `{model}` have no classifier "
                        f"for the {images.num_classes} classes of `{loaded.dataset.spec}`; "
                        "train for at least 1 epoch."
                    )
    if problems is None:
        noted.raise_any()


def _check_use(sweep: Sweep, file: Path) -> None:
    """Tell which methods a file of hyper-parameters does not cover.

    Raises:
        InputError: If it covers none.
    """
    found = sweep.hyperparameters
    missed = ", ".join(f"`{method}`" for method in found.missed)
    if not found.applied:
        raise InputError(
            f"nothing in the hyper-parameters `{file}` is for a dataset, model, recipe, kind of "
            f"forget set and method of this sweep; its methods are {missed or 'not searched'}."
        )
    if missed:
        _log.warning("`%s` has nothing for %s on some tasks; used as written.", file, missed)


def check_writable(out: Path) -> None:
    """Make the output folder and try to write.

    Raises:
        StoreError: If that is not possible.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"the output folder `{out}` cannot be written: {error.strerror}."
        ) from None


def count_workers(wish: int | None, device: str) -> int:
    """One process a core on the CPU, where small models gain nothing from threads; else one."""
    if wish is not None:
        return wish
    return cpu_count() if device == "cpu" else 1


def _import_renderer() -> None:
    """Load pandas and seaborn while the workers are busy, instead of at the end."""
    import_module(".render", __package__)
