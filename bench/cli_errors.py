"""How every command ends when something is wrong: sentences on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from .errors import InputError, StoreError

BAD_INPUT = 2
SOME_FAILED = 1
INTERRUPTED = 130


@contextmanager
def friendly_errors(interrupted: str = "interrupted.") -> Iterator[None]:
    """Errors that a person can mend end with their sentences and exit code 2; Ctrl-C with 130."""
    try:
        yield
    except (InputError, StoreError) as error:
        for sentence in str(error).splitlines():
            click.echo(f"Error: {sentence}", err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        click.echo(f"\nError: {interrupted}", err=True)
        sys.exit(INTERRUPTED)
