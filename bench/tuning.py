"""Runs the studies of a sweep: development originals, what they are compared with, then trials."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from .environment import hardware, threads
from .executor import Lanes, Outcome, execute, open_lanes
from .jobs import Job, Pruning, WorkerSettings
from .objectives import Point, choose, judge, means
from .store import Store
from .study import BUSY_S, FIGURES, REASON, TuningStudy
from .trial import KIND
from .trial_record import TrialRecord
from .tuned import TunedMethod, Tuning
from .tuning_target import Target

if TYPE_CHECKING:
    from optuna.trial import Trial

POLL_S = 1.0  # how often to look whether other processes of a study have ended


@dataclass(frozen=True, eq=False)
class Study:
    """What came of a study.

    Attributes:
        target: What it is of.
        tuned: What was found.
        optuna: The study, closed.
        points: Trials that came to their end.
    """

    target: Target
    tuned: TunedMethod
    optuna: TuningStudy
    points: list[Point]

    @property
    def trials(self) -> list[TrialRecord]:
        """Records of the trials that count."""
        target, tuning = self.target, self.tuned.tuning
        states = {"COMPLETE": "complete", "FAIL": "failed", "PRUNED": "pruned"}
        return [
            TrialRecord(
                study=self.optuna.name,
                trial=trial.number,
                state=states.get(trial.state.name, "running"),
                reason=trial.user_attrs.get(REASON),
                chosen=tuning is not None and tuning.trial == trial.number,
                dataset=target.loaded.dataset.spec,
                model=str(target.model),
                recipe=target.recipe.name,
                kind=target.kind,
                method=target.method.spec,
                params=trial.params,
                track=target.settings.track,
                objectives=list(target.settings.objectives),
                development_models=target.settings.development_models,
                metrics={
                    name: value
                    for name, value in trial.user_attrs.get(FIGURES, {}).items()
                    if name != "number"
                },
                busy_s=trial.user_attrs.get(BUSY_S, 0.0),
            )
            for trial in self.optuna.counted()
        ]


def tune(
    targets: Sequence[Target],
    store: Store,
    worker: WorkerSettings,
    workers: int,
    *,
    storage: str | None = None,
    name: str | None = None,
    finished: Callable[[Study], None] = lambda study: None,
    failed: Callable[[str, int, str], None] = lambda study, trial, details: None,
) -> list[Study]:
    """Run the studies of all targets, one after the other.

    Args:
        targets: What to tune; the images are in the store.
        store: Where models and figures are kept.
        worker: Given to every worker.
        workers: Processes at a time; 0 for this one.
        storage: Address of a storage of studies; None for journals in the store.
        name: Name of the study, where there is one target only.
        finished: Called with each study when it is done.
        failed: Called with study, number and traceback of a trial whose method raised something.

    Raises:
        InputError: If a storage cannot be opened, or holds another study of the name.
        KeyboardInterrupt: After the trials that ran were handed back to their studies.
    """
    folder = store.root / "studies"
    opened = []
    try:
        for target in targets:  # what is wrong with a storage is told before anything is trained
            opened.append(
                TuningStudy(
                    name or target.name,
                    target.key,
                    target.about,
                    target.settings,
                    target.space,
                    storage,
                    folder,
                )
            )
        failures = _make_ready(targets, store, worker, workers)
        done = []
        for target, study in zip(targets, opened, strict=True):
            lanes = open_lanes(worker, workers)
            try:
                done.append(_run(target, study, store, lanes, max(1, workers), failures, failed))
            except BaseException:
                lanes.stop()
                study.give_up()
                raise
            finished(done[-1])
    finally:
        for study in opened:
            study.close()
    return done


def _make_ready(
    targets: Sequence[Target], store: Store, worker: WorkerSettings, workers: int
) -> dict[str, str]:
    """Train development originals and measure what trials are compared with.

    Returns:
        Why it failed, by key of the job.
    """
    jobs: dict[str, Job] = {}
    for target in targets:
        references = target.references.values()
        missing = [job for job in references if not store.has(KIND, job.key)]
        for job in target.originals:
            if not store.has("original", job.key):
                jobs[job.key] = job
        jobs |= {job.key: job for job in missing}
    failures: dict[str, str] = {}
    outcomes = execute(list(jobs.values()), worker, workers=workers, time_limit_s=lambda job: None)
    with (
        closing(outcomes),  # ends the workers, whatever happens here
        tqdm(total=len(jobs), unit="job", disable=None, desc="development originals") as bar,
    ):
        for outcome in outcomes:
            bar.update()
            if outcome.reason is not None:
                failures[outcome.key] = outcome.reason
                bar.write(f"failed: a development original: {outcome.reason}.", sys.stderr)
    return failures


def _run(
    target: Target,
    study: TuningStudy,
    store: Store,
    lanes: Lanes,
    width: int,
    failures: Mapping[str, str],
    failed: Callable[[str, int, str], None],
) -> Study:
    """Ask for trials, run them and tell, until the budget is used up."""
    compared = {name: store.get(KIND, job.key) for name, job in target.references.items()}
    broken = next(
        (failures.get(job.key) for job in target.references.values() if job.key in failures), None
    )
    references = {
        name: artifact.meta["models"] for name, artifact in compared.items() if artifact is not None
    }
    whole = target.kind == "class"
    if len(references) < len(compared):
        reason = f"the development originals are missing: {broken or 'unknown'}"
        return Study(target, _tuned(target, study, [], None, reason), study, [])
    retrained = references.get("retrain")
    limit_s = target.settings.time_limit_s
    waiting: dict[str, list[Trial]] = {}
    began: dict[int, float] = {}

    def settle(outcome: Outcome) -> None:
        found = store.get(KIND, outcome.key)
        for trial in waiting.pop(outcome.key):
            if found is None:
                reason = outcome.reason or "unknown"
                busy_s = time.perf_counter() - began.pop(trial.number)
                if outcome.pruned:
                    study.prune(trial, reason, busy_s)
                    bar.update()
                    continue
                study.fail(trial, reason, busy_s)
                if outcome.details:
                    failed(study.name, trial.number, outcome.details)
                bar.write(f"failed: trial {trial.number} of {study.name}: {reason}.", sys.stderr)
            else:
                figures = means(found.meta["models"])
                judged = judge(found.meta["models"], retrained, whole=whole)
                point = Point(
                    trial.number, judged["retain"], judged["forget"], figures["unlearn_s"]
                )
                study.tell(trial, point, figures, found.meta["busy_s"])
            bar.update()

    with tqdm(
        total=target.settings.trials,
        initial=study.taken(),
        unit="trial",
        disable=None,
        desc=study.name,
    ) as bar:
        while True:
            while len(waiting) < width and (trial := study.ask()) is not None:
                try:
                    job = target.trial(target.space.suggest(trial))
                except ValueError as error:  # values that the method does not allow together
                    study.fail(trial, str(error).rstrip("."))
                    bar.update()
                    continue
                waiting.setdefault(job.key, []).append(trial)
                began[trial.number] = time.perf_counter()
                if len(waiting[job.key]) == 1:
                    lanes.submit(replace(job, pruning=_pruning(target, study, trial)), limit_s)
            if waiting:
                for outcome in lanes.finished():
                    settle(outcome)
            elif study.others_run():
                time.sleep(POLL_S)
            elif study.taken() >= target.settings.trials:
                break
    points = study.points()
    original = judge(references["identity"], retrained, whole=whole)["retain"]
    return Study(target, _tuned(target, study, points, original, None), study, points)


def _pruning(target: Target, study: TuningStudy, trial: Trial) -> Pruning | None:
    """Whom a trial asks whether to go on; nobody where single values cannot be compared."""
    settings = target.settings
    if not settings.prune or len(settings.objectives) > 1 or settings.objectives[0] == "seconds":
        return None
    retrained = target.references.get("retrain")
    return Pruning(
        storage=study.address,
        study=study.name,
        trial=trial._trial_id,
        objective=settings.objectives[0],
        retrained=None if retrained is None else retrained.key,
    )


def _tuned(
    target: Target,
    study: TuningStudy,
    points: Sequence[Point],
    original: float | None,
    reason: str | None,
) -> TunedMethod:
    """The winner of a study, or why there is none."""
    trials = study.counted()
    settings = target.settings
    best = choose(points, settings.objectives, original or 0.0, settings.tolerance)
    winner = next((t for t in trials if best is not None and t.number == best.number), None)
    if winner is None and reason is None:
        reason = "no trial came to its end"
    found = {}
    if winner is not None:
        method = target.space.method_with(winner.params)
        found = {name: method.params[name] for name in winner.params}
    tuning = Tuning(
        study=study.name,
        track=settings.track,
        trials=len(trials),
        failed=sum(t.state.name == "FAIL" for t in trials),
        pruned=sum(t.state.name == "PRUNED" for t in trials),
        development_models=settings.development_models,
        objectives=list(settings.objectives),
        seconds=sum(t.user_attrs.get(BUSY_S, 0.0) for t in trials),
        trial=None if best is None else best.number,
        retain=None if best is None else best.retain,
        forget=None if best is None else best.forget,
        unlearn_s=None if best is None else best.seconds,
        original_retain=original,
        hardware=hardware(target.device, threads()),
        reason=reason,
    )
    return TunedMethod(
        method=target.method.spec,
        params=found,
        dataset=target.loaded.dataset.spec,
        model=str(target.model),
        recipe=target.recipe.name,
        kind=target.kind,
        tuning=tuning,
    )
