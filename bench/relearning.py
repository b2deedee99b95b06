"""Steps of training on the forget set until it is known again."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import nn

from .batches import Batch, ExampleSet
from .evaluate import in_eval_mode, pass_size
from .probes import (
    ORDERINGS,
    RELEARN_ALPHA,
    RELEARN_BATCH,
    RELEARN_CLIP,
    RELEARN_HOPELESS,
    RELEARN_LR,
    RELEARN_MOMENTUM,
    RELEARN_SGD_SHARE,
    RELEARN_STEPS,
)
from .recipe import TrainingSettings
from .training import make_optimizer

EVERY_STEP = 16  # accuracy is measured after every step up to here, then at about 6 % more each


def relearning_rate(settings: TrainingSettings) -> float:
    """Step size of relearning: a tenth of the recipe's peak if that is of SGD, else 0.01."""
    return RELEARN_SGD_SHARE * settings.lr if settings.optimizer == "sgd" else RELEARN_LR


def relearn_steps(
    model: nn.Module,
    forget: ExampleSet,
    judged: ExampleSet,
    *,
    original_acc: float,
    lr: float,
    generators: list[torch.Generator],
) -> list[int | None]:
    """Train copies of a model on the forget set until they know it again.

    Steps of SGD with momentum on batches of 32 without augmentation. The network stays in eval
    mode: BatchNorm keeps its statistics, which batches of the forgotten class alone would carry
    off, and dropout is off. The norm of a gradient is at most 1, and a loss above 1e6 is given up
    at once: a masked logit, which no step of such a size undoes, could only be overcome by weights
    that grow without bound, which is no relearning.

    Args:
        model: Left as it is.
        forget: What to train on.
        judged: Examples of the forget set on which accuracy is measured.
        original_acc: The original's accuracy on those; 95 % of it is the goal.
        lr: Step size.
        generators: Each shuffles one ordering; equal ones give equal orderings to all models.

    Returns:
        Steps of each ordering; None where 200 were not enough, or it was given up.
    """
    goal = (1 - RELEARN_ALPHA) * original_acc - 1e-9
    if _accuracy(model, judged) >= goal:
        return [0] * len(generators)
    return [_ordering(model, forget, judged, goal, lr, generator) for generator in generators]


def measured_steps(limit: int = RELEARN_STEPS) -> list[int]:
    """The numbers of steps after which accuracy is measured."""
    found = list(range(1, min(EVERY_STEP, limit) + 1))
    while found[-1] < limit:
        found.append(min(limit, found[-1] + max(1, found[-1] // EVERY_STEP)))
    return found


def orderings(seed: int) -> list[torch.Generator]:
    """Generators of the orderings, the same for every model of a table."""
    return [torch.Generator().manual_seed((seed + k) % 2**63) for k in range(ORDERINGS)]


def _ordering(
    model: nn.Module,
    forget: ExampleSet,
    judged: ExampleSet,
    goal: float,
    lr: float,
    generator: torch.Generator,
) -> int | None:
    net = deepcopy(model).requires_grad_(True).eval()
    optimizer = make_optimizer(net, name="sgd", lr=lr, momentum=RELEARN_MOMENTUM, weight_decay=0.0)
    batches = _batches(forget.with_generator(generator), generator)
    measured = set(measured_steps())
    with torch.enable_grad():
        for step in range(1, RELEARN_STEPS + 1):
            batch = next(batches)
            loss = nn.functional.cross_entropy(net(batch.images), batch.labels)
            if not float(loss.detach()) <= RELEARN_HOPELESS:  # nor is it NaN
                return None
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), RELEARN_CLIP)
            optimizer.step()
            if step in measured and _accuracy(net, judged) >= goal:
                return step
    return None


def _batches(forget: ExampleSet, generator: torch.Generator) -> Iterator[Batch]:
    """Pass after pass, shuffled anew, images as they are."""
    while True:
        order = torch.randperm(len(forget), generator=generator)
        yield from forget.subset(order).batches(RELEARN_BATCH)


def _accuracy(model: nn.Module, examples: ExampleSet) -> float:
    """Accuracy in eval mode; outputs that are not finite are wrong."""
    right = []
    with in_eval_mode(model), torch.no_grad():
        for batch in examples.batches(pass_size(examples)):
            out = model(batch.images)
            hit = (out.argmax(1) == batch.labels) & torch.isfinite(out).all(1)
            right.append(hit)
    return float(torch.cat(right).cpu().double().mean()) if right else 0.0
