"""How this project uses MLflow's client: quietly, and without waiting minutes for a server."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError
from .tracking_uri import ALLOWED, hide_secrets, redact, resolve_uri, sqlite_path

# MLflow's own defaults wait minutes for a server that is down, print links and send telemetry.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@contextlib.contextmanager
def client_defaults() -> Iterator[None]:
    """Set the variables of MLflow that nobody has set; those of a person stay as they are."""
    ours = [name for name in _DEFAULTS if name not in os.environ]
    os.environ.update({name: _DEFAULTS[name] for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextlib.contextmanager
def quiet_client() -> Iterator[None]:
    """Keep what MLflow, Alembic and urllib3 log in this thread off the terminal."""
    from mlflow.utils.logging_utils import suppress_logs_in_thread

    ours = threading.get_ident()
    retries = logging.getLogger("urllib3.connectionpool")

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != ours

    retries.addFilter(from_elsewhere)
    try:
        with suppress_logs_in_thread():
            yield
    finally:
        retries.removeFilter(from_elsewhere)


def reason_of(error: BaseException, uri: str) -> str:
    """Why a call to MLflow failed, on one line without secrets."""
    # Of a failed request, the end of the text tells why.
    text = str(error).rpartition("(Caused by ")[2]
    return hide_secrets(f"{type(error).__name__}: {' '.join(text.split())}", uri)


def connect(uri: str) -> Any:  # noqa: ANN401 - MLflow's client, which has no types
    """Return a client of a tracking server that answers, or of a database that is there.

    Raises:
        InputError: If the URI is not allowed, nothing answers there, or it refuses who asks.
    """
    uri = resolve_uri(uri)
    shown, path = redact(uri), sqlite_path(uri)
    if path is not None and not path.is_file():
        raise InputError(f"there is no database at the tracking URI `{shown}`; {ALLOWED}.")
    if path is not None and path.stat().st_size and not _is_mlflows(path):
        raise InputError(f"the database at `{shown}` is not one of MLflow's; {ALLOWED}.")
    from mlflow import MlflowClient

    try:
        if not uri.startswith("http"):
            open_database(uri)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # whatever MLflow, SQLAlchemy or the network raise
        reason = reason_of(error, uri)
        if "error code 401" in reason or "error code 403" in reason:
            raise InputError(
                f"the MLflow server at `{shown}` refuses the credentials; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
            ) from None
        raise InputError(
            f"nothing that MLflow can use answers at the tracking URI `{shown}` "
            f"({reason[:160].rstrip('. )(')}); start the server, or {ALLOWED}."
        ) from None
    return client


def check_answers(uri: str) -> None:
    """See that MLflow can log to a URI; a SQLite database need not be there yet.

    Raises:
        InputError: If nothing answers there, or it refuses who asks.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return
    with client_defaults(), quiet_client():
        connect(uri)


def _is_mlflows(path: Path) -> bool:
    """Whether a SQLite file has MLflow's tables; it would make them in any other."""
    query = "SELECT count(*) FROM sqlite_master WHERE name IN ('experiments', 'alembic_version')"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return bool(database.execute(query).fetchone()[0] == 2)
    except sqlite3.Error:
        return False


def open_database(uri: str) -> None:
    """See that a database can be opened; MLflow would try for minutes.

    Raises:
        Exception: Whatever SQLAlchemy and its driver raise.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()
