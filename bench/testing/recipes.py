"""Checks of methods with a recipe or a preparation of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError
from ..models import build_model
from ..modelspec import create_model_spec
from ..ranges import Range
from ..search_space import values_of
from ..unlearner import Unlearner
from .check import CheckFailure, NotApplicable, check
from .determinism import same_bits
from .laboratory import CONVNET, NETWORKS, at_work

if TYPE_CHECKING:
    from .subject import Subject


@check("recipes")
def differentiable_penalty(subject: Subject) -> None:
    """The training penalty is a finite number whose gradient reaches the weights."""
    penalty, model = _penalty(subject)
    if not isinstance(penalty, Tensor) or penalty.numel() != 1:
        raise CheckFailure(f"return a scalar tensor from `training_penalty`; got {penalty!r}")
    if not penalty.requires_grad:
        raise CheckFailure("compute `training_penalty` from parameters: it carries no gradient")
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(penalty.sum(), parameters, allow_unused=True)
    reached = [g for g in gradients if g is not None]
    if not all(bool(torch.isfinite(t).all()) for t in [penalty, *reached]):
        raise CheckFailure("guard a division or a root: the penalty or its gradient is not finite")
    if not any(bool((g != 0).any()) for g in reached):
        raise CheckFailure("compute `training_penalty` from weights: its gradient is zero")


@check("recipes")
def penalty_leaves_the_model(subject: Subject) -> None:
    """The training penalty changes nothing in the model that is being trained."""
    model = _network()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with at_work():
        _penalty(subject, model)
        subject.method.undecayed(model)
    if not same_bits(before, dict(model.state_dict())):
        raise CheckFailure("compute the penalty from copies: `training_penalty` changes weights")
    if any(p.grad is not None for p in model.parameters()):
        raise CheckFailure("return the penalty without calling `backward`: it leaves gradients")


@check("recipes")
def originals_keyed_apart(subject: Subject) -> None:
    """Originals of its recipe are kept apart from plain ones, and by every penalty field."""
    _needs_recipe(subject)
    with at_work() as lab:
        recipe = lab.recipe(subject.method, CONVNET)
        key = lab.original_job(CONVNET, recipe).key
        if key == lab.original_job(CONVNET, recipe.plain).key:
            raise CheckFailure("give the recipe a name of its own")
        for field in sorted(subject.method.penalty_fields):
            other = _changed(subject.method, {field})
            same = key == lab.original_job(CONVNET, lab.recipe(other, CONVNET)).key
            if other != subject.method and same:
                raise CheckFailure(
                    f"let every value of `{field}` be written as JSON of its own: originals of "
                    "two values have the same key"
                )


@check("recipes")
def penalty_fields_complete(subject: Subject) -> None:
    """The penalty depends on no parameter outside `penalty_fields`."""
    _needs_recipe(subject)
    model = _network()
    fields = set(type(subject.method).model_fields) - subject.method.penalty_fields
    other = _changed(subject.method, fields)
    if other == subject.method:
        raise NotApplicable("no parameter outside `penalty_fields` has another value to try")
    with at_work():
        torch.manual_seed(0)
        first = subject.method.training_penalty(model)
        torch.manual_seed(0)
        second = other.training_penalty(model)
    if not torch.equal(first, second):
        raise CheckFailure(
            "add to `penalty_fields` what the penalty depends on: it changes with one of "
            f"{', '.join(f'`{name}`' for name in sorted(fields))}"
        )


@check("recipes")
def prepare_fields_complete(subject: Subject) -> None:
    """What is prepared depends on no parameter outside `prepare_fields`."""
    method = subject.method
    if type(method).prepare is Unlearner.prepare or method.prepare_fields is None:
        raise NotApplicable("prepares nothing, or with all of its parameters")
    fields = set(type(method).model_fields) - method.prepare_fields - method.penalty_fields
    other = _changed(method, fields)
    if other == method:
        raise NotApplicable("no parameter outside `prepare_fields` has another value to try")
    mine = next(subject.runs())
    theirs = type(subject)(other, subject.plugins, trusted=True).run(mine.place)
    if theirs.declined or theirs.error is not None:
        raise NotApplicable("other values of the parameters do not run")
    if not same_bits(mine.prepared, theirs.prepared):
        raise CheckFailure(
            "add to `prepare_fields` what `prepare` depends on: it changes with one of "
            f"{', '.join(f'`{name}`' for name in sorted(fields))}"
        )


def _needs_recipe(subject: Subject) -> None:
    if subject.method.recipe is None:
        raise NotApplicable("has no recipe of its own")


def _network() -> torch.nn.Module:
    with at_work() as lab:
        spec = create_model_spec(NETWORKS[CONVNET])
        return build_model(spec, lab.data.num_classes, lab.data.image_shape, seed=0)


def _penalty(subject: Subject, model: torch.nn.Module | None = None) -> tuple[Any, torch.nn.Module]:
    _needs_recipe(subject)
    model = _network() if model is None else model
    with at_work():
        return subject.method.training_penalty(model), model


def _changed(method: Unlearner, fields: set[str]) -> Unlearner:
    """The method with other values of some fields, as far as any can be told and go together."""
    changed: dict[str, Any] = {}
    for name in sorted(fields):
        values = values_of(type(method), name)
        ends = (values.low, values.high) if isinstance(values, Range) else values
        for value in ends:
            if value != getattr(method, name):
                try:
                    type(method).create({**method.model_dump(), **changed, name: value})
                except InputError:
                    continue
                changed[name] = value
                break
    return type(method).create({**method.model_dump(), **changed})
