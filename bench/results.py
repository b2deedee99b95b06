"""From the store to records: joins every cell with the retrained model of its seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .metrics.gap import gaps, tug_of_war
from .plan import Cell, Plan
from .record import Record
from .store import Store
from .sweep import SweepSpec

Results = Mapping[str, Mapping[str, Any]]


def stored_results(store: Store, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read what the workers wrote for the given cells, where they have."""
    found = {key: store.get("cell", key) for key in keys}
    return {key: artifact.meta for key, artifact in found.items() if artifact is not None}


def assemble(
    spec: SweepSpec,
    plan: Plan,
    results: Results,
    failures: Mapping[str, str],
    declined: Mapping[str, str] = {},
) -> list[Record]:
    """Build the records of all cells that have ended.

    Args:
        spec: The sweep.
        plan: Its cells.
        results: What the workers wrote, by key of the cell.
        failures: Reasons of failed cells, by key.
        declined: Reasons of cells that the method declined when it ran, by key.

    Returns:
        Records in plan order; cells that have not ended are left out.
    """
    records = []
    for cell in plan.cells:
        if cell.skip:
            records.append(_record(spec, cell, status="skipped", reason="; ".join(cell.skip)))
        elif cell.key in results:
            records.append(_ok(spec, cell, results[cell.key], results.get(cell.retrained)))
        elif cell.key in declined:
            records.append(_record(spec, cell, status="skipped", reason=declined[cell.key]))
        elif cell.key in failures:
            records.append(_record(spec, cell, status="failed", reason=failures[cell.key]))
    return records


def _ok(
    spec: SweepSpec, cell: Cell, result: Mapping[str, Any], retrained: Mapping[str, Any] | None
) -> Record:
    metrics: dict[str, float] = dict(result["metrics"])
    times: dict[str, float] = dict(result["times"])
    if retrained is not None:
        metrics |= gaps(result["metrics"], retrained["metrics"])
        metrics["tow"] = tug_of_war(result["metrics"], retrained["metrics"])
        times["retrain_s"] = retrained["times"]["unlearn_s"]
        same = result["environment"]["hardware"] == retrained["environment"]["hardware"]
        if same and times["unlearn_s"] > 0:
            times["speedup"] = times["retrain_s"] / times["unlearn_s"]
    return _record(
        spec,
        cell,
        status="ok",
        metrics=metrics,
        times=times,
        peak_memory_bytes=result["peak_memory_bytes"],
        samples=result["samples"],
        method_info=result["method_info"],
        model_info=result["model_info"],
        environment=result["environment"],
    )


def _record(spec: SweepSpec, cell: Cell, **content: Any) -> Record:  # noqa: ANN401
    return Record(
        sweep=spec.name,
        key=cell.key,
        dataset=cell.dataset,
        model=cell.model,
        recipe=cell.recipe.name,
        training={
            **cell.recipe.describe(),
            "validation_fraction": spec.validation_fraction,
        },
        scenario=cell.scenario,
        forget_request=cell.request.hash,
        forget_size=len(cell.request.forget),
        retain_size=len(cell.request.retain),
        method=cell.method.name,
        hyperparameters=cell.method.params,
        seed=cell.seed,
        **content,
    )
