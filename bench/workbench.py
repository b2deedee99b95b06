"""The bench on which a worker unlearns: one original, one forget request, one method."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .batches import ExampleSet, Pixels
from .callbacks import Callback
from .dataset import ImageData
from .datastore import get_images
from .environment import PeakMemory, synchronise
from .errors import StoreError
from .jobs import CellJob, OriginalJob, PluginText, RecipeText, WorkerSettings
from .keys import canonical_json, derive_seed
from .models import build_model
from .recipe import Recipe, TrainingSettings
from .registry import METHODS, load_plugin_files
from .scenario import ForgetRequest, Ids, Split, make_request, split_validation
from .store import TENSORS, Store
from .task import Replay, UnlearningTask, quiet_randomness
from .taskinfo import TaskInfo
from .training import EpochDone
from .unlearner import Unlearner


@dataclass(frozen=True, eq=False)
class Prepared:
    """What `prepare` gave and cost."""

    tensors: Mapping[str, Tensor]
    prepare_s: float
    served: dict[str, int]


@dataclass(frozen=True, eq=False)
class Unlearned:
    """What `unlearn` gave and cost."""

    model: nn.Module
    unlearn_s: float
    peak_memory_bytes: int | None
    served: dict[str, int]
    reported: dict[str, Any]
    phases: dict[str, float]


class Workbench:
    """One cell laid out: the original on the device, the method built, the images at hand.

    The same for a shadow model, whose training set is its half.

    Args:
        store: Holds images and original.
        job: What is to be unlearned.
        settings: The worker's.
        data: The images, if they are at hand.

    Attributes:
        request: The forget request.
        original_s: Seconds that training the original took.
        original_course: Mean loss of every epoch of that training, as `loss`; empty if not known.
        model_info: What is known of the architecture.

    Raises:
        StoreError: If images or original are missing or damaged.
    """

    def __init__(
        self,
        store: Store,
        job: CellJob,
        settings: WorkerSettings,
        data: ImageData | None = None,
    ) -> None:
        self.store, self.job, self.settings = store, job, settings
        self.device = torch.device(settings.device)
        self.data = get_images(store, job.original.data) if data is None else data
        self.split = split_of(self.data, job.original)
        self.recipe = create_recipe(job.original.recipe)
        self.method = create_method(job.method)
        self.request = make_request(self.data, self.split, job.forget, "the sweep's")
        artifact = store.get(job.original.kind, job.original.key)
        if artifact is None:
            raise StoreError(f"{job.original.kind} `{job.original.key}` is not in the store.")
        self._weights = artifact.files[TENSORS]
        self.original_s = float(artifact.meta["original_s"])
        self.original_course: dict[str, list[float]] = artifact.meta.get("course", {})
        self.model_info: dict[str, Any] = artifact.meta["model_info"]
        spec = job.original.model.as_built(self.model_info["stem"])
        model = build_model(spec, self.data.num_classes, self.data.image_shape, 0)
        model.load_state_dict(artifact.tensors())
        self.original = model.to(self.device).eval()

    def prepare(self) -> Prepared:
        """What the method prepares for this original, from the store if it is there."""
        if type(self.method).prepare is Unlearner.prepare:
            return Prepared({}, 0.0, {})
        with self.store.lock("prepared", self.job.prepared_key):
            found = self.store.get("prepared", self.job.prepared_key)
            if found is not None and found.meta["weights"] != self._weights:
                # the original was trained again, and not to the same bits
                self.store.drop("prepared", self.job.prepared_key)
                found = None
            if found is None:
                served: dict[str, int] = {}
                task = self._task("prepare", None, served, None)
                model = deepcopy(self.original)
                state, seconds, _ = self._timed(task, lambda: self.method.prepare(model, task))
                _check_prepared(self.method, state)
                meta = {"prepare_s": seconds, "samples": served, "weights": self._weights}
                found = self.store.put("prepared", self.job.prepared_key, meta, state or {})
        return Prepared(
            found.tensors(str(self.device)), float(found.meta["prepare_s"]), found.meta["samples"]
        )

    def unlearn(
        self, prepared: Mapping[str, Tensor], epoch_done: EpochDone | None = None
    ) -> Unlearned:
        """Run the method on a private copy of the original, timed.

        Args:
            prepared: What the method prepared.
            epoch_done: Looks at the model after every epoch, off the clock.
        """
        task = self._task("unlearn", self.request, {}, prepared, epoch_done)
        model = deepcopy(self.original)
        unlearned, seconds, peak = self._timed(task, lambda: self.method.unlearn(model, task))
        if not isinstance(unlearned, nn.Module):
            raise TypeError(
                f"method `{self.method.name}` must return a model; got {type(unlearned).__name__}."
            )
        return Unlearned(
            unlearned.eval(),
            seconds,
            peak,
            dict(task.served),
            dict(task.reported),
            dict(task.phases),
        )

    def train_set(self, role: str, ids: Ids) -> ExampleSet:
        """Official training images for measuring, which no method sees."""
        pixels = Pixels(self.data, "train", self.device, ids)
        return ExampleSet(role, pixels, ids, 1, torch.Generator(), {})

    def test_set(self) -> ExampleSet:
        """The official test images."""
        pixels = Pixels(self.data, "test", self.device)
        return ExampleSet("test", pixels, pixels.ids, 1, torch.Generator(), {})

    def _task(
        self,
        phase: str,
        request: ForgetRequest | None,
        served: dict[str, int],
        prepared: Mapping[str, Tensor] | None,
        epoch_done: EpochDone | None = None,
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
        rng = generator(
            job.original.seed,
            phase,
            job.original.key,
            self.method.family() if request is None else self.method.name,
            canonical_json(params),
            request.hash if request else "",
        )
        settings = self.recipe.settings
        sets: dict[str, ExampleSet] = {
            role: ExampleSet(
                role,
                Pixels(self.data, "train", self.device, ids),
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
            epoch_done=epoch_done,
            replay=self._replay(served) if self._opens_history(request) else None,
        )

    def _opens_history(self, request: ForgetRequest | None) -> bool:
        return request is None and "history" in self.method.needs

    def _replay(self, served: dict[str, int]) -> Replay:
        """Train the original again, for methods that look at its history."""
        from .replay import replay_training  # it stands above this module

        def replay(callbacks: Sequence[Callback]) -> nn.Module:
            return replay_training(self.store, self.job.original, self.settings, callbacks, served)

        return replay

    def _timed(self, task: UnlearningTask, call: Any) -> tuple[Any, float, int | None]:  # noqa: ANN401
        """Call with gradients as declared and randomness of its own; seconds and peak memory."""
        memory = PeakMemory(str(self.device))
        gradients = "gradients" in self.method.needs
        with quiet_randomness(task.rng, self.device), torch.set_grad_enabled(gradients):
            memory.start()
            synchronise(self.device)
            began = time.perf_counter()
            result = call()
            synchronise(self.device)
            seconds = time.perf_counter() - began - task.paused_s
        return result, seconds, memory.stop()

    def warm_up(self) -> None:
        """One step on blank images, so that the first call of a kernel is not timed."""
        images = torch.zeros(2, *self.data.image_shape, device=self.device)
        labels = torch.zeros(2, dtype=torch.int64, device=self.device)
        model = deepcopy(self.original).train()
        with quiet_randomness(torch.Generator(), self.device), torch.enable_grad():
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]


def _check_prepared(method: Unlearner, state: object) -> None:
    """Refuse what is not named tensors.

    Raises:
        TypeError: One sentence that says what to return.
    """
    named = isinstance(state, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )
    if state is not None and not named:
        raise TypeError(
            f"method `{method.name}` must return tensors by name from `prepare`, or None; "
            f"got {type(state).__name__}."
        )


def begin(settings: WorkerSettings) -> Store:
    """Make this process ready for a job."""
    if not settings.device.startswith("cuda"):
        torch.set_num_threads(settings.threads)
    load_plugin_files(settings.plugins)
    return Store(Path(settings.store))


def split_of(data: ImageData, job: OriginalJob) -> Split:
    """The split of an original; the training set of a shadow model is its half."""
    split = split_validation(data, job.validation_fraction)
    return split if job.half is None else Split(job.half, split.validation)


def create_recipe(text: RecipeText) -> Recipe:
    """Build a recipe from its text."""
    penalty = None if text.penalty is None else create_method(text.penalty)
    return Recipe(text.name, TrainingSettings(**text.settings), penalty)


def create_method(text: PluginText) -> Unlearner:
    """Build a method from its text."""
    return METHODS.get(text.name).create(text.params)


def generator(*parts: int | str) -> torch.Generator:
    """A generator of its own for every use."""
    return torch.Generator().manual_seed(derive_seed(*parts))
