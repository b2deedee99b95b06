"""Figures of a report: the ROC of the attack, and how exposed single examples are."""

from __future__ import annotations

import math

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .attack_record import AttackRecord
from .cell_evidence import Evidence
from .drawing import INK, Drawing, Sketch, drawing_style

SIZE = (5.2, 3.9)
ONE_IN_A_HUNDRED = 0.01
OFTEN = 0.75


def report_drawings(evidence: Evidence) -> list[Drawing]:
    """ROC and exposure of the method between its controls; none where no attack is recorded."""
    shown = _lines(evidence)
    if "method" not in evidence.attacks or not shown:
        return []
    with drawing_style():
        sketches = [_roc(evidence, shown), _exposure(evidence, shown)]
        return [sketch.finished(evidence.record.key) for sketch in sketches]


def _lines(evidence: Evidence) -> list[tuple[str, AttackRecord, dict[str, object]]]:
    """Label, attack and look; a reference that is the cell itself is not drawn twice."""
    colours = sns.color_palette("colorblind", 4).as_hex()
    looks: dict[str, dict[str, object]] = {
        "identity": {"color": colours[3], "linestyle": "--", "linewidth": 1.6},
        "method": {"color": colours[0], "linestyle": "-", "linewidth": 2.4},
        "retrain": {"color": INK, "linestyle": ":", "linewidth": 1.8},
    }
    names = {"identity": "original", "retrain": "retrained"}
    names["method"] = names.get(evidence.record.method, evidence.record.method)
    own = evidence.attacks.get("method")
    return [
        (names[role], evidence.attacks[role], look)
        for role, look in looks.items()
        if role in evidence.attacks
        and (role == "method" or own is None or evidence.attacks[role].key != own.key)
    ]


def _roc(evidence: Evidence, shown: list[tuple[str, AttackRecord, dict[str, object]]]) -> Sketch:
    least = min(attack.pairs * attack.examples for _, attack, _ in shown)
    low = 10.0 ** -math.ceil(math.log10(max(10, least)))
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.plot([low, 1], [low, 1], color=INK, alpha=0.35, linewidth=1, label="a coin")
    for name, attack, look in shown:
        x, y = (np.maximum(attack.roc[rate], low) for rate in ("fpr", "tpr"))
        axes.plot(x, y, drawstyle="steps-post", label=name, **look)  # type: ignore[arg-type]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    for set_scale, set_limits in (
        (axes.set_xscale, axes.set_xlim),
        (axes.set_yscale, axes.set_ylim),
    ):
        set_scale("log")
        set_limits(low, 1.05)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="never-seen examples accused", ylabel="forgotten examples found")
    _legend(axes)
    told = ", ".join(f"{n} {100 * _found(a):.1f} %" for n, a, _ in shown)
    return Sketch(
        figure,
        "Curve of the attack on logarithmic axes. Share of the forgotten examples that it finds "
        f"while it wrongly accuses at most 1 % of those never seen: {told}.",
        "Forgotten examples that the attack finds against never-seen ones that it wrongly accuses, "
        "as its threshold moves; both axes are logarithmic. A curve on the grey line is a coin's.",
        "-roc",
    )


def _exposure(
    evidence: Evidence, shown: list[tuple[str, AttackRecord, dict[str, object]]]
) -> Sketch:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.axvline(50, color=INK, alpha=0.35, linewidth=1, label="a coin")
    for name, attack, look in shown:
        right = np.sort(attack.per_example())[::-1]
        share = np.arange(1, len(right) + 1) / len(right)
        axes.plot(
            100 * np.concatenate([right, [0.0]]),
            100 * np.concatenate([share, [1.0]]),
            drawstyle="steps-pre",
            label=name,
            **look,  # type: ignore[arg-type]
        )
    axes.set(
        xlim=(0, 101),
        ylim=(0, 101),
        xlabel="the attack is right at least so often, %",
        ylabel="share of forgotten examples, %",
    )
    _legend(axes)
    told = ", ".join(f"{n} {100 * np.mean(a.per_example() >= OFTEN):.1f} %" for n, a, _ in shown)
    return Sketch(
        figure,
        "Step curves of how often the attack is right on single examples. Share of the forgotten "
        f"examples on which it is right in at least {100 * OFTEN:g} % of cases: {told}.",
        "How exposed single examples are: the share of forgotten examples on which the attack is "
        "right at least so often. What the curve has to the right of the retrained model's is "
        "exposure; the rest is chance.",
        "-exposure",
    )


def _found(attack: AttackRecord) -> float:
    """Share found at a false positive rate of at most 1 %."""
    fpr, tpr = (np.array(attack.roc[rate]) for rate in ("fpr", "tpr"))
    allowed = tpr[fpr <= ONE_IN_A_HUNDRED]
    return float(allowed.max()) if len(allowed) else 0.0


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9, loc="best")
