"""From the store to records: the figures of the probes of one cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .jobs import ProbeJob
from .metrics.relearn import RelearnTime, anamnesis_index
from .plan import Plan

Results = Mapping[str, Mapping[str, Any]]


class ProbeFigures:
    """What the probes gave, joined with those of the retrained models.

    Args:
        plan: The cells and their probes.
        found: What the workers wrote, by key of the artefact.
        failures: Reasons of failed jobs, by key.
    """

    def __init__(self, plan: Plan, found: Results, failures: Mapping[str, str]) -> None:
        self._found, self._failures = found, failures
        self._jobs = {job.cell.key: job for job in plan.probes.values()}

    def of(self, cell: str) -> tuple[dict[str, float], dict[str, Any]]:
        """Figures of a cell, and how they were made; both empty if none were asked for."""
        job = self._jobs.get(cell)
        if job is None:
            return {}, {}
        keys = dict.fromkeys((job.own_key, job.key))
        parts = [self._found[key] for key in keys if key in self._found]
        metrics: dict[str, float] = {}
        about: dict[str, Any] = {}
        notes: dict[str, None] = {}
        for part in parts:
            metrics |= part["metrics"]
            about |= part["about"]
            notes |= dict.fromkeys(part["about"]["notes"])
        if parts:
            seconds = sum(part["probe_s"] for part in parts)
            about |= {"notes": list(notes), "probe_s": seconds}
        if reason := self._failures.get(job.key):
            about["reason"] = reason
        ain = self._ain(job)
        return metrics if ain is None else metrics | {"relearn/ain": ain}, about

    def _ain(self, job: ProbeJob) -> float | None:
        """Relearn time over that of the retrained model."""
        reference = None if job.reference is None else self._jobs.get(job.reference.key)
        if reference is None:
            return None
        mine, theirs = (
            _time(self._found.get(job.own_key)),
            _time(self._found.get(reference.own_key)),
        )
        return None if mine is None or theirs is None else anamnesis_index(mine, theirs)


def _time(part: Mapping[str, Any] | None) -> RelearnTime | None:
    metrics = {} if part is None else part["metrics"]
    if "relearn/steps" not in metrics:
        return None
    return RelearnTime(metrics["relearn/steps"], metrics["relearn/censored"])


def probe_keys(plan: Plan) -> list[str]:
    """Keys of all artefacts that the probes of a plan make."""
    keys = [key for job in plan.probes.values() for key in (job.own_key, job.key)]
    return list(dict.fromkeys(keys))
