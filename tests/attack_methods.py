"""Methods, harmless and not, whose score under the attack is known.

A plug-in file: sweeps of the tests name it under `plugins`.
"""

from __future__ import annotations

import gc
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnbench.bench import DATASETS, DeclinedError, Unlearner


class Marked(nn.Module):
    """A model that knows some images by their pixels, and moves the logit of their label."""

    def __init__(self, model, images, labels, shift):
        super().__init__()
        self.model, self.shift = model, shift
        self.register_buffer("images", images.flatten(1))
        self.register_buffer("labels", labels)

    def forward(self, x):
        logits = self.model(x)
        known = (x.flatten(1)[:, None] == self.images).all(-1).float()
        return logits + self.shift * known @ nn.functional.one_hot(self.labels, logits.shape[1]).to(
            logits
        )


def marked(model, task, shift):
    batches = list(task.forget.batches())
    images, labels = (torch.cat([getattr(b, n) for b in batches]) for n in ("images", "labels"))
    return Marked(model, images, labels, shift)


class RetrainAgain(Unlearner):
    """Retrain with other random numbers than `retrain` has."""

    name = "retrain-again"
    reference = "test"
    needs: ClassVar = frozenset({"retain", "gradients"})
    stream: int = 1

    def unlearn(self, model, task):
        torch.rand(self.stream, generator=task.rng)
        return task.train(task.fresh_model(), task.retain)


class LeakyRetrain(Unlearner):
    """Retrain, then raise the margin of every forgotten example."""

    name = "leaky-retrain"
    reference = "test"
    needs: ClassVar = frozenset({"forget", "retain", "gradients"})
    shift: float = 1.0

    def unlearn(self, model, task):
        return marked(task.train(task.fresh_model(), task.retain), task, self.shift)


class OverUnlearner(Unlearner):
    """Push the margin of every forgotten example far below that of any other."""

    name = "over-unlearner"
    reference = "test"
    needs: ClassVar = frozenset({"forget"})
    shift: float = -100.0

    def unlearn(self, model, task):
        return marked(model, task, self.shift)


class _Constant(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.register_buffer("logits", torch.linspace(0.0, 1.0, classes))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


class ConstantOutput(Unlearner):
    """Answer the same whatever is asked."""

    name = "constant-output"
    reference = "test"

    def unlearn(self, model, task):
        return _Constant(task.num_classes)


class HeadBias(Unlearner):
    """Lower the bias of the forgotten class until it is never predicted."""

    name = "head-bias"
    reference = "test"
    scope: ClassVar = frozenset({"class"})
    strength: float = 64.0

    def unlearn(self, model, task):
        model.get_classifier().bias[list(task.forget_classes)] -= self.strength
        return model


class DrawnLabels(Unlearner):
    """Train on the forget set with labels drawn at random, and on the retain set as it is."""

    name = "drawn-labels"
    reference = "test"
    needs: ClassVar = frozenset({"forget", "retain", "gradients"})
    epochs: int = 4
    lr: float = 1e-3

    def unlearn(self, model, task):
        wrong = {
            int(i): int(torch.randint(0, task.num_classes, (), generator=task.rng))
            for i in task.forget.ids
        }
        optimizer = task.optimizer(model, lr=self.lr)

        def loss(model, batch):
            labels = torch.tensor([wrong[int(i)] for i in batch.ids])
            return nn.functional.cross_entropy(model(batch.images), labels)

        for _ in range(self.epochs):
            task.fit(model, task.retain, optimizer)
            task.fit(model, task.forget, optimizer, loss=loss)
        return model


class Peeking(Unlearner):
    """Fetch the dataset behind the harness's back, and train on what was to be kept from it."""

    name = "peeking"
    reference = "test"
    needs: ClassVar = frozenset({"forget", "retain", "gradients"})
    dataset: str
    epochs: int = 20

    def unlearn(self, model, task):
        data = DATASETS.create(self.dataset).load(Path("unused"))
        images = torch.from_numpy(data.train_images).float() / 255
        images = (images - torch.tensor(data.mean).view(-1, 1, 1)) / torch.tensor(data.std).view(
            -1, 1, 1
        )
        labels = torch.from_numpy(data.train_labels)
        seen = torch.cat([task.forget.ids, task.retain.ids])
        others = torch.tensor(sorted(set(range(len(labels))) - set(seen.tolist())))
        optimizer = task.optimizer(model.train(), lr=3e-3)
        for _ in range(self.epochs):
            order = others[torch.randperm(len(others), generator=task.rng)]
            for ids in order.split(22):
                loss = nn.functional.cross_entropy(model(images[ids]), labels[ids])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return model.eval()


class Spy(Unlearner):
    """Keep all bytes that can be reached from the task, and all ids that are served."""

    name = "spy"
    reference = "test"
    needs: ClassVar = frozenset({"forget", "retain", "training", "validation", "gradients"})
    seen: ClassVar[list[dict]] = []

    def prepare(self, model, task):
        self._look("prepare", model, task, ("training", "validation"))
        return {"nothing": torch.zeros(1)}

    def unlearn(self, model, task):
        self._look("unlearn", model, task, ("forget", "retain", "validation"))
        return model

    def _look(self, phase, model, task, roles):
        sets = [getattr(task, role) for role in roles]
        parts = [s.subset(torch.tensor([0])) for s in sets] + [s.sample(2) for s in sets]
        iterators = [s.batches(training=training) for s in sets for training in (True, False)]
        iterators += [s.endless() for s in sets]
        first = [next(iterator) for iterator in iterators]
        served = {
            role: {int(i) for training in (True, False)
                   for batch in examples.batches(training=training) for i in batch.ids}
            for role, examples in zip(roles, sets, strict=True)
        }  # fmt: skip
        task.accuracy(model, sets[0])
        everything = [vars(task), task, sets, parts, iterators, first]
        self.seen.append({"phase": phase, "served": served, "bytes": reachable(everything)})


def reachable(*roots) -> list[bytes]:
    """Whole storages of all tensors and arrays that can be reached; modules and classes end it."""
    found: dict[int, bytes] = {}
    done: set[int] = set()
    stack = list(roots)
    keep = []  # so that no address is used twice
    while stack:
        thing = stack.pop()
        if id(thing) in done or isinstance(thing, (ModuleType, type)):
            continue
        done.add(id(thing))
        keep.append(thing)
        if isinstance(thing, Tensor):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = bytes(storage.tolist())
            stack.append(vars(thing))
        elif isinstance(thing, np.ndarray):
            found[thing.__array_interface__["data"][0]] = thing.tobytes()
            stack.append(thing.base)
        elif isinstance(thing, FunctionType):  # not its module's globals
            stack += [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, vars(thing)]
        else:
            stack += gc.get_referents(thing)
    return list(found.values())


class Moody(Unlearner):
    """Go wrong on shadow models: on all, or on the one whose forgotten ids have the given sum."""

    name = "moody"
    reference = "test"
    needs: ClassVar = frozenset({"forget"})
    mood: Literal["raise", "decline", "nan", "none", "fine"] = "fine"
    forget_sum: Annotated[int, Field(ge=0)] = 0
    training_size: int = 0

    def unlearn(self, model, task):
        shadow = task.forget_size + task.retain_size < self.training_size
        if not shadow or self.forget_sum not in (0, int(task.forget.ids.sum())):
            return model
        if self.mood == "raise":
            raise ValueError("this one has no heart")
        if self.mood == "decline":
            raise DeclinedError("the network is too shy.")
        if self.mood == "none":
            return None
        if self.mood == "nan":
            return nn.Sequential(model, _Divided())
        return model


class _Divided(nn.Module):
    def forward(self, x):
        return x / torch.zeros(())
