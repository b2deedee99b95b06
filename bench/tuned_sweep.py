"""Tunes the methods of a sweep, and leaves behind what people read and use again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .datastore import put_images
from .environment import describe_environment, threads
from .errors import InputError
from .files import write_text_atomically
from .jobs import WorkerSettings
from .plan import LoadedData
from .store import Store
from .study_report import write_study
from .sweep import Sweep
from .tracking import Tracker
from .tracking_layout import trial_run
from .tracking_uri import without_secrets
from .trial_record import FILE as TRIALS
from .trial_record import write_trials
from .tuned import Hyperparameters, TunedMethod, read_tuned, write_tuned
from .tuning import Study, tune
from .tuning_target import Target, find_targets

if TYPE_CHECKING:
    from .runner import RunOptions

FILE = "tuned.toml"
FOLDER = "tuning"


@dataclass(frozen=True)
class StudyOptions:
    """What a person may ask of studies, beside what stands in a sweep.

    Attributes:
        storage: Address of a storage; None for journals in the store.
        study: Name of the study, where there is one.
        narrowed: Ranges and choices in place of those that methods declare.
    """

    storage: str | None = None
    study: str | None = None
    narrowed: Mapping[str, Any] | None = None


def tune_sweep(
    sweep: Sweep,
    data: Sequence[LoadedData],
    device: str,
    store: Path,
    out: Path,
    workers: int,
    options: StudyOptions = StudyOptions(),
) -> tuple[Sweep, list[Study]]:
    """Tune all methods of a sweep that have something to tune.

    Args:
        sweep: The sweep, which says how (`tune`).
        data: Its datasets, loaded.
        device: Torch's name of the device.
        store: Root of the store.
        out: Folder for `tuned.toml`, `trials.jsonl`, and a folder of tables and figures for each
            study.
        workers: Processes at a time.
        options: Further wishes.

    Returns:
        The sweep with what was found, and the studies.

    Raises:
        InputError: If something is wrong with a space, a storage or the validation set.
    """
    settings = sweep.spec.tune
    assert settings is not None
    targets = find_targets(sweep, data, device, settings, options.narrowed)
    if options.study is not None and len(targets) != 1:
        raise InputError(
            f"`--study {options.study}` names one study, but there are {len(targets)}: one for "
            "every dataset, architecture, recipe, kind of forget set and method; name one of each."
        )
    opened = Store(store)
    for loaded in data:
        put_images(opened, loaded.images)
    worker = WorkerSettings(
        store=str(store),
        plugins=tuple(map(str, sweep.spec.plugins)),
        device=device,
        threads=threads(),
    )
    done: list[Study] = []
    file = out / FILE
    # of a run that was interrupted, what is still to be looked at again stays there
    before = read_tuned(file) if file.is_file() else []
    wanted = [_place(target) for target in targets]
    before = [entry for entry in before if _place_of(entry) in wanted]

    def keep(study: Study) -> None:
        done.append(study)
        new = [each.tuned for each in done]
        places = [_place_of(entry) for entry in new]
        write_tuned(file, [*new, *(e for e in before if _place_of(e) not in places)])
        write_trials(out, [trial for each in done for trial in each.trials])
        write_study(study, out / FOLDER / study.optuna.name)

    def note(study: str, trial: int, details: str) -> None:
        path = out / FOLDER / study / "failures" / f"trial-{trial}.log"
        write_text_atomically(path, details)

    tune(
        targets, opened, worker, workers,
        storage=options.storage, name=options.study, finished=keep, failed=note,
    )  # fmt: skip
    found = Hyperparameters(study.tuned for study in done)
    return replace(sweep, hyperparameters=found), done


def tune_alone(
    sweep: Sweep,
    data: Sequence[LoadedData],
    device: str,
    options: RunOptions,
    workers: int,
    wishes: StudyOptions,
) -> tuple[list[Study], bool, str]:
    """Tune the methods of a sweep that is not run, every trial a run in MLflow.

    Args:
        sweep: The sweep, which says how (`tune`).
        data: Its datasets, loaded.
        device: Torch's name of the device.
        options: Where and how.
        workers: Processes at a time.
        wishes: Further wishes.

    Returns:
        The studies, whether everything is in MLflow, and the command that opens its UI.

    Raises:
        InputError: As `tune_sweep`.
    """
    _, studies = tune_sweep(sweep, data, device, options.store, options.out, workers, wishes)
    if not studies:
        return studies, True, ""
    tracker = Tracker(options.tracking_uri, options.store, sweep.spec.name)
    environment = describe_environment(device, threads())
    spec = without_secrets(sweep.spec.model_dump(mode="json"), tracker.uri)
    tracker.start({"spec": spec, "environment": environment})
    for study in studies:
        for trial in study.trials:
            tracker.log_child(trial_run(trial))
    files = [options.out / FILE, options.out / TRIALS]
    tracked = tracker.finish(files, {"studies": float(len(studies))})
    return studies, tracked, tracker.ui_command()


def _place(target: Target) -> tuple[str | None, ...]:
    loaded = target.loaded
    return (
        target.method.spec, loaded.dataset.spec, str(target.model), target.recipe.name, target.kind
    )  # fmt: skip


def _place_of(entry: TunedMethod) -> tuple[str | None, ...]:
    return (entry.method, entry.dataset, entry.model, entry.recipe, entry.kind)
