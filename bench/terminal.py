"""The leaderboard as text for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from .attack_columns import rmia_cell, ulira_cell
from .attack_notes import NOT_ATTACKED, attack_notes
from .attack_record import AttackRecord
from .attack_rows import ACC, RMIA, plain_rows
from .bank_record import BankRecord
from .columns import (
    HEADS,
    accuracy_cell,
    facts,
    gap_cell,
    provenance,
    reason_head,
    seconds_cell,
    speedup_cell,
    status_cell,
)
from .leaderboard import NOT_RUN, Leaderboard, Table, build
from .rank_columns import TIE, place_cell, standing_columns, standing_rows
from .rank_notes import standings_notes
from .record import Record
from .tablecell import FAILS, FEW, MARKS, NONE, UNSEEN, VOID, Cell, Row

WIDTH = 110
Show = Callable[[Row], Cell]


def terminal_table(
    records: Sequence[Record],
    banks: Sequence[BankRecord] = (),
    attacks: Sequence[AttackRecord] = (),
) -> str:
    """The leaderboard as plain text of about 110 columns, one block a table."""
    board = build(records, banks, attacks)
    attacked = [table.attacked for table in board.tables]
    words = "forget, retain, test: accuracy in %, mean ± std over seeds."
    if attacked and all(attacked):
        words = "forget, test: accuracy in %, mean over seeds."
    notes = [
        f"{words} gap: percentage points to the retrained model of the same seed. "
        f"n: seeds ok/all. {NONE}: not known. "
    ]
    if any(attacked):
        notes.append(
            "U-LIRA: how often the attack is right, in % ± half of the 95 % interval; 50 is a "
            "coin. band: 95 % of figures without any leak; methods inside it are tied. "
            f"{VOID}: does not count. {UNSEEN}: says nothing. More columns are on the page."
        )
        notes.append(
            f"#: place in the table, by how far U-LIRA lies above the band; {TIE}: tied, and then "
            f"by speed-up; {FAILS}: fails the gate."
        )
    else:
        notes[0] += f"Not ranked: {NOT_ATTACKED}"
    if any(FEW in status_cell(row).mark for t in board.tables for row in plain_rows(t.rows)):
        notes.append(f"{FEW}: {MARKS[FEW]}.")
    parts = [_block(table, board) for table in board.tables]
    parts += _over_tasks(board)
    parts.append("\n".join(map(_fill, [*provenance(board)[1:], *notes])))
    return "\n\n".join(parts)


def grid(lines: list[list[str]], heads: list[str], align: list[str], style: str) -> str:
    """Text as a table of the given style of tabulate."""
    frame = pd.DataFrame(lines, columns=pd.Index(heads))
    return str(
        frame.to_markdown(index=False, tablefmt=style, disable_numparse=True, colalign=align)
    )


def _over_tasks(board: Leaderboard) -> list[str]:
    """The ranking over tasks, where more than one counts."""
    standings = board.standings
    if standings is None or len(standings.tasks) < 2:
        return []
    columns = standing_columns(standings)
    heads = [column.head for column in columns]
    align = ["right" if column.numeric else "left" for column in columns]
    lines = []
    for row in standing_rows(standings):
        cells = [column.cell(row) for column in columns]
        shown = [f"{c.text} ({c.beside})" if c.beside else _compact(c) for c in cells]
        lines.append([_wrapped(shown[0], 30), *shown[1:]])
    notes = standings_notes(standings)
    return [
        "\n".join(["Ranking over tasks", grid(lines, heads, align, "simple"), *map(_fill, notes)])
    ]


def _block(table: Table, board: Leaderboard) -> str:
    columns = _attacked_columns(table) if table.attacked else _plain_columns(table)
    seconds = "seconds" if table.attacked else "unlearn s"  # every column counts there
    columns += [(seconds, partial(seconds_cell, "unlearn_s")), ("speed-up", speedup_cell)]
    heads = ["method", "n", *(head for head, _ in columns)]
    widest = 21 if table.attacked else 30
    lines: list[list[str]] = []
    for recipe in table.recipes:
        if len(table.recipes) > 1:
            lines.append([f"recipe {recipe}:", *[""] * (len(heads) - 1)])
        for row in (row for row in plain_rows(table.rows) if row["recipe"] == recipe):
            total = row["n_ok"] + row["n_failed"] + row["n_skipped"]
            name = row["method"] + (f" ({NOT_RUN})" if row["status"] == NOT_RUN else "")
            lines.append(
                [
                    _wrapped(name, widest),
                    f"{row['n_ok']}/{total}{status_cell(row).mark}" if total else NONE,
                    *(_compact(show(row)) for _, show in columns),
                ]
            )
    drawn = grid(lines, heads, ["left", *["right"] * (len(heads) - 1)], "simple")
    title = f"{table.scenario}  ({table.dataset}, {table.model}; {facts(table)})"
    reasons = [
        textwrap.shorten(
            f"{reason_head(reason, table)}: {reason.text}", 3 * WIDTH, placeholder=" …"
        )
        for reason in table.reasons
    ]
    notes = [note.replace("`", "") for note in (*table.notes, *attack_notes(table, board))]
    return "\n".join([_fill(title), drawn, *map(_fill, notes + reasons)])


def _plain_columns(table: Table) -> list[tuple[str, Show]]:
    """Accuracies with their spread and gap; nothing was attacked."""
    columns: list[tuple[str, Show]] = []
    for metric in table.metrics[:3]:
        columns.append((HEADS[metric], partial(accuracy_cell, metric)))
        columns.append(("gap", partial(_bare, gap_cell, metric)))
    return columns


def _attacked_columns(table: Table) -> list[tuple[str, Show]]:
    """The attack first; to make room, accuracies have no spread and the retain set none at all."""
    columns: list[tuple[str, Show]] = [("#", place_cell), ("U-LIRA", ulira_cell)]
    if ACC in table.rows:
        columns.append(("band", _band_cell))
    if RMIA in table.rows:
        columns.append(("RMIA AUC", rmia_cell))
    for metric in ("forget_acc", "test_acc"):
        columns.append((HEADS[metric], partial(_bare, accuracy_cell, metric)))
        columns.append(("gap", partial(_bare, gap_cell, metric)))
    return columns


def _band_cell(row: Row) -> Cell:
    return Cell(ulira_cell(row).beside or NONE)


def _bare(make: Callable[[str, Row], Cell], metric: str, row: Row) -> Cell:
    return make(metric, row)._replace(spread="")


def _wrapped(name: str, widest: int) -> str:
    """A name in lines; one with parameters breaks behind a comma."""
    name = re.sub(r",(?=\S)", ", ", name)
    width = min(widest, 24) if "[" in name else widest
    return textwrap.fill(name, width, break_on_hyphens=False)


def _compact(cell: Cell) -> str:
    return cell.text + cell.spread.replace(" ", "") + cell.mark


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
