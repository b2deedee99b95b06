"""What of a plan is still to be done, as jobs in the order in which they should start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .attack_plan import Attack
from .bank import ShadowBank
from .jobs import (
    AttackJob,
    BankJob,
    CellJob,
    Job,
    OriginalJob,
    ProbeJob,
    ScoreJob,
    ShadowJob,
)
from .keys import content_key
from .plan import Plan
from .store import Store

BANK_VERSION = 1  # raise it when the description of a bank changes
MOST_TRAININGS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """Jobs that are to be done; what is in the store already is left out.

    Attributes:
        originals: Originals to train.
        shadows: Shadow models to train.
        cells: Cells to run.
        unlearnings: Shadow models to unlearn, in groups.
        scores: Attacks to score.
        banks: Shadow banks to describe.
        probes: Unlearned models to probe.
    """

    originals: list[OriginalJob] = field(default_factory=list)
    shadows: list[ShadowJob] = field(default_factory=list)
    cells: list[CellJob] = field(default_factory=list)
    unlearnings: list[AttackJob] = field(default_factory=list)
    scores: list[ScoreJob] = field(default_factory=list)
    banks: list[BankJob] = field(default_factory=list)
    probes: list[ProbeJob] = field(default_factory=list)

    @property
    def jobs(self) -> list[Job]:
        """All jobs; long ones first, so that no worker is left alone with one at the end."""
        return [
            *self.originals,
            *self.shadows,
            *self.cells,
            *self.probes,
            *self.unlearnings,
            *self.banks,
            *self.scores,
        ]

    def __bool__(self) -> bool:
        return bool(self.cells or self.scores or self.banks or self.probes)


def banks_of(plan: Plan) -> list[ShadowBank]:
    """The shadow banks that the attacks of a plan use, in order."""
    return list({attack.bank.hash: attack.bank for attack in plan.attacks.values()}.values())


def bank_key(bank: ShadowBank) -> str:
    """Content key of the description of a bank."""
    return content_key("bank-facts", version=BANK_VERSION, bank=bank.hash)


def finished_banks(plan: Plan, store: Store) -> list[ShadowBank]:
    """The banks of which all attacks are scored."""
    open_ = {a.bank.hash for a in plan.attacks.values() if not store.has("ulira", a.key)}
    return [bank for bank in banks_of(plan) if bank.hash not in open_]


def drop_models(bank: ShadowBank, store: Store) -> None:
    """Remove the weights of shadow models that were trained by a sweep that does not keep them.

    Another sweep that unlearns them at this moment loses them, and trains them again when it is
    run again.
    """
    for shadow in bank.shadows:
        with store.lock(shadow.kind, shadow.key):
            found = store.get(shadow.kind, shadow.key)
            if found is not None and not found.meta["keep_models"]:
                store.drop(shadow.kind, shadow.key)


def find_work(plan: Plan, store: Store, workers: int, *, models: bool = False) -> Work:
    """Compare a plan with the store.

    Args:
        plan: All cells and attacks.
        store: Where results may be already.
        workers: Processes at a time, for which shadow models are grouped.
        models: Whether the unlearned models of all cells must be there.
    """
    probes = [job for job in plan.probes.values() if not _probed(job, store)]
    # a sweep that does not keep models may have run a cell before: it is run again
    opened = {cell.key for job in probes for cell in (job.cell, job.reference) if cell is not None}
    cells = [
        c.job
        for c in plan.cells
        if not c.skip
        and not (store.has_tensors if models or c.key in opened else store.has)("cell", c.key)
    ]
    starts = [cell.original for cell in [*cells, *(job.cell for job in probes)]]
    ends = [job for job in starts if not store.has("original", job.key)]
    needed = {job.key for end in ends for job in end.chain}
    originals = [
        job
        for key, job in plan.originals.items()
        if key in needed and not store.has("original", key)
    ]
    attacks = [a for a in plan.attacks.values() if not store.has("ulira", a.key)]
    # retrained models are read by the attacks on all methods, and may be gone where theirs is done
    read = {key for attack in attacks for key in attack.score.needs}
    missing = {key for key in read if not store.has("margins", key)}
    unlearnings = [
        AttackJob(content_key("unlearn", cells=[cell.key for cell in group]), group)
        # they also take longest, so they come first
        for attack in sorted(plan.attacks.values(), key=lambda a: a.method.name != "retrain")
        for group in _groups(
            [cell for cell in attack.cells if cell.key in missing], _group_size(attack, workers)
        )
    ]
    wanted = {key for job in unlearnings for key in job.needs}
    shadows = [
        ShadowJob(
            content_key("train", shadows=[shadow.key for shadow in group]),
            group,
            keep_models=plan.keep_models,
        )
        for bank in banks_of(plan)
        for group in _groups(
            [
                shadow
                # models that are trained together have halves of one size
                for shadow in sorted(bank.shadows, key=_half_size)
                if not store.has("margins", shadow.key)
                or (shadow.key in wanted and not store.has("shadow", shadow.key))
            ],
            _share(len(bank.shadows), workers, most=MOST_TRAININGS),
        )
    ]
    banks = [
        BankJob(
            key=bank_key(bank),
            data=bank.shadows[0].data,
            shadows=tuple(shadow.key for shadow in bank.shadows),
            seeds=bank.seeds,
            keep=bank.keep,
            training=bank.training,
        )
        for bank in banks_of(plan)
        if not store.has("bank", bank_key(bank))
    ]
    scores = [attack.score for attack in attacks]
    return Work(originals, shadows, cells, unlearnings, scores, banks, probes)


def _probed(job: ProbeJob, store: Store) -> bool:
    """Whether all figures of a probe are there."""
    return store.has("probe", job.own_key) and store.has("probe", job.key)


def _group_size(attack: Attack, workers: int) -> int:
    """Shadow models for one process to unlearn; it takes a fifth of a second to start."""
    count = len(attack.cells)
    if attack.method.name == "retrain":
        return _share(count, workers, most=MOST_TRAININGS)
    return max(1, count // max(1, workers))


def _share(count: int, workers: int, most: int) -> int:
    """Trainings for one process: so few that all workers end at about the same time."""
    return max(1, min(most, count // (2 * max(1, workers))))


def _half_size(shadow: OriginalJob) -> int:
    return 0 if shadow.half is None else len(shadow.half)


def _groups(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])
