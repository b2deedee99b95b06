"""Checks of what a method returns, and of what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import DivergedError
from .check import CheckFailure, check
from .laboratory import places
from .run import describe_tensors
from .subject import blamed, refusal

if TYPE_CHECKING:
    from .run import Run
    from .subject import Subject

SHOWN = 3


@check("interface")
def runs(subject: Subject) -> None:
    """It runs to its end on a task that it does not decline, and there is one."""
    for worker in subject.in_worker:
        if worker.died and not worker.hung:
            raise CheckFailure(
                f"{worker.place} {worker.outcome.reason}; a method must not end its process"
            )
    found = [subject.run(place) for place in places(subject.scenario)]
    for run in found:
        if run.error is not None and blamed(run.error) == "runs":
            raise CheckFailure(f"mend the method: {refusal(run)}")
    if all(run.declined for run in found):
        reasons = "; ".join(dict.fromkeys(run.declined.rstrip(".") for run in found))
        raise CheckFailure(f"serve at least one task of this suite; all are declined: {reasons}")


@check("interface")
def same_architecture(subject: Subject) -> None:
    """The unlearned model has the original's tensors: the same names, shapes and dtypes."""
    for run in subject.runs():
        got, wanted = describe_tensors(run.state), describe_tensors(run.original)
        if got != wanted:
            odd = [name for name in {**wanted, **got} if got.get(name) != wanted.get(name)]
            name = odd[0]
            raise CheckFailure(
                f"return the original's architecture: {run.place} `{name}` is "
                f"{got.get(name, 'absent')}, in the original {wanted.get(name, 'absent')}"
            )


@check("interface")
def finite(subject: Subject) -> None:
    """Weights and outputs of the unlearned model are finite."""
    for place in places(subject.scenario):
        run = subject.run(place)
        if isinstance(run.error, DivergedError):
            raise CheckFailure(f"take smaller steps or clip gradients: {refusal(run)}")
    for run in subject.comparable():
        bad = [name for name, t in run.state.items() if not bool(torch.isfinite(t).all())]
        if bad:
            raise CheckFailure(
                f"take smaller steps, or guard a division: {run.place} {_some(bad)} "
                "has values that are not finite"
            )
        if not run.outputs:
            raise CheckFailure(f"keep weights moderate: {run.place} outputs are not finite")


@check("interface")
def original_untouched(subject: Subject) -> None:
    """The caller's original is bit-identical afterwards, and so are the method's parameters."""
    for run in subject.runs():
        if run.changed:
            raise CheckFailure(
                f"edit the model that is given, not the caller's: {run.place} {_some(run.changed)} "
                "of the original changed"
            )
        if run.watch.params:
            raise CheckFailure(f"leave the parameters as they are: {run.place} they changed")


@check("interface")
def images_untouched(subject: Subject) -> None:
    """The images and labels of the task are as before."""
    _none(
        subject,
        lambda run: run.watch.images,
        "copy a batch before changing it: {place} the {what} set has other images or labels now",
    )


@check("interface")
def prepared_untouched(subject: Subject) -> None:
    """What was prepared is as before, since other requests use it too."""
    _none(
        subject,
        lambda run: run.watch.prepared,
        "copy a prepared tensor before changing it: {place} {what} changed",
    )


@check("interface")
def no_gradients_left(subject: Subject) -> None:
    """No parameter of the unlearned model carries a gradient."""
    _none(
        subject,
        lambda run: run.gradients,
        "end with `model.zero_grad(set_to_none=True)`: {place} {what} carries a gradient",
    )


@check("interface")
def no_hooks_left(subject: Subject) -> None:
    """No module of the unlearned model carries a hook."""
    _none(
        subject,
        lambda run: run.hooks,
        "remove every hook in a `finally`, or use `task.observe`: {place} {what} carries one",
    )


@check("interface")
def trainable_as_before(subject: Subject) -> None:
    """Every parameter requires gradients as it did in the original."""
    _none(
        subject,
        lambda run: run.frozen,
        "put `requires_grad` back: {place} it differs for {what}",
    )


@check("interface")
def keeps_nothing(subject: Subject) -> None:
    """After it returns, nothing holds the task, its sets or the model that was given."""
    _none(
        subject,
        lambda run: run.kept,
        "keep no reference in a module, class or cache: {place} something still holds {what}",
        plain=True,
    )


def _none(
    subject: Subject, look: Callable[[Run], Sequence[str]], sentence: str, *, plain: bool = False
) -> None:
    """Fail with a sentence if a look at any run finds something."""
    for run in subject.runs():
        found = look(run)
        if found:
            what = " and ".join(found) if plain else _some(found)
            raise CheckFailure(sentence.format(place=run.place, what=what))


def _some(names: Sequence[str]) -> str:
    """A few names."""
    shown = ", ".join(f"`{name}`" for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
