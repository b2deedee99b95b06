"""What a worker does with a trial: unlearn development originals, and measure without test data.

Images of the test set are taken out before anything else happens, so that neither the method nor
the measuring can reach them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import nn

from .dataset import ImageData
from .datastore import get_images
from .evaluate import outputs_on
from .jobs import CellJob, Pruning, TrialJob, WorkerSettings
from .objectives import tuning_figures
from .pruning import Pruner
from .store import Store
from .training import EpochDone, check_finite
from .workbench import Workbench, begin

KIND = "trial"


def run_trial(job: TrialJob, settings: WorkerSettings) -> float:
    """Run a trial on all its development originals and store figures, unless they are there.

    Returns:
        Seconds spent preparing, unlearning and measuring.

    Raises:
        PrunedError: If it lags behind the other trials of its study.
        DivergedError: If an unlearned model or its outputs are not finite.
        Exception: Whatever the method raises.
    """
    store = begin(settings)
    with store.lock(KIND, job.key):
        if store.has(KIND, job.key):
            return 0.0
        began = time.perf_counter()
        found = [
            _run(store, cell, settings, job.pruning if cell is job.cells[0] else None)
            for cell in job.cells
        ]
        busy_s = time.perf_counter() - began
        store.put(KIND, job.key, {"models": found, "busy_s": busy_s})
        return busy_s


def without_test(data: ImageData) -> ImageData:
    """The same images but for the test set; they keep the name of the whole."""
    # new arrays, for a slice would lead to the whole
    none = np.empty((0, *data.test_images.shape[1:]), dtype=np.uint8)
    blind = replace(data, test_images=none, test_labels=np.empty(0, dtype=np.int64))
    blind.__dict__["digest"] = data.digest  # a cached property; splits are drawn by it
    return blind


def _run(
    store: Store, cell: CellJob, settings: WorkerSettings, pruning: Pruning | None
) -> dict[str, float]:
    """Figures of one development original, with `unlearn_s` and `prepare_s`."""
    data = without_test(get_images(store, cell.original.data))
    workbench = Workbench(store, cell, settings, data)
    workbench.warm_up()
    prepared = workbench.prepare()
    sets = {
        "forget": workbench.train_set("forget", workbench.request.forget),
        "validation": workbench.train_set("validation", workbench.split.validation),
    }

    def figures(model: nn.Module) -> dict[str, float]:
        return tuning_figures(outputs_on(model, sets), workbench.request.classes)

    whole = bool(workbench.request.classes)
    outcome = workbench.unlearn(prepared.tensors, _looking(store, pruning, figures, whole))
    check_finite(outcome.model)
    return figures(outcome.model) | {
        "unlearn_s": outcome.unlearn_s,
        "prepare_s": prepared.prepare_s,
    }


def _looking(
    store: Store,
    pruning: Pruning | None,
    figures: Callable[[nn.Module], dict[str, float]],
    whole: bool,
) -> EpochDone | None:
    """What looks at the model after every epoch, if anything does."""
    if pruning is None:
        return None
    retrained = None
    if pruning.retrained is not None:
        found = store.get(KIND, pruning.retrained)
        retrained = None if found is None else found.meta["models"][0]
    return Pruner(pruning, figures, retrained, whole=whole).epoch_done
