"""Checks at the edges: very small and very large forget sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UnlearnBenchError
from .check import CheckFailure, check
from .laboratory import (
    NOTHING,
    ONE_CLASS_LEFT,
    ONE_EXAMPLE,
    TENTH,
    TWO_CLASSES,
    Place,
    places,
    skip,
)
from .subject import refusal

if TYPE_CHECKING:
    from .subject import Subject


@check("edges")
def two_classes(subject: Subject) -> None:
    """It forgets several whole classes at once, or declines with a sentence."""
    _sound(subject, TWO_CLASSES)


@check("edges")
def tenth_of_the_examples(subject: Subject) -> None:
    """It forgets examples of all classes, or declines with a sentence."""
    _sound(subject, TENTH)


@check("edges")
def one_example(subject: Subject) -> None:
    """It forgets a single example, or declines with a sentence."""
    _sound(subject, ONE_EXAMPLE)


@check("edges")
def one_class_left(subject: Subject) -> None:
    """It forgets all classes but one, or declines with a sentence."""
    _sound(subject, ONE_CLASS_LEFT)


@check("edges")
def empty_forget_set(subject: Subject) -> None:
    """With nothing to forget it returns a sound model, or says so in an `InputError`."""
    _sound(subject, NOTHING)


def _sound(subject: Subject, scenario: str) -> None:
    """The method ends with finite weights of the right shapes, or declines, on both networks.

    Where it does not even do so in the scenario of the other checks, those tell.
    """
    unconcerned = []
    for place in places(scenario):
        usual = subject.run(Place(place.network, subject.scenario))
        if not (usual.sound or usual.declined):
            unconcerned.append("not run, see the checks of the interface")
            continue
        run = subject.run(place)
        if run.declined or isinstance(run.error, UnlearnBenchError):
            unconcerned.append(run.declined or str(run.error))
        elif run.error is not None:
            raise CheckFailure(f"serve it or raise a `DeclinedError`: {refusal(run)}")
        elif not run.same_architecture:
            raise CheckFailure(f"return the original's architecture: {place} it does not")
        elif not run.sound:
            raise CheckFailure(f"guard a division or raise a `DeclinedError`: {place} gives NaN")
    if len(unconcerned) == len(places(scenario)):
        raise skip([reason.rstrip(".") for reason in unconcerned])
