"""The leaderboard as LaTeX for a paper: a table with booktabs for each task."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from itertools import groupby
from typing import Any, NamedTuple

import jinja2

from .attack_columns import rmia_cell, ulira_cell
from .attack_rows import ACC, RMIA, plain_rows
from .bold import Score, best_rows
from .columns import accuracy_cell, gap_cell, seconds_cell, speedup_cell
from .leaderboard import Leaderboard, Table
from .tablecell import NONE, TIMES_SIGN, UNSEEN, VOID, Cell, Row

HEADER = r"""% Made by unlearnbench from stored records; do not edit.
% In the preamble: \usepackage{booktabs}. In the text: \input{leaderboard.tex}.
"""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after \\ it would begin an argument
    "]": "{]}",
    "±": r"$\pm$",
    TIMES_SIGN: r"$\times$",
    "≥": r"$\geq$",
    NONE: "--",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
    "“": "``",
    "”": "''",
}
_MARKS = {VOID: r"$^{\times}$", UNSEEN: "$^{?}$"}
_MARKED = {
    VOID: "the figure does not count, as the records say",
    UNSEEN: "it says nothing, for the original model shows nothing to forget either",
}


class _Head(NamedTuple):
    """A column: what stands above it, what fills it, and what makes a value the best."""

    group: str
    unit: str
    cell: Callable[[Row], Cell]
    score: Score | None = None


def latex(board: Leaderboard, names: Sequence[str]) -> str:
    """All tables of the board; `names` tell their labels apart.

    The best methods of a column are bold, unless they cannot be told from worse ones: see
    `best_rows`.
    """
    template = resources.files(__package__).joinpath("leaderboard_table.tex").read_text("utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        block_start_string="((*",
        block_end_string="*))",
        variable_start_string="(((",
        variable_end_string=")))",
        comment_start_string="((#",
        comment_end_string="#))",
    )
    tables = [_table(table, name) for table, name in zip(board.tables, names, strict=True)]
    if not tables:
        return HEADER + "% There are no records.\n"
    return HEADER + environment.from_string(template).render(tables=tables)


def escape(text: str) -> str:
    r"""Make LaTeX show a text as it is.

    Example:
        >>> escape("scrub[lr=0.1,msteps=50%] & co_1")
        'scrub{[}lr=0.1,\\allowbreak{}msteps=50\\%{]} \\& co\\_1'
    """
    plain = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    escaped = "".join(_SPECIAL.get(character, character) for character in plain)
    return re.sub(r",(?=\S)", r",\\allowbreak{}", escaped)  # specs are long and without spaces


def _table(table: Table, name: str) -> dict[str, Any]:
    heads = _heads(table)
    rows = plain_rows(table.rows)
    best = [best_rows(rows, head.score) if head.score else set() for head in heads]
    cells = [
        [_shown(head.cell(row), bold=i in found) for head, found in zip(heads, best, strict=True)]
        for i, row in enumerate(rows)
    ]
    several = len(table.recipes) > 1
    lines = [
        [escape(_label(row)), *([escape(str(row["recipe"]))] if several else []), *shown]
        for row, shown in zip(rows, cells, strict=True)
    ]
    words = ["Method", "Recipe"] if several else ["Method"]
    groups, rules = _grouped(heads, len(words))
    marks = {mark for row in rows for head in heads if (mark := head.cell(row).mark)}
    return {
        "caption": _caption(table, heads, marks, any(best)),
        "label": f"tab:unlearning-{name}",
        "format": "@{}" + "l" * len(words) + "r" * len(heads) + "@{}",
        "groups": [*words, *groups],
        "rules": rules,
        "heads": [*[""] * len(words), *(escape(head.unit) for head in heads)],
        "parts": [
            [line for _, line in part]
            for _, part in groupby(
                zip(rows, lines, strict=True), key=lambda pair: pair[0]["kind"] == "method"
            )
        ],
    }


def _label(row: Row) -> str:
    """A line can be broken, if at all, behind the commas of a method's parameters."""
    return re.sub(r",(?=\S)", ", ", str(row["method"]))


def _heads(table: Table) -> list[_Head]:
    """What a paper has room for; everything else is on the page and in the CSV."""
    heads = []
    if table.attacked and ACC in table.rows:
        heads.append(_Head("U-LIRA", "%", ulira_cell, Score.of_attack()))
        heads.append(_Head("U-LIRA", "band, %", _band_cell))
    if table.attacked and RMIA in table.rows:
        heads.append(_Head("RMIA", "AUC", rmia_cell))
    words = {"forget_acc": "Forget", "retain_acc": "Retain", "test_acc": "Test"}
    if heads:
        del words["retain_acc"]  # to make room for the attack, as in the terminal
    for metric, word in words.items():
        heads.append(_Head(word, "%", partial(_accuracy, metric)))
        gap = Score(f"gap_{metric}", f"gap_{metric}_std")
        heads.append(_Head(word, "gap, pp", partial(_gap, metric), gap))
    time = Score("unlearn_s_mean", "unlearn_s_std") if len(table.hardware) < 2 else None
    heads.append(_Head("Time", "s", partial(seconds_cell, "unlearn_s"), time))
    heads.append(_Head("Speed-up", TIMES_SIGN, speedup_cell))
    return heads


def _band_cell(row: Row) -> Cell:
    return Cell(ulira_cell(row).beside or NONE)


def _accuracy(metric: str, row: Row) -> Cell:
    return accuracy_cell(metric, row)._replace(beside="")


def _gap(metric: str, row: Row) -> Cell:
    """Without its spread, to make room: it is about that of the accuracy."""
    return gap_cell(metric, row)._replace(spread="")


def _shown(cell: Cell, *, bold: bool) -> str:
    text = escape(cell.text.removesuffix(TIMES_SIGN))
    shown = rf"\textbf{{{text}}}" if bold else text
    if cell.spread:
        shown += rf" {{\scriptsize {escape(cell.spread)}}}"
    # a figure that does not count must not be read as one that does
    shown = f"({shown})" if cell.struck else shown
    return shown + _MARKS.get(cell.mark, "")


def _grouped(heads: Sequence[_Head], before: int) -> tuple[list[str], list[str]]:
    r"""Heads over several columns, and the rules below them."""
    groups, rules, place = [], [], before + 1
    for name, members in groupby(heads, key=lambda head: head.group):
        width = len(list(members))
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(name)}}}")
        if width > 1:
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    return groups, rules


def _caption(table: Table, heads: Sequence[_Head], marks: set[str], any_bold: bool) -> str:
    seeds = len(table.seeds)
    words = [
        f"Unlearning {table.scenario} from {table.model} on {table.dataset}.",
        "Accuracies: mean"
        + (f" ± standard deviation over {seeds} seeds" if seeds > 1 else " of 1 seed")
        + "; gap: distance to the retrained model of the same seed in percentage points (pp).",
    ]
    if any(head.group == "U-LIRA" for head in heads):
        words.append(
            "U-LIRA: balanced accuracy of the membership-inference attack, ± half of its 95 % "
            "interval; 50 is a coin, and methods inside the null band (band) are tied."
        )
    elif any(head.group == "RMIA" for head in heads):
        words.append("RMIA: AUC of a weaker attack, ± half of its 95 % interval; 0.5 is a coin.")
    else:
        words.append("U-LIRA was not run: nothing here shows that a method has forgotten.")
    hardware = "; ".join(table.hardware)
    if len(table.hardware) > 1:
        words.append(f"Times are from {len(table.hardware)} machines, and do not compare.")
    elif hardware:
        words.append(f"Times are of {hardware}.")
    if any_bold:
        words.append("Bold: best, and beyond two standard errors of every worse method.")
    caption = escape(" ".join(words))
    for mark, meaning in _MARKED.items():
        if mark in marks:
            caption += f" {_MARKS[mark]}: {escape(meaning)}."
    return caption
