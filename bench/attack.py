"""What a worker does with an attack: make shadow models forget, and read their margins."""

from __future__ import annotations

import time

from .datastore import get_images
from .environment import describe_environment
from .errors import DeclinedError, UnlearnBenchError
from .executor import describe_failure
from .jobs import AttackJob, WorkerSettings
from .margins import KIND, put_margins, read_margins
from .training import check_finite
from .workbench import Workbench, begin


def run_attack(job: AttackJob, settings: WorkerSettings) -> float:
    """Unlearn the shadow models of a job, and put their margins into the store.

    The method gets what it gets in a cell: its share of the pool to forget, the rest of the
    model's half to retain. The controls, members of the pool in the other half, are in no set.

    Returns:
        Seconds spent preparing, unlearning and reading margins.

    Raises:
        DeclinedError: If the method declines a shadow model.
        UnlearnBenchError: If unlearning fails on a shadow model; the message tells which.
    """
    store = begin(settings)
    data = get_images(store, job.cells[0].original.data)
    busy_s = 0.0
    for cell in job.cells:
        with store.lock(KIND, cell.key):
            if store.has(KIND, cell.key):
                continue
            bench = Workbench(store, cell, settings, data)
            began = time.perf_counter()
            try:
                prepared = bench.prepare()
                outcome = bench.unlearn(prepared.tensors)
                check_finite(outcome.model)
                margins = read_margins(outcome.model, data, bench.device)
            except DeclinedError:
                raise
            except Exception as error:
                which = f"{cell.original.key[:12]}"
                raise UnlearnBenchError(
                    f"on shadow model {which}: {describe_failure(error)}"
                ) from error
            meta = {
                "unlearn_s": outcome.unlearn_s,
                "prepare_s": prepared.prepare_s,
                "served": outcome.served,
                "environment": describe_environment(settings.device),
            }
            put_margins(store, cell.key, margins, meta)
            busy_s += time.perf_counter() - began
    return busy_s
