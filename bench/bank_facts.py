"""Facts of a shadow bank: how its models learned, how exposed their examples are, what it cost."""

from __future__ import annotations

import time

import numpy as np

from .datastore import get_images
from .jobs import BankJob, WorkerSettings
from .margins import get_margins
from .metrics.ulira import ulira
from .scoring import LEAST_ULIRA
from .workbench import begin

KIND = "bank"


def run_bank(job: BankJob, settings: WorkerSettings) -> float:
    """Describe a bank from the margins of its models, and put the description into the store.

    `lira/*` is the attack on the models before unlearning, with all training examples as targets:
    what there is to be forgotten.

    Returns:
        Seconds spent.

    Raises:
        StoreError: If margins are missing or damaged.
    """
    store = begin(settings)
    with store.lock(KIND, job.key):
        if store.has(KIND, job.key):
            return 0.0
        began = time.perf_counter()
        data = get_images(store, job.data)
        stack = get_margins(store, job.shadows)
        size = len(data.train_labels)
        own, other = [], []
        for kept, correct in zip(job.keep, stack.correct[:, :size], strict=True):
            own.append(correct[job.training[kept[job.training]]].mean())
            other.append(correct[job.training[~kept[job.training]]].mean())
        accuracies = {"in": own, "out": other, "test": stack.correct[:, size:].mean(1)}
        metrics: dict[str, float] = {}
        for name, values in accuracies.items():
            metrics[f"acc/{name}_mean"] = float(np.mean(values))
            metrics[f"acc/{name}_std"] = float(np.std(values, ddof=1))
        if len(job.shadows) >= LEAST_ULIRA:
            lira = ulira(
                stack.margins[..., :size], job.keep, job.training, seeds=job.seeds, redraws=0
            )
            for name in ("acc", "se", "auc", "auc_se"):
                metrics[f"lira/{name}"] = float(getattr(lira, name))
        seconds = [float(meta["original_s"]) for meta in stack.meta]
        metrics |= {
            "time/training_s": float(np.sum(seconds)),
            "time/training_s_mean": float(np.mean(seconds)),
        }
        meta = {
            "metrics": metrics,
            "views": stack.margins.shape[1],
            "environment": stack.meta[0]["environment"],
        }
        store.put(KIND, job.key, meta)
        return time.perf_counter() - began
