"""From the store to records: joins every cell with the retrained model of its seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .attack_record import AttackRecord
from .bank_record import BankRecord
from .metrics.gap import gaps, tug_of_war
from .plan import Cell, Plan
from .probe_results import ProbeFigures
from .record import Record
from .store import Store
from .sweep import SweepSpec
from .work import bank_key, banks_of

Results = Mapping[str, Mapping[str, Any]]


def stored_results(
    store: Store, keys: Iterable[str], kind: str = "cell"
) -> dict[str, dict[str, Any]]:
    """Read what the workers wrote for cells (or attacks, `ulira`, or `probe`s), where they have."""
    found = {key: store.get(kind, key) for key in keys}
    return {key: artifact.meta for key, artifact in found.items() if artifact is not None}


def assemble(
    spec: SweepSpec,
    plan: Plan,
    results: Results,
    failures: Mapping[str, str],
    declined: Mapping[str, str],
    scores: Results,
    probes: Results | None = None,
) -> list[Record]:
    """Build the records of all cells that have ended.

    Args:
        spec: The sweep.
        plan: Its cells.
        results: What the workers wrote, by key of the cell.
        failures: Reasons of failed cells, attacks and probes, by key.
        declined: Reasons of cells and attacks that the method declined when it ran, by key.
        scores: What the attacks gave, by key of the attack.
        probes: What the probes gave, by key of the artefact.

    Returns:
        Records in plan order; cells that have not ended are left out.
    """
    records = []
    figures = ProbeFigures(plan, probes or {}, failures)
    for cell in plan.cells:
        if cell.skip:
            records.append(_record(spec, cell, status="skipped", reason="; ".join(cell.skip)))
        elif cell.key in results:
            retrained = results.get(cell.retrained)
            reason = declined.get(cell.attack) or failures.get(cell.attack)
            attacked, attack = _attack(plan, cell, scores.get(cell.attack), reason)
            probed, probe = figures.of(cell.key)
            more = {**attacked, **probed}
            records.append(_ok(spec, cell, results[cell.key], retrained, more, attack, probe))
        elif cell.key in declined:
            records.append(_record(spec, cell, status="skipped", reason=declined[cell.key]))
        elif cell.key in failures:
            records.append(_record(spec, cell, status="failed", reason=failures[cell.key]))
    return records


def bank_records(plan: Plan, store: Store) -> list[BankRecord]:
    """Describe the shadow banks of a plan, as far as they are in the store."""
    records = []
    for bank in banks_of(plan):
        found = store.get("bank", bank_key(bank))
        if found is not None:
            records.append(
                BankRecord(
                    bank=bank.hash,
                    dataset=bank.dataset,
                    model=str(bank.model),
                    recipe=bank.recipe.name,
                    shadows=len(bank.shadows),
                    **found.meta,
                )
            )
    return records


def attack_records(plan: Plan, store: Store) -> list[AttackRecord]:
    """Summarise the scores of a plan's attacks pair by pair, as far as they are in the store."""
    records = []
    for key, attack in plan.attacks.items():
        artifact = store.get("ulira", key)
        if artifact is not None:
            arrays = {name: tensor.numpy() for name, tensor in artifact.tensors().items()}
            record = AttackRecord.of(key, attack.bank.hash, arrays)
            records += [record] if record is not None else []
    return records


def _attack(
    plan: Plan, cell: Cell, score: Mapping[str, Any] | None, reason: str | None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures of the attack on a cell's method, and what they are of; the same for all seeds."""
    if not cell.attack:
        return {}, {}
    bank = {"bank": plan.attacks[cell.attack].bank.hash}
    if score is not None:
        track = {"tuning_track": cell.tuning.track} if cell.tuning is not None else {}
        return score["metrics"], score["attack"] | bank | track
    return {}, bank | {"reason": reason} if reason else {}


def _ok(
    spec: SweepSpec,
    cell: Cell,
    result: Mapping[str, Any],
    retrained: Mapping[str, Any] | None,
    more: Mapping[str, float],
    attack: dict[str, Any],
    probe: dict[str, Any],
) -> Record:
    metrics: dict[str, float] = {**result["metrics"], **more}
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
        course=result.get("course", {}),  # cells of before it was noted have none
        environment=result["environment"],
        attack=attack,
        probe=probe,
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
        data_digest=cell.request.data_digest,
        forget_request=cell.request.hash,
        forget_size=len(cell.request.forget),
        retain_size=len(cell.request.retain),
        method=cell.method.name,
        hyperparameters=cell.method.params,
        seed=cell.seed,
        tuning={}
        if cell.tuning is None
        else cell.tuning.model_dump(mode="json", exclude_none=True),
        **content,
    )
