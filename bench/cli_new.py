"""`unlearnbench new-method` and `new-dataset`: the beginnings of a plug-in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .scaffold import Kind

_arguments = [
    click.argument("name"),
    click.option(
        "--package", is_flag=True, help="A distribution of its own, to install with pip or uv."
    ),
    click.option(
        "--to",
        "folder",
        type=click.Path(path_type=Path),
        default=".",
        show_default=True,
        help="Folder to write into.",
    ),
]


def _with_arguments(command: Any) -> Any:  # noqa: ANN401
    for argument in reversed(_arguments):
        command = argument(command)
    return command


@click.command()
@_with_arguments
def new_method(name: str, package: bool, folder: Path) -> None:
    """Write a method called NAME that runs as it is, to be changed into yours.

    \b
    unlearnbench new-method my-method            # my_method.py
    unlearnbench new-method my-method --package  # the folder unlearnbench-my-method
    """  # noqa: D301 - click wants the character itself
    _write("method", name, package, folder)


@click.command()
@_with_arguments
def new_dataset(name: str, package: bool, folder: Path) -> None:
    """Write a dataset called NAME that loads as it is, to be changed into yours.

    \b
    unlearnbench new-dataset my-images            # my_images.py
    unlearnbench new-dataset my-images --package  # the folder unlearnbench-my-images
    """  # noqa: D301 - click wants the character itself
    _write("dataset", name, package, folder)


def _write(kind: Kind, name: str, package: bool, folder: Path) -> None:
    from .cli_errors import friendly_errors

    with friendly_errors():
        from .scaffold import next_steps, write_package, write_plugin

        written = (write_package if package else write_plugin)(kind, name, folder)
        click.echo(f"Wrote {written}")
        for step in next_steps(kind, name, written):
            click.echo(f"  {step}")
