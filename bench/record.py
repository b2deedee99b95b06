"""The record of one cell, and the file `records.jsonl` that holds one a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import DataError, InputError
from .files import write_text_atomically

SCHEMA: Final = "unlearnbench.record/1"
REQUIRED_METRICS = ("retain_acc", "forget_acc", "test_acc")

Status = Literal["ok", "failed", "skipped"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """What one cell was, what it gave and what it cost.

    Attributes:
        schema_: Version of this layout; written as `schema`.
        sweep: Name of the sweep.
        key: Content key of the cell.
        dataset: Dataset as `name[key=value,…]`.
        model: timm architecture as `name[key=value,…]`.
        model_info: `stem`, `parameters` (count) and `input_size` of the model as built.
        recipe: `plain`, or the recipe of a method with a training penalty.
        training: Settings with which original and retrained model were trained, and the share
            of the training images that was held out for validation.
        scenario: Scenario as `name[key=value,…]`.
        forget_request: Content hash of the forget set.
        forget_size: Examples in the forget set.
        retain_size: Examples in the retain set.
        method: Registered name of the method.
        hyperparameters: All hyper-parameters, defaults included.
        seed: Seed of the cell; cells of one seed share original and retrained model.
        status: `ok`, `failed` or `skipped`.
        reason: Why it failed or was skipped; None when ok.
        metrics: Fractions in [0, 1]. `retain_acc`, `forget_acc` (training images), `val_acc`,
            `test_acc`; for whole classes also `test_retain_acc` and `test_forget_acc`; each also
            as `gap_*`, the absolute difference to the retrained model of the same seed; `tow`.
            Empty unless ok.
        times: Seconds. `unlearn_s`, `prepare_s`, `evaluate_s`, `original_s`, `retrain_s`; and
            `speedup`, retrain_s / unlearn_s, given only where both ran on the same hardware.
        peak_memory_bytes: Highest memory while unlearning: on the accelerator where there is
            one, else resident memory of the process; None where it cannot be told.
        samples: Examples served to the method by role, repeats counted, `prepare` included.
        method_info: What the method reports of itself, e.g. the values that it searched.
        environment: Versions, device, hardware, threads, git commit.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["unlearnbench.record/1"] = Field(SCHEMA, alias="schema")
    sweep: str
    key: str
    dataset: str
    model: str
    model_info: dict[str, Any] = {}
    recipe: str
    training: dict[str, Any] = {}
    scenario: str
    forget_request: str
    forget_size: Annotated[int, Field(ge=0)]
    retain_size: Annotated[int, Field(ge=0)]
    method: str
    hyperparameters: dict[str, Any] = {}
    seed: int
    status: Status
    reason: str | None = None
    metrics: dict[str, Finite] = {}
    times: dict[str, Finite] = {}
    peak_memory_bytes: int | None = None
    samples: dict[str, int] = {}
    method_info: dict[str, Any] = {}
    environment: dict[str, Any] = {}

    @model_validator(mode="after")
    def _status_and_content_agree(self) -> Self:
        if self.status == "ok":
            missing = [name for name in REQUIRED_METRICS if name not in self.metrics]
            if missing:
                raise ValueError(f"an ok record needs the metrics {', '.join(missing)}")
            if self.reason is not None:
                raise ValueError("an ok record has no reason")
        elif not self.reason:
            raise ValueError(f"a {self.status} record needs a reason")
        elif self.metrics:
            raise ValueError(f"a {self.status} record has no metrics")
        outside = {k: v for k, v in self.metrics.items() if k.endswith("_acc") and not 0 <= v <= 1}
        if outside:
            raise ValueError(f"accuracies are fractions in [0, 1]; got {outside}")
        return self

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(
            self.model_dump(mode="json", by_alias=True),
            sort_keys=True,
            ensure_ascii=False,
            allow_nan=False,
        )


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write `records.jsonl` in one step; a reader never sees half of it."""
    write_text_atomically(path, "".join(record.to_json() + "\n" for record in records))


def read_records(path: Path) -> list[Record]:
    """Read and validate `records.jsonl`.

    Raises:
        DataError: If the file is missing.
        InputError: For every line that is not a valid record.
    """
    if path.is_dir():
        path = path / "records.jsonl"
    if not path.is_file():
        raise DataError(f"there are no records at `{path}`; run a sweep first.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"`{path}` does not hold records: it is not UTF-8 text.") from None
    records, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            problems.append(
                f"`{path}` line {number} is not a valid record: "
                f"{where + ': ' if where else ''}{first['msg'].rstrip('.')}."
            )
    if problems:
        raise InputError(*problems)
    return records


def latest_by_key(records: Sequence[Record]) -> list[Record]:
    """Keep the last record of every cell, in the order of first appearance.

    Sweeps may name one cell in two ways (a class, and the ids of its examples): both stay.
    """
    named = {(r.key, r.dataset, r.model, r.scenario): r for r in records}
    return list(named.values())
