"""Sentences on the attack around a table: its power, its controls, and what does not count."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .attack_columns import Z95
from .attack_controls import Control, banks_of, shown_bank
from .attack_rows import ACC, PRIVACY, RMIA, figure, plain_rows
from .bank_record import BankRecord
from .leaderboard import Leaderboard, Table
from .metrics.attack_power import attack_power, plug_in_accuracy
from .rank_notes import told_apart
from .tablecell import FAILS, UNSEEN, VOID, Row, known, significant

POWER = "ulira/power_d0.5"
NOT_ATTACKED = "U-LIRA was not run; add `--shadows 64`."


def ranking(board: Leaderboard) -> str:
    """What may be compared, and how methods are ranked."""
    order = "Rows are not ranked: methods stand in the order of the records."
    no_proof = (
        "An accuracy near the retrained model's does not show that a method has forgotten: that "
        "is what U-LIRA, the membership-inference attack, is for."
    )
    if not any(table.attacked for table in board.tables):
        return f"{order} {no_proof} {NOT_ATTACKED}"
    if not any(ACC in table.rows for table in board.tables):
        return f"{order} {no_proof} It gave no figure; the notes below each table say why."
    if board.standings is None:
        return f"{order} The notes below each table say why U-LIRA ranks no method there."
    return (
        "Methods are ranked within a table by how far U-LIRA, the membership-inference attack, "
        "lies above its null band: methods inside the null band are tied. Before that stands a "
        f"gate: who loses too much accuracy or is slower than retraining comes last ({FAILS})."
    )


def attack_notes(table: Table, board: Leaderboard) -> list[str]:
    """What a reader must know before believing the attack's figures of a table."""
    if not table.attacked:
        return [NOT_ATTACKED] if any(other.attacked for other in board.tables) else []
    rows = plain_rows(table.rows)
    return [
        *_settings(rows, len(table.recipes) > 1),
        *_banks(rows, board.banks),
        *(note for recipe in table.recipes for note in _controls(table, recipe)),
        *_suspicions(rows, len(table.recipes) > 1),
        *_fallback(rows),
        *_disagreements(rows, len(table.recipes) > 1),
        *told_apart(table, board),
    ]


def _settings(rows: list[dict[str, Any]], several: bool) -> Iterator[str]:
    """How U-LIRA was made and what it could have found at best; rows of one setting together."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if known(figure(row, ACC)):
            counts = [figure(row, f"attack_{name}") for name in ("shadows", "examples", "views")]
            setting = [None if math.isnan(count) else int(count) for count in counts]
            named = (row["attack_variance"], row["attack_tuning_track"])
            groups.setdefault((*setting, *named), []).append(row)
    for (shadows, examples, views, variance, track), members in groups.items():
        parts = [
            _count(shadows, "shadow model"),
            _count(examples, "forgotten example"),
            _count(views, "view"),
            variance,
            "" if track in ("", "none") else f"tuning track {track}",
        ]
        which = f" ({', '.join(_name(row, several) for row in members)})" if len(groups) > 1 else ""
        power = next((p for p in (figure(row, POWER) for row in members) if known(p)), math.nan)
        if not known(power) and shadows is not None and shadows >= 4 and shadows % 2 == 0:
            power = attack_power(shadows)
        at_best = (
            "; with this many shadows a leak of half a standard deviation would read "
            f"{_percent(power)} %, unlimited ones {_percent(plug_in_accuracy(0.5, math.inf))} %"
        )
        said = ", ".join(part for part in parts if part) or "setting not recorded"
        yield f"U-LIRA{which}: {said}{at_best if known(power) else ''}."


def _banks(rows: list[dict[str, Any]], banks: Mapping[str, BankRecord]) -> Iterator[str]:
    """What is known of the shadow models behind a table."""
    for name in dict.fromkeys(row["attack_bank"] for row in rows):
        if name not in banks:
            continue
        bank = banks[name]
        told = [
            f"{_mean_std(bank, part)} {words}"
            for part, words in (
                ("in", "on the half that it was trained on"),
                ("out", "on the other half"),
                ("test", "on the test set"),
            )
            if f"acc/{part}_mean" in bank.metrics
        ]
        facts = [f"accuracy of a model {', '.join(told)}"] if told else []
        if "lira/auc" in bank.metrics:
            half = Z95 * bank.metrics.get("lira/auc_se", math.nan)
            spread = f" ± {half:.3f}" if known(half) else ""
            facts.append(f"AUC of LiRA on them {bank.metrics['lira/auc']:.3f}{spread}")
        if "time/training_s" in bank.metrics:
            facts.append(f"trained in {significant(bank.metrics['time/training_s'])} s")
        said = f": {'; '.join(facts)}" if facts else ""
        yield f"The {_count(bank.shadows, 'shadow model')} of recipe {bank.recipe}{said}."


def _controls(table: Table, recipe: str) -> Iterator[str]:
    """What the reference rows say; without them nobody knows what the figures are worth."""
    banks = banks_of(table.rows, recipe)
    for bank in banks:
        where = f" on recipe {recipe}" if len(table.recipes) > 1 else ""
        whose = "of this recipe" if where else "of this table"
        if len(banks) > 1:
            where += f" with shadow models {shown_bank(bank)}"
            whose = "of these shadow models"
        yield from _controls_of_bank(table.controls.get((recipe, bank), ()), where, whose)


def _controls_of_bank(found: Sequence[Control], where: str, whose: str) -> Iterator[str]:
    for control in found:
        row = control.row
        low, high = (_percent(figure(row, f"{PRIVACY}null_{end}")) for end in ("lo", "hi"))
        p = f", p = {_p(control.p)}" if known(control.p) else ""
        numbers = f"({_percent(figure(row, ACC))} %, band {low} to {high} %{p})"
        if control.fault == "nothing to see":
            yield (
                f"Nothing to forget can be seen{where}: the original model itself lies inside its "
                f"null band {numbers}. A low U-LIRA says nothing here ({UNSEEN})."
            )
        elif control.fault == "outside":
            yield (
                f"The retrained model lies outside its 95 % band{where} {numbers}, as chance alone "
                "has it in one table of twenty."
            )
        elif control.fault == "biased":
            yield (
                f"The retrained model, which never saw the forget set, lies outside its 95 % "
                f"band{where} {numbers}: the attack or the set-up is biased, and the U-LIRA "
                f"figures {whose} do not count ({VOID})."
            )
    unknown = {"identity": "there is anything to find", "retrain": "the attack is unbiased"}
    for name, unsure in unknown.items():
        if all(control.name != name for control in found):
            label = "original" if name == "identity" else "retrained"
            yield (
                f"The {label} model has no U-LIRA figure with a null band{where}: whether "
                f"{unsure} is not known."
            )


def _suspicions(rows: list[dict[str, Any]], several: bool) -> Iterator[str]:
    for row in rows:
        if text := " ".join(row["attack_suspicion"].split()):
            yield f"{_name(row, several)}: {text.rstrip('.')}. Its figures do not count ({VOID})."


def _fallback(rows: list[dict[str, Any]]) -> Iterator[str]:
    if any(known(figure(row, RMIA)) for row in rows):
        yield (
            "With fewer than 6 shadow models there is no U-LIRA. The AUC of RMIA stands in for "
            "it: a weaker attack, blind to forgetting too much."
        )


def _disagreements(rows: list[dict[str, Any]], several: bool) -> Iterator[str]:
    for row in rows:
        if row["attack_differing"]:
            yield (
                f"{_name(row, several)}: records disagree about the attack (shadow models: "
                f"{row['attack_differing']}); shown is that of the most shadow models, and of "
                "equals the last."
            )


def _name(row: Row, several: bool) -> str:
    where = f" on {row['recipe']}" if several else ""
    return f"`{row['method']}`{where}"


def _count(number: int | None, noun: str) -> str:
    return "" if number is None else f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 0.0001 else "less than 0.0001"


def _mean_std(bank: BankRecord, part: str) -> str:
    spread = bank.metrics.get(f"acc/{part}_std")
    shown = f" ± {_percent(spread)}" if spread is not None else ""
    return f"{_percent(bank.metrics[f'acc/{part}_mean'])}{shown} %"
