"""Checks at the edges: very small and very large forget sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import UnlearnBenchError
from .check import CheckFailure, check
from .laboratory import NOTHING, ONE_CLASS_LEFT, ONE_EXAMPLE, TENTH, WHOLE_CLASS, places, skip
from .subject import refusal

if TYPE_CHECKING:
    from .subject import Subject


@check("edges")
def whole_class(subject: Subject) -> None:
    """It forgets a whole class, or declines with a sentence."""
    _sound(subject, WHOLE_CLASS)


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
    """The method ends with finite weights of the right shapes, or declines, on both networks."""
    declined = []
    for place in places(scenario):
        run = subject.run(place)
        if run.declined or isinstance(run.error, UnlearnBenchError):
            declined.append(run.declined or str(run.error))
        elif run.error is not None:
            raise CheckFailure(f"serve it or raise a `DeclinedError`: {refusal(run)}")
        elif not run.same_architecture:
            raise CheckFailure(f"return the original's architecture: {place} it does not")
        elif not all(bool(torch.isfinite(t).all()) for t in run.state.values()):
            raise CheckFailure(f"guard a division or raise a `DeclinedError`: {place} gives NaN")
    if len(declined) == len(places(scenario)):
        raise skip([reason.rstrip(".") for reason in declined])
