"""Scenarios: how a forget set is drawn; and the forget request that results."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from .dataset import ImageData
from .errors import DataError, InputError, UnknownNameError
from .keys import content_key, derive_seed
from .plugin import Plugin
from .spec_string import parse_spec
from .unlearner import Scope

REQUEST_SCHEMA = "unlearnbench.forget-request/1"

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """The official training images, parted once for all scenarios and seeds.

    Attributes:
        training: Sorted ids of the training set.
        validation: Sorted ids held out of it, for choosing hyper-parameters.
    """

    training: Ids
    validation: Ids


def split_validation(data: ImageData, fraction: float) -> Split:
    """Hold out a share of every class for validation; the draw depends on the data alone.

    Args:
        data: The images.
        fraction: Share of each class in [0, 1), rounded to whole examples.
    """
    rng = np.random.default_rng(derive_seed("validation", data.digest))
    held_out = [
        rng.permutation(ids)[: round(fraction * len(ids))]
        for ids in (np.flatnonzero(data.train_labels == c) for c in range(data.num_classes))
    ]
    validation = np.sort(np.concatenate(held_out)).astype(np.int64)
    everything = np.arange(len(data.train_labels), dtype=np.int64)
    return Split(np.setdiff1d(everything, validation), validation)


@dataclass(frozen=True, eq=False)
class ForgetRequest:
    """A forget set, named by its content.

    Attributes:
        data_digest: Content hash of the images that the ids refer to.
        forget: Sorted ids of the forget set, `(F,)` int64.
        retain: Sorted ids of the retain set, the rest of the training set.
        classes: The classes that the forget set is, if it is exactly whole classes of the
            training set; else empty.
    """

    data_digest: str
    forget: Ids
    retain: Ids
    classes: tuple[int, ...]

    @property
    def kind(self) -> Scope:
        """`class` for whole classes, `sample` for any other forget set."""
        return "class" if self.classes else "sample"

    @cached_property
    def hash(self) -> str:
        """Content hash of data and forget set; equal sets have equal names."""
        return content_key("forget-request", data=self.data_digest, ids=self.forget.tolist())[:16]

    def to_json(self, dataset: str, scenario: str) -> str:
        """Write the request as a file that `ids[file=…]` reads."""
        content = {
            "schema": REQUEST_SCHEMA,
            "hash": self.hash,
            "dataset": dataset,
            "scenario": scenario,
            "data_digest": self.data_digest,
            "ids": self.forget.tolist(),
        }
        return json.dumps(content) + "\n"


def make_request(data: ImageData, split: Split, ids: Ids, scenario: str) -> ForgetRequest:
    """Check a forget set and find out whether it is whole classes.

    Raises:
        InputError: If the forget or the retain set is empty, or an id is not in the training set.
    """
    forget = np.unique(np.asarray(ids, dtype=np.int64))
    strangers = np.setdiff1d(forget, split.training)
    if len(strangers):
        raise InputError(
            f"scenario `{scenario}`: {len(strangers)} ids are not in the training set "
            f"({len(split.training)} examples after validation is held out), "
            f"e.g. {strangers[:3].tolist()}."
        )
    retain = np.setdiff1d(split.training, forget)
    for role, members in (("forget", forget), ("retain", retain)):
        if not len(members):
            raise InputError(
                f"scenario `{scenario}` leaves the {role} set empty; "
                f"the training set has {len(split.training)} examples."
            )
    touched = np.unique(data.train_labels[forget])
    whole = not np.isin(data.train_labels[retain], touched).any()
    return ForgetRequest(
        data.digest, forget, retain, tuple(int(c) for c in touched) if whole else ()
    )


class Scenario(Plugin, ABC):
    """How a forget set is drawn; its fields are its parameters."""

    kind: ClassVar[str] = "scenario"

    @abstractmethod
    def draw(self, data: ImageData, split: Split) -> Ids:
        """Return the ids of the forget set.

        Raises:
            InputError: If the parameters do not fit the data.
        """

    def request(self, data: ImageData, split: Split) -> ForgetRequest:
        """Draw the forget set and check it."""
        return make_request(data, split, self.draw(data, split), self.spec)


def _as_tuple(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else (value,)


class ClassScenario(Scenario):
    """All training images of one or several classes."""

    name: ClassVar[str] = "class"
    classes: Annotated[tuple[int | str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (
        0,
    )

    def draw(self, data: ImageData, split: Split) -> Ids:
        """Return the training ids of the classes, which are given by number or by name."""
        numbers = {self._number(data, c) for c in self.classes}
        return split.training[np.isin(data.train_labels[split.training], sorted(numbers))]

    def _number(self, data: ImageData, which: int | str) -> int:
        if isinstance(which, int) and 0 <= which < data.num_classes:
            return which
        if isinstance(which, str) and which in data.class_names:
            return data.class_names.index(which)
        if isinstance(which, int):
            raise InputError(
                f"scenario `{self.spec}`: class {which} does not exist; "
                f"allowed: 0 to {data.num_classes - 1}."
            )
        unknown = UnknownNameError("class", which, data.class_names)
        raise InputError(f"scenario `{self.spec}`: {unknown}")


class RandomScenario(Scenario):
    """A random share (or number) of the training images, stratified by nothing."""

    name: ClassVar[str] = "random"
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    draw_seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_size(self) -> RandomScenario:
        if self.fraction is not None and self.count is not None:
            raise ValueError("give `fraction` or `count`, not both")
        return self

    def draw(self, data: ImageData, split: Split) -> Ids:
        """Return a draw without replacement, of 10 % where no size is given.

        The draw depends on data and `draw_seed` alone, so that all seeds of a sweep forget the
        same examples and their retrained models can be compared with each other. A larger size
        draws further examples beside the same ones.
        """
        size = self.count
        if size is None:
            size = round((self.fraction or 0.1) * len(split.training))
        if size > len(split.training):
            raise InputError(
                f"scenario `{self.spec}`: `count` must be below the size of the training set, "
                f"{len(split.training)}; got {size}."
            )
        rng = np.random.default_rng(derive_seed("random-scenario", data.digest, self.draw_seed))
        return rng.permutation(split.training)[:size]


class IdsScenario(Scenario):
    """Exactly the examples that a file lists: an exported request, or one id a line."""

    name: ClassVar[str] = "ids"
    file: Path

    def draw(self, data: ImageData, split: Split) -> Ids:
        """Return the ids in the file."""
        if not self.file.is_file():
            raise DataError(f"scenario `{self.spec}`: the file `{self.file}` does not exist.")
        try:
            text = self.file.read_text(encoding="utf-8")
            if text.lstrip().startswith("{"):
                ids = self._from_request(json.loads(text), data)
            else:
                ids = [int(line) for line in text.split()]
            return np.asarray(ids, dtype=np.int64)
        except InputError:
            raise
        except OSError as error:
            raise DataError(
                f"scenario `{self.spec}`: `{self.file}` cannot be read: {error.strerror}."
            ) from None
        except (ValueError, TypeError, KeyError, OverflowError):
            raise InputError(
                f"scenario `{self.spec}`: `{self.file}` is neither an exported forget request "
                f"nor a list of whole numbers, one a line."
            ) from None

    def _from_request(self, content: dict[str, Any], data: ImageData) -> list[int]:
        if content["data_digest"] != data.digest:
            raise InputError(
                f"scenario `{self.spec}`: `{self.file}` was exported from other data "
                f"(`{content.get('dataset')}`); its ids mean nothing here."
            )
        ids = list(content["ids"])
        if not all(type(i) is int for i in ids):
            raise TypeError("ids are whole numbers")
        return ids


SCENARIOS: dict[str, type[Scenario]] = {
    cls.name: cls for cls in (ClassScenario, RandomScenario, IdsScenario)
}


def create_scenario(text: str | Mapping[str, Any]) -> Scenario:
    """Build a scenario from `name[key=value,…]` or a table with a `name`.

    Raises:
        InputError: If the name, a parameter or the notation is wrong.
    """
    spec = parse_spec(text, "scenario")
    if spec.name not in SCENARIOS:
        raise UnknownNameError("scenario", spec.name, SCENARIOS)
    return SCENARIOS[spec.name].create(spec.params)
