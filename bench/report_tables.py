"""The tables of a report: accuracies, the attack with its controls, probes, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .attack_columns import BAND_DASH, Z95
from .attack_rows import ACC, EFFICACY, PRIVACY, figure
from .cell_evidence import Evidence
from .columns import cost_lines
from .recipe import is_plain
from .record import Record
from .report_words import count, percent
from .tablecell import NONE, TIMES_SIGN, Row, known, significant
from .verdict import Verdict, allowed_gap, attack_counts

MINUS = "\u2212"
ACCURACIES = {
    "forget_acc": "forgotten training images",
    "retain_acc": "training images that were kept",
    "test_acc": "test images",
    "test_forget_acc": "test images of the forgotten classes",
    "test_retain_acc": "test images of the kept classes",
}
# name: words, factor, digits, unit
PROBES = {
    "probe/recovery_2": ("new head on 2 % of the data finds the forgotten classes", 100, 1, " %"),
    "probe/recovery_10": ("new head on 10 % of the data finds the forgotten classes", 100, 1, " %"),
    "probe/centres": ("nearest class centre finds the forgotten classes", 100, 1, " %"),
    "probe/accuracy_10": ("new head on 10 % of the data, all classes", 100, 1, " %"),
    "cka_original/forget_last": ("likeness to the original, forgotten images", 1, 3, ""),
    "cka_original/retain_last": ("likeness to the original, kept images", 1, 3, ""),
    "cka_retrained/forget_last": ("likeness to the retrained model, forgotten images", 1, 3, ""),
    "cka_retrained/retain_last": ("likeness to the retrained model, kept images", 1, 3, ""),
    "relearn/steps": ("steps until the forgotten images are known again", 1, 0, ""),
    "js/retrained": ("distance of its answers to the retrained model's, nats", 1, 3, ""),
}

FOUND, FPR = f"{PRIVACY}tpr_0.01", f"{PRIVACY}fpr_0.01"


class AccuracyLine(NamedTuple):
    """One row of the table of accuracies; what is not known is a dash."""

    words: str
    before: str
    after: str
    retrained: str
    distance: str
    floor: str
    allowed: str
    reading: str


class AttackLine(NamedTuple):
    """One row of the table of the attack: the model before, unlearned, and retrained."""

    words: str
    acc: str
    band: str
    auc: str
    p: str
    reading: str
    struck: bool


class Exposed(NamedTuple):
    """An example on which the attack is right often."""

    id: int
    right: str


def accuracy_lines(evidence: Evidence) -> list[AccuracyLine]:
    """Accuracies before, after and of the retrained model, with distances in points."""
    return [
        _accuracy_line(evidence, metric, words)
        for metric, words in ACCURACIES.items()
        if metric in evidence.record.metrics
    ]


def _accuracy_line(evidence: Evidence, metric: str, words: str) -> AccuracyLine:
    own = evidence.record.metrics[metric]
    retrained = _metric(evidence.retrained, metric)
    floor = figure(evidence.floor, f"gap_{metric}")
    gap, reading = float("nan"), ""
    if retrained is not None:
        gap = abs(own - retrained)
        reading = "as the retrained model"
        if gap > allowed_gap(evidence, metric):
            reading = f"{'below' if own < retrained else 'above'} the retrained model"
    return AccuracyLine(
        words,
        _shown(_metric(evidence.original, metric), 100, 1, " %"),
        _shown(own, 100, 1, " %"),
        _shown(retrained, 100, 1, " %"),
        _shown(gap, 100, 1, ""),
        _shown(floor, 100, 1, ""),
        f"{100 * allowed_gap(evidence, metric):.1f}" if retrained is not None else NONE,
        reading,
    )


def attack_lines(evidence: Evidence, verdict: Verdict) -> list[AttackLine]:
    """The attack on this method between its controls."""
    lines = []
    name = evidence.record.method
    for role, words in (("identity", "the original model"), ("retrain", "the retrained model")):
        control = evidence.controls.get(role)
        if control is not None and name != role:
            lines.append(_attack_line(words, control.row, _control_reading(role, control.fault)))
    names = {"identity": "the original model", "retrain": "the retrained model"}
    own = names.get(name, f"unlearned with {name}")
    if known(evidence.acc):
        void = not attack_counts(evidence, verdict)
        reading = {
            "leak": "above the band: something can be told",
            "no leak": "inside the band",
            "not known": "does not count",
            "original": "what unlearning starts from",
            "retrained": "never saw the examples",
        }[verdict.kind]
        if void:
            reading = "does not count"
        lines.insert(
            1 if "identity" in evidence.controls and name != "identity" else 0,
            _attack_line(own, evidence.row, reading)._replace(struck=void),
        )
    return lines


def _control_reading(role: str, fault: str) -> str:
    if role == "identity":
        return "inside the band: nothing to find" if fault else "above the band: it can find a leak"
    return {
        "": "inside the band: it accuses nobody wrongly",
        "outside": "outside the band, as chance has it in one of twenty",
        "biased": "far outside the band: it is biased",
    }.get(fault, fault)


def _attack_line(words: str, row: Row, reading: str) -> AttackLine:
    acc, half = figure(row, ACC), Z95 * figure(row, f"{PRIVACY}se")
    low, high = figure(row, f"{PRIVACY}null_lo"), figure(row, f"{PRIVACY}null_hi")
    auc, p = figure(row, f"{PRIVACY}auc"), figure(row, f"{PRIVACY}p")
    return AttackLine(
        words,
        f"{percent(acc)}{f' ± {100 * half:.1f}' if known(half) else ''} %",
        f"{percent(low)}{BAND_DASH}{percent(high)} %" if known(low) and known(high) else NONE,
        _shown(auc, 1, 3, ""),
        f"{p:.2g}" if known(p) else NONE,
        reading,
        struck=False,
    )


def further_figures(evidence: Evidence) -> list[tuple[str, str, str]]:
    """Other figures of the attack: words, of this method, of the retrained model."""
    named = (
        (FOUND, "forgotten examples found while it wrongly accuses 1 % of others"),
        ("ulira/per_example_p95", "right on the most exposed 5 % of examples in at least"),
        (f"{PRIVACY}low_share", "forgotten examples whose score is pushed too low (1 % is ideal)"),
        (f"{EFFICACY}acc", "right in telling the unlearned from a retrained model (50 % is ideal)"),
    )
    found = []
    for name, words in named:
        own, other = figure(evidence.row, name), figure(evidence.retrained_row, name)
        if not known(own):
            continue
        shown = [f"{percent(own)} %", _shown(other, 100, 1, " %")]
        if name == FOUND:  # the threshold is set on other pairs, so the rate differs
            rates = (figure(row, FPR) for row in (evidence.row, evidence.retrained_row))
            shown = [
                f"{text} (really {percent(rate)} %)" if known(rate) else text
                for text, rate in zip(shown, rates, strict=True)
            ]
        found.append((words, shown[0], shown[1]))
    return found


def exposed_examples(evidence: Evidence) -> tuple[list[Exposed], str]:
    """The examples on which the attack is right most often, and how to read them."""
    attack = evidence.attacks.get("method")
    if attack is None or not attack.most_exposed:
        return [], ""
    said = (
        f"Ids are the dataset's own. With {count(attack.pairs, 'pair')} of shadow models and "
        f"{count(attack.examples, 'example')}, some are guessed right often by chance alone"
    )
    other = evidence.attacks.get("retrain")
    if other is not None and other.most_exposed and other.key != attack.key:
        top, last = other.most_exposed[0][1], other.most_exposed[-1][1]
        said += (
            f": on the retrained model, which leaks nothing, the {len(other.most_exposed)} highest "
            f"are {percent(last)} to {percent(top)} %"
        )
    return [Exposed(i, f"{percent(right)} %") for i, right in attack.most_exposed], f"{said}."


def probe_lines(evidence: Evidence) -> list[tuple[str, ...]]:
    """Words, and the probe before, unlearned and of the retrained model."""
    lines = []
    for name, (words, scale, digits, unit) in PROBES.items():
        if name not in evidence.record.metrics:
            continue
        shown = []
        for record in (evidence.original, evidence.record, evidence.retrained):
            text = _shown(_metric(record, name), scale, digits, unit)
            limit = name == "relearn/steps" and (_metric(record, "relearn/censored") or 0) >= 0.5
            shown.append(f"≥ {text}" if limit else text)
        lines.append((words, *shown))
    return lines


def cost_facts(evidence: Evidence) -> list[tuple[str, str]]:
    """Seconds, memory and accuracy that unlearning cost."""
    return [(words, value) for words, value in _cost_facts(evidence) if value]


def _cost_facts(evidence: Evidence) -> Iterator[tuple[str, str]]:
    record = evidence.record
    times = record.times
    yield "Unlearning", _seconds(times, "unlearn_s")
    yield "of that, measuring examples", _seconds(times, "statistics_s")
    yield "of that, trying candidates", _seconds(times, "search_s")
    if times.get("prepare_s"):
        yield "Preparation before any request", _seconds(times, "prepare_s")
    yield "Retraining, for comparison", _seconds(times, "retrain_s")
    if "speedup" in times and record.method not in ("identity", "retrain"):
        yield (
            "Speed-up over retraining",
            f"{significant(times['speedup'])}{TIMES_SIGN}, timed on the same machine",
        )
    elif "retrain_s" in times and record.method not in ("identity", "retrain"):
        yield "Speed-up over retraining", "not known: the two were not timed on one machine"
    if record.peak_memory_bytes:
        yield "Highest memory", f"{significant(record.peak_memory_bytes / 2**20)} MiB"
    if record.tuning.get("seconds") is not None:
        where = record.tuning.get("hardware")
        same = where == record.environment.get("hardware")
        yield (
            "Finding the hyper-parameters",
            f"{significant(float(record.tuning['seconds']))} s of one worker, once"
            + ("" if same else f", on {where or 'a machine that is not recorded'}"),
        )
    if times.get("original_s"):  # a checkpoint that was taken as it came was not trained
        yield "Training the original", _seconds(times, "original_s")
    if evidence.bank is not None and "time/training_s" in evidence.bank.metrics:
        seconds = significant(evidence.bank.metrics["time/training_s"])
        yield (
            "Training the shadow models of the attack",
            f"{seconds} s for {evidence.bank.shadows}, shared by all methods",
        )
    if evidence.original is not None:
        for metric, words in (("test_acc", "test images"), ("retain_acc", "kept training images")):
            change = record.metrics[metric] - evidence.original.metrics[metric]
            points = f"{100 * change:+.1f}".replace("-", MINUS)
            yield f"Accuracy on {words}", f"{points} points against the original"
    if not is_plain(record.recipe):
        for line in cost_lines(evidence.table):
            yield "Recipes of this task", line


def _seconds(times: Mapping[str, float], name: str) -> str:
    if name not in times:
        return ""
    value = times[name]
    return f"{'<0.001' if 0 < value < 0.001 else significant(value)} s"


def _metric(record: Record | None, name: str) -> float | None:
    return None if record is None else record.metrics.get(name)


def _shown(value: float | None, scale: float, digits: int, unit: str) -> str:
    if value is None or not known(value):
        return NONE
    return f"{scale * value:.{digits}f}{unit}"
