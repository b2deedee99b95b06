"""The store: every artefact under its content key, whole or not at all, checked on reading.

Layout: `<store>/artifacts/<kind>/<key[:2]>/<key>/` holds `meta.json` and any tensors. `meta.json`
carries its own digest and lists the SHA-256 of the other files. A folder appears by a rename when
it is complete. Nothing that comes from disk is unpickled.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock

from .errors import StoreError
from .keys import canonical_json, digest_bytes, digest_file

if TYPE_CHECKING:
    from torch import Tensor

TENSORS = "tensors.safetensors"
UNFINISHED = ".new-"
DAY_S = 24 * 60 * 60
CHECKPOINT_DAYS = 30


@dataclass(frozen=True)
class Artifact:
    """A complete artefact on disk.

    Attributes:
        path: Its folder.
        meta: What was stored as JSON.
        files: SHA-256 of every other file, by name.
    """

    path: Path
    meta: dict[str, Any]
    files: dict[str, str]

    def file(self, name: str) -> Path:
        """Path of one of its files, whose content is checked first.

        Raises:
            StoreError: If the file is missing or does not match its digest.
        """
        path = self.path / name
        if not path.is_file() or digest_file(path) != self.files.get(name):
            raise _damaged(self.path, name)
        return path

    def tensors(self, device: str = "cpu") -> dict[str, Tensor]:
        """Load the tensors that it was stored with.

        Raises:
            StoreError: If they are missing or do not match their digest.
        """
        from safetensors.torch import load_file

        return load_file(self.file(TENSORS), device=device)


class Store:
    """A folder of artefacts, safe for several processes at once.

    Args:
        root: The folder; made if absent.
        create: Make the folder and try to write; else the store is only looked at.

    Raises:
        StoreError: If the folder cannot be made or written.
    """

    def __init__(self, root: Path, *, create: bool = True) -> None:
        self.root = root
        if not create:
            return
        try:
            (root / "artifacts").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise StoreError(f"the store `{root}` cannot be written: {error.strerror}.") from None

    def path(self, kind: str, key: str) -> Path:
        """Folder of an artefact, whether it exists or not."""
        return self.root / "artifacts" / kind / key[:2] / key

    def has(self, kind: str, key: str) -> bool:
        """Whether the artefact is there; its content is checked when it is read."""
        return (self.path(kind, key) / "meta.json").is_file()

    def has_tensors(self, kind: str, key: str) -> bool:
        """Whether the artefact is there and was stored with tensors."""
        return self.has(kind, key) and (self.path(kind, key) / TENSORS).is_file()

    def checkpoint(self, key: str) -> Path:
        """File in which the training of an artefact is kept between epochs."""
        return self.root / "checkpoints" / f"{key}.safetensors"

    def drop(self, kind: str, key: str) -> None:
        """Remove an artefact that can be made again, whole or not at all; if it is there."""
        doomed = self.root / "artifacts" / f"{UNFINISHED}{uuid4().hex}"
        with suppress(FileNotFoundError):
            self.path(kind, key).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def holds(self, kind: str) -> bool:
        """Whether there is any artefact of a kind."""
        return (self.root / "artifacts" / kind).is_dir()

    def tidy(self) -> None:
        """Remove what killed processes left half-written, and trainings that nobody took up."""
        for leftover in (self.root / "artifacts").glob(f"{UNFINISHED}*"):
            with suppress(OSError):
                if time.time() - leftover.stat().st_mtime > DAY_S:
                    shutil.rmtree(leftover)
        for leftover in (self.root / "checkpoints").glob("*"):
            with suppress(OSError):
                if time.time() - leftover.stat().st_mtime > CHECKPOINT_DAYS * DAY_S:
                    leftover.unlink()

    def get(self, kind: str, key: str) -> Artifact | None:
        """Return an artefact, or None if it is not there.

        Raises:
            StoreError: If what is there is damaged.
        """
        path = self.path(kind, key)
        try:
            content = json.loads((path / "meta.json").read_text(encoding="utf-8"))
            meta, files = content["meta"], content["files"]
            if content["digest"] != _digest(meta, files):
                raise ValueError("digest")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise _damaged(path, "meta.json") from None
        return Artifact(path, meta, files)

    def put(
        self,
        kind: str,
        key: str,
        meta: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
        write: Callable[[Path], None] | None = None,
    ) -> Artifact:
        """Store an artefact in one step; if the key is taken, what is there stays.

        Args:
            kind: Kind of artefact.
            key: Its content key.
            meta: JSON values.
            tensors: Stored as safetensors, contiguous, on the CPU.
            write: Called with the folder to write further files into.

        Raises:
            StoreError: If the store cannot be written.
        """
        target = self.path(kind, key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.root / "artifacts" / f"{UNFINISHED}{uuid4().hex}"
            temporary.mkdir()
            try:
                self._fill(temporary, meta, tensors, write)
                if not self.has(kind, key):
                    self._publish(temporary, kind, key)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise StoreError(
                f"the store `{self.root}` cannot be written: {error.strerror or error}."
            ) from error
        stored = self.get(kind, key)
        if stored is None:
            raise StoreError(f"`{target}` vanished while it was written.")
        return stored

    def _publish(self, complete: Path, kind: str, key: str) -> None:
        try:
            complete.rename(self.path(kind, key))
        except OSError:
            if not self.has(kind, key):  # else another process was first
                raise

    @staticmethod
    def _fill(
        folder: Path,
        meta: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None,
        write: Callable[[Path], None] | None,
    ) -> None:
        if tensors is not None:
            from safetensors.torch import save_file

            cpu = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
            save_file(cpu, folder / TENSORS)
        if write is not None:
            write(folder)
        files = {path.name: digest_file(path) for path in sorted(folder.iterdir())}
        content = {"meta": dict(meta), "files": files, "digest": _digest(dict(meta), files)}
        (folder / "meta.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")

    @contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Hold the right to make an artefact, so that two processes do not make it twice."""
        locks = self.root / "locks"
        locks.mkdir(exist_ok=True)
        with FileLock(locks / f"{kind}-{key}.lock"):
            yield


def _digest(meta: Mapping[str, Any], files: Mapping[str, str]) -> str:
    return digest_bytes(canonical_json([meta, files]).encode())


def _damaged(folder: Path, name: str) -> StoreError:
    return StoreError(
        f"`{name}` in `{folder}` is damaged: it does not match its digest; "
        f"delete that folder and run again to make it anew."
    )
