"""The commands `leaderboard` and `diff`, which only read what sweeps have left.

Imports are lazy: `--help` loads neither torch nor pandas.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from .cli_errors import friendly_errors
from .errors import InputError

if TYPE_CHECKING:
    from .figures import FigureChoice
    from .sweep_records import SweepRecords
    from .tracking_reader import Fetched

QUICKSTART = Path("results", "quickstart")
MERGED = Path("results", "merged")
CHANGED = 1

_folder = click.Path(path_type=Path)


@click.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=_folder)
@click.option(
    "--out",
    type=_folder,
    help="Where leaderboard and records go.  [default: FOLDER; results/merged for several]",
)
@click.option(
    "--figures",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="auto draws every table, up to 12, and all together; all draws more than 12.",
)
@click.option("--from-mlflow", metavar="URI", help="Take the records from this MLflow server.")
@click.option("--experiment", metavar="NAME", help="With --from-mlflow: name of the sweep.")
def leaderboard(
    folders: tuple[Path, ...],
    out: Path | None,
    figures: str,
    from_mlflow: str | None,
    experiment: str | None,
) -> None:
    """Render the leaderboard again from the records in FOLDERs, or from an MLflow server.

    \b
    unlearnbench leaderboard                           # results/quickstart
    unlearnbench leaderboard results/a results/b --out results/both

    Several folders are merged, those of several machines too. What does not belong together is
    refused, with the reasons. Their own files stay as they are. With --from-mlflow, FOLDER is
    where records and leaderboard go, results/from-mlflow/NAME if not given.
    """  # noqa: D301 - click wants the character itself
    with friendly_errors():
        from .render import write_leaderboard
        from .sweep_files import write_description
        from .sweep_records import write_folder
        from .terminal import terminal_table

        if (from_mlflow is None) != (experiment is None):
            raise InputError(
                "`--from-mlflow URI` and `--experiment NAME` belong together: give both or none."
            )
        if from_mlflow is not None and experiment is not None:
            folder, (found, spec) = _fetched(from_mlflow, experiment, folders, out)
            notes: tuple[str, ...] = ()
        else:
            folder, found, notes = _read(folders or (QUICKSTART,), out)
            spec = None
        if not found.records:
            raise InputError(f"`{folder / 'records.jsonl'}` holds no records.")
        try:
            if from_mlflow is not None or len(folders) > 1 or out is not None:
                write_folder(folder, found)
            if spec is not None:
                write_description(folder, {"spec": spec})
            write_leaderboard(
                found.records,
                folder,
                found.banks,
                found.attacks,
                figures=cast("FigureChoice", figures),
            )
        except OSError as error:
            raise InputError(f"`{folder}` cannot be written: {error.strerror}.") from None
        for note in notes:
            click.echo(f"Note: {note}", err=True)
        click.echo(terminal_table(*found))
        click.echo(f"Leaderboard: {folder / 'leaderboard.html'}")


@click.command()
@click.argument("old", type=_folder)
@click.argument("new", type=_folder)
@click.option("--json", "target", type=_folder, help="Write every comparison to this file as well.")
def diff(old: Path, new: Path, target: Path | None) -> None:
    """Say which rows of the leaderboard moved beyond noise from OLD to NEW, folders with records.

    \b
    unlearnbench diff results/before results/after --json moved.json

    A number moved if it differs by more than the least amount (0.5 percentage points; 20 % of the
    seconds) and its two-sided p-value (Student's t over seeds; normal law for U-LIRA) is below 5 %
    after Holm's correction for all numbers compared.

    Exit code 0: nothing moved; 1: something moved, is gone or newly fails; 2: bad input.
    """  # noqa: D301 - click wants the character itself
    with friendly_errors():
        from .diff import compare
        from .diff_table import diff_table
        from .files import write_text_atomically
        from .merge import read_sources

        found = compare(*(source.found for source in read_sources([old, new])))
        if target is not None:
            try:
                write_text_atomically(target, found.to_json())
            except OSError as error:
                raise InputError(f"`{target}` cannot be written: {error.strerror}.") from None
        click.echo(diff_table(found))
        if found.worth_a_look:
            sys.exit(CHANGED)


def _read(
    folders: tuple[Path, ...], out: Path | None
) -> tuple[Path, SweepRecords, tuple[str, ...]]:
    """Where the leaderboard goes, what it is of, and what a reader must know of the merge."""
    from .merge import merge, read_sources

    if len(folders) == 1 and out is None:
        (source,) = read_sources(folders)
        return source.folder, source.found, ()
    folder = out or MERGED
    if any(folder.resolve() == source.resolve() for source in folders):
        raise InputError(
            f"`{folder}` is one of the folders to read, whose records stay as they are; "
            "name another with `--out`."
        )
    merged = merge(read_sources(folders))
    _check_nothing_is_lost(folder, merged.found, "among those to write")
    return folder, merged.found, merged.notes


def _fetched(
    uri: str, experiment: str, folders: tuple[Path, ...], out: Path | None
) -> tuple[Path, Fetched]:
    """The same from an MLflow server."""
    from .tracking_reader import fetch_sweep
    from .tracking_uri import redact, slug

    wanted = [*folders, *([out] if out is not None else [])]
    if len(wanted) > 1:
        raise InputError("with `--from-mlflow`, one folder says where the leaderboard goes.")
    folder = wanted[0] if wanted else Path("results", "from-mlflow", slug(experiment))
    fetched = fetch_sweep(uri, experiment)
    _check_nothing_is_lost(folder, fetched.found, f"at `{redact(uri)}`")
    return folder, fetched


def _check_nothing_is_lost(folder: Path, found: SweepRecords, where: str) -> None:
    """A folder that is written to may hold results already, but none that these do not hold.

    Raises:
        InputError: If it holds other cells, figures, attacks or shadow banks.
    """
    from .attack_record import read_attacks
    from .bank_record import read_banks
    from .record import read_records

    here = read_records(folder) if (folder / "records.jsonl").is_file() else []
    figures: dict[str, set[str]] = {}
    for record in found.records:
        figures.setdefault(record.key, set()).update(record.metrics)
    others = {record.key for record in here} - set(figures)
    poorer = {r.key for r in here if set(r.metrics) - figures.get(r.key, set())} - others
    attacks = {attack.key for attack in read_attacks(folder)} - {
        attack.key for attack in found.attacks
    }
    banks = {bank.bank for bank in read_banks(folder)} - {bank.bank for bank in found.banks}
    for held, lost in (
        (f"records of {len(others)} cells", others),
        (f"figures of {len(poorer)} cells", poorer),
        (f"{len(attacks)} attacks", attacks),
        (f"{len(banks)} shadow banks", banks),
    ):
        if lost:
            raise InputError(
                f"`{folder}` holds {held} that are not {where}, and would lose them; name another "
                "folder."
            )
