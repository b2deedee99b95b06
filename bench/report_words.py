"""What a report says in sentences: what was forgotten, how, and what the attack found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .attack_columns import Z95
from .attack_rows import PRIVACY, figure
from .cell_evidence import Evidence
from .cell_frame import as_text, hardware_of
from .errors import InputError
from .metrics.attack_power import plug_in_accuracy
from .recipe import is_plain
from .record import Record
from .registry import METHODS
from .scenario import ClassScenario, IdsScenario, RandomScenario
from .spec_string import parse_spec
from .tablecell import TIMES_SIGN, known, significant
from .unlearner import Unlearner
from .verdict import Verdict, attack_counts, power_of

Fact = tuple[str, str]

VERSIONS = {
    "unlearnbench": "unlearnbench",
    "git_commit": "commit",
    "python": "Python",
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "timm": "timm",
}


def percent(fraction: float) -> str:
    """A fraction in % with one digit."""
    return f"{100 * fraction:.1f}"


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def what_was_forgotten(record: Record) -> str:
    """The forget set in a few words, for a heading."""
    name, params = parse_spec(record.scenario, "scenario")
    if name == ClassScenario.name:
        classes = params.get("classes", 0)
        listed = classes if isinstance(classes, list) else [classes]
        return f"class{'' if len(listed) == 1 else 'es'} {', '.join(map(str, listed))}"
    return count(record.forget_size, "example")


def request_facts(record: Record) -> list[Fact]:
    """Data, forget request and model."""
    name, _ = parse_spec(record.scenario, "scenario")
    drawn = {
        ClassScenario.name: f"all training images of {what_was_forgotten(record)}",
        RandomScenario.name: "a random draw of training images",
        IdsScenario.name: "the training images whose ids a file lists",
    }.get(name, "as the scenario says")
    size = count(record.forget_size, "example")
    total = record.forget_size + record.retain_size
    info = record.model_info
    built = [
        *([f"{info['parameters']:,} parameters"] if "parameters" in info else []),
        *(
            [f"input {TIMES_SIGN.join(map(str, info['input_size']))}"]
            if "input_size" in info
            else []
        ),
    ]
    return [
        ("Dataset", f"`{record.dataset}`"),
        ("Content hash of the images", f"`{record.data_digest}`" if record.data_digest else ""),
        ("Forget request", f"{drawn}: {size} of {total:,} (scenario `{record.scenario}`)"),
        ("Hash of the request", f"`{record.forget_request}`"),
        ("Kept", count(record.retain_size, "training example")),
        ("Model", f"`{record.model}`" + (f" ({', '.join(built)})" if built else "")),
    ]


def origin_facts(record: Record) -> list[Fact]:
    """Software, machine and where the cell is found in the records."""
    environment = record.environment
    versions = [f"{w} {environment[k]}" for k, w in VERSIONS.items() if environment.get(k)]
    return [
        ("Software", ", ".join(versions) or "not recorded"),
        ("Machine", hardware_of(record) or "not recorded"),
        ("Device", str(environment.get("device") or "not recorded")),
        ("When", "not recorded"),
        ("Sweep", f"`{record.sweep}`"),
        ("Key of the cell", f"`{record.key}`"),
    ]


def method_facts(evidence: Evidence) -> list[Fact]:
    """The method, where it comes from, and how it was set."""
    record = evidence.record
    served = [
        f"{role}: {number:,}{_times(number, record, role)}"
        for role, number in sorted(record.samples.items())
    ]
    seeds = [f"{c.seed} ({c.status})" if c.status != "ok" else str(c.seed) for c in evidence.cells]
    return [
        ("Method", f"`{record.method}`{_summary(record)}"),
        ("Source", _source(record)),
        ("Hyper-parameters", _hyperparameters(record)),
        ("How they were found", _tuning(record)),
        ("Recipe of the original", _recipe(record)),
        ("Examples served to the method", "; ".join(served) or "none"),
        (
            "Seed",
            f"{record.seed}; the records hold seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}",
        ),
    ]


def attack_sentence(evidence: Evidence, verdict: Verdict) -> str:
    """The result of the attack in one sentence; empty if there is none."""
    acc, (low, high) = evidence.acc, evidence.band
    if not known(acc):
        return ""
    half = Z95 * figure(evidence.row, f"{PRIVACY}se")
    interval = ""
    if known(half):
        ends = (max(0.0, acc - half), min(1.0, acc + half))
        interval = f" (95 % interval {percent(ends[0])} to {percent(ends[1])} %)"
    said = (
        "An attack that is shown an example, and has to say whether the model was trained on it "
        "and then made to forget it or never saw it, was right in "
        f"{percent(acc)} % of cases{interval}. A coin is right in 50 %"
    )
    if not (known(low) and known(high)):
        return f"{said}; there is no band to compare it with, so that it says nothing."
    band = f"a method that leaks nothing lies between {percent(low)} and {percent(high)} %"
    ends_with = {
        "leak": "so something can still be told",
        "no leak": "so nothing can be told, by this attack with this many shadow models",
        "not known": "but this does not count, for the reason at the top of the page",
        "original": "so something can be told, which is what unlearning has to undo"
        if acc > high
        else "so nothing can be told even before unlearning",
        "retrained": "and this model never saw the examples, so that whatever is told of it is "
        "chance or a fault of the attack",
    }
    if verdict.kind != "not known" and not attack_counts(evidence, verdict):
        why = "but this does not count, for the attack fails its own checks"
        return f"{said}; {band} in 95 of 100 cases: {why}."
    return f"{said}; {band} in 95 of 100 cases: {ends_with[verdict.kind]}."


def attack_notes(evidence: Evidence, verdict: Verdict) -> list[str]:
    """How the attack was made; and, if it counts, what it could have found and how sure it is."""
    return list(_attack_notes(evidence, verdict))


def _attack_notes(evidence: Evidence, verdict: Verdict) -> Iterator[str]:
    row = evidence.row
    counts = {"shadow model": "attack_shadows", "forgotten example": "attack_examples"}
    numbers = {noun: figure(row, name) for noun, name in counts.items()}
    made = [count(int(number), noun) for noun, number in numbers.items() if known(number)]
    if known(evidence.acc) and made:
        yield (
            f"It was made with {' and '.join(made)}. Every shadow model was trained on a random "
            "half of the training images and forgot its own share of these examples by the same "
            "method; the others it never saw."
        )
    if not attack_counts(evidence, verdict):
        return
    p = figure(row, f"{PRIVACY}p")
    if known(p):
        yield (
            f"How probable a result so high is without any leak, counted over redraws of which "
            f"model saw which example: p = {p:.2g}."
        )
    power = power_of(evidence)
    if known(power):
        unlimited = plug_in_accuracy(0.5, float("inf"))
        yield (
            "What it could find at best (its power): a leak of half a standard deviation would "
            f"read {percent(power)} % with {count(evidence.shadows, 'shadow model')}, and "
            f"{percent(unlimited)} % with unlimited ones. Weaker leaks can be missed."
        )


def _class_of(record: Record) -> type[Unlearner] | None:
    try:
        return METHODS.get(record.method)
    except InputError:
        return None


def _summary(record: Record) -> str:
    method = _class_of(record)
    return f": {method.summary()}" if method is not None and method.summary() else ""


def _source(record: Record) -> str:
    method = _class_of(record)
    if method is None:
        return (
            "not known: no method of this name is registered here (if it is in a file, give that "
            "with `--plugin`)"
        )
    exact = "; exact by construction" if method.exact else ""
    return f"{method.reference}{exact}"


def _hyperparameters(record: Record) -> str:
    texts = {k: "none" if v is None else as_text(v) for k, v in record.hyperparameters.items()}
    return ", ".join(f"`{key}` = `{text}`" for key, text in texts.items()) or "none"


def _tuning(record: Record) -> str:
    tuning: dict[str, Any] = record.tuning
    if not record.hyperparameters:
        return "there are none"
    if not tuning:
        return "written by hand, or the method's defaults; no search is recorded"
    spoiled: Sequence[str] = [
        f"{tuning[key]} {words}"
        for key, words in (("failed", "failed"), ("pruned", "stopped early"))
        if tuning.get(key)
    ]
    looked = {
        "validation": "judged on training and validation images only",
        "oracle": "judged against retrained models, which nobody has who needs unlearning",
    }.get(str(tuning.get("track")), "")
    return (
        f"by a search of {tuning.get('trials', '?')} trials"
        f"{' (' + ', '.join(spoiled) + ')' if spoiled else ''} on "
        f"{count(int(tuning.get('development_models', 0)), 'original')} trained for that alone"
        f"{f', {looked}' if looked else ''} (study `{tuning.get('study', '?')}`)"
    )


def _recipe(record: Record) -> str:
    epochs = record.training.get("epochs")
    trained = f", {count(epochs, 'epoch')} of training" if isinstance(epochs, int) else ""
    kind = " (no penalty)" if is_plain(record.recipe) else " (trained with a penalty)"
    return f"`{record.recipe}`{kind}{trained}"


def _times(number: int, record: Record, role: str) -> str:
    size = {"forget": record.forget_size, "retain": record.retain_size}.get(role)
    return f" ({significant(number / size)} times the {role} set)" if size else ""


def _shape(size: Sequence[int]) -> str:
    return f" {TIMES_SIGN} ".join(map(str, size))
