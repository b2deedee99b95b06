"""The report on one unlearned model: a page to attach to a deletion request."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from .attack_columns import BAND_DASH
from .cell_evidence import Evidence, gather
from .code_marks import code_elements
from .errors import InputError
from .files import write_text_atomically
from .find_cell import find_cell, short_keys
from .report_figures import report_drawings
from .report_limits import limits
from .report_tables import (
    accuracy_lines,
    attack_lines,
    cost_facts,
    exposed_examples,
    further_figures,
    probe_lines,
)
from .report_words import (
    attack_notes,
    attack_sentence,
    method_facts,
    origin_facts,
    percent,
    request_facts,
    what_was_forgotten,
)
from .reproduce import FILE, command, reproduce
from .sweep_files import read_description
from .sweep_records import SweepRecords, read_folder
from .tablecell import NONE, TIMES_SIGN, known, significant
from .verdict import RULES, Verdict, attack_counts, judge, reservations

UNBROKEN = "\u00a0"  # a number and its sign stay on one line
WORDS = {
    "original": "The model as it was trained, before anything was forgotten.",
    "unlearned model": "The original after the method was applied to it.",
    "retrained model": (
        "Trained anew without the forgotten examples, in the same way as the original. It is what "
        "unlearning tries to reach: it never saw them."
    ),
    "forgotten examples": "The training images that the request is about; together the forget set.",
    "shadow model": (
        "A model that the attacker trains to learn what models look like that saw an example, and "
        "what those look like that did not. Each is trained on a random half of the images."
    ),
    "null band": (
        "Where 95 of 100 results of the attack lie if a method leaks nothing; found by redrawing "
        "which model saw which example."
    ),
    "p": "How probable a result so high is if there is no leak.",
    "AUC": "Area under the curve of the attack; 0.5 is a coin, 1 is always right.",
}


class Card(NamedTuple):
    """A number that is shown large."""

    head: str
    value: str
    beside: str


class Written(NamedTuple):
    """A report that was written.

    Attributes:
        path: The page.
        verdict: Its first line.
    """

    path: Path
    verdict: Verdict


def write_report(
    folder: Path,
    cell: str,
    *,
    seed: int | None = None,
    scenario: str | None = None,
    out: Path | None = None,
) -> Written:
    """Write the report on one cell of a folder of records.

    Args:
        folder: Holds `records.jsonl` and what lies beside it.
        cell: Which cell; see `find_cell`.
        seed: Seed of the cell, where that is needed.
        scenario: Scenario of the cell likewise.
        out: The page; `report-<short key>.html` in the folder if not given.

    Raises:
        DataError: If there are no records.
        InputError: If no cell is meant, or more than one; or a file beside the records is wrong.
        OSError: If the page cannot be written.
    """
    found = read_folder(folder)
    if not found.records:
        raise InputError(f"`{folder / 'records.jsonl'}` holds no records.")
    record = find_cell(found.records, cell, seed=seed, scenario=scenario, where=f"`{folder}`")
    evidence = gather(record, found)
    verdict = judge(evidence)
    path = out or folder / f"report-{short_keys(found.records)[record.key]}.html"
    write_text_atomically(path, page(evidence, verdict, read_description(folder).get("spec")))
    return Written(path, verdict)


def report(key: str, found: SweepRecords, spec: Mapping[str, Any] | None = None) -> str:
    """The page on the cell with that key, as HTML; the same records give the same text.

    Args:
        key: Key of the cell, whole.
        found: The records that it is among.
        spec: The sweep as it was asked for, where it is known.
    """
    record = next(r for r in found.records if r.key == key)
    evidence = gather(record, found)
    return page(evidence, judge(evidence), spec)


def page(evidence: Evidence, verdict: Verdict, spec: Mapping[str, Any] | None) -> str:
    """Fill the page in."""
    record = evidence.record
    template = resources.files(__package__).joinpath("report_page.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = code_elements
    exposed, exposed_note = exposed_examples(evidence)
    filled = environment.from_string(template).render(
        title=f"Forgetting {what_was_forgotten(record)} with {record.method}",
        record=record,
        is_ok=record.status == "ok",
        verdict=verdict,
        reservations=reservations(evidence),
        rules=RULES,
        cards=_cards(evidence, verdict),
        request=_told(request_facts(record)),
        origin=_told(origin_facts(record)),
        method=_told(method_facts(evidence)),
        accuracies=accuracy_lines(evidence),
        pairs=int(evidence.floor.get("n_pairs") or 0),
        attack=attack_sentence(evidence, verdict),
        attack_notes=attack_notes(evidence, verdict),
        controls=attack_lines(evidence, verdict),
        further=further_figures(evidence) if attack_counts(evidence, verdict) else [],
        exposed=exposed if attack_counts(evidence, verdict) else [],
        exposed_note=exposed_note,
        drawings=[
            (drawing, drawing.inline_svg(f"report{drawing.suffix}"))
            for drawing in (report_drawings(evidence) if attack_counts(evidence, verdict) else [])
        ],
        probes=probe_lines(evidence),
        probe_notes=[str(note) for note in record.probe.get("notes", ())],
        costs=cost_facts(evidence) if record.status == "ok" else [],
        limits=limits(evidence, verdict),
        words=WORDS,
        command=command(record),
        file=FILE,
        toml=_toml(evidence, spec),
    )
    return filled + "\n"


def _told(facts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(term, text) for term, text in facts if text]


def _toml(evidence: Evidence, spec: Mapping[str, Any] | None) -> str:
    try:
        return reproduce(evidence.cells, spec)
    except InputError as error:
        return f"# not possible: {error}\n"


def _cards(evidence: Evidence, verdict: Verdict) -> list[Card]:
    """The four numbers that a reader looks for first; none of a cell that is not ok."""
    record = evidence.record
    if record.status != "ok":
        return []
    low, high = evidence.band
    valid = known(evidence.acc) and attack_counts(evidence, verdict)
    cards = [
        Card(
            "The attack is right in",
            f"{percent(evidence.acc)} %" if valid else NONE,
            f"without a leak {percent(low)}{BAND_DASH}{percent(high)} %; a coin 50 %"
            if valid
            else "not known",
        )
    ]
    for metric, head in (
        ("forget_acc", "Right on forgotten images"),
        ("test_acc", "Right on test images"),
    ):
        others = {"before": evidence.original, "retrained": evidence.retrained}
        beside = [
            f"{words} {percent(other.metrics[metric])} %"
            for words, other in others.items()
            if other is not None
        ]
        cards.append(Card(head, f"{percent(record.metrics[metric])} %", "; ".join(beside)))
    seconds = record.times.get("unlearn_s")
    if seconds is not None and record.method != "identity":
        speedup = record.times.get("speedup")
        faster = "speed-up not known"
        if record.method == "retrain":
            faster = "this is retraining itself"
        elif speedup is not None:
            faster = f"{significant(speedup)}{TIMES_SIGN} as fast as retraining"
        shown = "<0.001" if seconds < 0.001 else significant(seconds)
        cards.append(Card("Unlearning took", f"{shown} s", faster))
    return [card._replace(beside=card.beside.replace(" %", f"{UNBROKEN}%")) for card in cards]
