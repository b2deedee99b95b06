"""The first line of a report: what may be said of a cell, by rules that a reader can check."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from .attack_columns import Z95
from .attack_rows import ACC, PRIVACY, RMIA, figure
from .cell_evidence import POWER, Evidence
from .metrics.attack_power import attack_power
from .tablecell import known

Kind = Literal["leak", "no leak", "not known", "original", "retrained"]
LEAST_GAP = 0.02  # as for the utility gate: 2 points, or 2 standard deviations of retrained models
JUDGED = {"forget_acc": "the forgotten training images", "test_acc": "the test images"}

RULES = (
    "If unlearning failed, or the method declined the request: not known.",
    "If there was no attack, or it gave no figure, or it had too few shadow models: not known.",
    "If the method may have seen what it must not see: not known.",
    "If the retrained model, which never saw the forgotten examples, was not attacked, or lies so "
    "far outside its own band that chance is no explanation (p below 0.1 %): not known.",
    "If all models give the attack the same answer, so that there is nothing to decide by: not "
    "known.",
    "If the result lies above the band in which 95 % of results lie without any leak: a leak was "
    "found.",
    "If it lies below the band: not known, for something is amiss.",
    "If it lies inside, but the original model was not attacked, or lies inside its own band too: "
    "not known, for the attack has not shown that it can find anything.",
    "Else: no leak was found that this many shadow models can find; with a “but” if the model is "
    "right on forgotten or test images more or less often than the retrained model by more than "
    "is allowed, or if there is no retrained model.",
)


class Verdict(NamedTuple):
    """What may be said.

    Attributes:
        kind: What it comes to.
        line: The verdict itself.
        why: The sentence that it rests on.
        rule: Number of the rule in `RULES` that decided, from 1; 0 for a reference.
        but: Whether no leak was found and the model still does not answer as a retrained one.
    """

    kind: Kind
    line: str
    why: str
    rule: int
    but: bool = False


def judge(evidence: Evidence) -> Verdict:
    """Apply the rules in their order; the first that fits decides."""
    record = evidence.record
    if record.status == "failed":
        return _unknown("unlearning failed", _sentence(record.reason), 1)
    if record.status == "skipped":
        return _unknown("the method does not serve this request", _sentence(record.reason), 1)
    if record.method == "identity":
        why = "This is the model before unlearning. It is here to be compared with."
        return Verdict("original", "Nothing was forgotten.", why, 0)
    if record.method == "retrain":
        why = (
            "This is the retrained model, which never saw the forgotten examples: what every "
            "method is compared with, and the check of the attack itself."
        )
        return Verdict("retrained", "There is nothing to forget in this model.", why, 0)
    return _without_figure(evidence) or _uncontrolled(evidence) or _by_figure(evidence)


def attack_counts(evidence: Evidence, verdict: Verdict) -> bool:
    """Whether figures of the attack mean anything; for a reference, by the same rules."""
    if verdict.kind in ("original", "retrained"):
        return not (_without_figure(evidence) or _uncontrolled(evidence))
    return verdict.kind != "not known"


def reservations(evidence: Evidence) -> list[str]:
    """What stands against reading the verdict as more than it says."""
    return [] if evidence.record.status != "ok" else list(_reservations(evidence))


def allowed_gap(evidence: Evidence, metric: str) -> float:
    """Distance to the retrained model, a fraction, above which two models are told apart.

    2 points, or 2 standard deviations of the retrained models over their seeds if that is more.
    """
    spread = figure(evidence.retrained_row, f"{metric}_std")
    return max(LEAST_GAP, 2 * spread if known(spread) else 0.0)


def power_of(evidence: Evidence) -> float:
    """What the attack would read on a leak of half a standard deviation; NaN if not known."""
    power = figure(evidence.row, POWER)
    shadows = evidence.shadows
    if not known(power) and shadows >= 4 and shadows % 2 == 0:
        power = attack_power(shadows)
    return power


def _unknown(line: str, why: str, rule: int) -> Verdict:
    return Verdict("not known", f"Not known: {line}.", why, rule)


def _without_figure(evidence: Evidence) -> Verdict | None:
    """Rules 2 and 3: no figure, or one that does not count."""
    row = evidence.row
    if reason := evidence.text("attack_suspicion"):
        line = "the method may have seen what it must not see"
        return _unknown(line, _sentence(reason), 3)
    if known(figure(row, ACC)):
        return None
    if known(figure(row, RMIA)):
        half = Z95 * figure(row, f"{RMIA}_se")
        spread = f" ± {half:.3f}" if known(half) else ""
        few = f"{evidence.shadows} shadow models" if evidence.shadows else "the shadow models"
        why = (
            f"U-LIRA needs at least 6 shadow models. RMIA, a weaker attack that is blind to "
            f"forgetting too much, stood in: the area under its curve is "
            f"{figure(row, RMIA):.3f}{spread}, and 0.5 is a coin."
        )
        return _unknown(f"{few} are too few", why, 2)
    if reason := evidence.text("attack_reason"):
        return _unknown("the attack gave no figure", _sentence(reason), 2)
    if evidence.text("attack_bank"):
        return _unknown("the attack gave no figure", "The records do not say why.", 2)
    why = (
        "Accuracies alone do not show that a model has forgotten; that is what the attack is for. "
    )
    if evidence.record.training.get("epochs") == 0:
        why += "It needs models that are trained here, and nothing was (0 epochs)."
    else:
        why += "Run the sweep again with `--shadows 64`."
    return _unknown("no attack was made", why, 2)


def _uncontrolled(evidence: Evidence) -> Verdict | None:
    """Rules 4 and 5: nothing that is read from the attack would mean anything."""
    retrain = evidence.controls.get("retrain")
    if retrain is None:
        why = "The retrained model was not attacked, so nobody knows what a result is worth."
        return _unknown("the attack was not checked on the retrained model", why, 4)
    if retrain.fault == "biased":
        why = (
            f"On the retrained model, which never saw the forgotten examples, it was right in "
            f"{_percent(figure(retrain.row, ACC))} % of cases, which chance does not explain. "
            "The attack or the set-up is biased, and no result of it counts."
        )
        return _unknown("the attack failed its own check", why, 4)
    low, high = evidence.band
    if not (known(low) and known(high)):
        return _unknown("the result has no band to be compared with", "", 4)
    if figure(evidence.row, f"{PRIVACY}null_sd") == 0 or low == high:
        why = (
            "The unlearned models give the attack the same answer on every example, as a model "
            "does whose output for a class is masked. What is left behind the output is not known."
        )
        return _unknown("the attack had nothing to decide by", why, 5)
    return None


def _by_figure(evidence: Evidence) -> Verdict:
    """Rules 6 to 9: the figure against its band."""
    acc, (low, high) = evidence.acc, evidence.band
    said = f"The attack was right in {_percent(acc)} % of cases"
    band = f"between {_percent(low)} and {_percent(high)} %"
    if acc > high:
        why = f"{said}; a method that leaks nothing lies {band} in 95 of 100 cases."
        return Verdict("leak", "A leak was found.", why, 6)
    if acc < low:
        why = (
            f"{said}, less often than a method that leaks nothing gives by chance ({band}). "
            "Something is amiss with the attack or the set-up."
        )
        return _unknown("the attack does worse than guessing", why, 7)
    identity = evidence.controls.get("identity")
    if identity is None:
        why = f"{said}, but the original model was not attacked."
        return _unknown("the attack has not shown that it can find anything", why, 8)
    if identity.fault == "nothing to see":
        why = (
            f"{said}. But on the original model, before anything was forgotten, it was right in no "
            f"more than {_percent(figure(identity.row, ACC))} % of cases, which is chance as well."
        )
        return _unknown("there was nothing to find in the original model either", why, 8)
    many = f"{evidence.shadows} shadow models" if evidence.shadows else "these shadow models"
    why = (
        f"{said}; a method that leaks nothing lies {band} in 95 of 100 cases. "
        f"On the original model it was right in {_percent(figure(identity.row, ACC))} %."
    )
    power = power_of(evidence)
    if known(power):
        missed = "would have been missed" if power <= high else "would mostly have been found"
        why += (
            f" A leak of half a standard deviation would have read about {_percent(power)} %, "
            f"and so {missed}; smaller ones can be there."
        )
    line = f"No leak was found that {many} can find"
    if but := _but(evidence):
        line += f", {but}"
    return Verdict("no leak", f"{line}.", why, 9, bool(but))


def _but(evidence: Evidence) -> str:
    """What keeps the absence of a leak from being good news; empty if nothing does."""
    if evidence.retrained is None:
        return "but there is no retrained model to compare its answers with"
    if _far_apart(evidence):
        return "but the model does not answer as a retrained one does"
    return ""


def _far_apart(evidence: Evidence) -> list[str]:
    """The accuracies that are further from the retrained model's than is allowed."""
    if evidence.retrained is None or evidence.record.method == "retrain":
        return []
    own, other = evidence.record.metrics, evidence.retrained.metrics
    return [
        metric
        for metric in JUDGED
        if abs(own[metric] - other[metric]) > allowed_gap(evidence, metric)
    ]


def _reservations(evidence: Evidence) -> Iterator[str]:
    record, retrained = evidence.record, evidence.retrained
    if record.method == "identity":
        return
    if retrained is None:
        yield (
            "There is no retrained model of this seed, so that nobody knows how a model answers "
            "that never saw the forgotten examples."
        )
    else:
        for metric in _far_apart(evidence):
            yield (
                f"On {JUDGED[metric]} the model is right in {_percent(record.metrics[metric])} %, "
                f"the retrained model in {_percent(retrained.metrics[metric])} %: further apart "
                f"than the {100 * allowed_gap(evidence, metric):.1f} points that are allowed here, "
                "so that it does not answer as a retrained model does."
            )
    if evidence.text("gate") == "fail":
        yield f"It does not pass the utility gate: {evidence.text('gate_reason').rstrip('.')}."
    retrain = evidence.controls.get("retrain")
    if retrain is not None and retrain.fault == "outside" and known(evidence.acc):
        yield (
            "The retrained model itself lies outside its band "
            f"({_percent(figure(retrain.row, ACC))} %), as chance alone has it in one case of "
            "twenty."
        )
    if record.tuning.get("track") == "oracle":
        yield (
            "The hyper-parameters were found by comparing with retrained models, which nobody has "
            "who needs unlearning."
        )
    if differing := evidence.text("attack_differing"):
        yield f"Records disagree about the attack (shadow models: {differing}); the most count."
    failed = [str(other.seed) for other in evidence.cells if other.status == "failed"]
    if failed:
        yield f"The same method failed with seed {', '.join(failed)}."


def _sentence(text: str | None) -> str:
    words = " ".join((text or "").split())
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else "No reason is recorded."


def _percent(fraction: float) -> str:
    return "?" if math.isnan(fraction) else f"{100 * fraction:.1f}"
