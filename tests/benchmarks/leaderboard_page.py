"""How long the leaderboard of many records takes to make, and to be ready in a browser.

    python tests/benchmarks/leaderboard_page.py
    python tests/benchmarks/leaderboard_page.py --methods 30 --seeds 5 --tasks 63

Prints the records, seconds for tables and page, the size of the page, and, with a Chromium from
the system packages, milliseconds until something is painted and until the tables can be used.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import click

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.made_records import made_records
from tests.pages import chromium, opened
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.page import html
from unlearnbench.bench.render import write_leaderboard

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
Made = TypeVar("Made")


def timed(what: str, make: Callable[[], Made]) -> Made:
    """Make something, and print how long it took."""
    began = time.perf_counter()
    made = make()
    click.echo(f"{what:<28} {time.perf_counter() - began:8.2f} s")
    return made


@click.command(help=__doc__)
@click.option("--methods", default=30)
@click.option("--seeds", default=5)
@click.option("--tasks", default=63)
def main(methods: int, seeds: int, tasks: int) -> None:
    found = made_records(methods, seeds, tasks)
    click.echo(f"{'records':<28} {len(found.records):8,}")
    board = timed("tables and ranking", lambda: build(*found))
    timed("page without figures", lambda: html(board, [[] for _ in board.tables], found.records))
    with TemporaryDirectory() as folder, chromium() as browser:
        out, (records, banks, attacks) = Path(folder), found
        timed("all files, with figures", lambda: write_leaderboard(records, out, banks, attacks))
        size = (out / "leaderboard.html").stat().st_size
        click.echo(f"{'size of the page':<28} {size / 1e6:8.2f} MB")
        began = time.perf_counter()
        with opened(browser, out, viewport={"width": 1280, "height": 800}) as page:
            click.echo(f"{'ready in Chromium':<28} {time.perf_counter() - began:8.2f} s")
            click.echo(f"{'first paint':<28} {page.evaluate(PAINTED) / 1000:8.2f} s")
            began = time.perf_counter()
            page.get_by_label("Search methods").fill("method-07")
            page.evaluate("new Promise(requestAnimationFrame)")
            click.echo(f"{'search':<28} {time.perf_counter() - began:8.2f} s")
            began = time.perf_counter()
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
            click.echo(f"{'all tables, for printing':<28} {time.perf_counter() - began:8.2f} s")


if __name__ == "__main__":
    main()
