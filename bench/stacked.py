"""Training several models together, each exactly as if it were trained alone.

One network computes all of them, so that a step costs one call of every operation. Each model has
its own examples, its own order and its own augmentation; the loss is the sum of the models' mean
losses, so that no gradient of one reaches another, and SGD and AdamW act on every number by
itself. Results agree with `train_recipe` up to the rounding of the other kernels: to the last
digits in float64, while in float32 long trainings drift apart as far as those of weights that
differ in their last bit.

Source: evaluation specification, section 5.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from .batches import Batch, ExampleSet
from .checkpoint import Checkpoint
from .errors import DivergedError, InputError
from .recipe import Recipe
from .stacking import layer_reasons, stack_models, unstack
from .training import make_optimizer, schedule_scale, steps_an_epoch

PROBES = 4  # examples on which the stacked network is compared with its models
TOLERANCE = 1e-4  # largest difference, relative to the largest logit; they are compared in float64


def stackable(
    models: Sequence[nn.Module],
    sets: Sequence[ExampleSet],
    recipe: Recipe,
    image_shape: tuple[int, int, int],
) -> list[str]:
    """Say why models cannot be trained together.

    Beside the recipe, the sets and the layers, this compares outputs: two of the models, with
    random numbers added to their weights so that no branch is silent, against their stack.

    Args:
        models: Networks of one architecture; not changed.
        sets: The examples of each model.
        recipe: How they are to be trained.
        image_shape: Channels, height, width.

    Returns:
        Reasons, without a full stop; empty if `train_stacked` trains them.
    """
    return _reasons(models, sets, recipe) or _output_reasons(models[:2], image_shape)


def train_stacked(
    models: Sequence[nn.Module],
    sets: Sequence[ExampleSet],
    recipe: Recipe,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train fresh models together as the recipe says, each on its own examples.

    Whether operations outside layers allow it is not checked here: ask `stackable` once for an
    architecture.

    Args:
        models: M networks of one architecture on one device; trained in place, left in eval mode.
        sets: M sets of the same size, each with a generator of its own.
        recipe: Without penalty and without clipping.
        checkpoint: Where to go on from, and to write to between epochs; of the sets' generators.

    Raises:
        DivergedError: If the loss of a model in an epoch is not finite.
        InputError: If recipe, sets or layers do not allow it.
    """
    reasons = _reasons(models, sets, recipe)
    if reasons:
        raise InputError(f"these models cannot be trained together: {'; '.join(reasons)}.")
    settings = recipe.settings
    stacked = stack_models(models)
    optimizer = make_optimizer(
        stacked,
        name=settings.optimizer,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    each = steps_an_epoch(sets[0], settings.batch_size)
    total = settings.epochs * each
    device_type = sets[0].ids.device.type
    bf16 = settings.precision == "bf16"
    done = 0 if checkpoint is None else checkpoint.resume(stacked, optimizer)
    step = done * each
    for epoch in range(done, settings.epochs):
        stacked.train()
        losses: list[Tensor] = []
        passes = [examples.batches(settings.batch_size, training=True) for examples in sets]
        for batches in zip(*passes, strict=True):
            scale = schedule_scale(settings.schedule, settings.warmup_frac, step, total)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * scale
            with torch.autocast(device_type, torch.bfloat16, enabled=bf16):
                values = _losses(stacked, batches, settings.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            values.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(values.detach())
            step += 1
        if losses:
            _check_losses(torch.stack(losses).float().mean(0), epoch)
        if checkpoint is not None:
            checkpoint.epoch_done(epoch + 1, stacked, optimizer)
    unstack(stacked, models)
    for model in models:
        model.eval()


def _losses(stacked: nn.Module, batches: Sequence[Batch], label_smoothing: float) -> Tensor:
    """Mean cross-entropy of each model, `(M,)`."""
    images = torch.cat([batch.images for batch in batches], 1)
    labels = torch.stack([batch.labels for batch in batches], 1)
    logits = stacked(images).view(labels.numel(), -1)
    each = nn.functional.cross_entropy(
        logits, labels.flatten(), label_smoothing=label_smoothing, reduction="none"
    )
    return each.view_as(labels).mean(0)


def _check_losses(means: Tensor, epoch: int) -> None:
    for number, mean in enumerate(means.tolist()):
        if not math.isfinite(mean):
            raise DivergedError(
                f"the loss of model {number + 1} of {len(means)} became {mean} "
                f"in epoch {epoch + 1}."
            )


def _reasons(models: Sequence[nn.Module], sets: Sequence[ExampleSet], recipe: Recipe) -> list[str]:
    """Reasons that recipe, sets and layers give."""
    if not models or len(models) != len(sets):
        return [f"there must be a set for each of {len(models)} models; got {len(sets)}"]
    reasons = []
    if recipe.penalty is not None:
        reasons.append(f"recipe `{recipe.name}` has a penalty, which is of one model")
    if recipe.settings.clip_norm is not None:
        reasons.append("`clip_norm` is of the gradient of one model")
    sizes = sorted({len(examples) for examples in sets})
    if len(sizes) > 1:
        reasons.append(f"the sets differ in size, from {sizes[0]} to {sizes[-1]}")
    return reasons + layer_reasons(models)


def _output_reasons(models: Sequence[nn.Module], image_shape: tuple[int, int, int]) -> list[str]:
    """Reasons that a run shows: other outputs than alone, or random numbers drawn."""
    rng = torch.Generator().manual_seed(0)
    alone = [_disturbed(model, rng) for model in models]
    stacked = stack_models(alone)
    images = torch.randn(len(alone), PROBES, *image_shape, generator=rng, dtype=torch.float64)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for training in (False, True):
            before = torch.get_rng_state()
            wanted = torch.cat(
                [m.train(training)(x) for m, x in zip(alone, images, strict=True)], 1
            )
            if not torch.equal(before, torch.get_rng_state()):
                return ["the network draws random numbers"]
            try:
                got = stacked.train(training)(images.transpose(0, 1).flatten(1, 2))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                return [f"the stacked network fails: {str(error).splitlines()[0]}"]
            if got.shape != wanted.shape or not _close(got, wanted):
                return [
                    "the stacked network gives other outputs than its models: it mixes channels"
                ]
    return []


def _close(got: Tensor, wanted: Tensor) -> bool:
    return bool((got - wanted).abs().max() <= TOLERANCE * wanted.abs().max())


def _disturbed(model: nn.Module, rng: torch.Generator) -> nn.Module:
    """A copy on the CPU in float64 and eval mode, with random numbers added to its weights."""
    copy = deepcopy(model).to("cpu", torch.float64).eval()
    with torch.no_grad():
        for parameter in copy.parameters():
            noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
            parameter.add_(0.05 * noise)
    return copy
