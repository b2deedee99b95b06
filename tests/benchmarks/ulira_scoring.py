"""What the scores of U-LIRA cost, on simulated margins.

    python tests/benchmarks/ulira_scoring.py
    python tests/benchmarks/ulira_scoring.py --models 128 --examples 10000 --redraws 1000

One line for each way of estimating variances. Each is computed in a fresh process, so that its
peak of memory is its own; `libraries` is what a process holds before it begins.
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import get_args

import click
import numpy as np

from unlearnbench.bench.metrics.lrt import Variance
from unlearnbench.bench.metrics.pairs import pair_design
from unlearnbench.bench.metrics.ulira import ulira

MEMORISED = 0.5  # standard deviations by which a model that saw an example has a larger margin


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def score(
    variance: Variance, models: int, examples: int, redraws: int
) -> tuple[float, float, float, float, float]:
    """Seconds, MiB before and at the peak, accuracy of the attack and its null's upper end."""
    keep = pair_design(np.arange(examples) % 10, models // 2).keep
    margins = np.random.default_rng(0).normal(size=keep.shape) + MEMORISED * keep
    before = peak_mib()
    began = time.perf_counter()
    result = ulira(margins, keep, variance=variance, redraws=redraws)
    took = time.perf_counter() - began
    return took, before, peak_mib(), result.acc, result.null.hi if redraws else float("nan")


@click.command()
@click.option("--models", type=click.IntRange(6), default=64, help="Shadow models; even.")
@click.option("--examples", type=click.IntRange(2), default=5000, help="Targets.")
@click.option("--redraws", type=click.IntRange(0), default=200, help="Redraws of the null.")
@click.option("--variance", "only", multiple=True, type=click.Choice(get_args(Variance)))
def main(models: int, examples: int, redraws: int, only: tuple[Variance, ...]) -> None:
    """Time `ulira` for every way of estimating variances."""
    if models % 2:
        raise click.BadParameter("`--models` must be even: models come in pairs.")
    click.echo(f"{models} models, {examples} targets, {redraws} redraws.\n")
    click.echo("| variance | seconds | libraries, MiB | peak, MiB | accuracy | null, upper end |")
    click.echo("| --- " + "| ---: " * 5 + "|")
    for variance in only or get_args(Variance):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            row = pool.submit(score, variance, models, examples, redraws).result()
        took, before, peak, acc, upper = row
        click.echo(
            f"| {variance} | {took:.2f} | {before:.0f} | {peak:.0f} | {acc:.3f} | {upper:.3f} |"
        )


if __name__ == "__main__":
    main()
