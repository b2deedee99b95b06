"""Trains an original again as it was trained, so that its history can be seen step by step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .callbacks import Callback
from .errors import DeclinedError
from .jobs import OriginalJob, WorkerSettings
from .original import lay_out
from .store import Store
from .task import quiet_randomness
from .training import train_recipe


def replay_training(
    store: Store,
    job: OriginalJob,
    settings: WorkerSettings,
    callbacks: Sequence[Callback],
    served: dict[str, int],
) -> nn.Module:
    """Train from the original's own seed, on the same examples in the same order.

    On the CPU the result has the original's bits, if the libraries and the number of threads are
    the same. On other devices, and for shadow models that were trained together, kernels round
    otherwise and trainings drift apart; whoever relies on the history compares the end.

    Args:
        store: Holds the images.
        job: How the original was trained.
        settings: The worker's.
        callbacks: Called between steps.
        served: Counts by role, to which what is served is added.

    Returns:
        The model at the end.

    Raises:
        DeclinedError: If the original was not trained here from its beginning.
        DivergedError: If training diverges.
    """
    training = lay_out(store, job, settings, served)
    if job.start is not None or not training.recipe.settings.epochs:
        raise DeclinedError("needs the history of training, and the original was not trained here.")
    with quiet_randomness(training.rng, torch.device(settings.device)), torch.enable_grad():
        return train_recipe(training.model, training.examples, training.recipe, callbacks=callbacks)
