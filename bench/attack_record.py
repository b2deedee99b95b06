"""The record of one scored attack, and the file `attacks.jsonl` that holds one a line.

Records of cells carry the figures of an attack. What intervals of differences, curves and
distributions are computed from is here, small enough to be published beside them: for every pair of
shadow models and every example whether the attack was right, and its ROC.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .jsonlines import json_line, read_lines, write_lines
from .keys import digest_bytes
from .record import Finite

SCHEMA: Final = "unlearnbench.attack/1"
ROC_POINTS = 49
EXPOSED = 10

FloatArray = npt.NDArray[np.float64]


class AttackRecord(BaseModel):
    """What U-LIRA found, pair by pair and example by example; of the kind `privacy`.

    Attributes:
        schema_: Version of this layout; written as `schema`.
        key: Key of the scores in the store; records name it as `attack["scores"]`.
        bank: Hash of the shadow bank.
        pool: Digest of the target examples in their order. Attacks of the same bank and pool are
            paired: the same rows and columns are the same shadow models and examples.
        pairs: P, pairs of shadow models.
        examples: E, target examples.
        hits: `(P, E)` half the number of right calls of a pair on an example, in {0, ½, 1}, packed
            as base64: see `hit_matrix`. Their mean is the balanced accuracy.
        roc: `fpr` and `tpr`, fractions, of the pooled scores, both rising: for each, no threshold
            with as few false positives finds more.
        most_exposed: Ids of the examples on which the attack is right most often, with how often;
            at most 10, worst first.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["unlearnbench.attack/1"] = Field(SCHEMA, alias="schema")
    key: str
    bank: str
    pool: str
    pairs: Annotated[int, Field(ge=1)]
    examples: Annotated[int, Field(ge=1)]
    hits: str
    roc: dict[str, list[Finite]]
    most_exposed: list[tuple[int, Finite]] = []

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        try:
            packed = base64.b64decode(self.hits, validate=True)
        except ValueError:
            raise ValueError("`hits` is not base64") from None
        if len(packed) != -(-self.pairs * self.examples // 4):
            raise ValueError(f"`hits` does not hold {self.pairs} x {self.examples} calls")
        if _codes(packed, self.pairs * self.examples).max() > 2:
            raise ValueError("`hits` holds a code that is none of 0, 1 and 2")
        sizes = {len(self.roc.get(name, [])) for name in ("fpr", "tpr")}
        if set(self.roc) != {"fpr", "tpr"} or len(sizes) != 1:
            raise ValueError("`roc` must hold `fpr` and `tpr`, equally long")
        if not all(0 <= rate <= 1 for rates in self.roc.values() for rate in rates):
            raise ValueError("`roc` must hold fractions, from 0 to 1")
        return self

    @classmethod
    def of(cls, key: str, bank: str, arrays: Mapping[str, npt.NDArray[Any]]) -> AttackRecord | None:
        """Summarise the arrays of a scored attack; None if it has no scores.

        Args:
            key: Key of the scores.
            bank: Hash of the shadow bank.
            arrays: `ids` `(E,)` and, with enough shadow models, `privacy.in_scores` and
                `privacy.out_scores` `(P, E)`, log likelihood ratios in nats.
        """
        inside, outside = (arrays.get(f"privacy.{side}_scores") for side in ("in", "out"))
        if inside is None or outside is None:
            return None
        ids = np.asarray(arrays["ids"], dtype="<i8")
        codes = (inside > 0).astype(np.uint8) + (outside <= 0)
        per_example = codes.mean(0) / 2
        worst = np.lexsort((ids, -per_example))[:EXPOSED]
        fpr, tpr = pooled_roc(inside, outside)
        return cls(
            key=key,
            bank=bank,
            pool=digest_bytes(ids.tobytes())[:32],
            pairs=codes.shape[0],
            examples=codes.shape[1],
            hits=_packed(codes),
            roc={"fpr": _rounded(fpr), "tpr": _rounded(tpr)},
            most_exposed=[(int(ids[i]), round(float(per_example[i]), 6)) for i in worst],
        )

    def hit_matrix(self) -> FloatArray:
        """`(P, E)` shares of right calls, in {0, ½, 1}."""
        codes = _codes(base64.b64decode(self.hits), self.pairs * self.examples)
        matrix: FloatArray = codes.astype(np.float64) / 2
        return matrix.reshape(self.pairs, self.examples)

    def per_example(self) -> FloatArray:
        """`(E,)` balanced accuracy of the attack on each example, over pairs."""
        mean: FloatArray = self.hit_matrix().mean(0)
        return mean

    def is_paired_with(self, other: AttackRecord) -> bool:
        """Whether rows and columns are the same shadow models and examples."""
        return (self.bank, self.pool, self.pairs) == (other.bank, other.pool, other.pairs)

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json_line(self)


def pooled_roc(inside: npt.ArrayLike, outside: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The ROC at false positive rates that are spread evenly on a log axis.

    A score is called positive if it is above the threshold, strictly; nothing is interpolated.

    Args:
        inside: Scores of positives, any shape.
        outside: Scores of negatives, any shape.

    Returns:
        False and true positive rates, both rising, the last 1.

    Example:
        >>> [rates.tolist() for rates in pooled_roc([3.0, 1.0], [2.0, 0.0])]
        [[0.0, 0.5, 1.0], [0.5, 1.0, 1.0]]
    """
    a, b = np.sort(np.ravel(inside)), np.sort(np.ravel(outside))
    counts = np.unique(np.round(np.geomspace(1, b.size, ROC_POINTS)).astype(int))
    fpr, tpr = [], []
    for count in [0, *counts[:-1]]:
        threshold = b[b.size - 1 - count]
        fpr.append((b.size - np.searchsorted(b, threshold, "right")) / b.size)
        tpr.append((a.size - np.searchsorted(a, threshold, "right")) / a.size)
    # of thresholds with one rate, which ties give, the last; and all are called positive at 1
    points = {**dict(zip(fpr, tpr, strict=True)), 1.0: 1.0}
    return np.array(list(points)), np.array(list(points.values()))


def write_attacks(path: Path, attacks: Iterable[AttackRecord]) -> None:
    """Write `attacks.jsonl` in one step; a reader never sees half of it."""
    write_lines(path, attacks)


def read_attacks(path: Path) -> list[AttackRecord]:
    """Read and validate `attacks.jsonl`; a sweep without an attack has none.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        InputError: For every line that is not a valid record of an attack.
    """
    if path.is_dir():
        path = path / "attacks.jsonl"
    return read_lines(path, AttackRecord, "record of an attack") if path.is_file() else []


def _packed(codes: npt.NDArray[np.uint8]) -> str:
    """Four codes in {0, 1, 2} a byte, the first in the lowest bits."""
    flat = np.zeros(-(-codes.size // 4) * 4, dtype=np.uint8)
    flat[: codes.size] = codes.ravel()
    shifted = flat.reshape(-1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)
    return base64.b64encode(shifted.sum(1, dtype=np.uint8).tobytes()).decode()


def _codes(packed: bytes, count: int) -> npt.NDArray[np.uint8]:
    """The first `count` codes that `_packed` packed."""
    four = np.frombuffer(packed, dtype=np.uint8)[:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)
    codes: npt.NDArray[np.uint8] = (four & np.uint8(3)).ravel()[:count]
    return codes


def _rounded(values: FloatArray) -> list[float]:
    return [round(float(value), 6) for value in values]
