"""Datasets that torchvision reads and fetches: verified, and never half there.

torchvision downloads in place and without a time-out, and looks only whether the files of the
MNIST family exist. Here every file's MD5 is compared before anything is read; a download goes
to a hidden folder beside the data and its files are moved into place when all are right, so an
interruption leaves nothing that could be taken for data, and what had arrived whole is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from .errors import DataError

_SILENCE_S = 30.0  # a server that says nothing for so long counts as absent


@dataclass(frozen=True)
class TorchvisionFiles:
    """The files of a dataset in torchvision's layout.

    Attributes:
        folder: Where they lie, relative to the data root.
        md5: Published MD5 of every file in the folder, by its name.
        archives: Published MD5 of what torchvision downloads, by path relative to the data root.
    """

    folder: str
    md5: Mapping[str, str]
    archives: Mapping[str, str]


def open_splits(
    name: str, source: Callable[..., Any], files: TorchvisionFiles, data_root: Path
) -> tuple[Any, Any]:
    """Open the training and the test set; download them first if they are absent.

    Args:
        name: Registered name of the dataset, for messages.
        source: torchvision's class, called with `root`, `train` and `download`.
        files: What must be there.
        data_root: Folder that holds the datasets.

    Returns:
        torchvision's training set and test set.

    Raises:
        DataError: If the data are damaged, cannot be read, or are absent and cannot be fetched.
    """
    data_root = data_root.expanduser()
    try:
        if _missing(name, files, data_root):
            _fetch(name, source, files, data_root)
        return source(str(data_root), train=True), source(str(data_root), train=False)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"dataset `{name}` cannot be read from `{data_root / files.folder}` ({_cause(error)})."
        ) from None


def first_of_each_class(labels: NDArray[np.int64], per_class: int | None) -> NDArray[np.intp]:
    """Return the rows of the first examples of every class, in their own order.

    Args:
        labels: `(N,)` int64.
        per_class: How many of each class; None means all.
    """
    rows = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(rows))


def _missing(name: str, files: TorchvisionFiles, root: Path) -> list[str]:
    """Return the names of absent files; refuse damaged ones."""
    missing = []
    for file, md5 in files.md5.items():
        path = root / files.folder / file
        if not path.is_file():
            missing.append(file)
        elif not _is_right(path, md5):
            raise DataError(
                f"dataset `{name}`: `{path}` is damaged (its MD5 is not the published {md5}); "
                "delete it to have it downloaded again."
            )
    return missing


def _is_right(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == md5


def _fetch(name: str, source: Callable[..., Any], files: TorchvisionFiles, root: Path) -> None:
    """Download into a hidden folder, verify, and move into place; one process at a time."""
    staging, lock = root / f".{name}.download", root / f".{name}.lock"
    is_new = not root.exists()
    try:
        staging.mkdir(parents=True, exist_ok=True)
        lock.touch()  # the lock itself may wait for ever where it cannot be written
    except OSError as error:
        raise DataError(
            f"dataset `{name}` is not in `{root / files.folder}`, and it cannot be downloaded "
            f"to `{root}`, which is not writable ({_cause(error)})."
        ) from None
    with FileLock(lock):
        missing = _missing(name, files, root)
        if not missing:  # another process was faster
            return
        _prepare_staging(files, root, staging)
        try:
            with _stdout_to_stderr(), _socket_timeout(_SILENCE_S):
                source(str(staging), train=True, download=True)
            if not all(_is_right(staging / files.folder / f, files.md5[f]) for f in missing):
                raise RuntimeError("what arrived does not have the published MD5s")
        except Exception as error:  # urllib, http, ssl, tarfile, gzip: each has its own
            if not _keep_only_right(files, staging):
                shutil.rmtree(staging, ignore_errors=True)
                lock.unlink(missing_ok=True)
                if is_new:
                    with contextlib.suppress(OSError):
                        root.rmdir()
            raise DataError(
                f"dataset `{name}` is not in `{root / files.folder}` and could not be downloaded "
                f"({_cause(error)}); put {', '.join(missing)} there or name another folder with "
                "`--data-root`."
            ) from None
        (root / files.folder).mkdir(parents=True, exist_ok=True)
        for file in missing:
            (staging / files.folder / file).replace(root / files.folder / file)
        shutil.rmtree(staging, ignore_errors=True)


def _prepare_staging(files: TorchvisionFiles, root: Path, staging: Path) -> None:
    """Keep what an earlier attempt fetched whole, and take archives that a person put there."""
    staging.mkdir(parents=True, exist_ok=True)
    _keep_only_right(files, staging)
    for archive, md5 in files.archives.items():
        if not (staging / archive).exists() and _is_right(root / archive, md5):
            (staging / archive).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / archive, staging / archive)


def _keep_only_right(files: TorchvisionFiles, staging: Path) -> int:
    """Delete what is not whole: torchvision takes any file of the right name; count the rest."""
    expected = {f"{files.folder}/{file}": md5 for file, md5 in files.md5.items()}
    kept = 0
    for path, md5 in {**expected, **files.archives}.items():
        if _is_right(staging / path, md5):
            kept += 1
        else:
            (staging / path).unlink(missing_ok=True)
    return kept


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


def _stdout_to_stderr() -> contextlib.AbstractContextManager[Any]:
    # Standard output belongs to the results; some versions of torchvision print to it.
    return contextlib.redirect_stdout(sys.stderr)


def _cause(error: BaseException) -> str:
    """Return the innermost reason in a few words, without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).rpartition("got:")[2].split()).rstrip(".")
    inner = re.fullmatch(r"<urlopen error (?:\[[^\]]*\] )?(.*)>", text)
    return (inner[1] if inner else text)[:160] or type(error).__name__
