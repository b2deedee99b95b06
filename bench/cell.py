"""What a worker does: train an original, or unlearn one cell and measure it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .batches import ExampleSet, Pixels
from .dataset import ImageData
from .datastore import get_images
from .environment import PeakMemory, describe_environment
from .errors import StoreError
from .jobs import CellJob, OriginalJob, PluginText, RecipeText, WorkerSettings
from .keys import canonical_json, derive_seed
from .metrics.accuracy import accuracy_splits
from .models import build_model, describe_model
from .recipe import Recipe, TrainingSettings
from .registry import METHODS, load_plugin_files
from .scenario import ForgetRequest, Split, make_request, split_validation
from .store import Store
from .task import UnlearningTask, quiet_randomness
from .taskinfo import TaskInfo
from .training import check_finite, train_recipe
from .unlearner import Unlearner


def run_original(job: OriginalJob, settings: WorkerSettings) -> float:
    """Train an original and put it into the store, unless it is there.

    Returns:
        Seconds spent training.

    Raises:
        DivergedError: If training diverges.
        StoreError: If the store cannot be written.
    """
    store = _begin(settings)
    with store.lock("original", job.key):
        if store.has("original", job.key):
            return 0.0
        data, split = _images(store, job)
        device = torch.device(settings.device)
        recipe = _recipe(job.recipe)
        rng = _generator(job.seed, "original", job.key)
        training = ExampleSet(
            "training",
            Pixels(data, "train", device),
            split.training,
            recipe.settings.batch_size,
            rng,
            {},
            augment=recipe.settings.augment,
        )
        seed = derive_seed(job.seed, "init", job.key)
        model = build_model(job.model, data.num_classes, data.image_shape, seed).to(device)
        info = describe_model(job.model, model, data.image_shape)
        _synchronise(device)
        began = time.perf_counter()
        with quiet_randomness(rng, device):
            train_recipe(model, training, recipe)
        _synchronise(device)
        original_s = time.perf_counter() - began
        check_finite(model)
        meta = {
            "original_s": original_s,
            "model_info": info.as_dict(),
            "seed": job.seed,
            "model": str(job.model),
            "recipe": job.recipe.name,
            "environment": describe_environment(settings.device),
        }
        store.put("original", job.key, meta, model.state_dict())
        return original_s


def run_cell(job: CellJob, settings: WorkerSettings) -> float:
    """Unlearn one cell, measure the result and put it into the store, unless it is there.

    Returns:
        Seconds spent preparing, unlearning and measuring.

    Raises:
        DivergedError: If the unlearned model or its outputs are not finite.
        Exception: Whatever the method raises.
    """
    store = _begin(settings)
    with store.lock("cell", job.key):
        if store.has("cell", job.key):
            return 0.0
        workbench = _Workbench(store, job, settings)
        whole = time.perf_counter()
        workbench.warm_up()
        prepared = workbench.prepare()
        outcome = workbench.unlearn(prepared.tensors)
        began = time.perf_counter()
        check_finite(outcome.model)
        metrics = workbench.measure(outcome.model)
        times = {
            "unlearn_s": outcome.unlearn_s,
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
        }
        store.put("cell", job.key, meta, outcome.model.state_dict() if job.save_model else None)
        return busy_s


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What `prepare` gave and cost."""

    tensors: Mapping[str, Tensor]
    prepare_s: float
    served: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Unlearned:
    """What `unlearn` gave and cost."""

    model: nn.Module
    unlearn_s: float
    peak_memory_bytes: int | None
    served: dict[str, int]
    reported: dict[str, Any]


class _Workbench:
    """One cell laid out: data on the device, the original loaded, the method built."""

    def __init__(self, store: Store, job: CellJob, settings: WorkerSettings) -> None:
        self.store, self.job = store, job
        self.device = torch.device(settings.device)
        self.data, self.split = _images(store, job.original)
        self.recipe = _recipe(job.original.recipe)
        self.method = _method(job.method)
        self.request = make_request(self.data, self.split, job.forget, "the sweep's")
        artifact = store.get("original", job.original.key)
        if artifact is None:
            raise StoreError(f"original `{job.original.key}` is not in the store.")
        self.original_s = float(artifact.meta["original_s"])
        self.model_info: dict[str, Any] = artifact.meta["model_info"]
        model = build_model(job.original.model, self.data.num_classes, self.data.image_shape, 0)
        model.load_state_dict(artifact.tensors())
        self.original = model.to(self.device).eval()
        self.train_pixels = Pixels(self.data, "train", self.device)

    def prepare(self) -> _Prepared:
        """What the method prepares for this original, from the store if it is there."""
        if type(self.method).prepare is Unlearner.prepare:
            return _Prepared({}, 0.0, {})
        with self.store.lock("prepared", self.job.prepared_key):
            found = self.store.get("prepared", self.job.prepared_key)
            if found is None:
                served: dict[str, int] = {}
                task = self._task("prepare", None, served, None)
                model = deepcopy(self.original)
                state, seconds, _ = self._timed(task, lambda: self.method.prepare(model, task))
                meta = {"prepare_s": seconds, "samples": served}
                found = self.store.put("prepared", self.job.prepared_key, meta, state or {})
        return _Prepared(
            found.tensors(str(self.device)), float(found.meta["prepare_s"]), found.meta["samples"]
        )

    def unlearn(self, prepared: Mapping[str, Tensor]) -> _Unlearned:
        """Run the method on a private copy of the original, timed."""
        task = self._task("unlearn", self.request, {}, prepared)
        model = deepcopy(self.original)
        unlearned, seconds, peak = self._timed(task, lambda: self.method.unlearn(model, task))
        if not isinstance(unlearned, nn.Module):
            raise TypeError(
                f"method `{self.method.name}` must return a model; got {type(unlearned).__name__}."
            )
        return _Unlearned(unlearned.eval(), seconds, peak, dict(task.served), dict(task.reported))

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Accuracy splits of the unlearned model."""
        members = {
            "retain": self.request.retain,
            "forget": self.request.forget,
            "validation": self.split.validation,
        }
        rng = torch.Generator()
        sets = {
            role: ExampleSet(role, self.train_pixels, ids, 1, rng, {})
            for role, ids in members.items()
        }
        test = Pixels(self.data, "test", self.device)
        sets["test"] = ExampleSet("test", test, np.arange(len(self.data.test_labels)), 1, rng, {})
        return accuracy_splits(model, sets, self.request.classes)

    def _task(
        self,
        phase: str,
        request: ForgetRequest | None,
        served: dict[str, int],
        prepared: Mapping[str, Tensor] | None,
    ) -> UnlearningTask:
        """Build a task that holds the declared sets, and no others."""
        members = {"validation": self.split.validation}
        if request is None:
            members["training"] = self.split.training
        else:
            members |= {"forget": request.forget, "retain": request.retain}
        job = self.job
        # a stream of its own for every method, setting and request, never the original's; what
        # is prepared must not depend on settings that do not determine it
        params = self.method.prepare_params if request is None else self.method.params
        rng = _generator(
            job.original.seed,
            phase,
            job.original.key,
            job.method.name,
            canonical_json(params),
            request.hash if request else "",
        )
        settings = self.recipe.settings
        sets: dict[str, ExampleSet] = {
            role: ExampleSet(
                role,
                self.train_pixels,
                ids,
                settings.batch_size,
                rng,
                served,
                augment=settings.augment,
            )
            for role, ids in members.items()
            if role in self.method.needs
        }
        info = TaskInfo(
            model_spec=job.original.model,
            recipe=self.recipe,
            forget_classes=request.classes if request else (),
            forget_size=len(request.forget) if request else 0,
            retain_size=len(request.retain) if request else len(self.split.training),
            validation_size=len(self.split.validation),
            num_classes=self.data.num_classes,
            image_shape=self.data.image_shape,
        )
        return UnlearningTask(
            info,
            method=self.method.name,
            sets=sets,
            device=self.device,
            rng=rng,
            served=served,
            prepared=prepared,
        )

    def _timed(self, task: UnlearningTask, call: Any) -> tuple[Any, float, int | None]:  # noqa: ANN401
        """Call with gradients as declared and randomness of its own; seconds and peak memory."""
        memory = PeakMemory(str(self.device))
        gradients = "gradients" in self.method.needs
        with quiet_randomness(task.rng, self.device), torch.set_grad_enabled(gradients):
            memory.start()
            _synchronise(self.device)
            began = time.perf_counter()
            result = call()
            _synchronise(self.device)
            seconds = time.perf_counter() - began
        return result, seconds, memory.stop()

    def warm_up(self) -> None:
        """One step on blank images, so that the first call of a kernel is not timed."""
        images = torch.zeros(2, *self.data.image_shape, device=self.device)
        labels = torch.zeros(2, dtype=torch.int64, device=self.device)
        model = deepcopy(self.original).train()
        with quiet_randomness(torch.Generator(), self.device), torch.enable_grad():
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]


def _sum(*counts: Mapping[str, int]) -> dict[str, int]:
    """Add counts by name."""
    return dict(sum((Counter(c) for c in counts), Counter[str]()))


def _begin(settings: WorkerSettings) -> Store:
    """Make this process ready for a job."""
    if not settings.device.startswith("cuda"):
        torch.set_num_threads(settings.threads)
    load_plugin_files(settings.plugins)
    return Store(Path(settings.store))


def _images(store: Store, job: OriginalJob) -> tuple[ImageData, Split]:
    data = get_images(store, job.data)
    return data, split_validation(data, job.validation_fraction)


def _recipe(text: RecipeText) -> Recipe:
    penalty = None if text.penalty is None else _method(text.penalty)
    return Recipe(text.name, TrainingSettings(**text.settings), penalty)


def _method(text: PluginText) -> Unlearner:
    return METHODS.get(text.name).create(text.params)


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*parts))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
