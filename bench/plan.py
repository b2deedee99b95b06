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
from .registry import METHODS
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
        drawn: dict[str, str] = {}
        for scenario in sweep.scenarios:
            with noted.noted():
                request = scenario.request(loaded.images, loaded.split)
                if drawn.setdefault(request.hash, scenario.spec) != scenario.spec:
                    raise InputError(
                        f"scenarios `{drawn[request.hash]}` and `{scenario.spec}` draw the same "
                        f"forget set from `{loaded.dataset.spec}`; keep one of them."
                    )
                for model in sweep.models:
                    cells += _Table(sweep, loaded, model, scenario, request, device).cells()
    if problems is None:
        noted.raise_any()
    cells = list({cell.key: cell for cell in cells}.values())  # a list may name a thing twice
    for cell in cells:
        if not cell.skip:
            originals.setdefault(cell.job.original.key, cell.job.original)
    return Plan(cells, originals)


@dataclass(frozen=True, eq=False)
class _Table:
    """One dataset, architecture and scenario, whose cells are compared with each other."""

    sweep: Sweep
    loaded: LoadedData
    model: ModelSpec
    scenario: Scenario
    request: ForgetRequest
    device: str

    def cells(self) -> list[Cell]:
        """References of every recipe that is used, then the methods; each cell once."""
        wanted = [(m, r) for m in self.sweep.methods for r in self.sweep.recipes_of(m)]
        used = {r.name: r for m, r in wanted if not self.skip_reasons(m, r)}
        references = [METHODS.get(name).create({}) for name in REFERENCES]
        wanted = [(m, r) for r in used.values() for m in references] + wanted
        found = [self.cell(m, r, seed) for m, r in wanted for seed in self.sweep.spec.seeds]
        return list({cell.key: cell for cell in found}.values())

    def cell(self, method: Unlearner, recipe: Recipe, seed: int) -> Cell:
        """Lay out one cell."""
        spec = self.sweep.spec
        original = original_job(self.loaded, spec.validation_fraction, self.model, recipe, seed)
        job, retrained = (
            cell_job(original, self.request, m, self.device, spec.save_models)
            for m in (method, METHODS.get("retrain").create({}))
        )
        return Cell(
            key=job.key,
            dataset=self.loaded.dataset.spec,
            model=str(self.model),
            recipe=recipe,
            scenario=self.scenario.spec,
            request=self.request,
            method=method,
            seed=seed,
            job=job,
            skip=self.skip_reasons(method, recipe),
            retrained=retrained.key,
        )

    def skip_reasons(self, method: Unlearner, recipe: Recipe) -> tuple[str, ...]:
        """Ask the method why it declines, if it does.

        Raises:
            InputError: If a plug-in answers with anything but sentences.
        """
        facts = TaskInfo(
            model_spec=self.model,
            recipe=recipe,
            forget_classes=self.request.classes,
            forget_size=len(self.request.forget),
            retain_size=len(self.request.retain),
            validation_size=len(self.loaded.split.validation),
            num_classes=self.loaded.images.num_classes,
            image_shape=self.loaded.images.image_shape,
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
