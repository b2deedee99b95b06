"""What a plan would do, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from .cost import estimate
from .plan import Cell, Plan
from .store import Store
from .sweep import SweepSpec
from .tuning_target import Target
from .work import Work, banks_of, find_work

UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}


def describe_plan(
    spec: SweepSpec, plan: Plan, store: Store, workers: int, targets: Sequence[Target] = ()
) -> str:
    """List the cells with their state, and count what would be trained.

    Args:
        spec: The sweep.
        plan: Its cells, with the hyper-parameters that are known.
        store: Where results may be already.
        workers: Processes at a time.
        targets: What would be tuned before, which changes the hyper-parameters.
    """
    work = find_work(plan, store, workers)
    to_do = {job.key for job in work.cells}
    states = {cell.key: _state(cell, to_do) for cell in plan.cells}
    lines = []
    table = None
    for cell in plan.cells:
        here = (cell.dataset, cell.model, cell.scenario)
        if here != table:
            table = here
            sizes = f"{len(cell.request.forget)} to forget, {len(cell.request.retain)} to retain"
            lines += [
                "",
                f"{cell.dataset} · {cell.model} · {cell.scenario}",
                f"  forget request {cell.request.hash}: {sizes}",
            ]
        reason = f": {'; '.join(cell.skip)}" if cell.skip else ""
        lines.append(
            f"  {cell.method.spec:<40} {cell.recipe.name:<12} seed {cell.seed:<4} "
            f"{states[cell.key]}{reason}"
        )
    counts = Counter(states.values())
    to_run = [c for c in plan.cells if states[c.key] == "to run"]
    retrains = sum(c.method.name == "retrain" for c in to_run)
    lines += [
        "",
        f"Sweep {spec.name}: {len(plan.cells)} cells; "
        + ", ".join(f"{counts[s]} {s}" for s in ("to run", "done", "skipped") if counts[s])
        + ".",
        *_tuning(spec, targets),
        _trainings(spec, len(work.originals), retrains, len(to_run) - retrains),
        *_attacks(plan, work),
        *_probes(spec, plan, work),
        *_cost(plan, work, store, workers),
    ]
    return "\n".join(lines[1:])


def _tuning(spec: SweepSpec, targets: Sequence[Target]) -> list[str]:
    """What tuning adds before anything else."""
    if spec.tune is None:
        return []
    settings = spec.tune
    originals = {job.key for target in targets for job in target.originals}
    unlearnings = len(targets) * settings.trials * settings.development_models
    again = " and as many retrained models" if settings.track == "oracle" else ""
    return [
        f"Tuning comes first: {len(targets)} studies of {settings.trials} trials each on "
        f"{settings.development_models} development models; would train at most {len(originals)} "
        f"of these{again}, and unlearn at most {unlearnings} times. The methods above are shown as "
        "written; they will run with what is found."
    ]


def _trainings(spec: SweepSpec, originals: int, retrains: int, unlearnings: int) -> str:
    if not spec.training.epochs:
        return (
            f"Would train nothing (0 epochs: originals are the weights as given), and unlearn "
            f"{unlearnings} times."
        )
    return (
        f"Would train {originals} originals and {retrains} retrained models "
        f"({spec.training.epochs} epochs each), and unlearn {unlearnings} times."
    )


def _state(cell: Cell, to_do: Collection[str]) -> str:
    if cell.skip:
        return "skipped"
    return "to run" if cell.key in to_do else "done"


def _probes(spec: SweepSpec, plan: Plan, work: Work) -> list[str]:
    """What the probes add."""
    if not plan.probes:
        return []
    names = ", ".join(spec.probes)
    return [f"Probes ({names}): would look into {len(work.probes)} of {len(plan.probes)} models."]


def _attacks(plan: Plan, work: Work) -> list[str]:
    """What the membership-inference attack adds."""
    if not plan.attacks:
        return ["No U-LIRA attack; `--shadows 64` adds it."]
    banks = banks_of(plan)
    total = sum(len(bank.shadows) for bank in banks)
    cells = [cell for job in work.unlearnings for cell in job.cells]
    retrained = sum(cell.method.name == "retrain" for cell in cells)
    missing = {shadow.key for job in work.shadows for shadow in job.shadows}
    lines = [
        f"U-LIRA: {len(plan.attacks)} attacks on {len(banks)} banks of "
        f"{len(banks[0].shadows)} shadow models, each trained on half of the training set. "
        f"Would train {len(missing)} of these {total} and {retrained} retrained models, and "
        f"unlearn {len(cells) - retrained} times.",
    ]
    for bank in banks:
        count = sum(shadow.key in missing for shadow in bank.shadows)
        lines.append(
            f"  bank {bank.hash}: {bank.dataset} · {bank.model} · {bank.recipe.name} recipe, "
            f"{len(bank.shadows) - count} of {len(bank.shadows)} models there"
        )
    return lines


def _cost(plan: Plan, work: Work, store: Store, workers: int) -> list[str]:
    """Time and disk, as far as they can be told."""
    if not work:
        return []
    cost = estimate(plan, work, store)
    lanes = max(1, workers)
    lines = []
    if cost.seconds:
        lanes_text = f"{lanes} worker{'s' if lanes > 1 else ''}"
        beside = f", and {cost.untimed} jobs of which none was timed yet" if cost.untimed else ""
        lines.append(f"Time: about {_duration(cost.seconds / lanes)} with {lanes_text}{beside}.")
    else:
        lines.append("Time: not known, for nothing of the kind is in the store yet.")
    if plan.attacks:
        weights = "" if cost.weight_bytes is None else f", weights {_size(cost.weight_bytes)}"
        lines.append(f"Disk for shadow models: margins {_size(cost.margin_bytes)}{weights}.")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    for unit, size in UNITS.items():
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
