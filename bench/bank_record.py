"""The record of one bank of shadow models, and the file `banks.jsonl` that holds one a line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .jsonlines import json_line, read_lines, write_lines
from .record import Finite, check_fractions

SCHEMA: Final = "unlearnbench.bank/1"


class BankRecord(BaseModel):
    """The shadow models of one dataset, architecture and recipe: how good, and at what cost.

    Attributes:
        schema_: Version of this layout; written as `schema`.
        bank: Content hash; records name it as `attack["bank"]`.
        dataset: Dataset as `name[key=value,…]`.
        model: Architecture as `name[key=value,…]`.
        recipe: Recipe with which the shadow models were trained.
        shadows: Number of shadow models, in complementary pairs.
        views: Augmented views of each example that are scored.
        metrics: Over the shadow models. Fractions: `acc/in_mean`, `acc/in_std` (accuracy on the
            half that a model was trained on), `acc/out_mean`, `acc/out_std` (on the other half),
            `acc/test_mean`, `acc/test_std`, and `lira/acc`, `lira/auc` of the attack on the
            models before unlearning, with standard errors `lira/se`, `lira/auc_se`. Seconds:
            `time/training_s` (sum) and `time/training_s_mean`.
        environment: Versions, device, hardware, threads, git commit.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["unlearnbench.bank/1"] = Field(SCHEMA, alias="schema")
    bank: str
    dataset: str
    model: str
    recipe: str
    shadows: Annotated[int, Field(ge=2, multiple_of=2)]
    views: Annotated[int, Field(ge=1)] = 1
    metrics: dict[str, Finite] = {}
    environment: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fractions_are_fractions(self) -> Self:
        check_fractions(self.metrics)
        return self

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json_line(self)


def write_banks(path: Path, banks: Iterable[BankRecord]) -> None:
    """Write `banks.jsonl` in one step; a reader never sees half of it."""
    write_lines(path, banks)


def read_banks(path: Path) -> list[BankRecord]:
    """Read and validate `banks.jsonl`; a sweep without an attack has none.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        InputError: For every line that is not a valid bank.
    """
    if path.is_dir():
        path = path / "banks.jsonl"
    return read_lines(path, BankRecord, "bank") if path.is_file() else []
