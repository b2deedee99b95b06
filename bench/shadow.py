"""What a worker does with shadow models: train them and read their margins."""

from __future__ import annotations

import numpy as np
import torch

from .datastore import get_images
from .errors import StoreError
from .jobs import OriginalJob, ShadowJob, WorkerSettings
from .margins import KIND, get_margins, put_margins, read_margins
from .original import train_original
from .store import Store
from .workbench import begin

TOLERANCE = 1e-3  # nats by which a model trained again may differ, on the same kind of machine


def run_shadows(job: ShadowJob, settings: WorkerSettings) -> float:
    """Train shadow models and put weights and margins into the store, unless they are there.

    Returns:
        Seconds spent training.

    Raises:
        DivergedError: If training diverges.
        StoreError: If the store cannot be written, or a model that is trained again, for a method
            that was added later, is not the one whose margins are there.
    """
    store = begin(settings)
    return sum(_train(store, shadow, settings) for shadow in job.shadows)


def _train(store: Store, job: OriginalJob, settings: WorkerSettings) -> float:
    with store.lock(job.kind, job.key):
        measured = store.has(KIND, job.key)
        if measured and store.has(job.kind, job.key):
            return 0.0
        model, meta = train_original(store, job, settings)
        data = get_images(store, job.data)
        margins = read_margins(model, data, torch.device(settings.device))
        if measured:
            known = get_margins(store, (job.key,)).margins[0]
            if np.abs(known - margins["margins"].numpy()).max() > TOLERANCE * np.abs(known).max():
                raise StoreError(
                    f"a shadow model trained again is not the one whose margins are in the store "
                    f"(`{job.key}`): hardware or library versions have changed. Use another "
                    "store, or delete the margins to train the bank anew."
                )
        store.put(job.kind, job.key, meta, model.state_dict())
        put_margins(store, job.key, margins, meta)
        store.checkpoint(job.key).unlink(missing_ok=True)
        return float(meta["original_s"])
