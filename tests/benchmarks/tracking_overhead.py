"""What MLflow adds to the wall time of a sweep.

    python tests/benchmarks/tracking_overhead.py
    python tests/benchmarks/tracking_overhead.py my_sweep.toml --pairs 3 --tracking-uri http://localhost:5000

The same sweep runs with tracking and without (records alone), in turn, each time in a process of
its own with an empty store; so import of MLflow, making of its database, and the wait at the end
are all in. Beside the difference, which on a busy machine is mostly noise: the seconds of CPU that
the process with the writer took more, as a share of what all cores had to give, and the seconds in
which the sweep was over and waited for the writer alone. Their sum bounds what tracking costs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import click

from unlearnbench.bench import runner
from unlearnbench.bench.environment import cpu_count
from unlearnbench.bench.runner import RunOptions, run_sweep
from unlearnbench.bench.sweep import read_sweep
from unlearnbench.bench.tracking import Tracker


class Silent(Tracker):
    """Takes everything and logs nothing."""

    def start(self, *_):
        pass

    def finish(self, *_):
        return True


class Timed(Tracker):
    """Notes how long the sweep waits for it at its end."""

    waited_s = 0.0

    def finish(self, *args):
        began = time.perf_counter()
        complete = super().finish(*args)
        Timed.waited_s = time.perf_counter() - began
        return complete


def one(sweep: Path | None, uri: str | None, tracked: bool) -> dict[str, float]:
    """Run the sweep in this process; seconds of wall time, CPU and waiting."""
    runner.Tracker = Timed if tracked else Silent
    spec = read_sweep(sweep)
    with TemporaryDirectory() as folder:
        options = RunOptions(Path(folder, "store"), Path(folder, "out"), Path("data"), uri)
        began, cpu = time.perf_counter(), os.times()
        result = run_sweep(spec, options)
        wall_s, after = time.perf_counter() - began, os.times()
    assert result.tracked
    return {
        "wall_s": wall_s,
        "cpu_s": after.user + after.system - cpu.user - cpu.system,  # workers are other processes
        "waited_s": Timed.waited_s,
        "cells": len(result.records),
    }


@click.command()
@click.argument("sweep", required=False, type=click.Path(path_type=Path))
@click.option("--pairs", default=2, show_default=True, help="Runs with and without tracking.")
@click.option("--tracking-uri", help="MLflow server.  [default: a database in the store]")
@click.option("--one", "only", type=click.Choice(["with", "without"]), hidden=True)
def main(sweep: Path | None, pairs: int, tracking_uri: str | None, only: str | None) -> None:
    """Compare a sweep with tracking and without."""
    if only:
        click.echo(json.dumps(one(sweep, tracking_uri, only == "with")))
        return
    found: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    for number in range(pairs):
        for which in ("with", "without") if number % 2 else ("without", "with"):
            arguments = [*sys.argv, "--one", which]
            done = subprocess.run(
                [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True
            )
            found[which].append(json.loads(done.stdout.splitlines()[-1]))
            click.echo(f"{which:7}  {found[which][-1]}")
    means = {
        which: {name: mean(run[name] for run in runs) for name in runs[0]}
        for which, runs in found.items()
    }
    wall_s, cores = means["without"]["wall_s"], cpu_count()
    cpu_s = means["with"]["cpu_s"] - means["without"]["cpu_s"]
    more_s, waited_s = means["with"]["wall_s"] - wall_s, means["with"]["waited_s"]
    click.echo(
        f"{means['with']['cells']:g} cells in {wall_s:.1f} s without tracking, {more_s:+.1f} s "
        f"({more_s / wall_s:+.1%}) with it; {cpu_s:.1f} s of CPU, {cpu_s / wall_s / cores:.1%} of "
        f"{cores} cores; {waited_s:.1f} s ({waited_s / wall_s:.1%}) of waiting at the end"
    )


if __name__ == "__main__":
    main()
