"""Runs jobs whose inputs exist, a process each, so that a crash or a hang costs one cell.

With `workers=0` jobs run one after the other in this process: for debugging, and without a
time limit.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any, NoReturn

from .errors import describe
from .jobs import CellJob, OriginalJob, WorkerSettings

PRELOAD = ["unlearnbench.bench.preload", "safetensors.torch"]
UNFINISHED = 113  # exit code of a worker that a method ended with code 0
POLL_S = 0.01  # how often the pool looks for ended processes; pebble's own 0.1 idles the cores

Job = OriginalJob | CellJob


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        key: Key of the job.
        reason: Why it failed; None if its result is in the store.
        details: Traceback of an exception, for whoever has to mend the method; else empty.
        busy_s: Seconds of training, unlearning and measuring in it.
    """

    key: str
    reason: str | None
    details: str = ""
    busy_s: float = 0.0


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
    originals: Sequence[OriginalJob],
    cells: Sequence[CellJob],
    settings: WorkerSettings,
    *,
    workers: int,
    ready: Callable[[str], bool],
    time_limit_s: Callable[[CellJob], float | None],
) -> Generator[Outcome, None, None]:
    """Run all jobs; a cell starts when its original is in the store.

    Args:
        originals: Originals to train.
        cells: Cells to run, in the order in which they should start.
        settings: Given to every worker.
        workers: Processes at a time; 0 runs the jobs here.
        ready: Whether an original is in the store already.
        time_limit_s: Seconds that a cell may take; None for no limit.

    Yields:
        One outcome for every job, as they end.
    """
    lanes: _Lanes = _Processes(settings, workers) if workers else _Here(settings)
    waiting = list(cells)
    failed: dict[str, str] = {}
    pending = {job.key for job in originals}
    try:
        for job in originals:
            lanes.submit(job, None)
        while waiting or lanes.busy():
            still: list[CellJob] = []
            for cell in waiting:
                if cell.original.key in failed:
                    yield Outcome(cell.key, f"its original failed: {failed[cell.original.key]}")
                elif cell.original.key in pending:
                    still.append(cell)
                elif ready(cell.original.key):
                    lanes.submit(cell, time_limit_s(cell))
                else:
                    yield Outcome(cell.key, "its original is not in the store")
            waiting = still
            for outcome in lanes.finished():
                if outcome.key in pending:
                    pending.discard(outcome.key)
                    if outcome.reason is not None:
                        failed[outcome.key] = outcome.reason
                yield outcome
    except BaseException:
        lanes.stop()
        raise
    lanes.close()


class _Lanes(ABC):
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

    def close(self) -> None:  # noqa: B027
        """Give back what the lanes hold."""


class _Here(_Lanes):
    """Jobs one after the other in this process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings, self._queue = settings, list[Job]()

    def submit(self, job: Job, limit_s: float | None) -> None:
        self._queue.append(job)

    def busy(self) -> bool:
        return bool(self._queue)

    def finished(self) -> list[Outcome]:
        return [_run(self._queue.pop(0), self._settings)] if self._queue else []


class _Processes(_Lanes):
    """A fresh process for every job, from a fork server that has torch loaded."""

    def __init__(self, settings: WorkerSettings, workers: int) -> None:
        from pebble import CONSTS, ProcessPool

        CONSTS.sleep_unit = POLL_S
        start_server()
        context = multiprocessing.get_context("forkserver")
        self._settings = settings
        self._pool: Any = ProcessPool(max_workers=workers, max_tasks=1, context=context)
        self._jobs: dict[Future[Any], tuple[str, float | None]] = {}

    def submit(self, job: Job, limit_s: float | None) -> None:
        future = self._pool.schedule(_run_apart, args=[job, self._settings], timeout=limit_s)
        self._jobs[future] = (job.key, limit_s)

    def busy(self) -> bool:
        return bool(self._jobs)

    def finished(self) -> list[Outcome]:
        done, _ = wait(self._jobs, return_when=FIRST_COMPLETED)
        outcomes = []
        for future in done:
            key, limit_s = self._jobs.pop(future)
            try:
                outcomes.append(future.result())
            except Exception as error:  # the process died, hung, or was cancelled
                outcomes.append(Outcome(key, describe_failure(error, limit_s)))
        return outcomes

    def stop(self) -> None:
        self._pool.stop()
        self._pool.join()

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


def describe_failure(error: BaseException, limit_s: float | None = None) -> str:
    """One sentence that says why a job failed."""
    if isinstance(error, TimeoutError) and limit_s is not None:
        return f"stopped by the time limit of {limit_s:g} s"
    code = getattr(error, "exitcode", None)
    if code is not None and type(error).__name__ == "ProcessExpired":
        if code < 0:
            return f"its process died by signal {-code} ({_signal_name(-code)})"
        return f"its process ended with exit code {0 if code == UNFINISHED else code}"
    text = describe(error)
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return f"out of memory: {text}" if out_of_memory else text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _run_apart(job: Job, settings: WorkerSettings) -> Outcome:
    """Entry point of a worker."""
    leave, worker = os._exit, os.getpid()

    def leave_unfinished(status: int) -> NoReturn:
        leave(status or UNFINISHED if os.getpid() == worker else status)

    # pebble takes exit code 0 for the regular end of a worker and would wait for the job for ever
    os._exit = leave_unfinished
    try:
        return _run(job, settings)
    except KeyboardInterrupt as error:  # the method's own: the parent answers Ctrl-C
        return Outcome(job.key, describe_failure(error), traceback.format_exc())
    finally:
        os._exit = leave


def _run(job: Job, settings: WorkerSettings) -> Outcome:
    """Run a job; an exception comes back as text, which any process can read."""
    from .cell import run_cell, run_original

    try:
        with redirect_stdout(sys.stderr):  # standard output is the table's
            if isinstance(job, OriginalJob):
                busy_s = run_original(job, settings)
            else:
                busy_s = run_cell(job, settings)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a method may raise anything, SystemExit too
        details = traceback.format_exc().encode("utf-8", "replace").decode()
        return Outcome(job.key, describe_failure(error), details)
    return Outcome(job.key, None, busy_s=busy_s)
