"""From a sweep to cells: what there is to do, under which keys, and what need not be done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .dataset import Dataset, ImageData
from .errors import DataError, InputError, Problems, describe
from .jobs import CellJob, OriginalJob, PluginText, RecipeText
from .keys import content_key
from .modelspec import ModelSpec
from .recipe import Recipe
from .scenario import ForgetRequest, Scenario, Split, split_validation
from .sweep import Sweep
from .taskinfo import TaskInfo
from .unlearner import Unlearner

TRAINING_VERSION = 1  # raise it when training code changes what an original becomes
CELL_VERSION = 1  # raise it when metrics or the conduct of a cell change
REFERENCES = ("identity", "retrain")


@dataclass(frozen=True, eq=False)
class LoadedData:
    """A dataset with its images and its split."""

    dataset: Dataset
    images: ImageData
    split: Split


@dataclass(frozen=True, eq=False)
class Cell:
    """One dataset x architecture x recipe x scenario x method x seed.

    Attributes:
        key: Content key.
        dataset: Dataset as written.
        model: Architecture as written.
        recipe: Recipe of the original.
        scenario: Scenario as written.
        request: The forget request.
        method: The method.
        seed: Seed of the cell.
        job: What a worker needs to run it.
        skip: Reasons why the method declines; empty if it runs.
        retrained: Key of the cell with the retrained model of the same seed.
    """

    key: str
    dataset: str
    model: str
    recipe: Recipe
    scenario: str
    request: ForgetRequest
    method: Unlearner
    seed: int
    job: CellJob
    skip: tuple[str, ...]
    retrained: str

    @property
    def label(self) -> str:
        """For progress bars and messages."""
        return f"{self.method.spec} on {self.scenario}, {self.recipe.name} recipe, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """All cells of a sweep, and the originals that those to be run start from.

    Attributes:
        cells: Reference cells first within each table, then the methods as listed.
        originals: Jobs by key; only those that a cell that is not skipped needs.
    """

    cells: list[Cell]
    originals: dict[str, OriginalJob] = field(default_factory=dict)


def load_data(dataset: Dataset, data_root: Path, validation_fraction: float) -> LoadedData:
    """Load a dataset and split it.

    Raises:
        InputError: If its images cannot be had; a plug-in may raise anything.
    """
    try:
        images = dataset.load(data_root)
        return LoadedData(dataset, images, split_validation(images, validation_fraction))
    except InputError:
        raise
    except Exception as error:
        raise DataError(f"dataset `{dataset.spec}` cannot be loaded: {describe(error)}.") from error


def make_plan(
    sweep: Sweep, data: Iterable[LoadedData], device: str, problems: Problems | None = None
) -> Plan:
    """Lay out all cells with their keys.

    Args:
        sweep: The resolved sweep.
        data: Its datasets, loaded.
        device: `cpu`, `cuda`, …; part of the key of a cell, whose times depend on it, and of
            nothing else.
        problems: Where to note what is wrong; without it, it is raised.

    Raises:
        InputError: For every scenario that does not fit its dataset, together.
    """
    cells: list[Cell] = []
    originals: dict[str, OriginalJob] = {}
    noted = Problems() if problems is None else problems
    for loaded in data:
        for scenario in sweep.scenarios:
            with noted.noted():
                request = scenario.request(loaded.images, loaded.split)
                for model in sweep.models:
                    table = _table(sweep, loaded, model, scenario, request, device)
                    cells += table
                    for cell in table:
                        if not cell.skip:
                            originals.setdefault(cell.job.original.key, cell.job.original)
    if problems is None:
        noted.raise_any()
    return Plan(cells, originals)


def _table(
    sweep: Sweep,
    loaded: LoadedData,
    model: ModelSpec,
    scenario: Scenario,
    request: ForgetRequest,
    device: str,
) -> list[Cell]:
    """Cells of one dataset, architecture and scenario, references first."""
    from .registry import METHODS

    references = [METHODS.get(name).create({}) for name in REFERENCES]
    cells: dict[str, Cell] = {}

    def add(method: Unlearner, recipe: Recipe, seed: int) -> Cell:
        cell = _cell(sweep, loaded, model, scenario, request, device, method, recipe, seed)
        return cells.setdefault(cell.key, cell)

    wanted = [(m, r) for m in sweep.methods for r in sweep.recipes_of(m)]
    info = {(m.spec, r.name): _skip_reasons(m, r, loaded, model, request) for m, r in wanted}
    used = {r.name: r for m, r in wanted if not info[m.spec, r.name]}
    for recipe in used.values():
        for reference in references:
            for seed in sweep.spec.seeds:
                add(reference, recipe, seed)
    for method, recipe in wanted:
        for seed in sweep.spec.seeds:
            add(method, recipe, seed)
    return list(cells.values())


def _skip_reasons(
    method: Unlearner, recipe: Recipe, loaded: LoadedData, model: ModelSpec, request: ForgetRequest
) -> tuple[str, ...]:
    facts = TaskInfo(
        model_spec=model,
        recipe=recipe,
        forget_classes=request.classes,
        forget_size=len(request.forget),
        retain_size=len(request.retain),
        validation_size=len(loaded.split.validation),
        num_classes=loaded.images.num_classes,
        image_shape=loaded.images.image_shape,
    )
    try:
        reasons = method.unsupported_reasons(facts)
    except Exception as error:  # a plug-in's code may raise anything
        raise InputError(
            f"method `{method.spec}`: `unsupported_reasons` raised {describe(error)}."
        ) from error
    if not isinstance(reasons, list):
        raise InputError(
            f"method `{method.spec}`: `unsupported_reasons` must return a list of sentences; "
            f"got {reasons!r}."
        )
    return tuple(map(str, reasons))


def _cell(
    sweep: Sweep,
    loaded: LoadedData,
    model: ModelSpec,
    scenario: Scenario,
    request: ForgetRequest,
    device: str,
    method: Unlearner,
    recipe: Recipe,
    seed: int,
) -> Cell:
    original = original_job(loaded, sweep.spec.validation_fraction, model, recipe, seed)
    job = cell_job(original, request, method, device, sweep.spec.save_models)
    from .registry import METHODS

    retrain = METHODS.get("retrain").create({})
    retrained = cell_job(original, request, retrain, device, sweep.spec.save_models).key
    return Cell(
        key=job.key,
        dataset=loaded.dataset.spec,
        model=str(model),
        recipe=recipe,
        scenario=scenario.spec,
        request=request,
        method=method,
        seed=seed,
        job=job,
        skip=_skip_reasons(method, recipe, loaded, model, request),
        retrained=retrained,
    )


def original_job(
    loaded: LoadedData, validation_fraction: float, model: ModelSpec, recipe: Recipe, seed: int
) -> OriginalJob:
    """What a worker needs to train an original, and its key."""
    key = content_key(
        "original",
        version=TRAINING_VERSION,
        data=loaded.images.digest,
        validation_fraction=validation_fraction,
        model=[model.name, dict(model.kwargs), model.stem],
        recipe=recipe.describe(),
        seed=seed,
    )
    penalty = recipe.penalty
    text = RecipeText(
        recipe.name,
        recipe.settings.model_dump(mode="json"),
        None if penalty is None else PluginText(penalty.name, penalty.params),
    )
    return OriginalJob(
        key=key,
        data=loaded.images.digest,
        validation_fraction=validation_fraction,
        model=model,
        recipe=text,
        seed=seed,
    )


def cell_job(
    original: OriginalJob, request: ForgetRequest, method: Unlearner, device: str, save_model: bool
) -> CellJob:
    """What a worker needs to run a cell, and its keys."""
    code = method.code_digest()
    prepared = content_key(
        "prepared",
        original=original.key,
        method=method.name,
        code=code,
        params=method.prepare_params,
    )
    key = content_key(
        "cell",
        version=CELL_VERSION,
        original=original.key,
        request=request.hash,
        method=method.name,
        params=method.params,
        code=code,
        device=device.partition(":")[0],
    )
    return CellJob(
        key=key,
        prepared_key=prepared,
        original=original,
        forget=request.forget,
        method=PluginText(method.name, method.params),
        device=device,
        save_model=save_model,
    )
