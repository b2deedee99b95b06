"""Checks in worker processes, where sweeps run."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from .check import CheckFailure, NotApplicable, check
from .determinism import same_bits

if TYPE_CHECKING:
    from .subject import Subject


@check("process")
def pickles(subject: Subject) -> None:
    """It is the same after pickling."""
    try:
        again = pickle.loads(pickle.dumps(subject.method))
    except Exception as error:
        raise CheckFailure(f"define the class at the top of its module: {error}") from None
    if again != subject.method:
        raise CheckFailure("keep nothing but parameters: it is another method after pickling")


@check("process")
def runs_in_a_worker(subject: Subject) -> None:
    """In a worker process it returns the same bits as here."""
    compared = 0
    for worker in subject.in_worker:
        here = subject.run(worker.place)
        if not here.sound:
            continue
        if not same_bits(here.state, subject.run(worker.place, "again").state):
            continue
        if worker.outcome.reason is not None:
            raise CheckFailure(
                f"make it run in any process: {worker.place} a worker says that "
                f"{worker.outcome.reason}"
            )
        if not same_bits(here.state, worker.state):
            raise CheckFailure(
                f"depend on nothing but the task: {worker.place} a worker process gives "
                "other weights"
            )
        compared += 1
    if not compared:
        raise NotApplicable(
            "nothing to compare, see the checks of the interface and of determinism"
        )


@check("process")
def time_limit(subject: Subject) -> None:
    """It ends within its time limit, on a hundred images of 8x8."""
    for worker in subject.in_worker:
        if worker.hung:
            reason = worker.outcome.reason
            raise CheckFailure(f"make it faster: {worker.place} it was {reason}")
