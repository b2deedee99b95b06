"""Runs jobs whose inputs exist, a process each, so that a crash or a hang costs one cell.

With `workers=0` jobs run one after the other in this process: for debugging, and without a
time limit.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from types import FrameType
from typing import Any

from pebble import concurrent

from .errors import DeclinedError, PrunedError, describe
from .jobs import (
    AttackJob,
    BankJob,
    CellJob,
    Job,
    OriginalJob,
    ProbeJob,
    ScoreJob,
    ShadowJob,
    TrialJob,
    WorkerSettings,
)

PRELOAD = ["unlearnbench.bench.preload", "safetensors.torch"]
WORKER = "unlearnbench-worker"
STOP_S = 10.0  # how long a worker that was told to stop is waited for


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        key: Key of the job.
        reason: Why it failed; None if its result is in the store.
        details: Traceback of an exception, for whoever has to mend the method; else empty.
        busy_s: Seconds of training, unlearning and measuring in it.
        declined: Whether the reason is the method's own, that it does not serve this.
        inherited: Whether the job was not run, because one that it needs failed.
        pruned: Whether it is a trial that was stopped early.
    """

    key: str
    reason: str | None
    details: str = ""
    busy_s: float = 0.0
    declined: bool = False
    inherited: bool = False
    pruned: bool = False


def start_server() -> None:
    """Begin to load torch and timm in the fork server, while the parent does other things."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    # Ctrl-C goes to all processes of the terminal: the parent alone answers it
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, previous)


def execute(
    jobs: Sequence[Job],
    settings: WorkerSettings,
    *,
    workers: int,
    time_limit_s: Callable[[Job], float | None],
) -> Generator[Outcome, None, None]:
    """Run all jobs; each starts when what it needs of the other jobs is made.

    What a job needs and no other job makes must be in the store.

    Args:
        jobs: In the order in which they should start.
        settings: Given to every worker.
        workers: Processes at a time; 0 runs the jobs here.
        time_limit_s: Seconds that a job may take; None for no limit.

    Yields:
        One outcome for every job, as they end.
    """
    lanes = open_lanes(settings, workers)
    by_key = {job.key: job for job in jobs}
    waiting = list(jobs)
    pending = {product for job in jobs for product in job.makes}
    failed: dict[str, Outcome] = {}

    def ended(job: Job, outcome: Outcome) -> Outcome:
        pending.difference_update(job.makes)
        if outcome.reason is not None:
            reason = f"{job.noun} failed: {outcome.reason}"
            if outcome.declined or outcome.inherited:
                reason = outcome.reason  # the method's own sentence; or told already
            failed.update(dict.fromkeys(job.makes, replace(outcome, reason=reason)))
        return outcome

    try:
        while waiting or lanes.busy():
            still: list[Job] = []
            for job in waiting:
                bad = next((failed[product] for product in job.needs if product in failed), None)
                if bad is not None:
                    yield ended(
                        job, Outcome(job.key, bad.reason, declined=bad.declined, inherited=True)
                    )
                elif pending.isdisjoint(_waits_for(job)):
                    lanes.submit(job, time_limit_s(job))
                else:
                    still.append(job)
            waiting = still
            for outcome in lanes.finished():
                yield ended(by_key[outcome.key], outcome)
    except BaseException:
        lanes.stop()
        raise


def open_lanes(settings: WorkerSettings, workers: int) -> Lanes:
    """Where jobs run, for whoever decides as he goes which come next.

    Args:
        settings: Given to every worker.
        workers: Processes at a time; 0 runs the jobs here.
    """
    return _Processes(settings, workers) if workers else _Here(settings)


def _waits_for(job: Job) -> tuple[str, ...]:
    """What must have been made, or have failed, before a job starts."""
    return (*job.needs, *job.after) if isinstance(job, ProbeJob) else job.needs


class Lanes(ABC):
    """Where jobs run."""

    @abstractmethod
    def submit(self, job: Job, limit_s: float | None) -> None:
        """Queue a job."""

    @abstractmethod
    def busy(self) -> bool:
        """Whether any job has not ended."""

    @abstractmethod
    def finished(self) -> list[Outcome]:
        """Wait until at least one job has ended; nothing if there is none."""

    def stop(self) -> None:  # noqa: B027 - nothing to do where jobs run here
        """End all jobs at once."""


class _Here(Lanes):
    """Jobs one after the other in this process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings, self._queue = settings, list[Job]()

    def submit(self, job: Job, limit_s: float | None) -> None:
        self._queue.append(job)

    def busy(self) -> bool:
        return bool(self._queue)

    def finished(self) -> list[Outcome]:
        return [_run(self._queue.pop(0), self._settings)] if self._queue else []


class _Processes(Lanes):
    """A fresh process with a pipe of its own for every job, from a server that has torch loaded.

    Not a pool: when workers of a pool die in quick succession, it can give up as a whole.
    """

    def __init__(self, settings: WorkerSettings, workers: int) -> None:
        start_server()
        self._context = multiprocessing.get_context("forkserver")
        self._wait_for_server()
        self._settings, self._workers = settings, workers
        self._queue: deque[tuple[Job, float | None]] = deque()
        self._running: dict[Future[Outcome], tuple[str, float | None]] = {}

    def _wait_for_server(self) -> None:
        """Wait until the server forks at once; it loads torch before it does.

        Who interrupts this wait leaves no worker behind that nobody knows of.
        """
        first = self._context.Process(target=_nothing)
        first.start()
        first.join()

    def submit(self, job: Job, limit_s: float | None) -> None:
        self._queue.append((job, limit_s))

    def busy(self) -> bool:
        return bool(self._queue or self._running)

    def finished(self) -> list[Outcome]:
        while self._queue and len(self._running) < self._workers:
            job, limit_s = self._queue.popleft()
            # pebble's annotation calls it `mp_context`, its code `context`
            options: dict[str, Any] = {"context": self._context, "timeout": limit_s}
            start = concurrent.process(name=WORKER, daemon=False, **options)
            with _interrupted_after():
                self._running[start(_run)(job, self._settings)] = (job.key, limit_s)
        outcomes = []
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            key, limit_s = self._running.pop(future)
            try:
                outcomes.append(future.result())
            except Exception as error:  # the process died or hung
                outcomes.append(Outcome(key, describe_failure(error, limit_s)))
        return outcomes

    def stop(self) -> None:
        self._queue.clear()
        # not by cancelling futures: pebble prints a traceback where a result arrives just then
        workers = [c for c in multiprocessing.active_children() if c.name == WORKER]
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(STOP_S)


@contextmanager
def _interrupted_after() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: half a start is a worker that nobody can stop."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C interrupts the main thread alone
        return
    came: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGINT, lambda *signals: came.append(signals))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came and callable(handler):
        handler(*came[0])


def _nothing() -> None:
    """Do nothing, in a process."""


def describe_failure(error: BaseException, limit_s: float | None = None) -> str:
    """One sentence that says why a job failed."""
    if isinstance(error, TimeoutError) and limit_s is not None:
        return f"stopped by the time limit of {limit_s:g} s"
    code = getattr(error, "exitcode", None)
    if code is not None and type(error).__name__ == "ProcessExpired":
        if code < 0:
            return f"its process died by signal {-code} ({_signal_name(-code)})"
        return f"its process ended with exit code {code}"
    text = describe(error)
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return f"out of memory: {text}" if out_of_memory else text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _run(job: Job, settings: WorkerSettings) -> Outcome:
    """Run a job; an exception comes back as text, which any process can read."""
    try:
        with redirect_stdout(sys.stderr):  # standard output is the table's
            busy_s = _work(job, settings)
    except DeclinedError as error:
        return Outcome(job.key, describe_failure(error), declined=True)
    except PrunedError as error:
        return Outcome(job.key, describe_failure(error), pruned=True)
    except BaseException as error:  # a method may raise anything, SystemExit too
        if isinstance(error, KeyboardInterrupt) and multiprocessing.parent_process() is None:
            raise  # Ctrl-C; in a worker it can only be the method's own
        details = traceback.format_exc().encode("utf-8", "replace").decode()
        return Outcome(job.key, describe_failure(error), details)
    return Outcome(job.key, None, busy_s=busy_s)


def _work(job: Job, settings: WorkerSettings) -> float:
    """Do a job; seconds of training, unlearning, measuring or scoring."""
    if isinstance(job, OriginalJob):
        from .original import run_original

        return run_original(job, settings)
    if isinstance(job, CellJob):
        from .cell import run_cell

        return run_cell(job, settings)
    if isinstance(job, ShadowJob):
        from .shadow import run_shadows

        return run_shadows(job, settings)
    if isinstance(job, AttackJob):
        from .attack import run_attack

        return run_attack(job, settings)
    if isinstance(job, BankJob):
        from .bank_facts import run_bank

        return run_bank(job, settings)
    if isinstance(job, ProbeJob):
        from .probing import run_probe

        return run_probe(job, settings)
    if isinstance(job, TrialJob):
        from .trial import run_trial

        return run_trial(job, settings)
    assert isinstance(job, ScoreJob)
    from .scoring import run_score

    return run_score(job, settings)
