"""The record of one trial, and the file `trials.jsonl` that holds one a line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .jsonlines import json_line, read_lines, write_lines
from .tuning_settings import Track
from .unlearner import Scope

SCHEMA: Final = "unlearnbench.trial/1"
FILE = "trials.jsonl"


class TrialRecord(BaseModel):
    """What one trial was, what it gave and what it cost.

    Attributes:
        schema_: Version of this layout; written as `schema`.
        study: Name of the study.
        trial: Its number in the study.
        state: `complete`, `failed`, `pruned`, or `running` in another process.
        reason: Why it failed or was pruned; else None.
        chosen: Whether its hyper-parameters are those that are used.
        dataset: Dataset as `name[key=value,…]`.
        model: Architecture likewise.
        recipe: Recipe of the development originals.
        kind: `class` or `sample`.
        method: The method as it was written.
        params: The hyper-parameters that were searched.
        track: `validation` or `oracle`.
        objectives: What was made best.
        development_models: Originals on which it was run.
        metrics: `retain`, `forget` and `seconds`, see `objectives`, and what they are made of.
        busy_s: Seconds that it cost, of one worker.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["unlearnbench.trial/1"] = Field(SCHEMA, alias="schema")
    study: str
    trial: int
    state: Literal["complete", "failed", "pruned", "running"]
    reason: str | None = None
    chosen: bool = False
    dataset: str
    model: str
    recipe: str
    kind: Scope
    method: str
    params: dict[str, Any] = {}
    track: Track
    objectives: list[str]
    development_models: int
    metrics: dict[str, float] = {}
    busy_s: float = 0.0

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json_line(self)


def write_trials(folder: Path, trials: Iterable[TrialRecord]) -> None:
    """Write `trials.jsonl` in one step; a reader never sees half of it."""
    write_lines(folder / FILE, trials)


def read_trials(folder: Path) -> list[TrialRecord]:
    """Read and validate `trials.jsonl`; nothing where there is none.

    Raises:
        InputError: For every line that is not a valid record.
    """
    path = folder / FILE
    return read_lines(path, TrialRecord, "trial") if path.is_file() else []
