"""The search space of a method, as its fields declare it.

A field with a `Range` is searched in it, a `Literal` or `bool` over its values; fields of other
types are left at their defaults. So are fields marked `Unsearched`, those of a recipe, whose
originals would have to be trained anew for every trial, and those that a person has set. A field
with a `When` is searched in the trials in which it matters.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from .errors import InputError, PluginError, UnknownNameError
from .ranges import Range, Unsearched, When

if TYPE_CHECKING:
    from optuna.trial import Trial

    from .unlearner import Unlearner


@dataclass(frozen=True)
class Dimension:
    """One hyper-parameter that is searched.

    Attributes:
        name: Name of the field.
        values: What is searched.
        integer: Whether a range is of whole numbers.
        when: Conditions on fields before it.
    """

    name: str
    values: Range | tuple[Any, ...]
    integer: bool = False
    when: tuple[When, ...] = field(default=(), compare=False)

    def ask(self, trial: Trial) -> Any:  # noqa: ANN401
        """Have a trial choose a value."""
        if not isinstance(self.values, Range):
            return trial.suggest_categorical(self.name, self.values)
        low, high, log = self.values.low, self.values.high, self.values.log
        if self.integer:
            return trial.suggest_int(self.name, int(low), int(high), log=log)
        return trial.suggest_float(self.name, low, high, log=log)

    def describe(self) -> dict[str, Any]:
        """As JSON values: a part of the key of a study."""
        if isinstance(self.values, Range):
            kind = "int" if self.integer else "float"
            bounds = {"low": self.values.low, "high": self.values.high, "log": self.values.log}
            told: dict[str, Any] = {"name": self.name, "kind": kind, **bounds}
        else:
            told = {"name": self.name, "kind": "choice", "choices": list(self.values)}
        when = [{k: list(v) for k, v in condition.fields.items()} for condition in self.when]
        return told | ({"when": when} if when else {})


class SearchSpace:
    """What is searched of a method, and what the rest is set to.

    Args:
        method: The method's class.
        fixed: Values of fields that are not searched, as a person wrote them.
        narrowed: Instead of what the method declares: `[low, high]` of a number, or a list of the
            choices, by the name of a field.

    Attributes:
        dimensions: What is searched, in the order of the fields.

    Raises:
        InputError: For every field that is unknown, and every value, range or choice that the
            method does not allow, together.
        PluginError: If a declaration makes no sense.
    """

    def __init__(
        self,
        method: type[Unlearner],
        fixed: Mapping[str, Any] | None = None,
        narrowed: Mapping[str, Any] | None = None,
    ) -> None:
        self._method = method
        self._fixed = dict(fixed or {})
        self._base = method.create(self._fixed)
        narrowed = narrowed or {}
        wrong: list[InputError] = [
            UnknownNameError(f"hyper-parameter of `{method.name}`", name, method.model_fields)
            for name in narrowed
            if name not in method.model_fields
        ]
        wrong += [
            InputError(
                f"method `{method.name}`: `{name}` is both set and searched; drop one of them."
            )
            for name in narrowed
            if name in self._fixed
        ]
        found = []
        for dimension in declared(method):
            if dimension.name not in self._fixed and dimension.name not in narrowed:
                found.append(dimension)
        for name, values in narrowed.items():
            if name not in method.model_fields or name in self._fixed:
                continue
            try:
                found.append(_narrow(method, name, values))
            except InputError as error:
                wrong.append(error)
        if wrong:
            raise InputError(*(sentence for error in wrong for sentence in error.sentences))
        order = list(method.model_fields)
        self.dimensions = tuple(sorted(found, key=lambda dimension: order.index(dimension.name)))

    def suggest(self, trial: Trial) -> Unlearner:
        """Ask a trial for the values of all dimensions that matter in it.

        Raises:
            InputError: If the method does not allow the values together.
        """
        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            params = {**self._base.model_dump(), **values}
            if all(condition.holds(params) for condition in dimension.when):
                values[dimension.name] = dimension.ask(trial)
        return self.method_with(values)

    def method_with(self, values: Mapping[str, Any]) -> Unlearner:
        """The method with values of dimensions.

        Raises:
            InputError: If the method does not allow the values together.
        """
        return self._method.create({**self._fixed, **values})

    def defaults(self) -> dict[str, Any]:
        """The default values of all dimensions that matter at them, as the first trial has them.

        Empty if one of them is outside its range.
        """
        params = self._base.model_dump()
        values = {}
        for dimension in self.dimensions:
            if all(condition.holds(params) for condition in dimension.when):
                value = params[dimension.name]
                if not _holds(dimension, value):
                    return {}
                values[dimension.name] = value
        return values

    def describe(self) -> list[dict[str, Any]]:
        """All dimensions and set values as JSON values."""
        fixed = {name: self._base.params[name] for name in sorted(self._fixed)}
        return [*(dimension.describe() for dimension in self.dimensions), {"fixed": fixed}]


def declared(method: type[Unlearner]) -> list[Dimension]:
    """What a method declares to be searched.

    Raises:
        PluginError: If a range or a condition makes no sense.
    """
    found = []
    for name, info in method.model_fields.items():
        kind, marks = _taken_apart(info.annotation, info.metadata)
        if name in method.penalty_fields or any(isinstance(mark, Unsearched) for mark in marks):
            continue
        when = tuple(mark for mark in marks if isinstance(mark, When))
        before = set(list(method.model_fields)[: list(method.model_fields).index(name)])
        late = {other for condition in when for other in condition.fields} - before
        if late:
            raise PluginError(
                f"method `{method.name}`: the condition of `{name}` names "
                f"{', '.join(f'`{other}`' for other in sorted(late))}, which must be a field "
                "that is declared before it."
            )
        ranges = [mark for mark in marks if isinstance(mark, Range)]
        if ranges:
            if kind not in (int, float):
                raise PluginError(
                    f"method `{method.name}`: `{name}` has a range, but is no number."
                )
            found.append(Dimension(name, ranges[0], kind is int, when))
        elif kind is bool or get_origin(kind) is Literal:
            choices = (False, True) if kind is bool else get_args(kind)
            # TOML has no word for None, and the default stands for it where it is one
            known = tuple(choice for choice in choices if choice is not None)
            found.append(Dimension(name, known, when=when))
    return found


def values_of(method: type[Unlearner], name: str) -> Range | tuple[Any, ...]:
    """Values that a field declares, searched or not: its range or its choices; else none."""
    info = method.model_fields[name]
    kind, marks = _taken_apart(info.annotation, info.metadata)
    ranges = [mark for mark in marks if isinstance(mark, Range)]
    if ranges:
        return ranges[0]
    if kind is bool:
        return (False, True)
    return get_args(kind) if get_origin(kind) is Literal else ()


def _taken_apart(annotation: Any, metadata: Iterable[Any]) -> tuple[Any, list[Any]]:  # noqa: ANN401
    """The type of a field without None, and all that is noted beside it."""
    marks = list(metadata)
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            marks += more
        elif origin in (Union, types.UnionType):
            parts = [part for part in get_args(annotation) if part is not type(None)]
            if len(parts) != 1:
                return annotation, marks
            annotation = parts[0]
        else:
            for mark in list(marks):
                marks += getattr(mark, "metadata", ())  # pydantic wraps what stands beside a Field
            return annotation, marks


def _narrow(method: type[Unlearner], name: str, values: Any) -> Dimension:  # noqa: ANN401
    """A dimension as a person wants it."""
    info = method.model_fields[name]
    kind, marks = _taken_apart(info.annotation, info.metadata)
    owner = f"method `{method.name}`: the search of `{name}`"
    when = tuple(mark for mark in marks if isinstance(mark, When))
    if name in method.penalty_fields:
        raise InputError(
            f"{owner} would train an original for every trial, for it belongs to the recipe; "
            f"set it, `{method.name}[{name}=…]`, or list several methods."
        )
    if kind in (int, float):
        numbers = isinstance(values, Sequence) and not isinstance(values, str)
        numbers = numbers and len(values) == 2 and all(_is_number(v, kind) for v in values)
        if not numbers or not values[0] < values[1]:
            what = "whole numbers" if kind is int else "numbers"
            raise InputError(
                f"{owner} needs two {what}, `[low, high]` with low below high; got {values}."
            )
        low, high = values
        log = any(mark.log for mark in marks if isinstance(mark, Range)) and low > 0
        dimension = Dimension(name, Range(low, high, log=log), kind is int, when)
    elif kind is bool or get_origin(kind) is Literal:
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise InputError(f"{owner} needs a list of choices; got {values!r}.")
        for value in values:
            method.create({name: value})
        return Dimension(name, tuple(dict.fromkeys(values)), when=when)
    else:
        raise InputError(f"{owner} is not possible: it is neither a number nor a choice.")
    for value in values:
        method.create({name: value})
    return dimension


def _is_number(value: object, kind: type) -> bool:
    allowed = (int,) if kind is int else (int, float)
    return isinstance(value, allowed) and not isinstance(value, bool)


def _holds(dimension: Dimension, value: object) -> bool:
    if isinstance(dimension.values, Range):
        number = _is_number(value, float)
        return number and dimension.values.low <= value <= dimension.values.high  # type: ignore[operator]
    return value in dimension.values
