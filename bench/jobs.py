"""What the parent hands to a worker: plain values only, so that any process can read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy import int64
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


@dataclass(frozen=True, eq=False)
class OriginalJob:
    """Train an original.

    Attributes:
        key: Its content key.
        data: Digest of the images, which are in the store.
        validation_fraction: Share of every class held out.
        model: Architecture.
        recipe: How it is trained.
        seed: Seed of the cells that it serves.
    """

    key: str
    data: str
    validation_fraction: float
    model: ModelSpec
    recipe: RecipeText
    seed: int


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

    key: str
    prepared_key: str
    original: OriginalJob
    forget: NDArray[int64]
    method: PluginText
    device: str
    save_model: bool


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
