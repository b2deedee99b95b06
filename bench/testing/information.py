"""Checks of what a method looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .check import CheckFailure, check
from .laboratory import places

if TYPE_CHECKING:
    from .subject import Subject


@check("information")
def declared_sets_only(subject: Subject) -> None:
    """It touches no set that it has not declared in `needs`."""
    for place in places(subject.scenario):
        for role in subject.run(place).watch.touched:
            where = " and read it in `prepare` only" if role == "training" else ""
            raise CheckFailure(f'add "{role}" to `needs`{where}: {place} it touches the {role} set')


@check("information")
def no_data_past_the_task(subject: Subject) -> None:
    """It gets its examples from the task: no test set, no controls, no dataset of its own."""
    for place in places(subject.scenario):
        for what in subject.run(place).watch.looked:
            raise CheckFailure(f"use the sets of the task: {place} it gets at {what}")


@check("information")
def samples_counted(subject: Subject) -> None:
    """All examples that it reads are counted, and come from sets that it has declared."""
    for run in subject.runs():
        for way in run.watch.uncounted:
            raise CheckFailure(
                f"read examples with `batches`, `endless` or the tools of the task: {run.place} "
                f"it goes by way of {way}, past the count"
            )
        odd = set(run.served) - subject.method.needs
        if odd:
            raise CheckFailure(f"{run.place} it was served the {min(odd)} set, not in `needs`")
