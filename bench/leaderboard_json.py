"""The leaderboard as JSON with a fixed layout, and the JSON Schema of that layout.

Numbers are numbers and not text; what is not known is null; accuracies are fractions in [0, 1] and
times seconds, as in the records. A new layout has a new name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from .attack_notes import attack_notes
from .attack_rows import plain_rows
from .leaderboard import Leaderboard, Table
from .published import Published, published_of
from .record import Finite
from .standings import Standings

SCHEMA: Final = "unlearnbench.leaderboard/1"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
# what a row is; every other column of the tables is a figure or a text under its own name
_NAMED = ("recipe", "method", "name", "kind", "hyperparameters", "status", "seeds", "hardware")


class Layout(BaseModel):
    """A part of the file; other keys than those declared are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, from_attributes=True)


class Row(Layout):
    """One reference or method variant of a task.

    Attributes:
        method: Label: the name, with the hyper-parameters that tell variants apart.
        name: Registered name of the method.
        recipe: Label of the recipe.
        kind: `reference`, `noise floor`, `control` or `method`.
        hyperparameters: All of them, defaults included.
        status: In words, such as `2 ok, 1 failed`.
        seeds: Seeds that are ok.
        hardware: Machines on which they ran.
        figures: Every number of the row by its column of the CSV; null where it is not known.
        texts: Every other word of the row by its column of the CSV, such as the setting of the
            attack; empty where there is none.
    """

    method: str
    name: str
    recipe: str
    kind: str
    hyperparameters: dict[str, Any]
    status: str
    seeds: list[int]
    hardware: list[str]
    figures: dict[str, int | Finite | bool | None]
    texts: dict[str, str]


class Cost(Layout):
    """What a recipe does to its original models.

    Attributes:
        recipe: Label of the recipe.
        hardware: Machines on which they were trained.
        figures: Numbers of the cost by name; null where they are not known.
    """

    recipe: str
    hardware: list[str]
    figures: dict[str, int | Finite | None]


class ReasonOf(Layout):
    """Cells that a reason is about; no seeds where it is about all of a row."""

    method: str
    recipe: str
    seeds: list[int]


class ReasonEntry(Layout):
    """Why something is missing.

    Attributes:
        status: `failed`, `skipped`, `not attacked` or `not probed`.
        text: The reason.
        cells: What it is about.
    """

    status: str
    text: str
    cells: list[ReasonOf]


class Task(Layout):
    """One (dataset, model, scenario).

    Attributes:
        dataset: Dataset as `name[key=value,…]`.
        model: Architecture as `name[key=value,…]`.
        scenario: Scenario as `name[key=value,…]`.
        recipes: Labels of the recipes.
        seeds: All seeds.
        hardware: Machines on which ok cells ran.
        rows: In the order of the tables.
        costs: What each recipe costs.
        reasons: What is missing, and why.
        notes: Sentences that a reader must know.
        published: Figures of papers on this task, of methods without a row too. They were not
            measured here.
    """

    dataset: str
    model: str
    scenario: str
    recipes: list[str]
    seeds: list[int]
    hardware: list[str]
    rows: list[Row]
    costs: list[Cost]
    reasons: list[ReasonEntry]
    notes: list[str]
    published: list[Published]


class Place(Layout):
    """The place of a method over all tasks; see `Standing` of the leaderboard."""

    method: str
    recipe: str
    place: int
    tied: bool
    borda: Finite
    tasks: int
    missing: int
    failed: int
    mean_rank: Finite | None
    rank_lo: Finite | None
    rank_hi: Finite | None
    win_rate: Finite | None


class LeftOut(Layout):
    """A task that does not count, and why."""

    task: str
    reason: str


class Pairwise(Layout):
    """Difference of two methods in U-LIRA accuracy on a task."""

    task: str
    method: str
    other: str
    difference: Finite | None
    se: Finite | None
    p: Finite | None
    p_holm: Finite | None
    paired: bool


class StandingsEntry(Layout):
    """The ranking over tasks.

    Attributes:
        rows: In order of place.
        tasks: Titles of the tasks that count.
        left_out: Those that do not.
        differences: Of every two methods on every task.
        compared: Methods with a place on every task, in order of place; with the recipe in
            brackets where there are several.
        friedman: Chi-square of their ranks among each other.
        friedman_p: Its p-value.
        critical_difference: Least difference of mean ranks at which two methods differ; null where
            a method lacks a task.
    """

    rows: list[Place]
    tasks: list[str]
    left_out: list[LeftOut]
    differences: list[Pairwise]
    compared: list[str]
    friedman: Finite | None
    friedman_p: Finite | None
    critical_difference: Finite | None


class LeaderboardFile(Layout):
    """All of `leaderboard.json`.

    Attributes:
        schema_: Version of this layout; written as `schema`.
        sweeps: Names of the sweeps.
        environment: Every value of each entry of `environment` in the records.
        tasks: One for each (dataset, model, scenario).
        standings: The ranking over tasks; null where nothing can be ranked.
    """

    schema_: Literal["unlearnbench.leaderboard/1"] = Field(SCHEMA, alias="schema")
    sweeps: list[str]
    environment: dict[str, list[str]]
    tasks: list[Task]
    standings: StandingsEntry | None = None


def leaderboard_json(board: Leaderboard) -> str:
    """The content of `leaderboard.json`; the same board gives the same text."""
    content = LeaderboardFile(
        sweeps=list(board.sweeps),
        environment={key: list(values) for key, values in sorted(board.environment.items())},
        tasks=[_task(table, board) for table in board.tables],
        standings=_standings(board.standings),
    )
    return _text(content.model_dump(mode="json", by_alias=True))


def leaderboard_schema() -> str:
    """The content of `leaderboard.schema.json`."""
    schema = LeaderboardFile.model_json_schema(by_alias=True, mode="serialization")
    return _text({"$schema": DIALECT, "$id": f"urn:{SCHEMA.replace('/', ':')}", **schema})


def _text(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _task(table: Table, board: Leaderboard) -> Task:
    return Task(
        dataset=table.dataset,
        model=table.model,
        scenario=table.scenario,
        recipes=list(table.recipes),
        seeds=list(table.seeds),
        hardware=list(table.hardware),
        rows=[_row(row) for row in plain_rows(table.rows)],
        costs=[
            Cost(
                recipe=cost["recipe"],
                hardware=_machines(cost["hardware"]),
                figures=_numbers(cost, ("recipe", "hardware")),
            )
            for cost in plain_rows(table.costs)
        ],
        reasons=[
            ReasonEntry(
                status=reason.status,
                text=reason.text,
                cells=[
                    ReasonOf(method=method, recipe=recipe, seeds=list(seeds))
                    for method, recipe, seeds in reason.cells
                ],
            )
            for reason in table.reasons
        ],
        notes=[*table.notes, *attack_notes(table, board)],
        published=published_of(table.dataset, table.model, table.scenario),
    )


def _row(row: Mapping[str, Any]) -> Row:
    texts = {
        name: value for name, value in row.items() if isinstance(value, str) and name not in _NAMED
    }
    return Row(
        **{name: row[name] for name in ("method", "name", "recipe", "kind", "status")},
        hyperparameters=json.loads(row["hyperparameters"] or "{}"),
        seeds=[int(seed) for seed in row["seeds"].split()],
        hardware=_machines(row["hardware"]),
        figures=_numbers(row, (*_NAMED, *texts)),
        texts=texts,
    )


def _machines(text: Any) -> list[str]:  # noqa: ANN401
    return [name for name in text.split("; ") if name] if isinstance(text, str) else []


def _numbers(row: Mapping[str, Any], leave: tuple[str, ...]) -> dict[str, Any]:
    return {name: _number(value) for name, value in row.items() if name not in leave}


def _number(value: Any) -> float | int | bool | None:  # noqa: ANN401
    """A plain number; whole numbers stay whole, what is not finite is not known."""
    if value is None or pd.isna(value) or (isinstance(value, float) and math.isinf(value)):
        return None
    plain: float | int | bool = value.item() if hasattr(value, "item") else value
    return plain


def _standings(found: Standings | None) -> StandingsEntry | None:
    if found is None:
        return None
    numbers = ("mean_rank", "rank_lo", "rank_hi", "win_rate")
    rows = []
    for standing in found.rows:
        told = {name: getattr(standing, name) for name in Place.model_fields}
        rows.append(Place(**told | {name: _number(told[name]) for name in numbers}))
    return StandingsEntry(
        rows=rows,
        tasks=list(found.tasks),
        left_out=[LeftOut(task=title, reason=reason) for title, reason in found.left_out],
        differences=[
            Pairwise(
                **{
                    name: value if isinstance(value, (str, bool)) else _number(value)
                    for name, value in row.items()
                    if name in Pairwise.model_fields
                }
            )
            for row in plain_rows(found.differences)
        ],
        compared=list(found.compared),
        friedman=_number(found.friedman),
        friedman_p=_number(found.friedman_p),
        critical_difference=_number(found.critical_difference),
    )
