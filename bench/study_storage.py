"""Where Optuna keeps studies: a journal in the store, or what a person names."""

from __future__ import annotations

import json
import re
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError, StoreError, describe
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
        with experimental():
            return optuna.storages.RDBStorage(address), address
    except InputError:
        raise
    except Exception as error:  # whatever SQLAlchemy and the drivers raise
        reason = hide_secrets(describe(error).partition(" (Background")[0], address)
        raise InputError(
            f"the storage `{redact(address)}` cannot be opened ({reason}); {ALLOWED}"
        ) from None


def close_storage(storage: BaseStorage) -> None:
    """Close the connections to a database; it can be used again, with new ones."""
    from optuna.storages import RDBStorage

    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def experimental() -> Iterator[None]:
    """Use what Optuna calls experimental, without its saying so each time."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextmanager
def faults_named(address: str) -> Iterator[None]:
    """Turn what a storage raises when it fails into one sentence.

    Raises:
        StoreError: If it cannot be read or written any more.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    kinds: tuple[type[Exception], ...] = (
        OSError,
        SQLAlchemyError,
        optuna.exceptions.StorageInternalError,
    )
    grpc = sys.modules.get("grpc")
    if grpc is not None:
        kinds = (*kinds, grpc.RpcError)
    try:
        yield
    except StoreError:
        raise
    except kinds as error:
        reason = hide_secrets(describe(error).partition(" (Background")[0], address)
        raise StoreError(
            f"the storage `{redact(address)}` fails ({reason}); what is in it is kept, and the "
            "same command continues."
        ) from error


def _journal(path: Path) -> tuple[BaseStorage, str]:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    # Optuna's lock is a link to it; if that led nowhere, a dead process's would never be broken
    file = path.absolute()
    try:
        if path.suffix != ".log":
            raise InputError(f"`{path}` is no storage of studies; {ALLOWED}")
        if file.exists() and file.stat().st_size:
            with file.open(encoding="utf-8") as lines:
                json.loads(lines.readline())["op_code"]  # else Optuna would write into any file
        storage = JournalStorage(JournalFileBackend(str(file)))
        storage.get_all_studies()  # reads it
    except OSError as error:
        raise InputError(
            f"the storage `{path}` cannot be opened ({error.strerror}); {ALLOWED}"
        ) from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"the storage `{path}` is no journal of Optuna's, or is damaged; {ALLOWED}"
        ) from None
    return storage, str(file)


def _proxy(address: str) -> BaseStorage:
    """Optuna's gRPC proxy; it is tried at once, for the client itself would wait for ever."""
    from optuna.storages import GrpcStorageProxy

    match = re.fullmatch(r"grpc://([^:/]+):(\d+)/?", address)
    if match is None:
        raise InputError(f"`{address}` is no address of a proxy; {ALLOWED}")
    if find_spec("grpc") is None:
        raise InputError(
            f"the storage `{address}` needs the package `grpcio`; "
            'install it with `pip install "unlearnbench[grpc]"`.'
        )
    host, port = match[1], int(match[2])
    try:
        socket.create_connection((host, port), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"the storage `{address}` cannot be reached ({describe(error)}); {ALLOWED}"
        ) from None
    with experimental():
        storage = GrpcStorageProxy(host=host, port=port)
    storage.wait_server_ready(timeout=ANSWER_S)
    return storage
