"""Where Optuna keeps studies: a journal in the store, or what a person names."""

from __future__ import annotations

import re
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError, describe
from .tracking_uri import hide_secrets, redact

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

ALLOWED = (
    "write a file `NAME.log` for Optuna's journal, `sqlite:///FILE`, the `postgresql://` or "
    "`mysql://` URI of a database, or `grpc://HOST:PORT` of Optuna's proxy."
)
ANSWER_S = 5.0  # how long a proxy may take to answer


def open_storage(address: str | None, folder: Path, name: str) -> tuple[BaseStorage, str]:
    """Open a storage.

    Args:
        address: What a person named; None for a journal in the store.
        folder: Folder of studies in the store.
        name: Name of the study, for its journal in the store.

    Returns:
        The storage, and its address as Optuna's dashboard takes it.

    Raises:
        InputError: If it is no storage, or cannot be reached.
    """
    import optuna

    if address is None:
        folder.mkdir(parents=True, exist_ok=True)
        return _journal(folder / f"{name}.log")
    if re.fullmatch(r"[A-Za-z][\w+]*://.*", address, re.DOTALL) is None:
        return _journal(Path(address))
    try:
        if address.startswith("grpc://"):
            return _proxy(address), address
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.storages.RDBStorage(address), address
    except InputError:
        raise
    except Exception as error:  # whatever SQLAlchemy and the drivers raise
        reason = hide_secrets(describe(error).partition(" (Background")[0], address)
        raise InputError(
            f"the storage `{redact(address)}` cannot be opened ({reason}); {ALLOWED}"
        ) from None


def _journal(path: Path) -> tuple[BaseStorage, str]:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if path.suffix != ".log":
        raise InputError(f"`{path}` is no storage of studies; {ALLOWED}")
    try:
        return JournalStorage(JournalFileBackend(str(path))), str(path)
    except OSError as error:
        raise InputError(
            f"the storage `{path}` cannot be opened ({error.strerror}); {ALLOWED}"
        ) from None
    except ValueError:
        raise InputError(
            f"the storage `{path}` is no journal of Optuna's, or is damaged; {ALLOWED}"
        ) from None


def _proxy(address: str) -> BaseStorage:
    """Optuna's gRPC proxy; it is tried at once, for the client itself would wait for ever."""
    from optuna.storages import GrpcStorageProxy

    match = re.fullmatch(r"grpc://([^:/]+):(\d+)/?", address)
    if match is None:
        raise InputError(f"`{address}` is no address of a proxy; {ALLOWED}")
    host, port = match[1], int(match[2])
    try:
        socket.create_connection((host, port), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"the storage `{address}` cannot be reached ({describe(error)}); {ALLOWED}"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls it experimental
        storage = GrpcStorageProxy(host=host, port=port)
    storage.wait_server_ready(timeout=ANSWER_S)
    return storage
