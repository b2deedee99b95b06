"""Tables of a study that forgets one class after another: a line a method, from its records.

    python tests/benchmarks/class_tables.py results/osp_ablations
    python tests/benchmarks/class_tables.py results/osp_ablations --by-class

The first table has means over classes and seeds, with the sample standard deviation over classes
and the worst class, medians of AIN and seconds, and the highest memory while unlearning;
`--by-class` adds the accuracy on the test images of every forgotten class. Numbers are rounded
here and nowhere else.
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from unlearnbench.bench import read_records
from unlearnbench.bench.cell_frame import cell_frame
from unlearnbench.bench.record import Record
from unlearnbench.bench.tablecell import NONE, significant

TASK = ["dataset", "model"]
ROW = ["recipe", "label"]
NAMES = {"identity": "original", "retrain": "retrained"}
PROBES = {"probe": "probe/recovery_10", "ain": "relearn/ain"}
HEADS = {
    "forgotten": "test, forgotten %",
    "worst": "worst class",
    "kept": "test, kept %",
    "least": "least",
    "retention": "retention %",
    "probe": "probe %",
    "ain": "AIN",
    "seconds": "unlearn s",
    "statistics": "statistics s",
    "search": "search s",
    "prepare": "prepare s",
    "memory": "MiB",
    "cells": "cells",
}


def frame_of(records: list[Record]) -> pd.DataFrame:
    """One row a cell that is ok, with the original's accuracy of the same recipe and seed."""
    cells = cell_frame(records)
    for name in (*TASK, "scenario"):
        cells[name] = [getattr(record, name) for record in cells["record"]]
    for column, name in PROBES.items():
        cells[column] = [record.metrics.get(name, float("nan")) for record in cells["record"]]
    cells = cells[cells["status"] == "ok"]
    same = [*TASK, "scenario", "recipe", "seed"]
    original = cells[cells["name"] == "identity"].drop_duplicates(same)
    original = original[[*same, "test_retain_acc"]]
    return cells.merge(original, on=same, how="left", suffixes=("", "_original"))


def spread(values: pd.Series) -> str:
    """Mean and sample standard deviation of fractions, in %."""
    std = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{std}"


def seconds(values: pd.Series) -> str:
    """Median seconds; what takes no time at all is not told to the microsecond."""
    median = values.median()
    if pd.isna(median):
        return NONE
    return significant(median) if median >= 0.001 else "<0.001"


def line_of(group: pd.DataFrame) -> dict[str, str]:
    """What the first table says of a method."""
    retention = group["test_retain_acc"] / group["test_retain_acc_original"]
    by_class = group.groupby("scenario")[["test_forget_acc", "test_retain_acc", "probe"]].mean()
    forgotten, kept = by_class["test_forget_acc"], by_class["test_retain_acc"]
    probe = by_class["probe"].dropna()
    peak = group["peak_memory_bytes"].max()
    return {
        "forgotten": spread(forgotten),
        "worst": f"{100 * forgotten.max():.1f}",
        "kept": spread(kept),
        "least": f"{100 * kept.min():.1f}",
        "retention": f"{100 * retention.mean():.1f}",
        "probe": spread(probe) if len(probe) else NONE,
        "ain": f"{group['ain'].median():.2f}" if group["ain"].notna().any() else NONE,
        "seconds": seconds(group["unlearn_s"]),
        "statistics": seconds(group["statistics_s"]),
        "search": seconds(group["search_s"]),
        "prepare": seconds(group["prepare_s"].replace(0, float("nan"))),
        "memory": NONE if pd.isna(peak) else f"{peak / 2**20:.0f}",
        "cells": str(len(group)),
    }


def markdown(rows: list[list[str]], heads: list[str]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(heads) + " |", "| --- | --- " + "| ---: " * (len(heads) - 2) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def shown(recipe: str, label: str) -> list[str]:
    """Recipe and method as they stand in a table."""
    return [f"`{recipe}`", NAMES.get(label, f"`{label}`")]


def tables(records: list[Record], *, by_class: bool = False) -> str:
    """All tables of a study.

    Args:
        records: Cells whose scenarios forget whole classes.
        by_class: Add the table of the single classes.
    """
    parts = []
    for task, cells in frame_of(records).groupby(TASK, sort=False):
        groups = list(cells.groupby(ROW, sort=False))
        rows = [[*shown(*row), *line_of(group).values()] for row, group in groups]
        heads = ["recipe", "method", *HEADS.values()]
        parts += [f"**{task[0]}**, `{task[1]}`", markdown(rows, heads)]
        if by_class:
            scenarios = list(dict.fromkeys(cells["scenario"]))
            rows = []
            for row, group in groups:
                mean = group.groupby("scenario")["test_forget_acc"].mean()
                values = [f"{100 * mean[s]:.1f}" if s in mean else NONE for s in scenarios]
                rows.append([*shown(*row), *values])
            # `class` alone is class 0
            names = [s.partition("classes=")[2].strip("[]") or "0" for s in scenarios]
            parts += ["Test accuracy in % on the forgotten class, by class:",
                      markdown(rows, ["recipe", "method", *names])]  # fmt: skip
    return "\n\n".join(parts)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--by-class", is_flag=True, help="Add a table of the single classes.")
def main(folder: Path, by_class: bool) -> None:
    """Print the tables of the records in FOLDER."""
    click.echo(tables(read_records(folder), by_class=by_class))


if __name__ == "__main__":
    main()
