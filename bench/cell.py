"""What a worker does with a cell: unlearn, and measure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from torch import nn

from .course import Course, spread
from .environment import describe_environment
from .evaluate import outputs_on
from .jobs import CellJob, WorkerSettings
from .metrics.accuracy import accuracy_splits
from .metrics.single_model import single_model_attacks
from .training import check_finite
from .workbench import Workbench, begin


def run_cell(job: CellJob, settings: WorkerSettings) -> float:
    """Unlearn one cell, measure the result and put it into the store, unless it is there.

    A cell that is there without its model, which is wanted now, is run again and replaced.

    Returns:
        Seconds spent preparing, unlearning and measuring.

    Raises:
        DivergedError: If the unlearned model or its outputs are not finite.
        Exception: Whatever the method raises.
    """
    store = begin(settings)
    with store.lock("cell", job.key):
        there = store.has("cell", job.key)
        if there and (store.has_tensors("cell", job.key) or not job.save_model):
            return 0.0
        workbench = Workbench(store, job, settings)
        whole = time.perf_counter()
        workbench.warm_up()
        prepared = workbench.prepare()
        some = spread(workbench.request.forget)
        course = Course(
            lambda: workbench.train_set("forget", some), workbench.recipe.settings.batch_size
        )
        outcome = workbench.unlearn(prepared.tensors, course.epoch_done)
        began = time.perf_counter()
        check_finite(outcome.model)
        metrics = _measure(workbench, outcome.model)
        times = {
            "unlearn_s": outcome.unlearn_s,
            **outcome.phases,
            "prepare_s": prepared.prepare_s,
            "evaluate_s": time.perf_counter() - began,
            "original_s": workbench.original_s,
        }
        busy_s = time.perf_counter() - whole
        meta = {
            "metrics": metrics,
            "times": times,
            "peak_memory_bytes": outcome.peak_memory_bytes,
            "samples": _sum(prepared.served, outcome.served),
            "method_info": outcome.reported,
            "model_info": workbench.model_info,
            "environment": describe_environment(settings.device),
            "course": _course(workbench, course),
        }
        if there:
            store.drop("cell", job.key)
        store.put("cell", job.key, meta, outcome.model.state_dict() if job.save_model else None)
        return busy_s


def _measure(workbench: Workbench, model: nn.Module) -> dict[str, float]:
    """Accuracy splits and single-model attacks of the unlearned model."""
    request = workbench.request
    sets = {
        "retain": workbench.train_set("retain", request.retain),
        "forget": workbench.train_set("forget", request.forget),
        "validation": workbench.train_set("validation", workbench.split.validation),
        "test": workbench.test_set(),
    }
    outputs = outputs_on(model, sets)
    found = accuracy_splits(outputs, request.classes)
    return found | single_model_attacks(outputs, request.classes)


def _course(workbench: Workbench, course: Course) -> dict[str, list[float]]:
    """The course of unlearning; the control that leaves the original as it is shows its course."""
    identity = workbench.method.name == "identity"
    return workbench.original_course if identity else course.as_dict()


def _sum(*counts: Mapping[str, int]) -> dict[str, int]:
    """Add counts by name."""
    return dict(sum((Counter(c) for c in counts), Counter[str]()))
