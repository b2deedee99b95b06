"""The small real things that methods are checked on: images, two networks, their originals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from ..datastore import put_images
from ..job_keys import cell_job, original_job
from ..jobs import CellJob, OriginalJob, WorkerSettings
from ..modelspec import create_model_spec
from ..original import run_original
from ..plan import declined_reasons
from ..recipe import Recipe, TrainingSettings, recipe_of
from ..registry import DATASETS
from ..scenario import ForgetRequest, create_scenario, split_validation
from ..store import Store
from ..taskinfo import TaskInfo
from ..unlearner import Unlearner
from .check import NotApplicable
from .global_state import kept_state

IMAGES = "synthetic[classes=4,size=8,channels=1,train_per_class=30,test_per_class=15,seed=1]"
NETWORKS = {
    "the convolutional net": "resnet18[layers=[1,1,1,1],channels=[8,8,16,16],stem_type=deep,"
    "stem_width=8]",
    "the ViT": "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3,patch_size=4,"
    "global_pool=avg]",
}
CONVNET, VIT = NETWORKS
# both learn the images almost by heart in half a second
TRAINING = {
    CONVNET: TrainingSettings(epochs=15, batch_size=32, lr=0.05),
    VIT: TrainingSettings(epochs=30, batch_size=32, lr=0.2, clip_norm=1.0),
}
SCENARIOS = {
    "a whole class": "class[classes=[0]]",
    "a tenth of the examples": "random[fraction=0.1]",
    "one example": "random[count=1]",
    "two classes": "class[classes=[1,2]]",
    "all classes but one": "class[classes=[0,1,2]]",
}
WHOLE_CLASS, TENTH, ONE_EXAMPLE, TWO_CLASSES, ONE_CLASS_LEFT = SCENARIOS
NOTHING = "an empty forget set"
VALIDATION_FRACTION = 0.1


class Place(NamedTuple):
    """Where a method is run.

    Attributes:
        network: One of `NETWORKS`.
        scenario: One of `SCENARIOS`, or `NOTHING`.
    """

    network: str
    scenario: str

    def __str__(self) -> str:
        return f"on {self.network}, forgetting {self.scenario}"


class Laboratory:
    """A store of its own in a temporary folder, with images and originals.

    Originals are trained when they are first asked for, and serve all methods.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="unlearnbench-check-")
        self.data = DATASETS.create(IMAGES).load(Path(self._folder.name))
        self.split = split_validation(self.data, VALIDATION_FRACTION)

    @cached_property
    def store(self) -> Store:
        """The store."""
        store = Store(Path(self._folder.name))
        put_images(store, self.data)
        return store

    def settings(self, plugins: tuple[str, ...]) -> WorkerSettings:
        """What a worker is told; small networks gain nothing from threads."""
        return WorkerSettings(str(self.store.root), plugins, threads=1, device="cpu")

    def request(self, scenario: str) -> ForgetRequest:
        """The forget request of a scenario."""
        if scenario == NOTHING:
            nobody = np.zeros(0, dtype=np.int64)
            return ForgetRequest(self.data.digest, nobody, self.split.training, ())
        return create_scenario(SCENARIOS[scenario]).request(self.data, self.split)

    def recipe(self, method: Unlearner, network: str) -> Recipe:
        """The recipe that a method asks for, with what suits the network."""
        return recipe_of(method, TRAINING[network])

    def original_job(self, network: str, recipe: Recipe, seed: int = 0) -> OriginalJob:
        """The original of a network and a recipe."""
        spec = create_model_spec(NETWORKS[network])
        return original_job(self.data, VALIDATION_FRACTION, spec, recipe, seed)

    def cell_job(self, method: Unlearner, place: Place, *, other_seed: bool = False) -> CellJob:
        """The cell of a method.

        Args:
            method: The method.
            place: Where it is run.
            other_seed: Draw from another stream, on the same original.
        """
        original = self.original_job(place.network, self.recipe(method, place.network))
        # the harness refuses an empty forget set; who wants one puts it on the workbench
        scenario = ONE_EXAMPLE if place.scenario == NOTHING else place.scenario
        request = self.request(scenario)
        job = cell_job(
            original, request.forget, request.hash, method, method.code_digest(), "cpu", save=True
        )
        return replace(job, original=replace(original, seed=1)) if other_seed else job

    def train(self, job: OriginalJob, settings: WorkerSettings) -> None:
        """Have an original in the store.

        Raises:
            DeclinedError: If its recipe does not fit the network.
            Exception: Whatever the penalty raises.
        """
        for each in job.chain:
            run_original(each, settings)

    def declined(self, method: Unlearner, place: Place) -> tuple[str, ...]:
        """Why a method does not serve a place, by what can be known before it runs."""
        request = self.request(place.scenario)
        facts = TaskInfo(
            model_spec=create_model_spec(NETWORKS[place.network]),
            recipe=self.recipe(method, place.network),
            forget_classes=request.classes,
            forget_size=len(request.forget),
            retain_size=len(request.retain),
            validation_size=len(self.split.validation),
            num_classes=self.data.num_classes,
            image_shape=self.data.image_shape,
        )
        return declined_reasons(method, facts)


@cache
def laboratory() -> Laboratory:
    """The laboratory of this process."""
    return Laboratory()


@contextmanager
def at_work() -> Iterator[Laboratory]:
    """The laboratory, with the global state of the process put back after."""
    with kept_state():
        yield laboratory()


def places(scenario: str) -> list[Place]:
    """A scenario on both networks."""
    return [Place(network, scenario) for network in NETWORKS]


def skip(reasons: list[str]) -> NotApplicable:
    """Say once why nothing was run."""
    return NotApplicable("; ".join(dict.fromkeys(reasons)))
