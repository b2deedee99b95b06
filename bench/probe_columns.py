"""Columns of the probes: what is left inside the unlearned models, and what the figures mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from .tablecell import NONE, Cell, Column, Row, known, number_cell, significant

HEAD, CENTRES, CKA, RELEARN, OUTPUTS = (
    "new head %", "class centres %", "CKA", "relearning", "outputs on forget set"
)  # fmt: skip
LEGEND = {
    HEAD: (
        "Accuracy in % of a new linear head, fitted on frozen features with 2 % or 10 % of the "
        "training set, forgotten classes included: on the test images of the forgotten classes, "
        "and of all. Small or in parentheses the retrained model's value, which is the ideal, and "
        "not 0: features learned from other classes serve the forgotten one too. A method that is "
        "above it has left the class in the features, however low its forget accuracy; one that "
        "is below it has harmed them. Where single examples are forgotten there is no forgotten "
        "class, and only the accuracy on all test images is told."
    ),
    CENTRES: (
        "The same with the nearest class centre of the features instead of a new head (10 %)."
    ),
    CKA: (
        "How alike the features are to those of the original and of the retrained model of the "
        "same seed, on images of the forget and the retain set: the last block, and the mean over "
        "blocks. 1 is the same up to rotation and scale, 0 is unrelated (unbiased, so that it may "
        "be slightly negative). Small or in parentheses the retrained model's value, which is the "
        "ideal, and not 0 or 1: how like the original a retrained model is, and how like each "
        "other two retrained models of different seeds are, which needs two seeds. CKA can be "
        "moved without changing what a model does: it is an indication, not a test."
    ),
    RELEARN: (
        "Steps of training on the forget set until 95 % of the original's accuracy on it is back, "
        "median of 5 orderings; ≥: it was given up there. Small or in parentheses the retrained "
        "model's value, which is the ideal: fewer steps tell that knowledge is left, more that "
        "the model is worse than one that never knew. The original needs 0. A masked head cannot "
        "be undone by such steps and is given up at once: it says nothing here, look at the new "
        "head. AIN: steps "
        "over those of the retrained model of the same seed, 1 is ideal; not told where that "
        "needs none or was given up. Of the retrained row, over those of another seed."
    ),
    OUTPUTS: (
        "JS: mean Jensen-Shannon divergence of the predictions to the retrained model's, nats, "
        "from 0 to 0.693. The ideal is the retrained model's own value in parentheses, that to a "
        "retrained model of another seed, and not 0. ZRF: 1 less the divergence to an untrained "
        "model; the ideal is the retrained model's value, and not 1."
    ),
}
_SETS = ("forget", "retain")
_CKA = tuple(
    f"cka_{other}/{role}_{part}"
    for other in ("original", "retrained")
    for role in _SETS
    for part in ("last", "mean")
)
PROBE_METRICS = (
    "probe/recovery_2",
    "probe/recovery_10",
    "probe/accuracy_2",
    "probe/accuracy_10",
    "probe/centres",
    "probe/centres_accuracy",
    *_CKA,
    "relearn/steps",
    "relearn/censored",
    "relearn/ain",
    "js/retrained",
    "zrf",
)


def probe_columns(rows: Sequence[Row]) -> list[Column]:
    """A column for every figure that some row has; those of all test images where no other is."""
    percent = partial(_paired, scale=100, digits=1)
    whole = any(known(row.get("probe/recovery_10_mean")) for row in rows)
    whole = whole or any(known(row.get("probe/centres_mean")) for row in rows)
    heads = [
        (HEAD, "2 %", "probe/recovery_2"),
        (HEAD, "10 %", "probe/recovery_10"),
        *([] if whole else [(HEAD, "all classes, 2 %", "probe/accuracy_2")]),
        (HEAD, "all classes, 10 %", "probe/accuracy_10"),
        (CENTRES, "forgotten", "probe/centres"),
        (CENTRES, "all classes", "probe/centres_accuracy"),
    ]
    columns = [Column(g, h, partial(percent, name), sub="retrained") for g, h, name in heads]
    columns += [
        Column(CKA, _cka_head(name), partial(_paired, name, digits=3), sub="retrained")
        for name in _CKA
    ]
    columns += [
        Column(RELEARN, "steps", _steps_cell, sub="retrained"),
        Column(RELEARN, "AIN", _ain_cell, sub="± std"),
        Column(OUTPUTS, "JS", partial(_paired, "js/retrained", digits=3), sub="retrained"),
        Column(OUTPUTS, "ZRF", partial(_paired, "zrf", digits=3), sub="retrained"),
    ]
    return [c for c in columns if any(c.cell(row).text != NONE for row in rows)]


def probe_legend(columns: Sequence[Column]) -> dict[str, str]:
    """What the groups that are shown mean."""
    groups = {column.group for column in columns}
    return {group: words for group, words in LEGEND.items() if group in groups}


def without_empty_probes(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out the figures that no row has."""
    names = [
        str(name)
        for name in rows.columns
        if str(name).startswith(PROBE_METRICS) and rows[name].isna().all()
    ]
    return rows.drop(columns=names)


def probe_reasons(probe: Mapping[str, Any]) -> Iterable[str]:
    """Why a record lacks figures of its probes: a failure, or what is not defined here."""
    texts = [probe.get("reason"), *probe.get("notes", ())]
    return [" ".join(str(text).split()) for text in texts if text]


def _cka_head(name: str) -> str:
    other, _, rest = name.removeprefix("cka_").partition("/")
    role, _, part = rest.partition("_")
    return f"to {other}, {role}, {'last block' if part == 'last' else 'mean'}"


def _paired(name: str, row: Row, scale: float = 1, digits: int = 3) -> Cell:
    """Mean ± spread over seeds, with the retrained model's value beside it."""
    cell = number_cell(_number(row, f"{name}_mean"), _number(row, f"{name}_std"), scale, digits)
    retrained = _number(row, f"{name}_retrained")
    if row["name"] == "retrain" or cell.text == NONE or not known(retrained):
        return cell
    return cell._replace(beside=f"{scale * retrained:.{digits}f}")


def _steps_cell(row: Row) -> Cell:
    """Steps, marked where at least half of the orderings were given up."""
    cell = _paired("relearn/steps", row, digits=0)
    if cell.text != NONE and _number(row, "relearn/censored_mean") >= 0.5:
        cell = cell._replace(text=f"≥ {cell.text}")
    if cell.beside and _number(row, "relearn/censored_retrained") >= 0.5:
        cell = cell._replace(beside=f"≥ {cell.beside}")
    return cell


def _ain_cell(row: Row) -> Cell:
    cell = number_cell(_number(row, "relearn/ain_mean"), _number(row, "relearn/ain_std"), 1, 2)
    if cell.value is None:
        return cell
    bound = "≥ " if _number(row, "relearn/censored_mean") >= 0.5 else ""
    return cell._replace(text=f"{bound}{significant(cell.value)}")


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return math.nan if value is None else float(value)
