"""Lays out attacks: which shadow models there are, and what each method does to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bank import ShadowBank, draw_halves, make_bank, shares
from .dataset import ImageData
from .job_keys import cell_job
from .jobs import CellJob, ScoreJob
from .keys import content_key
from .modelspec import ModelSpec
from .recipe import Recipe
from .registry import METHODS
from .scenario import ForgetRequest, Split
from .sweep import SweepSpec
from .unlearner import Unlearner

SCORE_VERSION = 1  # raise it when an attack changes what it computes


@dataclass(frozen=True, eq=False)
class Attack:
    """The attack on one method and forget request, with all shadow models of a bank.

    Attributes:
        bank: The shadow models.
        method: The method, with the hyper-parameters that it has in the cells.
        scenario: Scenario as written.
        cells: What to unlearn, one forget request for each shadow model.
        score: How to score the margins.
    """

    bank: ShadowBank
    method: Unlearner
    scenario: str
    cells: tuple[CellJob, ...]
    score: ScoreJob

    @property
    def key(self) -> str:
        """Content key of the scores."""
        return self.score.key

    @property
    def label(self) -> str:
        """For progress bars and messages."""
        return f"attack on {self.method.spec}, {self.scenario}, {self.bank.recipe.name} recipe"


class Banks:
    """The shadow banks of one dataset, and the attacks on them, laid out when asked for.

    Args:
        spec: The sweep.
        dataset: Dataset as written.
        images: Its images.
        split: Training and validation ids.

    Raises:
        InputError: If a scenario to stratify on does not fit the data.
    """

    def __init__(self, spec: SweepSpec, dataset: str, images: ImageData, split: Split) -> None:
        self._spec, self._dataset, self._images, self._split = spec, dataset, images, split
        self._banks: dict[tuple[str, str], ShadowBank] = {}
        self._shares: dict[str, list[ForgetRequest]] = {}
        self._jobs: dict[tuple[str, str, str], tuple[CellJob, ...]] = {}
        self._keep = draw_halves(images, split, spec.ulira)

    def bank(self, model: ModelSpec, recipe: Recipe) -> ShadowBank:
        """The bank of an architecture and a recipe."""
        name = (str(model), recipe.name)
        if name not in self._banks:
            self._banks[name] = make_bank(
                self._dataset,
                self._images,
                self._split,
                self._spec.validation_fraction,
                model,
                recipe,
                self._keep,
                self._spec.ulira,
            )
        return self._banks[name]

    def attack(
        self,
        model: ModelSpec,
        recipe: Recipe,
        request: ForgetRequest,
        scenario: str,
        method: Unlearner,
        device: str,
    ) -> Attack:
        """Lay out the attack on a method.

        Args:
            model: Architecture.
            recipe: How the shadow models are trained.
            request: Its forget set is the pool of target examples.
            scenario: Scenario as written.
            method: The method.
            device: Torch's name of the device.

        Raises:
            InputError: If the forget set is too small for the shadow models.
        """
        bank = self.bank(model, recipe)
        if request.hash not in self._shares:
            self._shares[request.hash] = shares(
                self._images, self._split, self._keep, request, scenario
            )
        retrain = METHODS.get("retrain").create({})
        unlearned = self._cells(bank, request, method, device)
        references: tuple[str, ...] = ()
        if method.name != retrain.name:
            references = tuple(job.key for job in self._cells(bank, request, retrain, device))
        settings = self._spec.ulira
        options = settings.model_dump(mode="json", exclude={"stratify", "keep_models", "seed"})
        key = content_key(
            "ulira",
            version=SCORE_VERSION,
            unlearned=[job.key for job in unlearned],
            retrained=references,
            pool=request.hash,
            options=options,
        )
        score = ScoreJob(
            key=key,
            data=self._images.digest,
            shadows=tuple(shadow.key for shadow in bank.shadows),
            unlearned=tuple(job.key for job in unlearned),
            retrained=references,
            seeds=bank.seeds,
            keep=bank.keep,
            pool=request.forget,
            others=np.setdiff1d(self._split.training, request.forget),
            options=options,
        )
        return Attack(bank, method, scenario, unlearned, score)

    def _cells(
        self, bank: ShadowBank, request: ForgetRequest, method: Unlearner, device: str
    ) -> tuple[CellJob, ...]:
        """What a method does to each shadow model."""
        name = (bank.hash, request.hash, method.spec)
        if name not in self._jobs:
            code = method.code_digest()
            self._jobs[name] = tuple(
                cell_job(shadow, share.forget, share.hash, method, code, device, False)
                for shadow, share in zip(bank.shadows, self._shares[request.hash], strict=True)
            )
        return self._jobs[name]
