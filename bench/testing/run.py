"""One run of a method on the harness's own workbench, and all that was seen of it."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DeclinedError, DivergedError
from ..evaluate import Outputs, outputs_on
from ..jobs import WorkerSettings
from ..unlearner import Unlearner
from ..workbench import Workbench
from .laboratory import NOTHING, Laboratory, Place
from .watching import Watch, watch_of, watched

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass
class Run:
    """What a method did.

    Attributes:
        place: Where.
        watch: What was seen of it at work.
        declined: Why it did not run; empty if it did.
        error: What it raised.
        original: State of the original before.
        state: State of the unlearned model.
        prepared: What it prepared.
        changed: Names of tensors of the original that it changed.
        gradients: Names of parameters that carry a gradient.
        hooks: Names of modules that carry hooks.
        frozen: Names of parameters whose `requires_grad` differs from the original's.
        kept: What it was lent and still holds.
        outputs: Of the unlearned model, by role.
        before: Of the original, likewise.
        served: Examples served, by role.
        reported: What it reported of itself.
    """

    place: Place
    watch: Watch
    declined: str = ""
    error: BaseException | None = None
    original: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    prepared: Mapping[str, Tensor] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    outputs: Mapping[str, Outputs] = field(default_factory=dict)
    before: Mapping[str, Outputs] = field(default_factory=dict)
    served: Mapping[str, int] = field(default_factory=dict)
    reported: Mapping[str, Any] = field(default_factory=dict)

    @property
    def same_architecture(self) -> bool:
        """Whether the unlearned model has the tensors of the original."""
        return describe_tensors(self.state) == describe_tensors(self.original)

    @property
    def sound(self) -> bool:
        """Whether it ended, with finite weights of the right shapes and finite outputs."""
        finite = all(bool(torch.isfinite(t).all()) for t in self.state.values())
        return bool(self.state) and self.same_architecture and finite and bool(self.outputs)


def describe_tensors(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Shape and dtype of every tensor, as a person reads them."""
    return {name: f"{tuple(t.shape)} {t.dtype}".replace("torch.", "") for name, t in state.items()}


def run(
    lab: Laboratory,
    method: Unlearner,
    place: Place,
    settings: WorkerSettings,
    *,
    other_seed: bool = False,
    anew: bool = False,
    leftovers: bool = False,
    draws: bool = False,
) -> Run:
    """Run a method once.

    Args:
        lab: The laboratory.
        method: The method.
        place: Where.
        settings: The worker's.
        other_seed: Draw from another stream, on the same original.
        anew: Prepare, even if that was done before.
        leftovers: Look for what the method keeps, which takes time.
        draws: Look at every random draw.
    """
    found = Run(place, watch_of(method))
    if reasons := lab.declined(method, place):
        found.declined = "; ".join(reasons)
        return found
    try:
        job = lab.cell_job(method, place, other_seed=other_seed)
        lab.train(lab.original_job(place.network, lab.recipe(method, place.network)), settings)
        workbench = Workbench(lab.store, job, settings, lab.data)
        if place.scenario == NOTHING:
            workbench.request = lab.request(NOTHING)
        if anew:
            lab.store.drop("prepared", job.prepared_key)
        with watched(workbench.method, found.watch, draws=draws):
            prepared = workbench.prepare()
            found.prepared = {name: t.clone() for name, t in prepared.tensors.items()}
            outcome = workbench.unlearn(prepared.tensors)
    except DeclinedError as error:
        found.declined = str(error)
        return found
    except Exception as error:
        found.error = error.with_traceback(None)
        return found
    found.served = {
        role: prepared.served.get(role, 0) + outcome.served.get(role, 0)
        for role in {**prepared.served, **outcome.served}
    }
    found.reported = outcome.reported
    _examine(found, lab, workbench, outcome.model)
    if leftovers:
        del workbench
        gc.collect()
        lent = {name for name, _ in found.watch.lent} - {"the model"}
        found.kept = sorted(name for name in lent if found.watch.alive(name))
        del outcome
        gc.collect()
        found.kept += ["the model"] if found.watch.alive("the model") else []
    return found


def _examine(found: Run, lab: Laboratory, workbench: Workbench, model: nn.Module) -> None:
    """Note all that is asked of the model; the model itself is not kept."""
    artifact = lab.store.get(workbench.job.original.kind, workbench.job.original.key)
    assert artifact is not None
    found.original = artifact.tensors()
    now = workbench.original.state_dict()
    found.changed = [
        name for name, tensor in found.original.items() if not torch.equal(tensor, now[name])
    ]
    found.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    found.gradients = [name for name, p in model.named_parameters() if p.grad is not None]
    found.hooks = [
        name or "the model"
        for name, module in model.named_modules()
        if any(getattr(module, hooks) for hooks in HOOKS)
    ]
    wanted = {name: p.requires_grad for name, p in workbench.original.named_parameters()}
    found.frozen = [
        name
        for name, p in model.named_parameters()
        if name in wanted and p.requires_grad != wanted[name]
    ]
    if not found.same_architecture:
        return
    request = workbench.request
    sets = {"forget": request.forget, "retain": request.retain}
    examples = {role: workbench.train_set(role, ids) for role, ids in sets.items()}
    examples["test"] = workbench.test_set()
    found.before = outputs_on(workbench.original, examples)
    try:
        found.outputs = outputs_on(model, examples)
    except DivergedError:
        found.outputs = {}
