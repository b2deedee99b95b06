"""The training loop: originals, retrained models, and every unlearning method that descends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .batches import Batch, ExampleSet
from .callbacks import Callback
from .checkpoint import Checkpoint
from .errors import DivergedError
from .mixture import Examples
from .recipe import Recipe, TrainingSettings

Loss = Callable[[nn.Module, Batch], Tensor]
EpochDone = Callable[[nn.Module, float], None]  # the model, and the mean loss of the epoch


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Mean cross-entropy of a batch."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(
            model(batch.images), batch.labels, label_smoothing=label_smoothing
        )

    return loss


def make_optimizer(
    model: nn.Module,
    *,
    name: Literal["sgd", "adamw"],
    lr: float,
    momentum: float,
    weight_decay: float,
    undecayed: Sequence[Tensor] = (),
) -> torch.optim.Optimizer:
    """Build SGD with Nesterov momentum, or AdamW, over the trainable parameters.

    Those in `undecayed` have no weight decay.
    """
    free = set(undecayed)
    parameters: list[Any] = [p for p in model.parameters() if p.requires_grad]
    if free:
        parameters = [
            {"params": [p for p in parameters if p not in free]},
            {"params": [p for p in parameters if p in free], "weight_decay": 0.0},
        ]
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
        fused=True,  # one call for all parameters: a fifth of the time on small networks
    )


def fit(
    model: nn.Module,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    loss: Loss,
    batch_size: int | None = None,
    schedule: Literal["cosine", "constant"] = "constant",
    warmup_frac: float = 0.0,
    batch_norm: Literal["train", "eval"] = "train",
    clip_norm: float | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    checkpoint: Checkpoint | None = None,
    at_epoch: Callable[[int], None] | None = None,
    epoch_done: EpochDone | None = None,
    callbacks: Sequence[Callback] = (),
) -> float:
    """Minimise a loss over a set of examples.

    Args:
        model: Trained in place; left in eval mode.
        examples: What to iterate over.
        optimizer: Its step sizes are the peaks of the schedule.
        epochs: Passes over the examples.
        loss: Takes model and batch, returns a scalar tensor.
        batch_size: Examples a step; default is the recipe's.
        schedule: `cosine` to zero after a linear warm-up, or `constant`.
        warmup_frac: Share of all steps for the warm-up.
        batch_norm: `eval` keeps running statistics (and dropout off) during the steps.
        clip_norm: Largest norm of the gradient of a step.
        precision: `bf16` runs the forward pass under autocast.
        checkpoint: Where to go on from, and to write to between epochs.
        at_epoch: Called with the number of epochs that are done, before each.
        epoch_done: Called after each.
        callbacks: Called between steps.

    Returns:
        Mean loss of the last epoch.

    Raises:
        DivergedError: If the loss of an epoch is not finite.
    """
    size = batch_size or examples.batch_size
    each = steps_an_epoch(examples, size)
    total = epochs * each
    peaks = [group["lr"] for group in optimizer.param_groups]
    device_type = examples.ids.device.type
    mean_loss = 0.0
    done = 0 if checkpoint is None else checkpoint.resume(model, optimizer)
    step = done * each
    for epoch in range(done, epochs):
        if at_epoch is not None:
            at_epoch(epoch)
        model.train(batch_norm == "train")
        for callback in callbacks:
            callback.epoch_begins(model, epoch)
        losses: list[Tensor] = []
        for batch in examples.batches(size, training=True):
            scale = schedule_scale(schedule, warmup_frac, step, total)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * scale
            with torch.autocast(device_type, torch.bfloat16, enabled=precision == "bf16"):
                value = loss(model, batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            for callback in callbacks:
                callback.before_step(model, batch)
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            for callback in callbacks:
                callback.after_step(model, batch)
            losses.append(value.detach())
            step += 1
        if losses:
            mean_loss = float(torch.stack(losses).float().mean())
        if not math.isfinite(mean_loss):
            raise DivergedError(f"the loss became {mean_loss} in epoch {epoch + 1}.")
        if checkpoint is not None:
            checkpoint.losses.append(mean_loss)
            checkpoint.epoch_done(epoch + 1, model, optimizer)
        if epoch_done is not None:
            epoch_done(model, mean_loss)
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak
    optimizer.zero_grad(set_to_none=True)
    model.eval()
    return mean_loss


def train_recipe(
    model: nn.Module,
    examples: ExampleSet,
    recipe: Recipe,
    checkpoint: Checkpoint | None = None,
    *,
    started: bool = False,
    epoch_done: EpochDone | None = None,
    callbacks: Sequence[Callback] = (),
) -> nn.Module:
    """Train a fresh model as the recipe says, penalty included.

    A recipe that fine-tunes trains without its penalty first, and then goes on with it.

    Args:
        model: Trained in place; left in eval mode.
        examples: What to iterate over.
        recipe: How.
        checkpoint: Where to go on from, and to write to between epochs.
        started: The model has been trained without the penalty already.
        epoch_done: Called after each epoch.
        callbacks: Called between steps.
    """
    if recipe.fine_tuning is None:
        _train(model, examples, recipe, checkpoint, epoch_done, callbacks)
        return model
    first = None if checkpoint is None else checkpoint.before()
    if not started and not (checkpoint is not None and checkpoint.fits(model)):
        _train(model, examples, recipe.plain, first, epoch_done, callbacks)
    if checkpoint is not None and first is not None:
        checkpoint.before_s = first.before_s
    _train(model, examples, recipe, checkpoint, epoch_done, callbacks)
    if first is not None:
        first.clear()
    return model


def _train(
    model: nn.Module,
    examples: ExampleSet,
    recipe: Recipe,
    checkpoint: Checkpoint | None,
    epoch_done: EpochDone | None,
    callbacks: Sequence[Callback],
) -> None:
    """One course of training, with the penalty if the recipe has one."""
    settings: TrainingSettings = recipe.settings
    plain = cross_entropy(settings.label_smoothing)
    penalty, tuning = recipe.penalty, recipe.fine_tuning
    epochs = settings.epochs if tuning is None else tuning.epochs
    weight = 1.0

    def at_epoch(done: int) -> None:
        nonlocal weight
        if penalty is not None:
            weight = penalty.penalty_weight(done / epochs)

    def penalised(model: nn.Module, batch: Batch) -> Tensor:
        if penalty is None or weight == 0:
            return plain(model, batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            extra = penalty.training_penalty(model)
        return plain(model, batch) + weight * extra

    optimizer = make_optimizer(
        model,
        name=settings.optimizer,
        lr=settings.lr if tuning is None else tuning.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        undecayed=[] if penalty is None else penalty.undecayed(model),
    )
    fit(
        model,
        examples,
        optimizer,
        epochs=epochs,
        loss=penalised,
        batch_size=settings.batch_size,
        schedule=settings.schedule,
        warmup_frac=settings.warmup_frac,
        clip_norm=settings.clip_norm,
        precision=settings.precision,
        checkpoint=checkpoint,
        at_epoch=at_epoch,
        epoch_done=epoch_done,
        callbacks=callbacks,
    )


def check_finite(model: nn.Module) -> None:
    """Refuse a model with weights or buffers that are not finite.

    Raises:
        DivergedError: Naming the first such tensor.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DivergedError(f"`{name}` has values that are not finite.")


def steps_an_epoch(examples: Examples, batch_size: int) -> int:
    """Batches of one pass; a lone last example joins the batch before."""
    return max(1, math.ceil((len(examples) - 1) / batch_size))


def schedule_scale(schedule: str, warmup_frac: float, step: int, total: int) -> float:
    """Factor of the peak step size at a step."""
    warmup = warmup_frac * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
