"""What is tuned: a method on a kind of task, with originals of its own.

A kind of task is a dataset, an architecture, a recipe and a kind of forget set: whole classes, or
any other. Development originals are trained for tuning alone, from seeds that no sweep uses; each
is given one of the sweep's forget requests of the kind. Training set, validation images and
requests are the sweep's, which a deployer has too; nothing else is. Where nothing is trained
(0 epochs), there is one checkpoint only, and a trial runs on the sweep's own original.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .errors import InputError, Problems
from .job_keys import cell_job, original_job, trial_job
from .jobs import OriginalJob, TrialJob
from .keys import content_key, derive_seed
from .modelspec import ModelSpec
from .plan import LoadedData, Table
from .recipe import Recipe
from .registry import METHODS
from .scenario import ForgetRequest
from .search_space import SearchSpace
from .sweep import Sweep
from .tuning_settings import TuneSettings
from .unlearner import Scope, Unlearner

STUDY_VERSION = 1  # raise it when what trials do changes


@dataclass(frozen=True, eq=False)
class Target:
    """What one study is of.

    Attributes:
        loaded: Dataset, images and split.
        model: Architecture.
        recipe: How development originals are trained.
        kind: `class` or `sample`.
        requests: Forget requests of that kind.
        method: The method as written.
        space: What is searched of it.
        settings: Budget and so on.
        device: Torch's name of the device.
        validation_fraction: Share of every class held out of the training set.
    """

    loaded: LoadedData
    model: ModelSpec
    recipe: Recipe
    kind: Scope
    requests: tuple[ForgetRequest, ...]
    method: Unlearner
    space: SearchSpace
    settings: TuneSettings
    device: str
    validation_fraction: float

    def trial(self, method: Unlearner) -> TrialJob:
        """Run a method, of whatever name, on all development originals."""
        code = METHODS.get(method.name).code_digest()
        return trial_job(
            [
                cell_job(
                    original, request.forget, request.hash, method, code, self.device, save=False
                )
                for original, request in self._tasks
            ]
        )

    @property
    def references(self) -> dict[str, TrialJob]:
        """What trials are compared with: the originals; the oracle track has retrained models too.

        By the name of the method that makes them.
        """
        names = ("identity", "retrain") if self.settings.track == "oracle" else ("identity",)
        return {name: self.trial(METHODS.get(name).create({})) for name in names}

    @property
    def originals(self) -> list[OriginalJob]:
        """Trainings of the development originals."""
        return [job for original, _ in self._tasks for job in original.chain]

    @cached_property
    def key(self) -> str:
        """Content key of all that the values of trials depend on."""
        return content_key(
            "study",
            version=STUDY_VERSION,
            method=self.method.name,
            code=type(self.method).code_digest(),
            space=self.space.describe(),
            settings=self.settings.determines,
            device=self.device.partition(":")[0],
            tasks=[[original.key, request.hash] for original, request in self._tasks],
        )

    @property
    def name(self) -> str:
        """Name of the study, if nobody gives it another one."""
        parts = (self.method.name, self.loaded.dataset.name, self.model.name, self.kind)
        return re.sub(r"[^\w.\-]+", "_", "-".join(parts)) + f"-{self.key[:8]}"

    @property
    def about(self) -> dict[str, Any]:
        """Facts for whoever opens the study."""
        return {
            "method": self.method.spec,
            "dataset": self.loaded.dataset.spec,
            "model": str(self.model),
            "recipe": self.recipe.name,
            "kind": self.kind,
            **self.settings.model_dump(mode="json"),
        }

    @cached_property
    def _tasks(self) -> list[tuple[OriginalJob, ForgetRequest]]:
        """Development originals, each with a forget request."""
        count, requests = self.settings.development_models, self.requests
        if not (self.recipe.settings.epochs or self.recipe.fine_tuning):
            count = min(count, len(requests))  # a checkpoint is the same for every seed
        # spread over the requests, where there are more of them
        places = [place * max(1, len(requests) // count) % len(requests) for place in range(count)]
        return [
            (
                original_job(
                    self.loaded.images,
                    self.validation_fraction,
                    self.model,
                    self.recipe,
                    derive_seed("development", self.settings.seed, number),
                ),
                requests[place],
            )
            for number, place in enumerate(places)
        ]


def find_targets(
    sweep: Sweep,
    data: Iterable[LoadedData],
    device: str,
    settings: TuneSettings,
    narrowed: Mapping[str, Any] | None = None,
) -> list[Target]:
    """What there is to tune in a sweep; methods without anything to search are left out.

    Args:
        sweep: The sweep.
        data: Its datasets, loaded.
        device: Torch's name of the device.
        settings: Budget and so on.
        narrowed: Ranges and choices in place of those that a method declares; see `SearchSpace`.

    Raises:
        InputError: For all that is wrong with scenarios, spaces and validation sets, together.
    """
    problems = Problems()
    spaces: dict[str, SearchSpace] = {}
    written: dict[str, set[str]] = {}
    if settings.time_limit_s is None:
        settings = settings.model_copy(update={"time_limit_s": sweep.spec.time_limit_s})
    for method in sweep.methods:
        with problems.noted():
            if written.setdefault(method.spec, method.model_fields_set) != method.model_fields_set:
                raise InputError(
                    f"`{method.spec}` is listed twice, once with a default written out, which is "
                    "then not searched; keep one of them."
                )
            fixed = {k: method.params[k] for k in sorted(method.model_fields_set)}
            spaces[method.spec] = SearchSpace(type(method), fixed, narrowed)
    found = []
    for loaded in data:
        if not len(loaded.split.validation):
            problems.note(
                InputError(
                    f"tuning needs validation images, and `validation_fraction` holds none of "
                    f"`{loaded.dataset.spec}` out; make it larger, e.g. 0.1."
                )
            )
        with problems.noted():
            found += list(_targets(sweep, loaded, device, settings, spaces))
    problems.raise_any()
    return list({target.key: target for target in found}.values())


def _targets(
    sweep: Sweep,
    loaded: LoadedData,
    device: str,
    settings: TuneSettings,
    spaces: Mapping[str, SearchSpace],
) -> Iterator[Target]:
    requests = [(s, s.request(loaded.images, loaded.split)) for s in sweep.scenarios]
    for model in sweep.models:
        for method in sweep.methods:
            space = spaces.get(method.spec)
            if space is None or not space.dimensions:
                continue
            for recipe in sweep.recipes_of(method):
                trained = bool(recipe.settings.epochs or recipe.fine_tuning)
                if settings.track == "oracle" and not trained:
                    raise InputError(
                        "the oracle track compares with retrained models, and nothing is trained "
                        "here (`training.epochs` is 0); use the validation track."
                    )
                kinds: dict[Scope, list[ForgetRequest]] = {}
                for scenario, request in requests:
                    table = Table(sweep, loaded, model, scenario, request, device, None)
                    if not table.skip_reasons(method, recipe):
                        kinds.setdefault(request.kind, []).append(request)
                for kind, served in kinds.items():
                    yield Target(
                        loaded,
                        model,
                        recipe,
                        kind,
                        tuple(served),
                        method,
                        space,
                        settings,
                        device,
                        sweep.spec.validation_fraction,
                    )
