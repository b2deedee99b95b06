"""How a row of the leaderboard is shown: columns, cells, and the sentences around a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from .attack_columns import legend_of, primary_columns, secondary_columns
from .attack_rows import plain_rows
from .gate import FAIL
from .leaderboard import NOISE_FLOOR, NOT_RUN, Leaderboard, Reason, Table
from .probe_columns import probe_columns, probe_legend
from .rank_columns import place_cell
from .recipe import PLAIN, is_plain
from .tablecell import (
    FEW,
    MACHINES,
    MARKS,
    NO_SPREAD,
    NONE,
    TIMES_SIGN,
    Cell,
    Column,
    Row,
    known,
    number_cell,
    significant,
)

FEWEST_SEEDS = 3
LEGEND = {
    "place": (
        "Rank within the table, 1 is best. It goes by how far U-LIRA lies above the upper end of "
        "its null band: methods inside the band are tied (=), and stand in the order of their "
        "speed-up. A method fails the gate, and shares the last place, if its accuracy on the "
        "retain or the test set lies below the retrained model's by more than 2 points (or two "
        "standard deviations of the retrained models, where that is more), if it is not faster "
        "than retraining, if no cell is ok, or if its figures of the attack do not count; what is "
        "not known does not fail. References and controls have no place: they show what the "
        "numbers are worth."
    ),
    "forget, retain, test": (
        "Accuracy in % on the forget set and the retain set (training images) and on the test "
        "set: mean ± sample standard deviation over the seeds that are ok; no spread where there "
        "is one seed. Small or in parentheses beside it, the retrained model's mean over the same "
        "seeds. “test, forgotten” and “test, kept” are the test images of the forgotten and of "
        "the kept classes."
    ),
    "gap": (
        "Distance to the retrained model in percentage points: the absolute difference to the "
        "retrained model of the same seed and recipe, then the mean over the seeds. It can be "
        "larger than the difference of the two means. “gap, sd” is the same in units of the "
        "standard deviation of the retrained models over seeds: about 1 is what chance alone gives."
    ),
    "ToW": (
        "Product over forget, retain and test of 1 - gap (as a fraction); 1 is the retrained model."
    ),
    "unlearn s, prepare s": (
        "Mean seconds inside the method once the forget request is known, and of work that needs "
        "no request."
    ),
    "statistics s, search s": (
        "Of the unlearn seconds, those spent on measuring examples and on trying candidates, where "
        "a method times them apart; the rest is the edit."
    ),
    "tuning s": (
        "Seconds of one worker that finding the method's hyper-parameters cost before the sweep, "
        "all trials together; training the originals that they were tried on, which all methods "
        "share, is not in it."
    ),
    "speed-up": (
        "Seconds of retraining over seconds of unlearning, both timed on one machine; mean over "
        "the seeds."
    ),
    "memory": "Highest memory while unlearning; the maximum over the seeds.",
    "status": (
        "Cells, one for each seed, that are ok or failed; not applicable where the method "
        "declines the task."
    ),
    "original (identity)": "The model before unlearning. It does no work, so it has no speed-up.",
    "retrained": (
        "Trained anew without the forget set: the reference of every gap, and so itself at gap 0."
    ),
    NOISE_FLOOR: (
        "The noise floor: the mean distance between retrained models of two different seeds with "
        "the same forget set, over all pairs of seeds. A gap of this size is what chance alone "
        "gives. Where every seed draws a forget set of its own there is no such pair."
    ),
    NOT_RUN: "The records hold no such reference; without a retrained model there are no gaps.",
    NONE: (
        "Not known or not measured. There is no speed-up where retraining was not timed on the "
        "same machine; no time, speed-up or memory where the seeds of a row ran on different "
        "machines."
    ),
}
DECORRELATED = {
    "filter_cosine": "mean |cosine| of filters",
    "feature_correlation": "mean |correlation| of features",
}
HEADS = {
    "forget_acc": "forget",
    "retain_acc": "retain",
    "test_acc": "test",
    "test_forget_acc": "test, forgotten",
    "test_retain_acc": "test, kept",
}


def columns_of(table: Table, board: Leaderboard) -> list[Column]:
    """The columns that this table needs, primary ones first.

    Recipe and machine are there only where there are several, the place only where a method has
    one or fails the gate.
    """
    rows = plain_rows(table.rows)
    columns = [Column("", "method", partial(_word, "method"), numeric=False, primary=True)]
    if any(known(row["place"]) or row["gate"] == FAIL for row in rows):
        columns.append(Column("", "place", place_cell, primary=True))
    if len(table.recipes) > 1:
        columns.append(Column("", "recipe", partial(_word, "recipe"), numeric=False, primary=True))
    columns.append(Column("", "status", status_cell, numeric=False, primary=True))
    if len(table.hardware) > 1:
        machines = _machines(board)
        columns.append(Column("", "machine", partial(_machine_cell, machines), numeric=False))
    columns += primary_columns(rows)
    for metric in ("forget_acc", "test_acc"):
        columns += _metric_columns(metric, primary=True)
        if any(known(row[f"gap_{metric}"]) for row in rows):
            cell = partial(_gap_in_spreads, metric)
            columns.append(Column(f"{HEADS[metric]} %", "gap, sd", cell, primary=True))
    columns += [
        Column("", "unlearn s", partial(seconds_cell, "unlearn_s"), primary=True),
        Column("", "speed-up", speedup_cell, primary=True),
        *_metric_columns("retain_acc"),
        Column("", "ToW", _tow_cell),
        *_time_columns(rows, {"statistics_s": "statistics s", "search_s": "search s"}),
        Column("", "prepare s", partial(seconds_cell, "prepare_s")),
        *_time_columns(rows, {"tuning_s": "tuning s"}),
        Column("", "memory", _memory_cell),
    ]
    for metric in table.metrics[3:]:
        columns += _metric_columns(metric)
    return [*columns, *probe_columns(rows), *secondary_columns(rows)]


def legend(board: Leaderboard) -> dict[str, str]:
    """What columns and marks mean; those of the attack and of probes where there are any, first."""
    columns, marks = [], set()
    for table in board.tables:
        of_table = columns_of(table, board)
        columns += of_table
        marks |= {c.cell(row).mark for row in plain_rows(table.rows) for c in of_table}
    shown = {mark: words for mark, words in MARKS.items() if mark in marks}
    return legend_of(columns) | probe_legend(columns) | LEGEND | shown


def accuracy_cell(metric: str, row: Row) -> Cell:
    """Mean ± spread in %, with the retrained model's value beside it."""
    cell = number_cell(row[f"{metric}_mean"], row[f"{metric}_std"], 100, 1)
    retrained = row[f"{metric}_retrained"]
    if row["name"] == "retrain" or not known(retrained) or cell.value is None:
        return cell
    return cell._replace(beside=f"{100 * retrained:.1f}")


def gap_cell(metric: str, row: Row) -> Cell:
    """Distance to the retrained model in percentage points."""
    return number_cell(row[f"gap_{metric}"], row[f"gap_{metric}_std"], 100, 2)


def seconds_cell(name: str, row: Row) -> Cell:
    """Mean seconds; what takes no time at all is not told to the microsecond."""
    mean = row[f"{name}_mean"]
    if not known(mean):
        return Cell(NONE, mark=MACHINES if ";" in row["hardware"] else "")
    return Cell(significant(mean) if mean == 0 or mean >= 0.001 else "<0.001", mean)


def speedup_cell(row: Row) -> Cell:
    """How many times faster than retraining."""
    mean = row["speedup_mean"]
    # the original did no work: its speed-up would be a large number without a meaning
    if row["name"] == "identity":
        return Cell(NONE)
    if not known(mean):
        machines = {name for name in (row["hardware"], row["hardware_retrained"]) if name}
        apart = len(machines) > 1 or any(";" in name for name in machines)
        return Cell(NONE, mark=MACHINES if apart else "")
    return Cell(significant(mean) + TIMES_SIGN, mean)


def status_cell(row: Row) -> Cell:
    """Cells that are ok or not, marked where they are too few for a spread."""
    few = row["kind"] != "noise floor" and 0 < row["n_ok"] < FEWEST_SEEDS
    return Cell(str(row["status"]), mark=FEW if few else "")


def facts(table: Table) -> str:
    """Seeds and recipes of a table, in words."""
    seeds = f"{len(table.seeds)} seed{'s' if len(table.seeds) > 1 else ''}"
    kind = "recipes" if len(table.recipes) > 1 else "recipe"
    return f"{seeds} ({', '.join(map(str, table.seeds))}), {kind} {', '.join(table.recipes)}"


def provenance(board: Leaderboard) -> list[str]:
    """Sweep, versions and machines, as far as the records tell."""
    if not board.tables:
        return ["There are no records."]
    words = {"unlearnbench": "unlearnbench", "git_commit": "commit", "python": "Python"}
    words |= {key: key for key in ("torch", "device", "threads")}
    known = [
        f"{word} {', '.join(board.environment[key])}"
        for key, word in words.items()
        if key in board.environment
    ]
    lines = [f"Sweep {', '.join(board.sweeps)}; {'; '.join(known) or 'versions not recorded'}."]
    machines = _machines(board)
    if len(machines) > 1:
        named = "; ".join(f"{letter} = {name}" for name, letter in machines.items())
        lines.append(
            f"Hardware: {len(machines)} machines ({named}). Times from different machines are not "
            "comparable with each other."
        )
    else:
        lines.append(f"Hardware: {next(iter(machines), 'not recorded')}.")
    return lines


def cost_lines(table: Table) -> list[str]:
    """What each recipe costs before anything is unlearned; empty for a single recipe."""
    if len(table.recipes) < 2:
        return []
    parts = []
    for cost in table.costs.to_dict("records"):
        if cost["n"] == 0:
            parts.append(f"{cost['recipe']}: {NOT_RUN}")
            continue
        cell = number_cell(cost["test_acc_mean"], cost["test_acc_std"], 100, 1)
        accuracy = f"{cell.text} {cell.spread}".strip()
        seconds = cost["original_s_mean"]
        trained = f"trained in {significant(seconds)} s" if known(seconds) else "time not known"
        told = [f"{cost['recipe']}: test accuracy {accuracy} %", trained]
        if not is_plain(cost["recipe"]) and known(cost["test_acc_cost"]):
            told[0] += f" ({100 * -cost['test_acc_cost']:+.1f} points to {PLAIN})"
            if known(cost["original_s_ratio"]):
                told[1] += f" ({cost['original_s_ratio']:.2f} times {PLAIN})"
        for name, words in DECORRELATED.items():
            if known(cost[name]):
                told.append(f"{words} {cost[name]:.3f}")
        parts.append(", ".join(told))
    return [f"What a recipe costs, seen on its original models: {'; '.join(parts)}."]


def reason_head(reason: Reason, table: Table, style: Callable[[str], str] = str) -> str:
    """Which cells a reason is about."""
    words = {"failed": "failed", "skipped": "not applicable", "not attacked": "no U-LIRA"}
    words["not probed"] = "figures of probes that are not there"
    cells = [
        f"{style(name)}{f' on {recipe}' if len(table.recipes) > 1 else ''}"
        + (f" (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})" if seeds else "")
        for name, recipe, seeds in reason.cells
    ]
    return f"{words[reason.status]}: {', '.join(cells)}"


def _metric_columns(metric: str, *, primary: bool = False) -> list[Column]:
    return [
        Column(f"{HEADS[metric]} %", head, partial(cell, metric), sub=sub, primary=primary)
        for head, cell, sub in (("", accuracy_cell, "retrained"), ("gap", gap_cell, "± std"))
    ]


def _gap_in_spreads(metric: str, row: Row) -> Cell:
    """The gap in standard deviations of the retrained models over seeds."""
    gap = row[f"gap_{metric.removesuffix('_acc')}_sd"]
    undefined = known(row[f"gap_{metric}"]) and not known(gap)
    return Cell(NONE, mark=NO_SPREAD) if undefined else number_cell(gap, math.nan, 1, 1)


def _time_columns(rows: Sequence[Row], heads: Mapping[str, str]) -> list[Column]:
    """Times that some rows have, by the head of their column."""
    return [
        Column("", head, partial(seconds_cell, name))
        for name, head in heads.items()
        if any(known(row[f"{name}_mean"]) for row in rows)
    ]


def _word(name: str, row: Row) -> Cell:
    return Cell(str(row[name]))


def _machines(board: Leaderboard) -> dict[str, str]:
    names = board.environment.get("hardware", ())
    return {name: chr(ord("A") + i) if i < 26 else str(i) for i, name in enumerate(names)}


def _machine_cell(machines: Mapping[str, str], row: Row) -> Cell:
    return Cell(", ".join(machines.get(name, name) for name in row["hardware"].split("; ")))


def _tow_cell(row: Row) -> Cell:
    return number_cell(row["tow_mean"], row["tow_std"], 1, 3)


def _memory_cell(row: Row) -> Cell:
    peak = row["peak_memory_bytes"]
    if not known(peak):
        return Cell(NONE, mark=MACHINES if ";" in row["hardware"] else "")
    return Cell(f"{significant(peak / 2**20)} MiB", peak)
