"""Search spaces: what methods declare, what a person narrows, and what a trial makes of it."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

import optuna
import pytest
from pydantic import Field

from unlearnbench.bench import METHODS, InputError, PluginError, Range, Unlearner, Unsearched, When
from unlearnbench.bench.search_space import SearchSpace, declared

NAMES = METHODS.names()


class Toy(Unlearner):
    """A method with every sort of field."""

    name: ClassVar[str] = "toy"
    reference: ClassVar[str] = "test"
    penalty_fields: ClassVar = frozenset({"held"})

    held: Annotated[float, Range(0, 1)] = 0.5
    lr: Annotated[float, Field(gt=0), Range(1e-4, 1e-1, log=True)] = 0.01
    epochs: Annotated[int, Field(ge=1), Range(1, 10)] = 5
    alpha: Annotated[float, Field(gt=0), Range(1, 100)] | None = None
    way: Literal["a", "b", "c"] = "a"
    flag: bool = False
    meant: Annotated[bool, Unsearched()] = False
    only_a: Annotated[float, Range(0, 1), When(way="a")] = 0.5
    not_a: Annotated[float, Range(0, 1), When(way=("b", "c"), flag=True)] = 0.5
    width: int = 3
    word: str = "x"

    def unlearn(self, model, task):
        return model


def by_name(method=Toy):
    return {dimension.name: dimension for dimension in declared(method)}


def trials(space, count=40, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(count):
        trial = study.ask()
        yield space.suggest(trial), trial.params


def test_ranges_choices_and_truth_values_are_searched_and_nothing_else():
    found = by_name()
    assert list(found) == ["lr", "epochs", "alpha", "way", "flag", "only_a", "not_a"]
    assert found["lr"].values == Range(1e-4, 1e-1, log=True)
    assert (found["epochs"].integer, found["alpha"].integer) == (True, False)
    assert found["way"].values == ("a", "b", "c")
    assert found["flag"].values == (False, True)


def test_a_field_with_a_condition_is_searched_where_it_matters():
    seen = set()
    for method, params in trials(SearchSpace(Toy)):
        seen.add((method.way, method.flag))
        assert ("only_a" in params) == (method.way == "a")
        assert ("not_a" in params) == (method.way != "a" and method.flag)
        if "not_a" not in params:
            assert method.not_a == 0.5
    assert len(seen) == 6


@pytest.mark.parametrize("name", NAMES)
def test_every_trial_of_every_method_is_valid_and_round_trips(name):
    cls = METHODS.get(name)
    space = SearchSpace(cls)
    assert not {d.name for d in space.dimensions} & cls.penalty_fields
    json.dumps(space.describe(), allow_nan=False)
    for method, params in trials(space, 15):
        again = space.method_with(json.loads(json.dumps(params)))
        assert again == method
        assert METHODS.create(method.spec) == method
        assert params.items() <= method.params.items()


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_of_every_method_are_a_trial_where_they_are_in_range(name):
    space = SearchSpace(METHODS.get(name))
    defaults = space.defaults()
    if defaults:
        assert space.method_with(defaults) == METHODS.get(name).create({})
        study = optuna.create_study()
        study.enqueue_trial(defaults)
        assert space.suggest(study.ask()) == METHODS.get(name).create({})
    else:
        # None is the own search of the one, and the recipe of the other
        assert not space.dimensions or name in ("svd", "eu-k")


def test_what_is_set_is_not_searched():
    space = SearchSpace(Toy, {"lr": 0.5, "way": "b"})
    assert "lr" not in {d.name for d in space.dimensions}
    for method, params in trials(space, 5):
        assert (method.lr, method.way) == (0.5, "b")
        assert "only_a" not in params
    assert space.describe()[-1] == {"fixed": {"lr": 0.5, "way": "b"}}


def test_what_is_narrowed_is_searched_there():
    space = SearchSpace(Toy, {}, {"lr": [0.2, 0.3], "way": ["c", "b"], "width": [2, 4]})
    drawn = [method for method, _ in trials(space)]
    assert {method.way for method in drawn} == {"b", "c"}
    assert all(0.2 <= method.lr <= 0.3 for method in drawn)
    assert {method.width for method in drawn} == {2, 3, 4}


@pytest.mark.parametrize(
    ("narrowed", "sentence"),
    [
        ({"lrr": [1, 2]}, "unknown hyper-parameter of `toy` `lrr`; did you mean `lr`?"),
        ({"lr": [2, 1]}, "search of `lr` needs two numbers, `[low, high]` with low below high"),
        ({"lr": [1, 1]}, "with low below high; got [1, 1]"),
        ({"lr": [1]}, "needs two numbers"),
        ({"lr": "fast"}, "needs two numbers"),
        ({"lr": [-1, 1]}, "`lr` should be greater than 0; got -1"),
        ({"epochs": [1.5, 3]}, "needs two whole numbers"),
        ({"epochs": [0, 3]}, "`epochs` should be greater than or equal to 1; got 0"),
        ({"way": ["a", "d"]}, "`way` should be 'a', 'b' or 'c'; got 'd'"),
        ({"way": []}, "needs a list of choices; got []"),
        ({"word": ["x", "y"]}, "is neither a number nor a choice"),
        ({"held": [0, 1]}, "for it belongs to the recipe"),
        ({"flag": [True], "lr": [2, 1]}, "low below high"),
    ],
)
def test_a_search_that_is_not_possible_is_named_in_a_sentence(narrowed, sentence):
    with pytest.raises(InputError) as caught:
        SearchSpace(Toy, {}, narrowed)
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_that_is_wrong_is_told_together():
    with pytest.raises(InputError) as caught:
        SearchSpace(Toy, {"way": "a"}, {"way": ["a", "b"], "lr": [2, 1], "foo": [1, 2]})
    assert len(caught.value.sentences) == 3
    assert "`way` is both set and searched" in str(caught.value)


def test_a_condition_on_a_later_field_and_a_range_of_words_are_refused():
    class Late(Toy):
        name: ClassVar[str] = "late"
        first: Annotated[float, Range(0, 1), When(last="a")] = 0.5
        last: Literal["a", "b"] = "a"

    class Word(Toy):
        name: ClassVar[str] = "word"
        text: Annotated[str, Range(0, 1)] = "a"

    with pytest.raises(PluginError, match="condition of `first` names `last`"):
        declared(Late)
    with pytest.raises(PluginError, match="`text` has a range, but is no number"):
        declared(Word)
