"""What a sweep leaves beside its records, so that they can be understood without it.

In the folder of the records: `spec.json`, the sweep as it was asked for, defaults included;
`plan.json`, the keys of its cells and shadow banks in the order of the tables, and which store it
ran on; `environment.json`, versions and hardware. They are also the first artifacts of the sweep's
run in MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .files import write_text_atomically

if TYPE_CHECKING:
    from .plan import Cell, Plan
    from .sweep import SweepSpec

PLAN_SCHEMA = "unlearnbench.plan/1"
NAMES = ("spec", "plan", "environment")
LEADERBOARD_FILES = (
    "leaderboard.md",
    "leaderboard.csv",
    "leaderboard.parquet",
    "leaderboard.tex",
    "leaderboard.json",
    "leaderboard.schema.json",
    "leaderboard.html",
)

Description = Mapping[str, Any]  # JSON values by the name of their file, without its ending


def describe_sweep(
    spec: SweepSpec, plan: Plan, store: str, environment: Mapping[str, Any]
) -> Description:
    """Say what a sweep is.

    Args:
        spec: The sweep.
        plan: Its cells.
        store: Name of the store, which tells the runs of two people apart.
        environment: Versions and hardware.
    """
    layout = {
        "schema": PLAN_SCHEMA,
        "sweep": spec.name,
        "store": store,
        "cells": [_cell(cell) for cell in plan.cells],
        "banks": list(dict.fromkeys(attack.bank.hash for attack in plan.attacks.values())),
    }
    return {
        "spec": spec.model_dump(mode="json"),
        "plan": layout,
        "environment": dict(environment),
    }


def description_text(value: object) -> str:
    """Content of one of the files."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_description(folder: Path, description: Description) -> None:
    """Write the files whose content has changed."""
    for name, value in description.items():
        path, text = folder / f"{name}.json", description_text(value)
        if not (path.is_file() and path.read_text(encoding="utf-8") == text):
            write_text_atomically(path, text)


def read_description(folder: Path) -> dict[str, Any]:
    """Read the files that are there; records of an older version have none.

    Raises:
        InputError: If one is not a JSON object.
    """
    found: dict[str, Any] = {}
    for name in NAMES:
        path = folder / f"{name}.json"
        if path.is_file():
            try:
                found[name] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                found[name] = None
            if not isinstance(found[name], dict):
                raise InputError(
                    f"`{path}` is not a JSON object; run the sweep again to write it anew."
                )
    return found


def known_environment(folder: Path) -> dict[str, Any] | None:
    """The environment of an earlier run; None where there is none, or it is damaged."""
    try:
        found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _cell(cell: Cell) -> dict[str, Any]:
    about = {
        "key": cell.key,
        "dataset": cell.dataset,
        "model": cell.model,
        "recipe": cell.recipe.name,
        "scenario": cell.scenario,
        "forget_request": cell.request.hash,
        "method": cell.method.spec,
        "seed": cell.seed,
    }
    return about | ({"skip": list(cell.skip)} if cell.skip else {})
