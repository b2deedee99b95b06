"""Listings for `unlearnbench ls`: one line a thing, no torch for methods and datasets."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from .registry import DATASETS, METHODS, Registry
from .scenario import SCENARIOS

NO_PATTERN = ""


def listing(what: str, pattern: str = NO_PATTERN) -> Iterator[str]:
    """Lines that describe what there is of a kind, as far as names match."""
    if what == "models":
        from .models import list_models

        yield from list_models(pattern)
        return
    kinds = {
        "methods": _methods,
        "datasets": _datasets,
        "scenarios": _scenarios,
        "sweeps": _sweeps,
    }
    rows = kinds[what]()
    kept = [row for row in rows if not pattern or fnmatch(row[0], pattern)]
    widths = [max(map(len, column)) for column in zip(*kept, strict=True)]
    for row in kept:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def _methods() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            cls.name,
            "needs "
            + (", ".join(sorted(cls.needs)) or "nothing")
            + (f"; {cls.recipe} recipe" if cls.recipe else ""),
            "any forget set" if len(cls.scope) > 1 else f"{next(iter(cls.scope))} only",
            cls.reference,
            cls.summary(),
        )
        for cls in METHODS.classes()
    ]
    return rows + _broken(METHODS, 5)


def _datasets() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (cls.name, cls.about, cls.reference) for cls in DATASETS.classes()
    ]
    return rows + _broken(DATASETS, 3)


def _scenarios() -> list[tuple[str, ...]]:
    return [(cls.name, ", ".join(cls.model_fields), cls.summary()) for cls in SCENARIOS.values()]


def _sweeps() -> list[tuple[str, ...]]:
    from .sweep import built_in_sweeps

    return list(built_in_sweeps().items())


def _broken(registry: Registry[Any], columns: int) -> list[tuple[str, ...]]:
    return [
        (name, f"broken plug-in: {reason}", *[""] * (columns - 2))
        for name, reason in sorted(registry.broken.items())
    ]
