"""The notation `name[key=value,…]` for methods, datasets, models and scenarios.

What stands in the brackets is a TOML inline table, so `1e-3` is a number and `[1, 2]` a list;
plain words need no quotes (`form=so`), and a single value for a list is accepted where the
field allows it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import InputError

_SPEC = re.compile(r"\s*(?P<name>[A-Za-z0-9_.\-/:]+)\s*(?:\[(?P<body>.*)\])?\s*", re.DOTALL)
_TOKEN = re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\s,=\[\]{}\"']+|[\s,=\[\]{}]")
_NUMBER_OR_WORD = re.compile(r"[+-]?(?:\d[\d_]*\.?[\d_]*(?:[eE][+-]?\d+)?|inf|nan)|true|false")


class Spec(NamedTuple):
    """A name and its parameters."""

    name: str
    params: dict[str, Any]


def parse_spec(text: str | Mapping[str, Any], kind: str = "name") -> Spec:
    """Read `name[key=value,…]`, or a table with a `name` key.

    Args:
        text: The notation as typed, or a TOML table such as `{name = "scrub", lr = 1e-3}`.
        kind: What it names, for the error message.

    Raises:
        InputError: If the text does not follow the notation.
    """
    if isinstance(text, Mapping):
        params = dict(text)
        name = params.pop("name", None)
        if not isinstance(name, str):
            raise InputError(f"a {kind} given as a table needs a `name`; got {dict(text)}.")
        return Spec(name, params)
    if not isinstance(text, str):
        raise InputError(f"a {kind} is written `name` or `name[key=value,…]`; got {text!r}.")
    match = _SPEC.fullmatch(text)
    if match is None:
        raise InputError(f"a {kind} is written `name` or `name[key=value,…]`; got `{text}`.")
    body = (match["body"] or "").strip().rstrip(",")
    try:
        params = tomllib.loads(f"it = {{ {_quote_words(body)} }}")["it"]
    except tomllib.TOMLDecodeError:
        raise InputError(
            f"cannot read the parameters of {kind} `{text}`; "
            "they are written `key=value`, separated by commas, e.g. `scrub[lr=0.001,epochs=5]`."
        ) from None
    return Spec(match["name"], params)


def split_specs(text: str) -> list[str]:
    """Split a comma-separated list of specs, leaving commas inside brackets alone."""
    parts, depth, start = [], 0, 0
    for token in re.finditer(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|[\[\],]", text):
        depth += (token[0] == "[") - (token[0] == "]")
        if token[0] == "," and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def format_spec(name: str, params: Mapping[str, Any]) -> str:
    """Write a spec in canonical form: keys sorted, values as JSON, plain words bare."""
    if not params:
        return name
    body = ",".join(f"{key}={_format_value(params[key])}" for key in sorted(params))
    return f"{name}[{body}]"


def _format_value(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.\-]*", value):
        # the text "true" or "inf" would come back as a truth value or a number
        return _quote(value) if _NUMBER_OR_WORD.fullmatch(value) else value
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_quote(k)}={_format_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_format_value(item) for item in value) + "]"
    return _quote(value) if isinstance(value, str) else json.dumps(value)


def _quote(text: str) -> str:
    """Write a TOML string: JSON's, but for the one character that only TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _quote_words(body: str) -> str:
    """Put quotes around the bare words that stand where TOML wants a value."""
    tokens = _TOKEN.findall(body)
    if "".join(tokens) != body:
        return body
    out, expects_value, depth = [], False, 0
    for token in tokens:
        if token == "=":
            expects_value = True
        elif token == "[":
            depth += 1
        elif token == "]":
            depth -= 1
            expects_value = depth > 0
        elif token == ",":
            expects_value = depth > 0
        elif token.strip() and expects_value and token[0] not in "\"'{}":
            if not _NUMBER_OR_WORD.fullmatch(token):
                token = _quote(token)
            expects_value = depth > 0
        out.append(token)
    return "".join(out)
