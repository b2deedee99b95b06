"""From a sweep to cells: what there is to do, under which keys, and what need not be done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from .attack_plan import Attack, Banks
from .dataset import Dataset, ImageData
from .errors import DataError, InputError, Problems, describe
from .job_keys import cell_job, original_job, probe_job
from .jobs import CellJob, OriginalJob, ProbeJob
from .modelspec import ModelSpec
from .recipe import Recipe
from .registry import METHODS
from .scenario import ForgetRequest, Scenario, Split, split_validation
from .sweep import Sweep
from .taskinfo import TaskInfo
from .tuned import Tuning
from .unlearner import Unlearner

REFERENCES = ("identity", "retrain")
NOT_TRAINED = (
    "the original was not trained here (0 epochs): it is a checkpoint, with which nothing can be "
    "retrained without the forget set"
)


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
        tuning: How the method's hyper-parameters were found; None if they were not searched.
        retrained: Key of the cell with the retrained model of the same seed.
        attack: Key of the attack on its method and forget request; empty if there is none.
        probe: Key of the job that probes it; empty if there is none.
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
    attack: str = ""
    probe: str = ""
    tuning: Tuning | None = None

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
        attacks: By key; one for every method, recipe and forget request that is not skipped.
        probes: Probes of cells by key; one for every cell that is not skipped.
        keep_models: Whether shadow models that are trained stay in the store.
    """

    cells: list[Cell]
    originals: dict[str, OriginalJob] = field(default_factory=dict)
    attacks: dict[str, Attack] = field(default_factory=dict)
    keep_models: bool = True
    probes: dict[str, ProbeJob] = field(default_factory=dict)


def load_data(dataset: Dataset, data_root: Path, validation_fraction: float) -> LoadedData:
    """Load a dataset and split it.

    Raises:
        InputError: If its images cannot be had; a plug-in may raise anything.
    """
    try:
        images: object = dataset.load(data_root)
        if not isinstance(images, ImageData):
            raise DataError(
                f"dataset `{dataset.spec}` must return `ImageData` from `load`; "
                f"got {type(images).__name__}."
            )
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
    attacks: dict[str, Attack] = {}
    noted = Problems() if problems is None else problems
    for loaded in data:
        drawn: dict[str, str] = {}
        banks: Banks | None = None
        if sweep.spec.ulira.shadows:
            with noted.noted():
                banks = Banks(sweep.spec, loaded.dataset.spec, loaded.images, loaded.split)
        for scenario in sweep.scenarios:
            with noted.noted():
                request = scenario.request(loaded.images, loaded.split)
                if drawn.setdefault(request.hash, scenario.spec) != scenario.spec:
                    raise InputError(
                        f"scenarios `{drawn[request.hash]}` and `{scenario.spec}` draw the same "
                        f"forget set from `{loaded.dataset.spec}`; keep one of them."
                    )
                for model in sweep.models:
                    table = Table(sweep, loaded, model, scenario, request, device, banks)
                    cells += table.cells()
                    attacks |= {attack.key: attack for attack in table.attacks.values()}
    if problems is None:
        noted.raise_any()
    cells = list({cell.key: cell for cell in cells}.values())  # a list may name a thing twice
    cells, probes = _probed(cells, sweep.spec.probes)
    for cell in cells:
        if not cell.skip:
            originals |= {job.key: job for job in cell.job.original.chain}
    return Plan(cells, originals, attacks, sweep.spec.ulira.keep_models, probes)


def _probed(cells: list[Cell], probes: tuple[str, ...]) -> tuple[list[Cell], dict[str, ProbeJob]]:
    """Lay out the probes of all cells that are not skipped.

    Retrained models are compared with that of the seed before theirs, the first with the second:
    so much do two of them differ. A seed added at the end changes no other pair.
    """
    if not probes:
        return cells, {}
    by_key = {cell.key: cell for cell in cells if not cell.skip}
    seeds: dict[tuple[str, str, str, str], list[Cell]] = {}
    for cell in by_key.values():
        if cell.key == cell.retrained:
            table = (cell.dataset, cell.model, cell.recipe.name, cell.request.hash)
            seeds.setdefault(table, []).append(cell)
    reference = {key: by_key.get(cell.retrained) for key, cell in by_key.items()}
    for row in seeds.values():
        for place, cell in enumerate(row):
            other = row[place - 1] if place else next(iter(row[1:]), None)
            reference[cell.key] = other
    jobs: dict[str, ProbeJob] = {}
    made = []
    for cell in cells:
        if not cell.skip:
            other = reference[cell.key]
            job = probe_job(
                cell.job,
                None if other is None else other.job,
                probes,
                anchor=cell.method.name == "identity",
            )
            jobs[job.key] = job
            cell = replace(cell, probe=job.key)
        made.append(cell)
    return made, jobs


@dataclass(frozen=True, eq=False)
class Table:
    """One dataset, architecture and scenario, whose cells are compared with each other."""

    sweep: Sweep
    loaded: LoadedData
    model: ModelSpec
    scenario: Scenario
    request: ForgetRequest
    device: str
    banks: Banks | None
    attacks: dict[tuple[str, str], Attack] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """References of every recipe that is used, then the methods; each cell once."""
        wanted = [
            (*self.tuned(m, r), r) for m in self.sweep.methods for r in self.sweep.recipes_of(m)
        ]
        used = {r.name: r for m, _, r in wanted if not self.skip_reasons(m, r)}
        references = [METHODS.get(name).create({}) for name in REFERENCES]
        wanted = [(m, None, r) for r in used.values() for m in references] + wanted
        seeds = self.sweep.spec.seeds
        found = [self.cell(m, r, seed, tuning) for m, tuning, r in wanted for seed in seeds]
        return list({cell.key: cell for cell in found}.values())

    def tuned(self, method: Unlearner, recipe: Recipe) -> tuple[Unlearner, Tuning | None]:
        """The method with the hyper-parameters that were found for it, if any were."""
        found = self.sweep.hyperparameters.of(
            method, self.loaded.dataset.spec, str(self.model), recipe.name, self.request.kind
        )
        return (method, None) if found is None else found

    def cell(
        self, method: Unlearner, recipe: Recipe, seed: int, tuning: Tuning | None = None
    ) -> Cell:
        """Lay out one cell."""
        spec = self.sweep.spec
        original = original_job(
            self.loaded.images, spec.validation_fraction, self.model, recipe, seed
        )
        request = self.request
        job, retrained = (
            cell_job(
                original,
                request.forget,
                request.hash,
                m,
                m.code_digest(),
                self.device,
                spec.save_models,
            )
            for m in (method, METHODS.get("retrain").create({}))
        )
        skip = self.skip_reasons(method, recipe)
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
            skip=skip,
            retrained=retrained.key,
            attack="" if skip else self.attack(method, recipe),
            tuning=tuning,
        )

    def attack(self, method: Unlearner, recipe: Recipe) -> str:
        """Lay out the attack on a method, once for all seeds; its key, or nothing.

        Raises:
            InputError: If the forget set is too small for the shadow models.
        """
        if self.banks is None:
            return ""
        name = (method.spec, recipe.name)
        if name not in self.attacks:
            self.attacks[name] = self.banks.attack(
                self.model, recipe, self.request, self.scenario.spec, method, self.device
            )
        return self.attacks[name].key

    def skip_reasons(self, method: Unlearner, recipe: Recipe) -> tuple[str, ...]:
        """Ask the method why it declines, if it does.

        Raises:
            InputError: If a plug-in answers with anything but sentences.
        """
        if method.exact and not (recipe.settings.epochs or recipe.fine_tuning):
            return (NOT_TRAINED,)
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
        return declined_reasons(method, facts)


def declined_reasons(method: Unlearner, facts: TaskInfo) -> tuple[str, ...]:
    """Ask a method why it declines a task, if it does.

    Raises:
        InputError: If a plug-in answers with anything but sentences.
    """
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
