"""Tracking URIs: which are allowed, and how to show one without its secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .errors import InputError

ALLOWED = (
    "write `sqlite:///folder/mlflow.db`, the `http://` or `https://` address of an MLflow server, "
    "or the `postgresql://`, `mysql://` or `mssql://` URI of a database"
)
_CREDENTIAL = re.compile(r"pass|pwd|token|secret|key|user", re.IGNORECASE)
_SERVERS = ("postgresql", "mysql", "mssql")


def default_uri(store: Path) -> str:
    """The database in a store, for those who have no server."""
    return f"sqlite:///{store.absolute() / 'mlflow.db'}"


def resolve_uri(uri: str) -> str:
    """Return the URI to use: SQLite paths are made absolute.

    Raises:
        InputError: If `check_uri` refuses the URI.
    """
    uri = uri.strip()
    check_uri(uri)
    path = sqlite_path(uri)
    if path is None:
        return uri
    _, mark, query = uri.partition("?")
    return f"sqlite:///{path}{mark}{query}"


def check_uri(uri: str) -> None:
    """Check the form of a tracking URI; whether anything answers there shows later.

    Raises:
        InputError: If MLflow cannot log to such a URI, or would forget what was logged.
    """
    scheme, separator, rest = uri.partition("://")
    if scheme == "sqlite":
        path = rest[1:].partition("?")[0]
        good = rest.startswith("/") and path not in ("", ":memory:") and not path.endswith("/")
    elif scheme in ("http", "https") or scheme.partition("+")[0] in _SERVERS:
        good = _has_host(uri)
    else:
        good = False
    if good:
        return
    folder = scheme == "file" or not separator
    raise InputError(
        f"cannot log to the tracking URI `{redact(uri)}`"
        f"{', for MLflow no longer keeps runs in plain folders' if folder else ''}; {ALLOWED}."
    )


def redact(uri: str) -> str:
    """Return a URI with user, password and the values of its query hidden."""
    match = re.match(r"[A-Za-z][\w+.\-]*://", uri)
    head = match[0] if match else ""
    rest = uri[len(head) :]
    if head != "sqlite://" and "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return head + re.sub(r"([?&][^=&#]+=)[^&#]*", r"\1***", rest)


def hide_secrets(text: str, uri: str) -> str:
    """Take the credentials of a URI, and those that MLflow reads itself, out of a text."""
    for secret in _secrets(uri):
        text = text.replace(secret, "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def without_secrets(value: Any, uri: str) -> Any:  # noqa: ANN401
    """JSON values with the same taken out of every text; names, numbers and structure stay."""
    if isinstance(value, str):
        return hide_secrets(value, uri)
    if isinstance(value, list):
        return [without_secrets(item, uri) for item in value]
    if isinstance(value, dict):
        return {name: without_secrets(item, uri) for name, item in value.items()}
    return value


def _secrets(uri: str) -> list[str]:
    """Credentials, longest first; of a query only what is called like one."""
    user = "" if uri.startswith("sqlite:") else uri.partition("://")[2].rpartition("@")[0]
    query = re.findall(r"[?&]([^=&#]+)=([^&#]+)", uri)
    found = {user, user.partition(":")[2]}
    found |= {value for name, value in query if _CREDENTIAL.search(name)}
    found |= {unquote(secret) for secret in found}
    found |= {os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")}
    return sorted(filter(None, found), key=len, reverse=True)


def slug(name: str) -> str:
    """A name for a folder that stands for that of an experiment."""
    return re.sub(r"[^\w.\-]+", "_", name)[:80].strip(".") or "sweep"


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a SQLite database; None for every other URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()


def _has_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False
    return bool(parts.hostname) and port != 0 and not re.search(r"\s", uri)
