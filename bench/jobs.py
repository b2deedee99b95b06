"""What the parent hands to a worker: plain values only, so that any process can read them.

A job makes products, each under a key, and needs products that other jobs make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from numpy import bool_, int64
from numpy.typing import NDArray

from .modelspec import ModelSpec


class PluginText(NamedTuple):
    """A plug-in by name and parameters."""

    name: str
    params: dict[str, Any]


class RecipeText(NamedTuple):
    """A recipe by name, settings and penalty."""

    name: str
    settings: dict[str, Any]
    penalty: PluginText | None


class Job(Protocol):
    """Work for one process.

    Attributes:
        noun: What it makes, for "… failed: reason" in the outcome of what needs it.
    """

    noun: ClassVar[str]

    @property
    def key(self) -> str:
        """Names the job."""

    @property
    def makes(self) -> tuple[str, ...]:
        """Keys of its products."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of products that must be in the store before it starts."""


@dataclass(frozen=True, eq=False)
class OriginalJob:
    """Train an original, or a shadow model, which is an original of half of the training set.

    Attributes:
        key: Its content key.
        data: Digest of the images, which are in the store.
        validation_fraction: Share of every class held out.
        model: Architecture.
        recipe: How it is trained.
        seed: Seed of the cells that it serves.
        half: Ids that a shadow model is trained on, sorted; None for all of the training set.
        start: The plain original that it starts from, where the recipe fine-tunes.
    """

    noun: ClassVar[str] = "its original"

    key: str
    data: str
    validation_fraction: float
    model: ModelSpec
    recipe: RecipeText
    seed: int
    half: NDArray[int64] | None = None
    start: OriginalJob | None = None

    @property
    def makes(self) -> tuple[str, ...]:
        """The original."""
        return (self.key,)

    @property
    def needs(self) -> tuple[str, ...]:
        """What it starts from."""
        return () if self.start is None else (self.start.key,)

    @property
    def chain(self) -> list[OriginalJob]:
        """What it starts from, then itself."""
        return [*([] if self.start is None else self.start.chain), self]

    @property
    def kind(self) -> str:
        """Kind of artefact that the model is in the store."""
        return "original" if self.half is None else "shadow"


@dataclass(frozen=True, eq=False)
class CellJob:
    """Unlearn with one method, and measure.

    Attributes:
        key: Content key of the cell.
        prepared_key: Content key of what the method prepares for this original.
        original: The original that it starts from.
        forget: Ids of the forget set.
        method: The method.
        device: Torch's name of the device.
        save_model: Whether the unlearned model is stored.
    """

    noun: ClassVar[str] = "the cell"

    key: str
    prepared_key: str
    original: OriginalJob
    forget: NDArray[int64]
    method: PluginText
    device: str
    save_model: bool

    @property
    def makes(self) -> tuple[str, ...]:
        """The cell."""
        return (self.key,)

    @property
    def needs(self) -> tuple[str, ...]:
        """The original."""
        return (self.original.key,)


@dataclass(frozen=True, eq=False)
class ShadowJob:
    """Train shadow models, together where there are several, and read their margins.

    Attributes:
        key: Names the job.
        shadows: The models.
        keep_models: Whether the weights are to stay when the sweep has ended.
    """

    noun: ClassVar[str] = "a shadow model"

    key: str
    shadows: tuple[OriginalJob, ...]
    keep_models: bool = True
    needs: tuple[str, ...] = ()

    @property
    def makes(self) -> tuple[str, ...]:
        """The shadow models."""
        return tuple(shadow.key for shadow in self.shadows)


@dataclass(frozen=True, eq=False)
class AttackJob:
    """Make shadow models forget their share of a pool, and read their margins.

    Attributes:
        key: Names the job.
        cells: One forget request on one shadow model each, all with the same method.
    """

    noun: ClassVar[str] = "unlearning a shadow model"

    key: str
    cells: tuple[CellJob, ...]

    @property
    def makes(self) -> tuple[str, ...]:
        """Margins of the unlearned shadow models."""
        return tuple(cell.key for cell in self.cells)

    @property
    def needs(self) -> tuple[str, ...]:
        """The shadow models."""
        return tuple(cell.original.key for cell in self.cells)


@dataclass(frozen=True, eq=False)
class ScoreJob:
    """Attack a method on a forget request by the margins of all shadow models.

    Attributes:
        key: Content key of the scores.
        data: Digest of the images.
        shadows: Keys of the margins before unlearning, in the order of the bank.
        unlearned: Keys of the margins after it.
        retrained: Keys of the margins of models retrained instead; empty for retraining itself.
        seeds: Seeds of the shadow models.
        keep: `(N, D)` bool, which official training example a shadow model was trained on.
        pool: `(E,)` ids of the target examples.
        others: Ids of the training set outside the pool.
        options: How to score, as the sweep file says.
    """

    noun: ClassVar[str] = "the attack"

    key: str
    data: str
    shadows: tuple[str, ...]
    unlearned: tuple[str, ...]
    retrained: tuple[str, ...]
    seeds: tuple[int, ...]
    keep: NDArray[bool_] = field(repr=False)
    pool: NDArray[int64] = field(repr=False)
    others: NDArray[int64] = field(repr=False)
    options: dict[str, Any]

    @property
    def makes(self) -> tuple[str, ...]:
        """The scores."""
        return (self.key,)

    @property
    def needs(self) -> tuple[str, ...]:
        """All margins."""
        return (*self.shadows, *self.unlearned, *self.retrained)


@dataclass(frozen=True, eq=False)
class BankJob:
    """Describe a shadow bank: accuracy of its models, their exposure before unlearning, cost.

    Attributes:
        key: Content key of the description.
        data: Digest of the images.
        shadows: Keys of the shadow models.
        seeds: Their seeds.
        keep: `(N, D)` bool, which official training example each was trained on.
        training: Ids of the training set.
    """

    noun: ClassVar[str] = "describing the shadow bank"

    key: str
    data: str
    shadows: tuple[str, ...]
    seeds: tuple[int, ...]
    keep: NDArray[bool_] = field(repr=False)
    training: NDArray[int64] = field(repr=False)

    @property
    def makes(self) -> tuple[str, ...]:
        """The description."""
        return (self.key,)

    @property
    def needs(self) -> tuple[str, ...]:
        """The shadow models."""
        return self.shadows


@dataclass(frozen=True, eq=False)
class ProbeJob:
    """Look inside the unlearned model of a cell, beside the retrained model.

    Attributes:
        key: Content key of the comparison with the retrained model, or `own_key` without one.
        own_key: Content key of what the model is by itself.
        cell: The cell.
        reference: The cell of the retrained model that it is compared with: of the same seed, or
            of another one for retrained models themselves. None if there is none.
        probes: Names of the probes.
        anchor: Whether to measure what an untrained model needs to relearn as well.
    """

    noun: ClassVar[str] = "the probe"

    key: str
    own_key: str
    cell: CellJob
    reference: CellJob | None
    probes: tuple[str, ...]
    anchor: bool

    @property
    def makes(self) -> tuple[str, ...]:
        """The figures."""
        return (self.key,)

    @property
    def needs(self) -> tuple[str, ...]:
        """The cell and its original."""
        return (self.cell.key, self.cell.original.key)

    @property
    def after(self) -> tuple[str, ...]:
        """What it waits for, but can do without: the retrained model."""
        return () if self.reference is None else (self.reference.key,)


class Pruning(NamedTuple):
    """Where a trial is reported to, epoch by epoch.

    Attributes:
        storage: Address of the storage.
        study: Name of the study.
        trial: Optuna's id of the trial.
        objective: What is made best.
        retrained: Key of the figures of the retrained models, on the oracle track.
    """

    storage: str
    study: str
    trial: int
    objective: str
    retrained: str | None


@dataclass(frozen=True, eq=False)
class TrialJob:
    """Unlearn development originals with one setting of a method, and measure without test data.

    Attributes:
        key: Content key of the figures.
        cells: One forget request on one development original each, all with the same method.
        pruning: Whom to ask after every epoch on the first original whether to go on; None to go
            on in any case.
    """

    noun: ClassVar[str] = "the trial"

    key: str
    cells: tuple[CellJob, ...]
    pruning: Pruning | None = None

    @property
    def makes(self) -> tuple[str, ...]:
        """The figures."""
        return (self.key,)

    @property
    def needs(self) -> tuple[str, ...]:
        """The development originals."""
        return tuple(dict.fromkeys(cell.original.key for cell in self.cells))


@dataclass(frozen=True)
class WorkerSettings:
    """What is the same for all jobs of a sweep.

    Attributes:
        store: Root of the store.
        plugins: Plug-in files to load.
        threads: Threads that a worker may use on the CPU.
        device: Torch's name of the device.
    """

    store: str
    plugins: tuple[str, ...]
    threads: int
    device: str
