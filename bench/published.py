"""Figures that papers publish, to be shown beside measured ones and never mixed with them.

`published.toml` holds them as their source gives them, in the source's unit. None was measured
here: training, data augmentation and the attack differ from paper to paper.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import resources
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .attack_rows import plain_rows
from .errors import InputError
from .leaderboard import Table
from .recipe import is_plain
from .record import Finite
from .spec_string import parse_spec
from .tablecell import NONE, Cell, Column, Row

GROUP = "published"
LEGEND = {
    GROUP: (
        "Figures that papers publish, not measured here, of the same data set, architecture and "
        "kind of forget set; training differs. Accuracies in % as in the measured columns, ± as "
        "in the source. In brackets how the figure was read: P in the paper, C in published code "
        "or its documentation, S in a report that quotes it, M from memory."
    )
}
Tag = Literal["P", "C", "S", "M"]
TAGS: Final = ("P", "S", "C", "M")  # which source is shown where several have a figure
SHOWN: Final = {
    "forget_acc": "forget %",
    "retain_acc": "retain %",
    "test_acc": "test %",
    "test_forget_acc": "test, forgotten %",
    "test_retain_acc": "test, kept %",
}
# our names of the metrics, their unit, and the images that they are on
METRICS: Final = {
    "forget_acc": ("%", "train"),
    "retain_acc": ("%", "train"),
    "test_acc": ("%", "test"),
    "test_forget_acc": ("%", "test"),
    "test_retain_acc": ("%", "test"),
    "mia_svc_efficacy": ("%", "train"),
    "mia_svc_test_forget": ("%", "test"),
    "mia_accuracy": ("%", "train"),
    "linear_probe_forget": ("%", "test"),
    "retention": ("%", "test"),
    "average_gap": ("points", "train"),
    "average_gap_worst_case": ("points", "train"),
    "mia_other": ("%", ""),
    "cost_pflop": ("PFLOP", ""),
    "minutes": ("min", ""),
    "seconds": ("s", ""),
}
UNLEARNING_ACCURACY = "unlearning_acc"
_FROM_UA = "forget accuracy is 100 less the unlearning accuracy of the source"


OfRow = Callable[[Row], "list[Published]"]


class Published(BaseModel):
    """One figure of a paper.

    Attributes:
        dataset: Name of the data set; ours where it is registered.
        model: Architecture as timm names it.
        scenario: Forget set: `class` for any one class (a mean over classes), or a scenario of
            ours such as `class[classes=[9]]` or `random[fraction=0.1]`.
        method: Registered name of the method, else the name in the literature.
        metric: Our name of it, one of `METRICS`.
        split: `train` or `test` images; empty for a cost.
        value: In `unit`.
        spread: As printed behind ±; null where there is none. It is over what the source says.
        bound: `at most` or `at least` where the source only claims a bound; else empty.
        unit: `%`, `points`, `PFLOP`, `min` or `s`.
        source: Paper or report, with table where there is one.
        short: The same in a few words.
        tag: How it was read: P in the paper, C in code or its documentation, S in a report that
            quotes it, M from memory.
        note: What a reader must know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    model: str
    scenario: str
    method: str
    metric: str
    split: Literal["train", "test", ""]
    value: Finite
    spread: Annotated[Finite, Field(ge=0)] | None = None
    bound: Literal["", "at most", "at least"] = ""
    unit: str
    source: Annotated[str, Field(min_length=1)]
    short: Annotated[str, Field(min_length=1)]
    tag: Tag
    note: str = ""

    @model_validator(mode="after")
    def _within_its_unit(self) -> Self:
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric {self.metric}")
        if (self.unit, self.split) != METRICS[self.metric]:
            raise ValueError(f"{self.metric} is in {METRICS[self.metric]}")
        high = 100 if self.unit in ("%", "points") else float("inf")
        if not 0 <= self.value <= high:
            raise ValueError(f"{self.metric} of {self.method} is out of range: {self.value}")
        return self


class _Line(BaseModel):
    """What a source says of one method; every other key is a metric.

    A value is a number, `[number, spread]`, or a text such as `<= 2`.
    """

    model_config = ConfigDict(extra="allow")

    method: str
    scenario: str | None = None
    tag: Tag | None = None
    note: str = ""

    @property
    def figures(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class _Source(BaseModel):
    """A table of the file: lines that share data, architecture, forget set and source."""

    model_config = ConfigDict(extra="forbid")

    source: str
    short: str
    tag: Tag
    dataset: str
    model: str
    scenario: str
    note: str = ""
    lines: Annotated[list[_Line], Field(min_length=1)]

    @field_validator("scenario")
    @classmethod
    def _is_written_as_ours(cls, text: str) -> str:
        parse_spec(text, "scenario")
        return text


@cache
def all_published() -> tuple[Published, ...]:
    """Every figure of the file, in its order.

    Raises:
        pydantic.ValidationError: If the file is wrong, which a test makes sure it is not.
    """
    return tuple(
        figure
        for table in _content()["sources"]
        for source in [_Source.model_validate(table)]
        for line in source.lines
        for figure in _figures(source, line)
    )


def published_of(dataset: str, model: str, scenario: str) -> list[Published]:
    """Figures of a task, of all methods.

    A data set or architecture with parameters of its own is another one, and has none. A task that
    forgets one class has the figures that are means over classes, and those of this very class.

    Args:
        dataset: Spec, such as `cifar10`.
        model: Spec, such as `resnet18`.
        scenario: Spec, such as `class[classes=[3]]`.
    """
    kinds = _kinds(scenario, dataset)
    return [
        figure
        for figure in all_published()
        if (figure.dataset, figure.model) == (dataset.strip(), model.strip())
        and _written(figure.scenario) in kinds
    ]


def published_for(dataset: str, model: str, scenario: str, method: str) -> list[Published]:
    """Figures of a method on a task; see `published_of`.

    Args:
        dataset: Spec, such as `cifar10`.
        model: Spec, such as `resnet18`.
        scenario: Spec, such as `class[classes=[3]]`.
        method: Registered name, such as `neggrad-plus`.
    """
    return [f for f in published_of(dataset, model, scenario) if f.method == method]


def published_legend(columns: Sequence[Column]) -> dict[str, str]:
    """What the group means, if it is shown."""
    return LEGEND if any(column.group == GROUP for column in columns) else {}


def published_columns(table: Table) -> list[Column]:
    """Columns of the group `published`; none where nothing is published on the task.

    A row shows the figures of one source: the one that was read most closely, and of these the one
    with most figures. Rows of other recipes than the plain one have none, for papers train plainly;
    but for a method whose own recipe it is.
    """
    found = published_of(table.dataset, table.model, table.scenario)
    chosen: dict[str, list[Published]] = {}
    for name in dict.fromkeys(figure.method for figure in found):
        by_source: dict[tuple[str, str], list[Published]] = {}
        for figure in found:
            if figure.method == name and figure.metric in SHOWN:
                by_source.setdefault((figure.source, figure.scenario), []).append(figure)
        if by_source:
            chosen[name] = min(by_source.values(), key=_preference)
    plain = {row["name"] for row in plain_rows(table.rows) if is_plain(row["recipe"])}

    def of_row(row: Row) -> list[Published]:
        own = is_plain(row["recipe"]) or row["name"] not in plain
        is_shown = row["kind"] != "noise floor" and own
        return chosen.get(row["name"], []) if is_shown else []

    columns = [
        Column(GROUP, head, partial(_value_cell, of_row, metric)) for metric, head in SHOWN.items()
    ]
    columns.append(Column(GROUP, "source", partial(_source_cell, of_row), numeric=False))
    rows = plain_rows(table.rows)
    return [c for c in columns if any(c.cell(row).text != NONE for row in rows)]


def _preference(figures: Sequence[Published]) -> tuple[int, int]:
    return max(TAGS.index(figure.tag) for figure in figures), -len(figures)


def _value_cell(of_row: OfRow, metric: str, row: Row) -> Cell:
    for figure in of_row(row):
        if figure.metric == metric:
            bound = {"": "", "at most": "≤ ", "at least": "≥ "}[figure.bound]
            spread = "" if figure.spread is None else f"± {figure.spread:g}"
            return Cell(f"{bound}{figure.value:g}", figure.value / 100, spread)
    return Cell(NONE)


def _source_cell(of_row: OfRow, row: Row) -> Cell:
    figures = of_row(row)
    if not figures:
        return Cell(NONE)
    tags = ", ".join(tag for tag in TAGS if any(figure.tag == tag for figure in figures))
    return Cell(f"{figures[0].short} ({tags})")


def _figures(source: _Source, line: _Line) -> list[Published]:
    """The figures of a line, each with all that it is of."""
    found = []
    for name, said in line.figures.items():
        value, spread, bound = _read(said)
        notes = [source.note, line.note]
        metric = name
        if name == UNLEARNING_ACCURACY:
            metric, value = "forget_acc", round(100 - value, 6)
            notes.append(_FROM_UA)
        unit, split = METRICS.get(metric, ("", ""))
        found.append(
            Published(
                dataset=source.dataset,
                model=source.model,
                scenario=line.scenario or source.scenario,
                method=line.method,
                metric=metric,
                split=split,
                value=value,
                spread=spread,
                bound=bound,
                unit=unit,
                source=source.source,
                short=source.short,
                tag=line.tag or source.tag,
                note="; ".join(note for note in notes if note),
            )
        )
    return found


def _read(said: Any) -> tuple[float, float | None, str]:  # noqa: ANN401
    """A value, its spread and its bound."""
    if isinstance(said, list):
        value, spread = said
        return float(value), float(spread), ""
    if isinstance(said, str):
        sign, value = said.split()
        return float(value), None, {"<=": "at most", ">=": "at least"}[sign]
    return float(said), None, ""


@cache
def _content() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("published.toml").read_text("utf-8")
    return tomllib.loads(text)


def _kinds(scenario: str, dataset: str) -> set[str]:
    """How figures of this forget set may be written; classes can be given by name.

    None for a forget set that is not written as the scenario asks: nothing is published on it.
    """
    try:
        name, params = parse_spec(scenario, "scenario")
    except InputError:
        return set()
    if name == "random":
        sizes = [params[key] for key in ("count", "fraction") if key in params]
        return {_written(scenario)} if all(type(size) in (int, float) for size in sizes) else set()
    if name != "class":
        return {_written(scenario)}
    numbers = _content()["class_numbers"].get(dataset, {})
    classes = params.get("classes", [] if params else [0])
    classes = classes if isinstance(classes, list) else [classes]
    if not classes or any(type(c) not in (int, str) for c in classes):
        return set()
    listed = ",".join(sorted(str(numbers.get(c, c)) for c in classes))
    return {f"class {listed}", *(["class"] if len(classes) == 1 else [])}


@cache
def _written(scenario: str) -> str:
    """A forget set in one way of writing; which examples are drawn does not matter to a paper."""
    name, params = parse_spec(scenario, "scenario")
    if name == "class":
        return f"class {','.join(map(str, params['classes']))}" if "classes" in params else name
    if name == "random":
        size = params.get("count") or params.get("fraction", 0.1)
        return f"random {size}"
    return scenario
