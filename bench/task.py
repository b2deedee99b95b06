"""What a method sees of a cell: the request, the sets that it declared, and tools."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .batch_norm import bearing_lone_examples
from .batches import Batch, ExampleSet
from .callbacks import Callback
from .curvature import Solution, damped_inverse_product
from .environment import synchronise
from .errors import UndeclaredNeedError
from .evaluate import accuracy, in_eval_mode, logits
from .freezing import Masked, last_modules, reinitialise, training_only
from .gradients import Each, Moment, NamedTensors, gradient_moment, gradient_sum, gradients
from .layers import Layer, find_layers
from .mixture import Examples
from .models import build_model
from .observe import Watch, observe
from .relabelling import random_labels
from .taskinfo import TaskInfo
from .training import EpochDone, Loss, cross_entropy, fit, make_optimizer, train_recipe

Phase = Literal["statistics", "search"]
Replay = Callable[[Sequence[Callback]], nn.Module]


class UnlearningTask(TaskInfo):
    """One forget request on one original, as a method sees it.

    Sets that the method did not declare are not in here at all. The test set never is.

    Args:
        info: The facts of the task; its attributes are the task's.
        method: Name of the method, for messages.
        sets: The sets that are open to it, by role.
        device: See below.
        rng: See below.
        served: See below.
        prepared: See below.
        epoch_done: Looks at the model after every epoch of the tools; its time is not the method's.
        replay: Trains the original again; None where its history is not open.

    Attributes:
        device: Where model and images live.
        rng: The only source of randomness, a CPU generator. Global random state is seeded from
            it for library code, and restored afterwards.
        prepared: What `prepare` returned for this original; empty if nothing.
        served: Examples served so far, by role, repeats counted.
        reported: What the method noted of itself.
        phases: Seconds of the parts of the work that were timed apart, as `<name>_s`.
        paused_s: Seconds in which the harness looked at the model; no part of the work.
    """

    def __init__(
        self,
        info: TaskInfo,
        *,
        method: str,
        sets: Mapping[str, ExampleSet],
        device: torch.device,
        rng: torch.Generator,
        served: dict[str, int],
        prepared: Mapping[str, Tensor] | None = None,
        epoch_done: EpochDone | None = None,
        replay: Replay | None = None,
    ) -> None:
        super().__init__(**{f.name: getattr(info, f.name) for f in fields(TaskInfo)})
        self.device, self.rng, self.served = device, rng, served
        self.prepared: Mapping[str, Tensor] = prepared or {}
        self.reported: dict[str, Any] = {}
        self.phases: dict[str, float] = {}
        self.paused_s = 0.0
        self._method, self._sets, self._look = method, dict(sets), epoch_done
        self._held: list[Callback] = []
        self._replay = replay

    # --- example sets -----------------------------------------------------------------------

    @property
    def forget(self) -> ExampleSet:
        """The forget set; needs `"forget"`."""
        return self._set("forget")

    @property
    def retain(self) -> ExampleSet:
        """The retain set; needs `"retain"`."""
        return self._set("retain")

    @property
    def validation(self) -> ExampleSet:
        """Images of all classes held out of the training set; needs `"validation"`."""
        return self._set("validation")

    @property
    def training(self) -> ExampleSet:
        """The whole training set, in `prepare` only; needs `"training"`."""
        return self._set("training")

    def _set(self, role: str) -> ExampleSet:
        if role not in self._sets:
            where = " in `prepare`" if role == "training" else ""
            raise UndeclaredNeedError(
                f"method `{self._method}` touched the {role} set, which is withheld; "
                f'declare `needs` with "{role}" to open it{where}.'
            )
        return self._sets[role]

    def replay(self, callbacks: Sequence[Callback]) -> nn.Module:
        """Train the original again, on the same examples in the same order; in `prepare` only.

        It needs `"history"` and `"training"`. What it gives is the original again where training
        repeats itself, which `replay.replay_training` says; compare them.

        Args:
            callbacks: Called between its steps; its batches are those of the original's training.

        Returns:
            The model at the end.

        Raises:
            DeclinedError: If the original was not trained here from its beginning.
            UndeclaredNeedError: If the history was not declared, or outside `prepare`.
        """
        self._set("training")
        if self._replay is None:
            raise UndeclaredNeedError(
                f"method `{self._method}` touched the history of training, which is withheld; "
                'declare `needs` with "history" to open it in `prepare`.'
            )
        return self._replay(callbacks)

    def _check_gradients(self) -> None:
        if not torch.is_grad_enabled():
            raise UndeclaredNeedError(
                f"method `{self._method}` asked for gradients, which are switched off; "
                'declare `needs` with "gradients".'
            )

    # --- tools ------------------------------------------------------------------------------

    def fresh_model(self, *, untrained: bool = False) -> nn.Module:
        """A newly initialised model of the original's architecture.

        Where originals start from weights, so does this one: it has then seen whatever those were
        trained on, which may have been the forget set.

        Args:
            untrained: Never start from weights, even where originals do.
        """
        seed = int(torch.randint(0, 2**62, (), generator=self.rng))
        spec = self.model_spec.as_built(self.model_spec.stem) if untrained else self.model_spec
        model = build_model(spec, self.num_classes, self.image_shape, seed)
        return model.to(self.device).eval()

    def train(self, model: nn.Module, examples: ExampleSet) -> nn.Module:
        """Train a fresh model with the original's recipe, penalty included."""
        return train_recipe(
            model, examples, self.recipe, epoch_done=self._epoch_done, callbacks=self._held
        )

    def optimizer(
        self,
        model: nn.Module,
        *,
        lr: float,
        name: Literal["sgd", "adamw"] | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
    ) -> torch.optim.Optimizer:
        """An optimiser over the trainable parameters; what is not given is the recipe's."""
        settings = self.recipe.settings
        return make_optimizer(
            model,
            lr=lr,
            name=name or settings.optimizer,
            momentum=settings.momentum if momentum is None else momentum,
            weight_decay=settings.weight_decay if weight_decay is None else weight_decay,
        )

    def fit(
        self,
        model: nn.Module,
        examples: Examples,
        optimizer: torch.optim.Optimizer,
        *,
        epochs: int = 1,
        loss: Loss | None = None,
        batch_size: int | None = None,
        schedule: Literal["cosine", "constant"] = "constant",
        warmup_frac: float = 0.0,
        batch_norm: Literal["train", "eval"] = "train",
        clip_norm: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> float:
        """Minimise a loss over a set of examples, or a mixture; see `training.fit`.

        The loss defaults to the recipe's cross-entropy; its penalty is not added, since a method
        that repairs an original edits it, not its recipe. A batch of one example is passed with
        BatchNorm in eval mode. What `training_only` and `masked` hold stays as it is.

        Returns:
            Mean loss of the last epoch.
        """
        settings = self.recipe.settings
        return fit(
            model,
            examples,
            optimizer,
            epochs=epochs,
            loss=bearing_lone_examples(loss or cross_entropy(settings.label_smoothing)),
            batch_size=batch_size,
            schedule=schedule,
            warmup_frac=warmup_frac,
            batch_norm=batch_norm,
            clip_norm=clip_norm,
            precision=settings.precision,
            epoch_done=self._epoch_done,
            callbacks=[*callbacks, *self._held],
        )

    @contextmanager
    def training_only(self, model: nn.Module, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Train nothing but the parameters of some modules inside the context.

        The others take no gradients, and stay in eval mode in `fit` and `train`: statistics of
        BatchNorm would drift otherwise. Make the optimiser inside.
        """
        with training_only(model, modules) as still, self._holding(still):
            yield

    @contextmanager
    def masked(self, model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
        """Let only some entries of the parameters move in `fit` and `train` inside the context.

        The others keep their bits: neither weight decay nor momentum moves them. Buffers, such as
        the running statistics of BatchNorm, are no parameters and are not held.

        Args:
            model: The network.
            masks: By parameter name, bool in the parameter's shape: which entries may move. A
                parameter without a mask may move as a whole.

        Raises:
            InputError: If a name or a shape is not a parameter's.
        """
        with self._holding(Masked(model, masks)):
            yield

    @contextmanager
    def _holding(self, callback: Callback) -> Iterator[None]:
        self._held.append(callback)
        try:
            yield
        finally:
            self._held.remove(callback)

    def last_modules(self, model: nn.Module, count: int) -> list[nn.Module]:
        """What runs from the `count`-th last layer on; see `freezing.last_modules`."""
        return last_modules(model, self.blank_batch().images, count)

    def reinitialise(self, model: nn.Module, modules: Iterable[nn.Module]) -> None:
        """Give some modules the weights and statistics that they have in a fresh model."""
        reinitialise(model, self.fresh_model(), modules)

    def random_labels(self, labels: Tensor, *, exclude_own: bool = True) -> Tensor:
        """Draw a label for each, `(N,)` int64, from the other classes or from all."""
        return random_labels(labels, self.num_classes, self.rng, exclude_own=exclude_own)

    def eval_mode(self, model: nn.Module) -> AbstractContextManager[None]:
        """Put a model into eval mode inside the context: norms keep their running statistics."""
        return in_eval_mode(model)

    def accuracy(self, model: nn.Module, examples: ExampleSet) -> float:
        """Share of the examples that the model classifies correctly, in eval mode."""
        return accuracy(model, examples)

    def logits(self, model: nn.Module, examples: ExampleSet) -> Tensor:
        """Logits of the examples in order, `(N, C)` float32, in eval mode."""
        return logits(model, examples)

    def layers(self, model: nn.Module) -> list[Layer]:
        """Convolutions and linear layers in running order, each with its norm and activation."""
        return find_layers(model, self.blank_batch().images)

    def observe(
        self,
        model: nn.Module,
        examples: ExampleSet,
        *,
        inputs: Mapping[nn.Module, Watch] | None = None,
        outputs: Mapping[nn.Module, Watch] | None = None,
    ) -> None:
        """Pass examples through once and show what goes into, or comes out of, given layers."""
        observe(model, examples, inputs=inputs, outputs=outputs)

    def gradient_sum(
        self,
        model: nn.Module,
        examples: ExampleSet,
        *,
        loss: Loss | None = None,
        augmented: bool = False,
    ) -> NamedTensors:
        """Sum of the gradients of all examples, by parameter; see `gradients.gradient_sum`.

        The loss of this and of the other gradient tools defaults to the plain cross-entropy.
        """
        self._check_gradients()
        return gradient_sum(model, examples, loss or cross_entropy(), augmented=augmented)

    def gradient_moment(
        self,
        model: nn.Module,
        examples: ExampleSet,
        *,
        loss: Loss | None = None,
        moment: Moment = "square",
        each: Each = "example",
        batch_size: int | None = None,
        augmented: bool = False,
    ) -> NamedTensors:
        """Mean square, or magnitude, of gradients; see `gradients.gradient_moment`.

        As it comes, it is the diagonal of the empirical Fisher information.
        """
        self._check_gradients()
        return gradient_moment(
            model,
            examples,
            loss or cross_entropy(),
            moment=moment,
            each=each,
            batch_size=batch_size,
            augmented=augmented,
        )

    def gradients(
        self,
        model: nn.Module,
        examples: ExampleSet,
        *,
        loss: Loss | None = None,
        each: Each = "example",
        batch_size: int | None = None,
        augmented: bool = False,
    ) -> Iterator[NamedTensors]:
        """Gradients of single examples or of batches, `(n, *shape)`; see `gradients.gradients`."""
        self._check_gradients()
        return gradients(
            model,
            examples,
            loss or cross_entropy(),
            each=each,
            batch_size=batch_size,
            augmented=augmented,
        )

    def damped_inverse_product(
        self,
        model: nn.Module,
        examples: ExampleSet,
        vector: NamedTensors,
        *,
        damping: float,
        iterations: int,
    ) -> Solution:
        """Product with the inverse of the damped curvature; see `curvature`."""
        self._check_gradients()
        return damped_inverse_product(
            model, examples, vector, damping=damping, iterations=iterations
        )

    def noise_rng(self) -> torch.Generator:
        """A new generator on the device, seeded from `rng`: for noise in large amounts."""
        seed = int(torch.randint(0, 2**62, (), generator=self.rng))
        return torch.Generator(self.device).manual_seed(seed)

    def blank_batch(self, size: int = 1) -> Batch:
        """Images of zeros with label 0: for tracing shapes, not an example of anything."""
        images = torch.zeros(size, *self.image_shape, device=self.device)
        zeros = torch.zeros(size, dtype=torch.int64, device=self.device)
        return Batch(images, zeros, zeros)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Time a part of the work apart; the seconds stay part of the whole.

        Args:
            name: `statistics`, what is measured on examples; or `search`, trying candidates.
        """
        synchronise(self.device)
        began, paused_s = time.perf_counter(), self.paused_s
        try:
            yield
        finally:
            synchronise(self.device)
            key = f"{name}_s"
            seconds = time.perf_counter() - began - (self.paused_s - paused_s)
            self.phases[key] = self.phases.get(key, 0.0) + seconds

    def report(self, **values: float | int | str | bool) -> None:
        """Note what the method chose (e.g. searched values); goes into the record."""
        self.reported |= values

    def _epoch_done(self, model: nn.Module, loss: float) -> None:
        """Let the harness look at the model, while the clock stands."""
        if self._look is None:
            return
        synchronise(self.device)
        began = time.perf_counter()
        self._look(model, loss)
        synchronise(self.device)
        self.paused_s += time.perf_counter() - began


@contextmanager
def quiet_randomness(rng: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed the global generators from `rng` inside, and restore them after.

    Library code, such as dropout, draws from the global generators (of torch, NumPy and Python);
    a method's result must depend on its own seed only, and the caller's random state must not
    move.
    """
    devices = [device] if device.type == "cuda" else []
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    seed = int(torch.randint(0, 2**62, (), generator=rng))
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)
            np.random.set_state(numpy_state)
            random.setstate(python_state)
