"""Checks that a method does something, and not too much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from ..evaluate import Outputs
from .check import CheckFailure, NotApplicable, check

if TYPE_CHECKING:
    from .run import Run
    from .subject import Subject

UTILITY = 0.5  # share of the original's accuracy above chance, on what is kept, that must be left
FORGOTTEN = 0.95  # most that may be left of the probability of the true class on the forget set


@check("sanity")
def keeps_utility(subject: Subject) -> None:
    """At its defaults it keeps half of the original's accuracy above chance on what is kept."""
    for run in _measured(subject):
        chance = 1 / len(set(run.before["retain"].labels.tolist()))
        had, has = (accuracy(_kept(outputs)) for outputs in (run.before, run.outputs))
        if has - chance < UTILITY * (had - chance):
            raise CheckFailure(
                f"choose gentler defaults: {run.place} test accuracy on what is kept falls from "
                f"{had:.2f} to {has:.2f}, by chance {chance:.2f}"
            )


@check("sanity")
def forgets(subject: Subject) -> None:
    """At its defaults the forget set is less probable than before, on one network at least."""
    found = []
    for run in _measured(subject):
        had, has = (probability(outputs["forget"]) for outputs in (run.before, run.outputs))
        if has <= FORGOTTEN * had:
            return
        found.append(f"{run.place} it goes from {had:.3f} to {has:.3f}")
    raise CheckFailure(
        "choose stronger defaults, for the mean probability of the true class hardly falls: "
        f"{'; '.join(found)}"
    )


def _measured(subject: Subject) -> list[Run]:
    found = [run for run in subject.comparable() if run.outputs]
    if not found:
        raise NotApplicable("not measured, see `finite`")
    return found


def _kept(outputs: Mapping[str, Outputs]) -> Outputs:
    """Test outputs of the classes that are in the retain set."""
    test = outputs["test"]
    inside = torch.isin(test.labels, outputs["retain"].labels)
    return Outputs(test.logits[inside], test.labels[inside])


def accuracy(outputs: Outputs) -> float:
    """Share of the examples that are named correctly."""
    return float(outputs.hits.mean())


def probability(outputs: Outputs) -> float:
    """Mean probability of the true class."""
    rows = outputs.logits.softmax(1)
    return float(rows.gather(1, outputs.labels[:, None]).double().mean())
