"""The shadow bank: half-data originals in complementary pairs, shared by all methods and scenarios.

One bank belongs to a dataset, an architecture and a recipe. It depends on neither methods nor
scenarios nor the seeds of a sweep, so that every sweep finds it again; more shadow models are
added at its end. Its halves are balanced within every class, and on the forget sets that the
scenario `random` draws in the usual sizes, so that shadow models have equally much to forget. Of
other forget sets the shares vary by chance, unless the sweep lists them under `stratify`.

Source: evaluation specification, section 2.6, steps 1 to 3 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .dataset import ImageData
from .errors import InputError
from .job_keys import shadow_job
from .jobs import OriginalJob
from .keys import content_key, derive_seed
from .metrics.pairs import check_seeds, pair_design
from .modelspec import ModelSpec
from .recipe import Recipe
from .scenario import (
    ForgetRequest,
    Ids,
    RandomScenario,
    Scenario,
    Split,
    create_scenario,
    make_request,
)
from .ulira_settings import UliraSettings

USUAL_FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
LEAST_POOL = 2


@dataclass(frozen=True, eq=False)
class ShadowBank:
    """N shadow models, models 2p and 2p+1 of complementary halves.

    Attributes:
        dataset: Dataset as written.
        model: Architecture.
        recipe: How the models are trained.
        shadows: How to train each.
        keep: `(N, D)` bool, which of the D official training examples each is trained on; those
            held out for validation are in none.
        training: Ids of the training set.
        images: Number of images that are scored, official training and test images.
        views: Number of views of each: itself, and its mirror image where that keeps the label.
    """

    dataset: str
    model: ModelSpec
    recipe: Recipe
    shadows: tuple[OriginalJob, ...]
    keep: npt.NDArray[np.bool_] = field(repr=False)
    training: Ids = field(repr=False)
    images: int
    views: int

    @cached_property
    def hash(self) -> str:
        """Content hash of the bank as large as it is now."""
        return content_key("bank", shadows=[shadow.key for shadow in self.shadows])[:16]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the models; no two are equal."""
        return tuple(shadow.seed for shadow in self.shadows)


def make_bank(
    dataset: str,
    images: ImageData,
    split: Split,
    validation_fraction: float,
    model: ModelSpec,
    recipe: Recipe,
    keep: npt.NDArray[np.bool_],
    settings: UliraSettings,
) -> ShadowBank:
    """Lay out a bank whose halves are drawn.

    Raises:
        PairError: If two models would have one seed.
    """
    seeds = [derive_seed("shadow", settings.seed, k) for k in range(settings.shadows)]
    check_seeds(seeds)
    shadows = tuple(
        shadow_job(images, validation_fraction, model, recipe, seed, np.flatnonzero(row))
        for seed, row in zip(seeds, keep, strict=True)
    )
    return ShadowBank(
        dataset=dataset,
        model=model,
        recipe=recipe,
        shadows=shadows,
        keep=keep,
        training=split.training,
        images=len(images.train_labels) + len(images.test_labels),
        views=2 if images.flip else 1,
    )


def draw_halves(images: ImageData, split: Split, settings: UliraSettings) -> npt.NDArray[np.bool_]:
    """Draw which shadow model is trained on which example.

    A pair depends on data, split, seed and `stratify`, not on how many there are.

    Returns:
        `(N, D)` bool over all D official training examples.

    Raises:
        InputError: If a scenario to stratify on does not fit the data.
    """
    try:
        scenarios: list[Scenario] = [create_scenario(text) for text in settings.stratify]
        scenarios = scenarios or [RandomScenario(fraction=share) for share in USUAL_FRACTIONS]
        pools = [_pool(scenario.draw(images, split), split) for scenario in scenarios]
    except InputError as error:
        sentences = [f"`ulira.stratify`: {sentence}" for sentence in error.sentences]
        raise InputError(*sentences) from None
    design = pair_design(
        images.train_labels[split.training],
        settings.shadows // 2,
        [pool for pool in pools if len(pool)],
        derive_seed("halves", settings.seed) % 2**32,
    )
    keep = np.zeros((settings.shadows, len(images.train_labels)), dtype=np.bool_)
    keep[:, split.training] = design.keep
    return keep


def shares(
    images: ImageData,
    split: Split,
    keep: npt.NDArray[np.bool_],
    request: ForgetRequest,
    scenario: str,
) -> list[ForgetRequest]:
    """What each shadow model is made to forget of a pool: its share, those it was trained on.

    Args:
        images: The images.
        split: Training and validation ids.
        keep: `(N, D)` bool, the halves.
        request: Its forget set is the pool.
        scenario: Scenario as written.

    Raises:
        InputError: If the pool is so small that a model would have nothing to forget, or so
            large that it would have nothing to retain.
    """
    pool = request.forget
    sizes = keep[:, pool].sum(1)
    if (sizes == keep.sum(1)).any():
        raise InputError(
            f"scenario `{scenario}`: {len(pool)} examples to forget are too many for U-LIRA: "
            f"{int((sizes == keep.sum(1)).sum())} of {len(keep)} shadow models would have nothing "
            "to retain in their half; forget fewer, or switch the attack off with `--shadows 0`."
        )
    if len(pool) < LEAST_POOL or not sizes.min():
        raise InputError(
            f"scenario `{scenario}`: {len(pool)} examples to forget are too few for U-LIRA with "
            f"{len(keep)} shadow models, of which {int((sizes == 0).sum())} would have none of "
            "them in their half; forget more examples, or switch the attack off with `--shadows 0`."
        )
    return [
        make_request(
            images, Split(np.flatnonzero(row), split.validation), pool[row[pool]], scenario
        )
        for row in keep
    ]


def _pool(ids: Ids, split: Split) -> Sequence[int] | npt.NDArray[np.int64]:
    """Places of a forget set within the training set."""
    ids = np.unique(ids)
    strangers = np.setdiff1d(ids, split.training)
    if len(strangers):
        raise InputError(
            f"{len(strangers)} ids are not in the training set, e.g. {strangers[:3].tolist()}."
        )
    return np.searchsorted(split.training, ids)
