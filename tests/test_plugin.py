"""Declared parameters: how they are written, read back and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from unlearnbench.bench import InputError, Range
from unlearnbench.bench.plugin import Plugin
from unlearnbench.bench.spec_string import parse_spec


class Gadget(Plugin):
    """Do one thing. And
    another.

    At length.
    """

    name: ClassVar[str] = "gadget"
    kind: ClassVar[str] = "method"

    lr: Annotated[float, Field(gt=0, le=1), Range(1e-4, 1e-1, log=True)] = 0.01
    epochs: Annotated[int, Field(ge=1)] = 5
    form: Literal["so", "cosine"] = "so"
    classes: tuple[int | str, ...] = (0,)
    limit: float | None = None
    label: str = "plain"
    swift: bool = False

    @model_validator(mode="after")
    def _agree(self):
        if self.swift and self.epochs > 10:
            raise ValueError("a `swift` gadget has at most 10 `epochs`")
        return self


class Needy(Plugin):
    """Needs a file."""

    name: ClassVar[str] = "needy"
    kind: ClassVar[str] = "scenario"
    file: Path


# --- specs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "spec"),
    [
        ({}, "gadget"),
        ({"lr": 0.01, "epochs": 5, "classes": [0]}, "gadget"),
        ({"lr": 0.001}, "gadget[lr=0.001]"),
        ({"swift": True, "epochs": 2}, "gadget[epochs=2,swift=true]"),
        ({"classes": [1, "two"]}, "gadget[classes=[1,two]]"),
        ({"limit": 3, "label": "a b"}, 'gadget[label="a b",limit=3.0]'),
    ],
)
def test_a_spec_shows_what_differs_from_the_defaults_and_nothing_else(params, spec):
    assert Gadget.create(params).spec == spec


gadgets = st.builds(
    Gadget,
    lr=st.floats(min_value=1e-9, max_value=1),
    epochs=st.integers(1, 10),
    form=st.sampled_from(["so", "cosine"]),
    classes=st.lists(st.integers() | st.text(max_size=5), max_size=3).map(tuple),
    limit=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    label=st.text(max_size=8),
    swift=st.booleans(),
)


@given(gadgets)
def test_a_plug_in_is_read_back_from_its_spec_and_from_its_parameters(gadget):
    name, params = parse_spec(gadget.spec)
    assert name == "gadget"
    assert Gadget.create(params) == gadget
    assert Gadget.create(gadget.params) == gadget


def test_parameters_are_plain_json_values_with_defaults():
    assert Gadget.create({"epochs": 7}).params == {
        "lr": 0.01, "epochs": 7, "form": "so", "classes": [0], "limit": None, "label": "plain",
        "swift": False,
    }  # fmt: skip
    assert Needy.create({"file": "a/b"}).params == {"file": "a/b"}
    assert Needy.create({"file": "a/b"}).spec == 'needy[file="a/b"]'


def test_a_plug_in_cannot_be_changed():
    gadget = Gadget()
    with pytest.raises(ValidationError, match="frozen"):
        gadget.lr = 0.5
    with pytest.raises(ValidationError, match="frozen"):
        del gadget.lr
    assert gadget == Gadget()
    assert hash(gadget) == hash(Gadget())


def test_the_summary_is_the_first_line():
    assert Gadget.summary() == "Do one thing. And"
    assert Needy.summary() == "Needs a file"


# --- sentences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"epoch": 3}, "method `gadget`: unknown key `epoch`; did you mean `epochs`? Known: "
                       "classes, epochs, form, label, limit, lr, swift."),
        ({"zzz": 3}, "method `gadget`: unknown key `zzz`. Known: "
                     "classes, epochs, form, label, limit, lr, swift."),
        ({"lr": 2}, "method `gadget`: `lr` should be less than or equal to 1; got 2."),
        ({"lr": 0}, "method `gadget`: `lr` should be greater than 0; got 0."),
        ({"epochs": 0}, "method `gadget`: `epochs` should be greater than or equal to 1; got 0."),
        ({"form": "sin"}, "method `gadget`: `form` should be 'so' or 'cosine'; got 'sin'."),
        ({"lr": float("nan")}, "method `gadget`: `lr` should be a finite number; got nan."),
        ({"swift": True, "epochs": 20},
         "method `gadget`: a `swift` gadget has at most 10 `epochs`."),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_wrong_parameter_is_one_sentence(params, sentence):
    with pytest.raises(InputError) as caught:
        Gadget.create(params)
    assert caught.value.sentences == (sentence,)


@pytest.mark.parametrize(
    "params",
    [{"lr": "fast"}, {"epochs": 1.5}, {"epochs": "many"}, {"swift": "yes please"}, {"label": 3},
     {"limit": [1]}, {"classes": [{}]}, {"classes": [1.5]}, {"classes": None}],
    ids=str,
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_one_sentence_that_shows_it(params):
    ((field, value),) = params.items()
    with pytest.raises(InputError) as caught:
        Gadget.create(params)
    (sentence,) = caught.value.sentences
    shown = value[0] if field == "classes" and value else value
    assert sentence.startswith(f"method `gadget`: `{field}")
    assert sentence.endswith(f"; got {shown!r}.")


def test_what_is_missing_is_named():
    with pytest.raises(InputError) as caught:
        Needy.create({})
    assert caught.value.sentences == ("scenario `needy`: `file` is missing.",)


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(InputError) as caught:
        Gadget.create({"lr": 2, "epochs": 0, "epoch": 1})
    assert len(caught.value.sentences) == 3
    assert str(caught.value).count("\n") == 2


def test_the_code_digest_is_that_of_the_file_and_changes_with_it(tmp_path):
    import hashlib

    assert Gadget.code_digest() == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert type("Dynamic", (Plugin,), {"__module__": "nowhere"}).code_digest() == "no-source"


# --- ranges ---------------------------------------------------------------------------------------


def test_a_range_has_two_ends_in_order():
    assert (Range(1, 2).low, Range(1, 2).high, Range(1, 2).log) == (1, 2, False)
    with pytest.raises(ValueError, match="`low` must be below `high`; got 2 and 2"):
        Range(2, 2)
    with pytest.raises(ValueError, match="`low` must be positive when `log` is set; got 0"):
        Range(0, 1, log=True)


def test_a_range_is_where_a_search_looks_and_no_check():
    assert Gadget.create({"lr": 1.0}).lr == 1.0
