"""The layout of a comparison of two sets of records."""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .record import Finite

SCHEMA: Final = "unlearnbench.diff/1"

Verdict = Literal["moved", "within noise", "not judged"]
How = Literal["paired", "apart"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Compared(_Part):
    """One number of a row, on both sides.

    Attributes:
        quantity: `forget_acc` and so on, `gap_*`, `ulira.privacy/acc`: fractions; `unlearn_s`.
        old: Mean over the seeds that are compared, or of the attack.
        new: Likewise.
        difference: New less old; of seconds the ratio, new over old.
        se: Standard error of the difference; of seconds that of the logarithm of the ratio. Null
            with one seed.
        dof: Degrees of freedom of that standard error; null where it is not over seeds.
        p: Two-sided p-value of no difference, by Student's t, by the normal law for U-LIRA; null
            without a standard error or where it is 0.
        p_holm: The same, corrected by Holm for all numbers of the comparison that have one.
        how: `paired` or `apart`.
        verdict: `moved` if more than the least amount and `p_holm` is below 5 %, or if more than
            the least amount and the standard error is 0; `not judged` without a standard error.
    """

    quantity: str
    old: Finite
    new: Finite
    difference: Finite
    se: Finite | None
    dof: Finite | None
    p: Finite | None = None
    p_holm: Finite | None = None
    how: How
    verdict: Verdict


class RowChange(_Part):
    """A row that both sides have.

    Attributes:
        task: Title of the task.
        recipe: Label of the recipe, told apart by what differs on either side.
        method: Label of the method, likewise.
        settings: What differs in hyper-parameters or training, if the row was matched in spite of
            that; else empty.
        compared: Its numbers.
        newly_failed: Seeds that were ok and are not.
        mended: Seeds that were not ok and are.
    """

    task: str
    recipe: str
    method: str
    settings: str = ""
    compared: list[Compared]
    newly_failed: list[int] = []
    mended: list[int] = []


class RowName(_Part):
    """A row that one side has; `status` counts its cells, such as `2 ok, 1 failed`."""

    task: str
    recipe: str
    method: str
    status: str


class Comparison(_Part):
    """All rows of both sides.

    Attributes:
        schema_: Version of this layout; written as `schema`.
        rows: Rows of both.
        vanished: Rows of the old side alone.
        appeared: Rows of the new side alone.
        notes: Sentences that a reader should know.
    """

    schema_: Annotated[Literal["unlearnbench.diff/1"], Field(alias="schema")] = SCHEMA
    rows: list[RowChange]
    vanished: list[RowName]
    appeared: list[RowName]
    notes: list[str]

    @property
    def worth_a_look(self) -> bool:
        """Whether anything moved, is gone or newly fails."""
        moved = any(c.verdict == "moved" for row in self.rows for c in row.compared)
        return moved or bool(self.vanished) or any(row.newly_failed for row in self.rows)

    def to_json(self) -> str:
        """The content of a file; the same records give the same text."""
        content = self.model_dump(mode="json", by_alias=True)
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
