"""The command `unlearnbench report`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import click

from .errors import InputError


def make_command(friendly_errors: Callable[[], AbstractContextManager[None]]) -> click.Command:
    """Make the command.

    Args:
        friendly_errors: Turns errors that a person can mend into sentences and an exit code.
    """

    @click.command()
    @click.argument("cell")
    @click.option(
        "--results",
        type=click.Path(path_type=Path),
        default=Path("results", "quickstart"),
        show_default=True,
        help="Folder of the records.",
    )
    @click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="The page.  [default: report-<key>.html beside the records]",
    )
    @click.option("--seed", type=click.IntRange(min=0), help="Seed of the cell, if it is needed.")
    @click.option("--scenario", help="Scenario of the cell, if it is needed.")
    @click.option(
        "--plugin",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Python file with the method, so that its source can be told. Repeatable.",
    )
    def report(
        cell: str,
        results: Path,
        out: Path | None,
        seed: int | None,
        scenario: str | None,
        plugin: tuple[Path, ...],
    ) -> None:
        """Write a page about one unlearned model, to attach to a deletion request.

        CELL is the beginning of the cell's key in records.jsonl, or a method's name as in the
        leaderboard.

        \b
        unlearnbench report 33f6c58c
        unlearnbench report "scrub[lr=0.02]" --seed 0 --scenario class
        """  # noqa: D301 - click wants the character itself
        with friendly_errors():
            from .registry import load_plugin_files
            from .report import write_report

            load_plugin_files(plugin)
            try:
                written = write_report(results, cell, seed=seed, scenario=scenario, out=out)
            except OSError as error:
                raise InputError(
                    f"`{out or results}` cannot be written: {error.strerror}."
                ) from None
            click.echo(written.verdict.line)
            click.echo(f"Report: {written.path}")

    return report
