"""Content keys: the hash of everything that determines an artefact, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:  # noqa: ANN401
    """Write JSON values so that equal values give equal text; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(kind: str, **determined_by: Any) -> str:  # noqa: ANN401
    """Return 32 hexadecimal digits that name an artefact.

    Args:
        kind: Kind of artefact; two kinds never share a key.
        determined_by: Everything that determines the artefact, as JSON values.
    """
    text = canonical_json({"kind": kind, "by": determined_by})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_bytes(*parts: bytes | memoryview) -> str:
    """Return the SHA-256 of the parts, one after the other, as hexadecimal text."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def derive_seed(*parts: int | str) -> int:
    """Derive an independent seed in [0, 2**63) from a seed and the names of its use."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
