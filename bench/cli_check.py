"""`unlearnbench check`: the contract of a plug-in, as a table."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import click


@click.command()
@click.argument("what", nargs=-1, metavar="NAME|FILE...")
@click.option("--check", "checks", multiple=True, metavar="NAME", help="One check. Repeatable.")
@click.option("--list", "only_list", is_flag=True, help="Print all checks and what they promise.")
@click.option(
    "--plugin",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Python file with further methods or datasets. Repeatable.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that one run of a method may take.  [default: 30]",
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar="UNLEARNBENCH_DATA_ROOT",
    default="data",
    show_default=True,
    show_envvar=True,
    help="Where datasets keep their files.",
)
def check(
    what: tuple[str, ...],
    checks: tuple[str, ...],
    only_list: bool,
    plugin: tuple[Path, ...],
    time_limit: float | None,
    data_root: Path,
) -> None:
    """Check methods or datasets, by name or in a Python FILE, against the contract.

    \b
    unlearnbench check my_method.py
    unlearnbench check "scrub[lr=0.01]" --check finite --check forgets

    Methods run on two tiny networks on the CPU. Ends with 0 if all checks pass, are skipped or
    are known failures, with 1 if some fail, and with 2 for bad input.
    """  # noqa: D301 - click wants the character itself
    from .cli_errors import SOME_FAILED, friendly_errors
    from .errors import InputError

    with friendly_errors():
        from .registry import load_plugin_files
        from .testing.check import CHECKS
        from .testing.subject import TIME_LIMIT_S
        from .testing.suite import find_subjects, results, select

        if only_list:
            for each in CHECKS.values():
                click.echo(f"{each.group:<12} {each.name:<24} {each.explanation}")
            return
        if not what:
            raise InputError("name a method or a dataset, or a Python file that defines one.")
        load_plugin_files(plugin)
        subjects = [
            subject
            for each in what
            for subject in find_subjects(
                each,
                time_limit_s=TIME_LIMIT_S if time_limit is None else time_limit,
                data_root=data_root,
            )
        ]
        chosen = select(subjects, checks)
        good = True
        for subject, wanted in zip(subjects, chosen, strict=True):
            found = results(subject, wanted, whole=not checks)
            counts: Counter[str] = Counter()
            while True:
                with redirect_stdout(sys.stderr):  # plug-ins may print; this one is the table's
                    result = next(found, None)
                if result is None:
                    break
                counts[result.status] += 1
                good &= result.ok
                told = result.message or CHECKS[result.check].explanation
                click.echo(f"{result.status:<8} {result.group:<12} {result.check:<24} {told}")
            told = ", ".join(f"{number} {status}" for status, number in counts.items())
            click.echo(f"{subject.plugin.spec}: {told}.")
        if not good:
            sys.exit(SOME_FAILED)
