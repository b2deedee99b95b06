"""What a worker does with shadow models: train them and read their margins.

On the CPU each is trained alone, in as many processes as there are cores, with one thread each; the
benchmark `tests/benchmarks/bank_training.py` shows why. On another device a few steps are timed
of a model alone and of all together, and the faster way is taken.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy

import numpy as np
import torch
from torch import nn

from .batches import ExampleSet
from .checkpoint import Checkpoint
from .datastore import get_images
from .environment import synchronise
from .errors import DivergedError, StoreError
from .jobs import OriginalJob, ShadowJob, WorkerSettings
from .keys import content_key
from .margins import KIND, get_margins, put_margins, read_margins
from .original import Training, describe, lay_out, train_original
from .recipe import Recipe
from .stacked import stackable, train_stacked
from .store import Store
from .task import quiet_randomness
from .training import check_finite, train_recipe
from .workbench import begin

TOLERANCE = 1e-3  # by which margins of a model that is trained again may differ, relative
PROBE_BATCHES = 6
STACKING_DEVICES = frozenset({"cuda", "mps"})


def run_shadows(job: ShadowJob, settings: WorkerSettings) -> float:
    """Train shadow models and put weights and margins into the store, unless they are there.

    Returns:
        Seconds spent training.

    Raises:
        DivergedError: If training diverges.
        StoreError: If the store cannot be written, or a model that is trained again, for a method
            that was added later, is not the one whose margins are there.
    """
    store = begin(settings)
    with ExitStack() as locks:
        for shadow in sorted(job.shadows, key=lambda shadow: shadow.key):
            locks.enter_context(store.lock(shadow.kind, shadow.key))
        for shadow in job.shadows:
            _read_again(store, shadow, settings)
        todo = [shadow for shadow in job.shadows if not _is_done(store, shadow)]
        if len(todo) > 1 and torch.device(settings.device).type in STACKING_DEVICES:
            seconds = _train_together(store, todo, settings, job.keep_models)
            if seconds is not None:
                return seconds
        return sum(_train_alone(store, shadow, settings, job.keep_models) for shadow in todo)


def worth_stacking(trainings: Sequence[Training], device: torch.device) -> bool:
    """Whether training all models together is faster than one after the other."""
    sets = [_probe(training) for training in trainings]
    recipe = trainings[0].recipe
    short = Recipe(recipe.name, recipe.settings.model_copy(update={"epochs": 1}), recipe.penalty)
    times = []
    for models in (trainings[:1], trainings):
        for _ in range(2):  # the first warms up
            copies = [deepcopy(training.model) for training in models]
            synchronise(device)
            began = time.perf_counter()
            if len(copies) > 1:
                train_stacked(copies, sets, short)
            else:
                train_recipe(copies[0], sets[0], short)
            synchronise(device)
        times.append(time.perf_counter() - began)
    return times[1] < times[0] * len(trainings)


def _probe(training: Training) -> ExampleSet:
    """A few batches of a model's examples, in an order of their own."""
    examples = training.examples
    count = min(len(examples), PROBE_BATCHES * examples.batch_size)
    return examples.with_generator(torch.Generator().manual_seed(0)).subset(torch.arange(count))


def _is_done(store: Store, job: OriginalJob) -> bool:
    return store.has(KIND, job.key) and store.has(job.kind, job.key)


def _read_again(store: Store, job: OriginalJob, settings: WorkerSettings) -> None:
    """Read the margins of a model whose weights are there: a process was killed in between."""
    found = store.get(job.kind, job.key)
    if found is None or store.has(KIND, job.key):
        return
    device = torch.device(settings.device)
    model = lay_out(store, job, settings).model
    model.load_state_dict(found.tensors(settings.device))
    margins = read_margins(model.eval(), get_images(store, job.data), device)
    put_margins(store, job.key, margins, found.meta)


def _train_alone(
    store: Store, job: OriginalJob, settings: WorkerSettings, keep_models: bool
) -> float:
    model, meta = train_original(store, job, settings)
    _keep(store, job, model, meta | {"keep_models": keep_models}, settings)
    store.checkpoint(job.key).unlink(missing_ok=True)
    return float(meta["original_s"])


def _train_together(
    store: Store, jobs: Sequence[OriginalJob], settings: WorkerSettings, keep_models: bool
) -> float | None:
    """Train models as one stack; None where that is impossible or slower."""
    device = torch.device(settings.device)
    trainings = [lay_out(store, job, settings) for job in jobs]
    models, sets = [t.model for t in trainings], [t.examples for t in trainings]
    recipe = trainings[0].recipe
    try:
        if stackable(models, sets, recipe, get_images(store, jobs[0].data).image_shape):
            return None
        if not worth_stacking(trainings, device):
            return None
        stack_key = content_key("stack", shadows=[job.key for job in jobs])
        checkpoint = Checkpoint(store.checkpoint(stack_key), [t.rng for t in trainings])
        synchronise(device)
        began = time.perf_counter()
        with ExitStack() as quiet:
            for training in trainings:  # each draws what it draws alone
                quiet.enter_context(quiet_randomness(training.rng, device))
            train_stacked(models, sets, recipe, checkpoint)
        synchronise(device)
        seconds = checkpoint.before_s + time.perf_counter() - began
        for model in models:
            check_finite(model)
    except (DivergedError, torch.OutOfMemoryError):
        return None  # alone, only the model that is to blame fails
    for job, training in zip(jobs, trainings, strict=True):
        meta = describe(job, training, seconds / len(jobs), settings)
        meta |= {"stack": len(jobs), "keep_models": keep_models}
        _keep(store, job, training.model, meta, settings)
    checkpoint.clear()
    return seconds


def _keep(
    store: Store, job: OriginalJob, model: nn.Module, meta: dict[str, object],
    settings: WorkerSettings,
) -> None:  # fmt: skip
    """Store a model with its margins."""
    data = get_images(store, job.data)
    margins = read_margins(model, data, torch.device(settings.device))
    if store.has(KIND, job.key):
        known = get_margins(store, (job.key,)).margins[0]
        if np.abs(known - margins["margins"].numpy()).max() > TOLERANCE * np.abs(known).max():
            raise StoreError(
                f"a shadow model trained again is not the one whose margins are in the store "
                f"(`{job.key}`): hardware, device or library versions have changed, or the device "
                "does not repeat itself. Use another store, or delete the margins to train the "
                "bank anew."
            )
    store.put(job.kind, job.key, meta, model.state_dict())
    put_margins(store, job.key, margins, meta)
