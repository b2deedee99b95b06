"""An Optuna study that many processes may work on, each trial of which is asked for and told.

Trials count against a budget, those that failed or were pruned included. Not counted are trials
whose process died: they are retried with the same values, a few times. Every process of a study
holds a lock while it lives, by which others on the same store know that it does, and lets its
trials give a sign of life, by which those elsewhere know.

With one process at a time the trials of a study depend on its seed alone, as far as their values
repeat themselves, which seconds do not; a study that is interrupted goes on with other draws than
it would have had.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from filelock import FileLock, Timeout

from .errors import InputError
from .keys import derive_seed
from .objectives import MAXIMISED, Point
from .search_space import SearchSpace
from .study_storage import close_storage, experimental, faults_named, open_storage
from .tracking_memory import store_id
from .tracking_uri import redact
from .tuning_settings import SamplerName, TuneSettings

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

PULSE_S = 15.0
DEAD_S = 120.0  # a trial without a sign of life for so long is taken for dead
MAKING_S = 2.0  # how long another process may take to describe a study that it has made
MOST_TRIES = 3  # of a trial whose process dies
STARTUP_TRIALS = 10

# user attributes of trials
TUNER, SEEN_AT, STALE, SURPLUS = "tuner", "seen_at", "stale", "surplus"
TRIES = "tries"
REASON, FIGURES, BUSY_S = "reason", "figures", "busy_s"
# user attributes of a study
KEY, OPENINGS, HOME = "unlearnbench.key", "openings", "home"


class TuningStudy:
    """One method on one kind of task: trials that are asked for, told, and counted.

    Args:
        name: Of the study.
        key: Content key of all that its values depend on; a study of that name with another key
            is refused.
        about: Facts of the study, for whoever looks at it.
        settings: Budget, objectives, sampler, seed.
        space: What is searched.
        storage: Address of a storage; None for a journal in `folder`.
        folder: Folder of studies in the store.

    Attributes:
        name: See above.
        address: Of the storage, as Optuna's dashboard takes it.
        study: Optuna's.

    Raises:
        InputError: If the storage cannot be opened, or its study of that name is another one.
    """

    def __init__(
        self,
        name: str,
        key: str,
        about: Mapping[str, Any],
        settings: TuneSettings,
        space: SearchSpace,
        storage: str | None,
        folder: Path,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self._settings, self._space = name, settings, space
        self._storage, self.address = open_storage(storage, folder, name)
        self._folder = folder
        (folder / "alive").mkdir(parents=True, exist_ok=True)
        self._stopped = threading.Event()
        self._id = uuid4().hex
        self._alive = FileLock(self._lock_path(self._id))
        self._alive.acquire()
        self._last: list[FrozenTrial] | None = None
        self._running: dict[int, Trial] = {}
        self._dead: set[str] = set()
        self._signs: dict[int, tuple[Any, float]] = {}
        direction = optuna.study.StudyDirection
        directions = [
            direction.MAXIMIZE if MAXIMISED[name] else direction.MINIMIZE
            for name in settings.objectives
        ]
        try:
            with faults_named(self.address), FileLock(folder / f"{name}.lock"):
                self.study = optuna.create_study(
                    storage=self._storage,
                    study_name=name,
                    directions=directions,
                    load_if_exists=True,
                )
                self._check(key, directions, about)
                self._salt = self._opening()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._beat, name="study-pulse", daemon=True).start()

    def _check(self, key: str, directions: Sequence[Any], about: Mapping[str, Any]) -> None:
        """Describe a study that is new; refuse one that is another.

        Raises:
            InputError: If the values of its trials do not depend on the same.
        """
        known = self.study.user_attrs.get(KEY)
        if known is None and self._trials():  # somebody may be making it at this moment
            time.sleep(MAKING_S)
            known = self.study.user_attrs.get(KEY)
        if self.study.directions == directions:
            if known is None and not self._trials():
                self._begin(key, about)
                return
            if known == key:
                return
        raise InputError(
            f"study `{self.name}` in `{redact(self.address)}` is of other data, originals, "
            "objectives or another search space; give another name with `--study`."
        )

    def _opening(self) -> str:
        """What tells the draws of this process from those of others, before it and beside it."""
        count = int(self.study.user_attrs.get(OPENINGS, 0))
        self.study.set_user_attr(OPENINGS, count + 1)
        own = store_id(self._folder.parent)
        home = self.study.user_attrs.get(HOME)
        if home is None:
            self.study.set_user_attr(HOME, own)
        return str(count) if home in (None, own) else f"{own} {count}"

    def _begin(self, key: str, about: Mapping[str, Any]) -> None:
        """Describe a study that is new; its first trial has the method's defaults."""
        for name, value in {KEY: key, **about}.items():
            self.study.set_user_attr(name, value)
        with experimental():
            self.study.set_metric_names(list(self._settings.objectives))
        defaults = self._space.defaults()
        if defaults:
            self.study.enqueue_trial(defaults)

    def ask(self) -> Trial | None:
        """The next trial; None if the budget is used up, perhaps by trials that still run.

        Raises:
            StoreError: If the storage fails; so do all methods.
        """
        with faults_named(self.address):
            self._retire_dead()
            if self.taken() >= self._settings.trials:
                return None
            count = len(self._trials())
            seed = derive_seed("study", self._settings.seed, self._salt, count) % 2**32
            self.study.sampler = make_sampler(self._settings.sampler, seed)
            trial = self.study.ask()
            trial.set_user_attr(TUNER, self._id)
            before = [t for t in self._trials() if t.number < trial.number and _counts(t)]
            self._running[trial.number] = trial
            if len(before) >= self._settings.trials:  # another process asked at the same moment
                self._end(trial, {SURPLUS: True}, state="FAIL")
                return None
            return trial

    def tell(self, trial: Trial, point: Point, figures: Mapping[str, float], busy_s: float) -> None:
        """A trial came to its end.

        Args:
            trial: The trial.
            point: What it reached.
            figures: All that was measured.
            busy_s: Seconds that it cost.
        """
        noted = {FIGURES: dict(figures) | point._asdict(), BUSY_S: busy_s}
        self._end(trial, noted, [point.value(name) for name in self._settings.objectives])

    def fail(self, trial: Trial, reason: str, busy_s: float = 0.0) -> None:
        """A trial failed; it counts."""
        self._end(trial, {REASON: reason, BUSY_S: busy_s}, state="FAIL")

    def prune(self, trial: Trial, reason: str, busy_s: float) -> None:
        """A trial was stopped early, for it lagged behind; it counts."""
        self._end(trial, {REASON: reason, BUSY_S: busy_s}, state="PRUNED")

    def give_up(self) -> None:
        """Hand the trials that run back, to be retried with the same values by whoever goes on."""
        with faults_named(self.address):
            for trial in list(self._running.values()):
                self._retire(trial)
        self._running.clear()

    def close(self) -> None:
        """Let others know that this process works on the study no more; it can still be read."""
        self._stopped.set()
        with suppress(Exception):  # what cannot be read now is missing later
            self._last = self._trials()
        close_storage(self._storage)
        self._alive.release()
        self._lock_path(self._id).unlink(missing_ok=True)

    def taken(self) -> int:
        """Trials that count, those that run included."""
        return sum(_counts(t) for t in self._trials())

    def others_run(self) -> bool:
        """Whether other processes still run trials of the study; the dead are seen to."""
        with faults_named(self.address):
            self._retire_dead()
            return any(_is_running(t) and t.number not in self._running for t in self._trials())

    def counted(self) -> list[FrozenTrial]:
        """The trials that count, by number; of a larger study, those of this budget."""
        with faults_named(self.address):
            return [t for t in self._trials() if _counts(t)][: self._settings.trials]

    def points(self) -> list[Point]:
        """Those of them that came to their end."""
        return [
            Point(t.number, *(t.user_attrs[FIGURES][name] for name in Point._fields[1:]))
            for t in self.counted()
            if t.state.name == "COMPLETE"
        ]

    def _trials(self) -> list[FrozenTrial]:
        if self._last is not None:
            return self._last
        return self.study.get_trials(deepcopy=False)

    def _end(
        self,
        trial: Trial,
        noted: Mapping[str, Any],
        values: Sequence[float] | None = None,
        state: Literal["FAIL", "PRUNED"] | None = None,
    ) -> None:
        from optuna.trial import TrialState

        self._running.pop(trial.number, None)
        from optuna.exceptions import UpdateFinishedTrialError

        # another process may have taken this one for dead, and runs its values itself
        with faults_named(self.address), suppress(UpdateFinishedTrialError):
            for name, value in noted.items():
                trial.set_user_attr(name, value)
            self.study.tell(
                trial,
                values,
                state=None if state is None else TrialState[state],
                skip_if_finished=True,
            )

    def _retire_dead(self) -> None:
        """Take the trials of processes that died out of the study, and queue their values."""
        for trial in self._trials():
            if _is_running(trial) and self._is_dead(trial):
                self._retire(trial)

    def _retire(self, trial: Trial | FrozenTrial) -> None:
        from optuna.trial import TrialState

        tries = int(trial.user_attrs.get(TRIES, 1))
        last = tries >= MOST_TRIES
        try:
            if last:
                reason = f"its process died, {tries} times"
                self._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
            else:
                self._storage.set_trial_user_attr(trial._trial_id, STALE, True)
            self.study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, RuntimeError):
            return  # it has ended after all, or somebody else was faster
        if trial.params and not last:
            self.study.enqueue_trial(trial.params, user_attrs={TRIES: tries + 1})

    def _is_dead(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get(TUNER)
        if owner == self._id:
            return False
        path = None if owner is None else self._lock_path(str(owner))
        if path is not None and path.exists():
            try:
                with FileLock(path, timeout=0):
                    self._dead.add(str(owner))
            except Timeout:
                return False
            path.unlink(missing_ok=True)
        if owner in self._dead:
            return True
        # by the clock here, for those of two machines differ
        sign, now = trial.user_attrs.get(SEEN_AT), time.monotonic()
        last, since = self._signs.get(trial.number, (None, now))
        if trial.number not in self._signs or last != sign:
            self._signs[trial.number] = (sign, now)
            since = now
        return now - since > DEAD_S

    def _beat(self) -> None:
        """Body of the thread that gives signs of life."""
        while not self._stopped.wait(PULSE_S):
            for trial in list(self._running.values()):
                with suppress(Exception):  # ended meanwhile, or the storage is away for a moment
                    trial.set_user_attr(SEEN_AT, time.time())

    def _lock_path(self, tuner: str) -> Path:
        return self._folder / "alive" / f"{tuner}.lock"


def make_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Optuna's sampler of that name."""
    import optuna

    samplers = optuna.samplers
    with experimental():
        if name == "random":
            return samplers.RandomSampler(seed=seed)
        if name == "nsgaii":
            return samplers.NSGAIISampler(seed=seed)
        if name == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        return samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial takes up budget; those that wait do when they are asked for."""
    attrs, state = trial.user_attrs, trial.state.name
    return state != "WAITING" and SURPLUS not in attrs and not (state == "FAIL" and STALE in attrs)


def _is_running(trial: FrozenTrial) -> bool:
    return trial.state.name == "RUNNING"
