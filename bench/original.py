"""Trains originals; shadow models are originals of half of the training set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .batches import ExampleSet, Pixels
from .checkpoint import Checkpoint
from .course import rounded
from .datastore import get_images
from .decorrelation import decorrelation
from .environment import describe_environment, synchronise
from .errors import DeclinedError, StoreError
from .errors import describe as describe_error
from .jobs import OriginalJob, WorkerSettings
from .keys import derive_seed
from .models import build_model, describe_model
from .recipe import Recipe
from .store import Store
from .task import quiet_randomness
from .training import check_finite, train_recipe
from .workbench import begin, create_recipe, generator, split_of


def run_original(job: OriginalJob, settings: WorkerSettings) -> float:
    """Train an original and put it into the store, unless it is there.

    Returns:
        Seconds spent training.

    Raises:
        DivergedError: If training diverges.
        StoreError: If the store cannot be written.
    """
    store = begin(settings)
    with store.lock(job.kind, job.key):
        if store.has(job.kind, job.key):
            return 0.0
        model, meta = train_original(store, job, settings)
        meta["model_info"] |= _decorrelation(model, lay_out(store, job, settings).examples)
        store.put(job.kind, job.key, meta, model.state_dict())
        store.checkpoint(job.key).unlink(missing_ok=True)
        return float(meta["original_s"])


def _decorrelation(model: nn.Module, examples: ExampleSet) -> dict[str, Any]:
    """Measure an original; if that fails, the training must not be lost for it."""
    try:
        return decorrelation(model, examples)
    except Exception as error:
        return {"decorrelation_failed": describe_error(error)}


@dataclass(frozen=True, eq=False)
class Training:
    """A model about to be trained.

    Attributes:
        model: Freshly initialised.
        examples: What it is trained on.
        recipe: How.
        rng: Shuffles and augments.
        info: What is known of the architecture.
    """

    model: nn.Module
    examples: ExampleSet
    recipe: Recipe
    rng: torch.Generator
    info: dict[str, Any]


def lay_out(
    store: Store,
    job: OriginalJob,
    settings: WorkerSettings,
    served: dict[str, int] | None = None,
) -> Training:
    """Load the images and initialise the model, all from the seed of the job.

    A model with weights starts from them: what they have seen is not known. What is served is
    counted in `served`, if given.
    """
    device = torch.device(settings.device)
    data = get_images(store, job.data)
    ids = split_of(data, job).training
    recipe = create_recipe(job.recipe)
    rng = generator(job.seed, "original", job.key)
    examples = ExampleSet(
        "training",
        Pixels(data, "train", device, ids),
        ids,
        recipe.settings.batch_size,
        rng,
        {} if served is None else served,
        augment=recipe.settings.augment,
    )
    seed = derive_seed(job.seed, "init", job.key)
    model = build_model(job.model, data.num_classes, data.image_shape, seed).to(device)
    info = describe_model(job.model, model, data.image_shape).as_dict()
    return Training(model, examples, recipe, rng, info)


def train_original(
    store: Store, job: OriginalJob, settings: WorkerSettings
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a model, going on where an interrupted training was.

    With 0 epochs it is the checkpoint that it starts from, and took no time.

    Returns:
        The model, and what is stored beside it.

    Raises:
        DeclinedError: If the recipe's penalty has nothing to hold in this network.
        DivergedError: If training diverges.
    """
    device = torch.device(settings.device)
    training = lay_out(store, job, settings)
    _check_penalty(training)
    started_s = _start(store, job, training.model)
    if not (training.recipe.settings.epochs or training.recipe.fine_tuning):
        check_finite(training.model)
        return training.model.eval(), describe(job, training, 0.0, settings)
    checkpoint = Checkpoint(store.checkpoint(job.key), training.rng)
    synchronise(device)
    began = time.perf_counter()
    with quiet_randomness(training.rng, device):
        train_recipe(
            training.model,
            training.examples,
            training.recipe,
            checkpoint,
            started=job.start is not None,
        )
    synchronise(device)
    seconds = started_s + checkpoint.before_s + time.perf_counter() - began
    check_finite(training.model)
    meta = describe(job, training, seconds, settings)
    return training.model, meta | _course(training.recipe, checkpoint.losses)


def _course(recipe: Recipe, losses: Sequence[float]) -> dict[str, Any]:
    """The loss of every epoch of the recipe's own; nothing where some were not noted."""
    tuning = recipe.fine_tuning
    epochs = recipe.settings.epochs if tuning is None else tuning.epochs
    return {"course": {"loss": rounded(losses)}} if len(losses) == epochs else {}


def _check_penalty(training: Training) -> None:
    """Refuse a recipe whose penalty has nothing to hold in this network.

    Raises:
        DeclinedError: If it would train the plain original under another name.
        TypeError: If the penalty is no tensor of one number.
    """
    penalty = training.recipe.penalty
    if penalty is None:
        return
    with quiet_randomness(torch.Generator(), training.examples.ids.device):
        value: object = penalty.training_penalty(training.model)
    if not (isinstance(value, torch.Tensor) and value.numel() == 1):
        shape = (
            f"a tensor of shape {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)
        )
        raise TypeError(
            f"method `{penalty.name}` must return a tensor of one number from `training_penalty`; "
            f"got {shape}."
        )
    if not value.requires_grad:
        raise DeclinedError(
            f"recipe `{training.recipe.name}` finds nothing to penalise in this network, and would "
            "train the plain original under another name; use the recipe `plain`."
        )


def _start(store: Store, job: OriginalJob, model: nn.Module) -> float:
    """Load what a model starts from, if anything; the seconds that training it took."""
    if job.start is None:
        return 0.0
    found = store.get(job.start.kind, job.start.key)
    if found is None:
        raise StoreError(f"original `{job.start.key}` is not in the store.")
    model.load_state_dict(found.tensors())
    return float(found.meta["original_s"])


def describe(
    job: OriginalJob, training: Training, seconds: float, settings: WorkerSettings
) -> dict[str, Any]:
    """What is stored beside a trained model."""
    return {
        "original_s": seconds,
        "model_info": training.info,
        "seed": job.seed,
        "model": str(job.model),
        "recipe": job.recipe.name,
        "environment": describe_environment(settings.device),
    }
