"""What methods, datasets and scenarios have in common: a name and declared, checked fields."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from .errors import InputError, PluginError, UnknownNameError
from .keys import digest_bytes
from .spec_string import format_spec


class Plugin(BaseModel):
    """A frozen set of parameters under a registered name.

    The fields of a subclass are its parameters. Each is declared once: type, default, allowed
    values and search range; command line, sweep file, record and documentation follow from it.

    Attributes:
        name: Registered name, kebab-case.
        kind: What the plug-in is, for messages (`method`, `dataset`, …).
        known_failures: Checks of the contract (`unlearnbench check`) that it is known to fail,
            each with the reason. One that passes all the same is reported.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    kind: ClassVar[str] = "plug-in"
    known_failures: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def create(cls, params: Mapping[str, Any]) -> Self:
        """Build from parameters that a person wrote.

        Raises:
            InputError: One sentence for each parameter that is unknown or not allowed.
        """
        try:
            return cls(**dict(params))
        except ValidationError as error:
            raise explain(error, f"{cls.kind} `{cls.name}`", cls) from None

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return inspect.cleandoc(cls.__doc__ or "").split("\n", 1)[0].rstrip(".")

    @classmethod
    def code_digest(cls) -> str:
        """Digest of the source files that define the plug-in; part of the key of its results.

        These are the files of its class and of every class that it derives from, as far as they
        are not the harness's own. What else they import is not covered.
        """
        files = [_source_of(c) for c in cls.__mro__ if issubclass(c, Plugin)]
        return (
            digest_bytes(*(file for file in dict.fromkeys(files) if file))
            if any(files)
            else ("no-source")
        )

    @property
    def params(self) -> dict[str, Any]:
        """All parameters as plain JSON values."""
        return self.model_dump(mode="json")

    @property
    def spec(self) -> str:
        """`name[key=value,…]` with the parameters that differ from their defaults."""
        defaults = {
            key: field.get_default(call_default_factory=True)
            for key, field in type(self).model_fields.items()
        }
        changed = {
            key: value for key, value in self.params.items() if getattr(self, key) != defaults[key]
        }
        return format_spec(self.name, changed)


def check_known_failures(cls: type[Plugin]) -> None:
    """Refuse known failures that are no reasons by the name of a check.

    Raises:
        PluginError: One sentence that says what to write.
    """
    failures: object = cls.known_failures
    wrong = not isinstance(failures, Mapping) or not all(
        isinstance(name, str) and isinstance(reason, str) and reason.strip()
        for name, reason in failures.items()
    )
    if wrong:
        raise PluginError(
            f"{cls.kind} `{cls.name}` must give `known_failures` as "
            f'{{"name of a check": "reason"}}; got {failures!r}.'
        )


def explain(error: ValidationError, owner: str, model: type[BaseModel]) -> InputError:
    """Turn pydantic's report into sentences that name the thing, the value and what is allowed."""
    sentences = []
    for problem in _without_branches(error.errors(), model):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            *tables, field = problem["loc"]
            unknown = UnknownNameError("key", str(field), _fields_at(model, tables))
            table = f", `[{'.'.join(map(str, tables))}]`" if tables else ""
            sentences.append(f"{owner}{table}: {unknown.sentences[0]}")
        elif problem["type"] == "missing":
            sentences.append(f"{owner}: `{where}` is missing.")
        elif problem["type"] == "value_error":
            reason = str(problem["ctx"]["error"]) if "ctx" in problem else problem["msg"]
            prefix = f"`{where}`: " if where else ""
            sentences.append(f"{owner}: {prefix}{reason.rstrip('.')}.")
        else:
            sentences.append(f"{owner}: `{where}` {_wish(problem)}; got {problem['input']!r}.")
    return InputError(*dict.fromkeys(sentences))


def _fields_at(model: type[BaseModel], tables: Sequence[int | str]) -> Iterable[str]:
    """Names of the fields of a table inside a model; none where they cannot be told."""
    found: Any = model
    for name in tables:
        field = getattr(found, "model_fields", {}).get(name)
        found = None if field is None else field.annotation
    return list(getattr(found, "model_fields", {}))


def _wish(problem: ErrorDetails) -> str:
    return problem["msg"].removeprefix("Input ").rstrip(".")


def _without_branches(
    problems: list[ErrorDetails], model: type[BaseModel]
) -> Iterator[ErrorDetails]:
    """Join the problems that one value has with each branch of a union."""
    groups: dict[tuple[object, ...], list[ErrorDetails]] = {}
    for problem in problems:
        *place, last = problem["loc"] or ("",)
        is_branch = place and isinstance(last, str) and last not in _fields_at(model, place)
        is_branch = is_branch and problem["type"] != "extra_forbidden"
        groups.setdefault((*place, ... if is_branch else last), []).append(problem)
    for first, *others in groups.values():
        if others:
            wishes = [_wish(problem) for problem in (first, *others)]
            wishes[1:] = [wish.removeprefix("should be ") for wish in wishes[1:]]
            first |= {"loc": first["loc"][:-1], "msg": " or ".join(wishes)}
        yield first


def _source_of(cls: type) -> bytes:
    """Content of the file that defines a class; empty for the harness's own and for none."""
    if cls.__module__.startswith(f"{__package__}."):
        return b""
    try:
        source = inspect.getsourcefile(cls)
    except (TypeError, OSError):  # a class made by hand, as in a notebook
        return b""
    return Path(source).read_bytes() if source and Path(source).is_file() else b""
