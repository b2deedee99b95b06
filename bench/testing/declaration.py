"""Checks of what a plug-in declares; nothing runs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import InputError, describe
from ..ranges import Range
from ..search_space import Dimension, declared
from ..spec_string import parse_spec
from .check import CheckFailure, NotApplicable, check

if TYPE_CHECKING:
    from .dataset_subject import DatasetSubject
    from .subject import Subject

KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@check("declaration", "method", "dataset")
def kebab_name(subject: Subject | DatasetSubject) -> None:
    """The name is lower-case words with hyphens between them."""
    name = subject.plugin.name
    if not KEBAB.fullmatch(name):
        raise CheckFailure(f"rename `{name}`: lower-case letters, digits and single hyphens")


@check("declaration", "method", "dataset")
def reference_given(subject: Subject | DatasetSubject) -> None:
    """`reference` says where it comes from, and the docstring begins with one line on it."""
    if not subject.plugin.reference.strip():
        raise CheckFailure("say in `reference` where it comes from: authors, venue, year")
    cls = type(subject.plugin)
    if not (vars(cls).get("__doc__") or "").strip():
        raise CheckFailure(f"give the class `{cls.__name__}` a docstring, for `unlearnbench ls`")


@check("declaration", "method", "dataset")
def parameters_described(subject: Subject | DatasetSubject) -> None:
    """Every parameter is described in the docstring of the class."""
    cls = type(subject.plugin)
    docs = "\n".join(vars(c).get("__doc__") or "" for c in cls.__mro__)
    absent = [f for f in cls.model_fields if not re.search(rf"^\s*{f}: \S", docs, re.MULTILINE)]
    if absent:
        raise CheckFailure(
            f"describe {_listed(absent)} under `Attributes:` in the docstring, a line each"
        )


@check("declaration", "method", "dataset")
def valid_defaults(subject: Subject | DatasetSubject) -> None:
    """The defaults pass the checks that the parameters declare."""
    cls = type(subject.plugin)
    try:
        cls.create(cls.create({}).model_dump())
    except InputError as error:
        raise CheckFailure(f"give a default that is allowed: {describe(error)}") from None


@check("declaration")
def possible_ranges(subject: Subject) -> None:
    """Every end of a search range and every choice is a value that the method allows."""
    cls = type(subject.method)
    for dimension in _dimensions(subject):
        values = dimension.values
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            try:
                cls.create(_where_it_matters(dimension) | {dimension.name: value})
            except InputError as error:
                raise CheckFailure(
                    f"narrow the search of `{dimension.name}`, which allows {value!r}: "
                    f"{describe(error)}"
                ) from None


@check("declaration")
def defaults_in_ranges(subject: Subject) -> None:
    """Defaults lie in their search ranges, for the first trial of a search starts from them."""
    defaults = type(subject.method).create({})
    for dimension in _dimensions(subject):
        value = getattr(defaults, dimension.name)
        if isinstance(dimension.values, Range) and value is not None:
            low, high = dimension.values.low, dimension.values.high
            if not low <= value <= high:
                raise CheckFailure(
                    f"widen the range of `{dimension.name}`, {low:g} to {high:g}, or change its "
                    f"default, {value:g}"
                )


@check("declaration", "method", "dataset")
def json_round_trip(subject: Subject | DatasetSubject) -> None:
    """Its parameters come back the same from JSON, and from its own name in brackets."""
    plugin = subject.plugin
    again = type(plugin).create(json.loads(json.dumps(plugin.params, allow_nan=False)))
    if again != plugin:
        raise CheckFailure(f"use types that JSON keeps: {plugin.params} comes back changed")
    if type(plugin).create(parse_spec(plugin.spec).params) != plugin:
        raise CheckFailure(f"use types that can be written in brackets: `{plugin.spec}`")


@check("declaration", "method", "dataset")
def frozen_parameters(subject: Subject | DatasetSubject) -> None:
    """Parameters cannot be changed once it is made."""
    plugin = subject.plugin
    for field in type(plugin).model_fields:
        try:
            setattr(plugin.model_copy(), field, getattr(plugin, field))
        except ValidationError:
            return
        raise CheckFailure("take `frozen=False` out of `model_config`: records rely on it")
    raise NotApplicable("has no parameters")


def _dimensions(subject: Subject) -> list[Dimension]:
    found = declared(type(subject.method))
    if not found:
        raise NotApplicable("declares nothing to search")
    return found


def _where_it_matters(dimension: Dimension) -> dict[str, Any]:
    """Values of other parameters with which a parameter is searched."""
    return {
        name: values[0] for condition in dimension.when for name, values in condition.fields.items()
    }


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
