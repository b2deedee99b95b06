"""What methods, datasets and scenarios have in common: a name and declared, checked fields."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputError, UnknownNameError
from .keys import digest_bytes
from .spec_string import format_spec


class Plugin(BaseModel):
    """A frozen set of parameters under a registered name.

    The fields of a subclass are its parameters. Each is declared once: type, default, allowed
    values and search range; command line, sweep file, record and documentation follow from it.

    Attributes:
        name: Registered name, kebab-case.
        kind: What the plug-in is, for messages (`method`, `dataset`, …).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    kind: ClassVar[str] = "plug-in"

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
        """Digest of the source file that defines the plug-in; part of the key of its results."""
        source = inspect.getsourcefile(cls)
        if source is None or not Path(source).is_file():
            return "no-source"
        return digest_bytes(Path(source).read_bytes())

    @property
    def params(self) -> dict[str, Any]:
        """All parameters as plain JSON values."""
        return self.model_dump(mode="json")

    @property
    def spec(self) -> str:
        """`name[key=value,…]` with the parameters that differ from their defaults."""
        defaults = {key: field.get_default(call_default_factory=True)
                    for key, field in type(self).model_fields.items()}
        changed = {key: value for key, value in self.params.items()
                   if getattr(self, key) != defaults[key]}
        return format_spec(self.name, changed)


def explain(error: ValidationError, owner: str, model: type[BaseModel]) -> InputError:
    """Turn pydantic's report into sentences that name the thing, the value and what is allowed."""
    sentences = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            field = str(problem["loc"][-1])
            if len(problem["loc"]) == 1:
                unknown = UnknownNameError("key", field, model.model_fields)
                sentences.append(f"{owner}: {unknown.sentences[0]}")
            else:
                sentences.append(f"{owner}: unknown key `{where}`.")
        elif problem["type"] == "missing":
            sentences.append(f"{owner}: `{where}` is missing.")
        elif problem["type"] == "value_error":
            reason = str(problem["ctx"]["error"]) if "ctx" in problem else problem["msg"]
            prefix = f"`{where}`: " if where else ""
            sentences.append(f"{owner}: {prefix}{reason.rstrip('.')}.")
        else:
            message = problem["msg"].removeprefix("Input ").rstrip(".")
            sentences.append(f"{owner}: `{where}` {message}; got {problem['input']!r}.")
    return InputError(*dict.fromkeys(sentences))
