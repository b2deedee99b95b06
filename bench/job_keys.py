"""Builds jobs with their content keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dataset import ImageData
from .jobs import CellJob, OriginalJob, PluginText, ProbeJob, RecipeText, TrialJob
from .keys import content_key, digest_bytes
from .modelspec import ModelSpec
from .probes import PROBE_VERSION
from .recipe import Recipe
from .registry import METHODS
from .scenario import Ids
from .unlearner import Unlearner

TRAINING_VERSION = 1  # raise it when training code changes what an original becomes
CELL_VERSION = 3  # raise it when metrics or the conduct of a cell change
PREPARED_VERSION = 1  # raise it when tools that methods prepare with compute something else
TRIAL_VERSION = 1  # raise it when what is measured of a trial changes
MARGIN_VERSION = 1  # raise it when what is read from a shadow model changes


def original_job(
    images: ImageData, validation_fraction: float, model: ModelSpec, recipe: Recipe, seed: int
) -> OriginalJob:
    """What a worker needs to train an original."""
    key = content_key(
        "original",
        validation_fraction=validation_fraction,
        seed=seed,
        **_training(images, model, recipe),
    )
    return _original(key, images, validation_fraction, model, recipe, seed, None)


def shadow_job(
    images: ImageData,
    validation_fraction: float,
    model: ModelSpec,
    recipe: Recipe,
    seed: int,
    half: Ids,
) -> OriginalJob:
    """What a worker needs to train a shadow model on half of the training set."""
    key = content_key(
        "shadow",
        margins=MARGIN_VERSION,
        half=_digest(half),
        seed=seed,
        **_training(images, model, recipe),
    )
    return _original(key, images, validation_fraction, model, recipe, seed, half)


def cell_job(
    original: OriginalJob,
    forget: Ids,
    request: str,
    method: Unlearner,
    code: str,
    device: str,
    save: bool,
) -> CellJob:
    """What a worker needs to unlearn.

    Args:
        original: The original, or a shadow model.
        forget: Ids of the forget set.
        request: Content hash of the forget request.
        method: The method.
        code: Its code digest.
        device: Torch's name of the device; its type is part of the key of a cell, whose times
            depend on it, and not of that of a shadow model's margins.
        save: Whether the unlearned model is stored.
    """
    variant = method.family() != method.name
    prepared = content_key(
        "prepared",
        version=PREPARED_VERSION,
        device=device.partition(":")[0],
        original=original.key,
        method=method.family(),
        code=METHODS.get(method.family()).code_digest() if variant else code,
        params=method.prepare_params,
    )
    if original.half is None:
        conduct = {"version": CELL_VERSION, "device": device.partition(":")[0]}
    else:
        conduct = {"version": CELL_VERSION, "margins": MARGIN_VERSION}
    key = content_key(
        "cell" if original.half is None else "unlearned-margins",
        original=original.key,
        request=request,
        method=method.name,
        params=method.params,
        code=code,
        **conduct,
    )
    return CellJob(
        key=key,
        prepared_key=prepared,
        original=original,
        forget=forget,
        method=PluginText(method.name, method.params),
        device=device,
        save_model=save,
    )


def probe_job(
    cell: CellJob, reference: CellJob | None, probes: tuple[str, ...], *, anchor: bool
) -> ProbeJob:
    """What a worker needs to probe a cell.

    Args:
        cell: The cell.
        reference: Cell of the retrained model that it is compared with.
        probes: Names of the probes, in their order.
        anchor: Whether an untrained model is measured as well.
    """
    by: dict[str, object] = {"version": PROBE_VERSION, "probes": list(probes), "anchor": anchor}
    own = content_key("probe", cell=cell.key, **by)
    key = own
    if reference is not None:
        key = content_key("probe-compared", cell=cell.key, reference=reference.key, **by)
    return ProbeJob(key, own, cell, reference, probes, anchor)


def trial_job(cells: Sequence[CellJob]) -> TrialJob:
    """What a worker needs to run a setting on all development originals."""
    key = content_key("trial", version=TRIAL_VERSION, cells=[cell.key for cell in cells])
    return TrialJob(key, tuple(cells))


def _training(images: ImageData, model: ModelSpec, recipe: Recipe) -> dict[str, object]:
    architecture: list[object] = [model.name, dict(model.kwargs), model.stem]
    if model.weights is not None:
        architecture.append(model.weights.digest)  # wherever the file lies
    return {
        "version": TRAINING_VERSION,
        "data": images.digest,
        "model": architecture,
        "recipe": recipe.describe(),
    }


def _original(
    key: str,
    images: ImageData,
    validation_fraction: float,
    model: ModelSpec,
    recipe: Recipe,
    seed: int,
    half: Ids | None,
) -> OriginalJob:
    penalty = recipe.penalty
    text = RecipeText(
        recipe.name,
        recipe.settings.model_dump(mode="json"),
        None if penalty is None else PluginText(penalty.name, penalty.params),
    )
    start = None
    if half is None and recipe.fine_tuning is not None:
        start = original_job(images, validation_fraction, model, recipe.plain, seed)
    return OriginalJob(
        key=key,
        data=images.digest,
        validation_fraction=validation_fraction,
        model=model,
        recipe=text,
        seed=seed,
        half=half,
        start=start,
    )


def _digest(ids: Ids) -> str:
    return digest_bytes(np.ascontiguousarray(ids, dtype=np.int64).view(np.uint8).data)
