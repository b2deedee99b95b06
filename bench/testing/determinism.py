"""Checks of randomness and of the state of the process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .check import CheckFailure, check

if TYPE_CHECKING:
    from .subject import Subject

SEEDED = "draw from `task.rng`, or seed what you draw from with a number drawn from it"


@check("determinism")
def same_seed_same_bits(subject: Subject) -> None:
    """Run again with the same seed, it prepares and returns the same bits."""
    for run in subject.comparable():
        again = subject.run(run.place, "again")
        if not same_bits(run.state, again.state):
            raise CheckFailure(f"{SEEDED}: {run.place} a second run gives other weights")
        if run.reported != again.reported:
            raise CheckFailure(f"{SEEDED}: {run.place} a second run reports other values")
    for worker in subject.in_worker:
        run = subject.run(worker.place)
        compared = run.error is None and not run.declined and worker.prepared is not None
        if compared and not same_bits(run.prepared, worker.prepared or {}):
            raise CheckFailure(f"{SEEDED}: {run.place} it prepares other values every time")


@check("determinism")
def draws_from_task_rng(subject: Subject) -> None:
    """Its own code draws from `task.rng` alone, and no generator of its own ignores the seed."""
    for run in subject.runs():
        first, second = (subject.run(run.place, turn) for turn in ("again", "other seed"))
        for draw in dict.fromkeys(run.watch.draws + first.watch.draws):
            raise CheckFailure(f"{SEEDED}: {run.place} it {draw}")
        fixed = first.watch.generators & second.watch.generators
        if fixed:
            raise CheckFailure(
                f"{SEEDED}: {run.place} it draws from a generator seeded with {min(fixed)} "
                "whatever the seed of the cell"
            )


@check("determinism")
def global_state_restored(subject: Subject) -> None:
    """Gradient mode, threads, default dtype and the like are left as they were found."""
    for run in subject.runs():
        if run.watch.state:
            raise CheckFailure(
                f"put it back, best with a `with` block: {run.place} it changed "
                f"{', '.join(dict.fromkeys(run.watch.state))}"
            )


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two sets of named tensors are bit-identical; NaN equals NaN here."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype
        and a[k].shape == b[k].shape
        and torch.equal(a[k].nan_to_num(), b[k].nan_to_num())
        and torch.equal(a[k].isnan(), b[k].isnan())
        for k in a
    )
