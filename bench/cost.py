"""What work costs, before it is done: disk, and time as far as the store has seen the like."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from statistics import fmean

from .jobs import CellJob, OriginalJob, ProbeJob
from .keys import canonical_json
from .plan import Plan
from .store import Store
from .work import Work, banks_of

BYTES_A_MARGIN = 4
BYTES_BESIDE = 9  # two entropies, and whether the image is classified correctly
BYTES_A_WEIGHT = 4


@dataclass(frozen=True)
class Cost:
    """An estimate.

    Attributes:
        seconds: Of one worker, for the trainings, unlearnings and probes of which the store has
            timed the like; they grow with the number of examples.
        untimed: Number of the others.
        margin_bytes: Disk for margins.
        weight_bytes: Disk for the weights of shadow models; None if nothing tells their size.
    """

    seconds: float
    untimed: int
    margin_bytes: int
    weight_bytes: int | None


def estimate(plan: Plan, work: Work, store: Store) -> Cost:
    """Estimate what is still to be done of a plan."""
    sizes = {c.job.original.data: len(c.request.forget) + len(c.request.retain) for c in plan.cells}

    def size(job: OriginalJob) -> int:
        return sizes[job.data] if job.half is None else len(job.half)

    known: dict[Hashable, list[float]] = {}
    weights: dict[Hashable, int] = {}
    for job, like, seconds, parameters in _timed(plan, store):
        known.setdefault(like, []).append(seconds / size(job))
        if parameters is not None:
            weights[_network(job)] = parameters
    shadows = [shadow for job in work.shadows for shadow in job.shadows]
    unlearnings = [cell for job in work.unlearnings for cell in job.cells]
    wanted = [(_training(job), job) for job in [*work.originals, *shadows]]
    wanted += [(_method(cell), cell.original) for cell in [*work.cells, *unlearnings]]
    wanted += [(_probe(job), job.cell.original) for job in work.probes]
    per_model = {
        shadow.key: bank.images * (BYTES_A_MARGIN * bank.views + BYTES_BESIDE)
        for bank in banks_of(plan)
        for shadow in bank.shadows
    }
    read = [shadow.key for shadow in shadows] + [cell.original.key for cell in unlearnings]
    known_weights = [weights.get(_network(shadow)) for shadow in shadows]
    return Cost(
        seconds=sum(fmean(known[like]) * size(job) for like, job in wanted if like in known),
        untimed=sum(like not in known for like, _ in wanted),
        margin_bytes=sum(per_model[key] for key in read),
        weight_bytes=None
        if None in known_weights
        else BYTES_A_WEIGHT * sum(filter(None, known_weights)),
    )


def _timed(plan: Plan, store: Store) -> Iterator[tuple[OriginalJob, Hashable, float, int | None]]:
    """What the store has timed: the model, what the job was like, seconds, its parameters."""
    shadows = [shadow for bank in banks_of(plan) for shadow in bank.shadows]
    for job in [*plan.originals.values(), *shadows]:
        found = store.get("original" if job.half is None else "margins", job.key)
        if found is not None:
            info = found.meta["model_info"]
            yield job, _training(job), found.meta["original_s"], info["parameters"]
    cells = [(c.job, "cell") for c in plan.cells if not c.skip]
    cells += [(c, "margins") for attack in plan.attacks.values() for c in attack.cells]
    for cell, kind in cells:
        found = store.get(kind, cell.key)
        if found is not None:
            times = found.meta.get("times", found.meta)
            seconds = times["unlearn_s"] + times["prepare_s"]
            yield cell.original, _method(cell), seconds, None
    for probe in plan.probes.values():
        parts = [store.get("probe", key) for key in dict.fromkeys((probe.own_key, probe.key))]
        done = [part.meta["probe_s"] for part in parts if part is not None]
        if len(done) == len(parts):
            yield probe.cell.original, _probe(probe), sum(done), None


def _network(job: OriginalJob) -> Hashable:
    return job.data, str(job.model)


def _training(job: OriginalJob) -> Hashable:
    return (*job.recipe[:1], canonical_json(job.recipe.settings), job.data, str(job.model))


def _method(cell: CellJob) -> Hashable:
    return (cell.method.name, canonical_json(cell.method.params), _training(cell.original))


def _probe(job: ProbeJob) -> Hashable:
    return ("probe", job.probes, job.anchor, _network(job.cell.original))
