"""The utility gate: which methods are worth ranking by what the attack finds.

A method that wrecks the model, or takes longer than retraining, forgets nothing that retraining
does not forget better. Only what is known can fail.

Source: evaluation specification, section 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .attack_rows import figure
from .tablecell import TIMES_SIGN, Row, known, significant

ALLOWED = 0.02
SPREADS = 2
KEPT = {"retain_acc": "retain accuracy", "test_acc": "test accuracy"}
FAIL, PASS = "fail", "pass"
_ROUNDING = 1e-9


class Gate(NamedTuple):
    """Whether a method passes.

    Attributes:
        verdict: `pass`, `fail`, or empty where nothing is known.
        reason: Why it fails, one sentence without a full stop; else empty.
    """

    verdict: str = ""
    reason: str = ""


def gate(row: Row, spread: Mapping[str, float]) -> Gate:
    """Judge a row: accuracy kept, faster than retraining, and figures that count.

    Accuracy on the retain and on the test set may lie below the retrained models' by 2 points, or
    by two standard deviations of theirs where that is more.

    Args:
        row: Means over seeds, `lost_<metric>` and `speedup_mean` among them.
        spread: Sample standard deviation over seeds of the retrained models, by metric.
    """
    if row["n_ok"] == 0:
        failed = f"no cell is ok, {row['n_failed']} failed"
        return Gate(FAIL, failed) if row["n_failed"] else Gate()
    reasons = list(_reasons(row, spread))
    if reasons:
        return Gate(FAIL, "; ".join(reasons))
    judged = (*(figure(row, f"lost_{name}") for name in KEPT), figure(row, "speedup_mean"))
    return Gate(PASS) if any(map(known, judged)) else Gate()


def _reasons(row: Row, spread: Mapping[str, float]) -> Iterator[str]:
    for name, words in KEPT.items():
        lost, sd = figure(row, f"lost_{name}"), spread.get(name, float("nan"))
        allowed = max(ALLOWED, SPREADS * sd) if known(sd) else ALLOWED
        if known(lost) and lost > allowed + _ROUNDING:
            shown, most = _apart(lost, allowed)
            yield f"{words} {shown} points below the retrained model's; at most {most} are allowed"
    faster = figure(row, "speedup_mean")
    if known(faster) and faster <= 1:
        yield f"not faster than retraining ({significant(faster)}{TIMES_SIGN})"
    if row.get("attack_validity") == "suspected":
        yield "its figures of the attack do not count"


def _apart(one: float, other: float) -> tuple[str, str]:
    """Two fractions in points, with as many digits as it takes to tell them apart."""
    for digits in (1, 2, 3):
        shown = f"{100 * one:.{digits}f}", f"{100 * other:.{digits}f}"
        if shown[0] != shown[1]:
            break
    return shown
