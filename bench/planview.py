"""What a plan would do, as text."""

from __future__ import annotations

from collections import Counter

from .plan import Cell, Plan
from .store import Store
from .sweep import SweepSpec


def describe_plan(spec: SweepSpec, plan: Plan, store: Store) -> str:
    """List the cells with their state, and count what would be trained.

    Args:
        spec: The sweep.
        plan: Its cells.
        store: Where results may be already.
    """
    states = {cell.key: _state(cell, store) for cell in plan.cells}
    originals = {key for key in plan.originals if not store.has("original", key)}
    needed = originals & {c.job.original.key for c in plan.cells if states[c.key] == "to run"}
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
        f"Would train {len(needed)} originals and {retrains} retrained models "
        f"({spec.training.epochs} epochs each), and unlearn {len(to_run) - retrains} times.",
    ]
    return "\n".join(lines[1:])


def _state(cell: Cell, store: Store) -> str:
    if cell.skip:
        return "skipped"
    return "done" if store.has("cell", cell.key) else "to run"
