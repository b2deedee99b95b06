"""Files with one validated JSON object a line, such as `records.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .errors import InputError
from .files import write_text_atomically

Model = TypeVar("Model", bound=BaseModel)


def json_line(model: BaseModel) -> str:
    """One line of JSON with sorted keys."""
    return json.dumps(
        model.model_dump(mode="json", by_alias=True),
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
    )


def write_lines(path: Path, models: Iterable[BaseModel]) -> None:
    """Write a file in one step; a reader never sees half of it."""
    write_text_atomically(path, "".join(json_line(model) + "\n" for model in models))


def read_lines(path: Path, kind: type[Model], noun: str) -> list[Model]:
    """Read and validate a file; empty lines are skipped.

    Args:
        path: A file that exists.
        kind: What each line holds.
        noun: What a line is called in messages.

    Raises:
        InputError: For every line that is not valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"`{path}` does not hold {noun}s: it is not UTF-8 text.") from None
    models, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            models.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            problems.append(
                f"`{path}` line {number} is not a valid {noun}: "
                f"{where + ': ' if where else ''}{first['msg'].rstrip('.')}."
            )
    if problems:
        raise InputError(*problems)
    return models
