"""A method under the checks, with the runs that several checks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from ..errors import DivergedError, UndeclaredNeedError, describe
from ..executor import Outcome, execute
from ..jobs import CellJob, Job, WorkerSettings
from ..unlearner import Unlearner
from .check import Kind, NotApplicable
from .laboratory import ONE_EXAMPLE, TENTH, WHOLE_CLASS, Laboratory, Place, at_work, places, skip
from .run import Run, run

TIME_LIMIT_S = 30.0


@dataclass(frozen=True, eq=False)
class InWorker:
    """How a method fared in a worker process.

    Attributes:
        place: Where it ran.
        job: Its cell.
        outcome: How the job ended.
        state: Of the unlearned model; empty if there is none.
        prepared: What it prepared; None if that is not known.
    """

    place: Place
    job: CellJob
    outcome: Outcome
    state: Mapping[str, Tensor]
    prepared: Mapping[str, Tensor] | None

    @property
    def died(self) -> bool:
        """Whether the process died or was stopped by the time limit."""
        end = self.outcome
        return bool(end.reason) and not (end.details or end.declined or end.inherited)

    @property
    def hung(self) -> bool:
        """Whether it was stopped by the time limit."""
        return self.died and "time limit" in (self.outcome.reason or "")


class Subject:
    """A method, and its runs, each made when a check first asks for it.

    Nothing runs in this process before a worker process has shown that it comes to an end.

    Args:
        method: The method, with the hyper-parameters to be checked.
        plugins: Plug-in files that a worker has to load for it.
        time_limit_s: Seconds that one run in a worker may take.
        trusted: Run it in this process at once.
    """

    kind: ClassVar[Kind] = "method"

    def __init__(
        self,
        method: Unlearner,
        plugins: tuple[str, ...] = (),
        time_limit_s: float = TIME_LIMIT_S,
        *,
        trusted: bool = False,
    ) -> None:
        self.method, self.plugins, self.time_limit_s = method, plugins, time_limit_s
        self._trusted = trusted
        self._runs: dict[tuple[Place, str], Run] = {}

    @property
    def plugin(self) -> Unlearner:
        """The method."""
        return self.method

    @property
    def known_failures(self) -> Mapping[str, str]:
        """Checks that the method is known to fail, with the reasons."""
        return self.method.known_failures

    @cached_property
    def scenario(self) -> str:
        """The scenario of most checks: the first that the method serves by its declaration."""
        with at_work() as lab:
            served = [
                s
                for s in (WHOLE_CLASS, TENTH, ONE_EXAMPLE)
                if not all(map(self._declined(lab), places(s)))
            ]
        return served[0] if served else WHOLE_CLASS

    def _declined(self, lab: Laboratory) -> Callable[[Place], tuple[str, ...]]:
        return lambda place: lab.declined(self.method, place)

    # --- runs -------------------------------------------------------------------------------

    @cached_property
    def in_worker(self) -> list[InWorker]:
        """The method in worker processes, once on each network that it does not decline."""
        with at_work() as lab:
            settings = self._settings(lab)
            jobs: dict[str, Job] = {}
            cells: dict[str, tuple[Place, CellJob]] = {}
            for place in places(self.scenario):
                if lab.declined(self.method, place):
                    continue
                job = lab.cell_job(self.method, place)
                lab.store.drop("cell", job.key)
                lab.store.drop("prepared", job.prepared_key)
                jobs |= {each.key: each for each in job.original.chain}
                jobs[job.key] = job
                cells[job.key] = (place, job)
            done = execute(
                list(jobs.values()),
                settings,
                workers=1,
                time_limit_s=lambda _: self.time_limit_s,
            )
            outcomes = {outcome.key: outcome for outcome in done}
            found = []
            for key, (place, job) in cells.items():
                cell = lab.store.get("cell", key)
                prepared = lab.store.get("prepared", job.prepared_key)
                found.append(
                    InWorker(
                        place,
                        job,
                        outcomes[key],
                        {} if cell is None else cell.tensors(),
                        None if prepared is None else prepared.tensors(),
                    )
                )
        return found

    def _settings(self, lab: Laboratory) -> WorkerSettings:
        return lab.settings(self.plugins)

    def run(self, place: Place, turn: str = "first") -> Run:
        """A run in this process.

        Args:
            place: Where.
            turn: `first`; `again`, which uses what the first has prepared; or `other seed`.

        Raises:
            NotApplicable: If the method did not come to an end in a worker process.
        """
        for worker in () if self._trusted else self.in_worker:
            if worker.died:
                check = "time-limit" if worker.hung else "runs"
                raise NotApplicable(f"not run, see `{check}`")
        key = (place, turn)
        if key not in self._runs:
            with at_work() as lab:
                self._runs[key] = run(
                    lab,
                    self.method,
                    place,
                    self._settings(lab),
                    other_seed=turn == "other seed",
                    anew=turn == "first",
                    leftovers=turn == "first" and place.scenario == self.scenario,
                    draws=turn != "first",
                )
        return self._runs[key]

    def runs(self, scenario: str | None = None) -> Iterator[Run]:
        """The first runs of a scenario that came to an end, on both networks.

        Raises:
            NotApplicable: If there is none.
        """
        reasons = []
        found = [self.run(place) for place in places(scenario or self.scenario)]
        for each in found:
            if each.error is not None:
                reasons.append(f"not run, see `{blamed(each.error)}`")
            elif each.declined:
                reasons.append(f"{each.place.network}: {each.declined}".rstrip("."))
        ended = [each for each in found if each.error is None and not each.declined]
        if not ended:
            raise skip(reasons)
        yield from ended

    def comparable(self) -> Iterator[Run]:
        """Those of `runs` whose model has the tensors of the original.

        Raises:
            NotApplicable: If there is none.
        """
        same = [each for each in self.runs() if each.same_architecture]
        if not same:
            raise NotApplicable("not compared, see `same-architecture`")
        yield from same


def blamed(error: BaseException) -> str:
    """Name of the check that reports an error."""
    if isinstance(error, UndeclaredNeedError):
        return "declared-sets-only"
    if isinstance(error, DivergedError):
        return "finite"
    return "runs"


def refusal(run: Run) -> str:
    """What an error of a run was, in words."""
    assert run.error is not None
    return f"{run.place} it raises {describe(run.error)}"
