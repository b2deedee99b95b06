"""Recipes: what a recipe is called, what determines it, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from unlearnbench.bench import METHODS, InputError, UnknownNameError
from unlearnbench.bench.recipe import Recipe, TrainingSettings, create_recipe, recipe_of

SETTINGS = TrainingSettings(epochs=3)


def test_methods_without_a_penalty_ask_for_the_plain_recipe():
    for name in METHODS.names():
        if name != "osp":
            assert recipe_of(METHODS.create(name), SETTINGS) == Recipe("plain", SETTINGS)


def test_plain_is_described_by_its_settings_alone():
    described = create_recipe("plain", SETTINGS).describe()
    assert described == SETTINGS.model_dump(mode="json")
    assert described["epochs"] == 3


def test_the_orthogonal_recipe_is_described_with_penalty_and_version():
    described = create_recipe("orthogonal", SETTINGS).describe()
    assert described.pop("penalty") == {
        "method": "osp",
        "version": METHODS.get("osp").penalty_version,
        "ortho_lambda": 1e-3,
        "ortho_form": "so",
    }
    assert described == SETTINGS.model_dump(mode="json")


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("osp", "orthogonal"),
        ("osp[rho=0.4,samples_per_class=8,target=weight,q_min=0.3]", "orthogonal"),
        ("osp[ortho_lambda=0.001]", "orthogonal"),
        ("osp[ortho_lambda=0.01]", "orthogonal[ortho_lambda=0.01]"),
        (
            "osp[ortho_form=cosine,ortho_lambda=0.01]",
            "orthogonal[ortho_form=cosine,ortho_lambda=0.01]",
        ),
    ],
)
def test_only_the_fields_of_the_penalty_make_the_recipe(method, name):
    recipe = recipe_of(METHODS.create(method), SETTINGS)
    assert recipe.name == name
    # read back, it is the same: same name, same description, same penalty
    assert create_recipe(name, SETTINGS) == recipe
    assert create_recipe(name, SETTINGS).describe() == recipe.describe()


def test_what_is_not_of_the_penalty_leaves_the_description_alone():
    plain, changed, stronger = (
        recipe_of(METHODS.create(spec), SETTINGS).describe()
        for spec in ("osp", "osp[rho=0.4]", "osp[ortho_lambda=0.01]")
    )
    assert plain == changed != stronger


def test_a_raised_version_changes_the_description(monkeypatch):
    before = create_recipe("orthogonal", SETTINGS).describe()
    monkeypatch.setattr(METHODS.get("osp"), "penalty_version", 99)
    after = create_recipe("orthogonal", SETTINGS).describe()
    assert after["penalty"].pop("version") == 99
    assert before["penalty"].pop("version") != 99
    assert before == after


def test_settings_are_part_of_the_description():
    other = SETTINGS.model_copy(update={"lr": 0.2})
    assert create_recipe("plain", other).describe() != create_recipe("plain", SETTINGS).describe()


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match="unknown recipe `ortogonal`; did you mean `ortho"
    ) as e:
        create_recipe("ortogonal", SETTINGS)
    assert "Known: orthogonal, plain." in str(e.value)


def test_a_parameter_that_is_not_of_the_penalty_is_refused():
    with pytest.raises(UnknownNameError, match="parameter of recipe `orthogonal`: `rho`"):
        create_recipe("orthogonal[rho=0.1]", SETTINGS)


def test_a_parameter_out_of_range_is_refused():
    with pytest.raises(InputError, match="`ortho_lambda` should be greater than or equal to 0"):
        create_recipe("orthogonal[ortho_lambda=-1]", SETTINGS)


def test_plain_has_no_parameters():
    with pytest.raises(InputError, match=r"recipe `plain` has no parameters; got `plain\[lr=1\]`"):
        create_recipe("plain[lr=1]", SETTINGS)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": -1}, {"batch_size": 0}, {"lr": 0}, {"lr": float("nan")}, {"momentum": 1},
     {"warmup_frac": 1}, {"label_smoothing": 1}, {"clip_norm": 0}, {"precision": "fp16"},
     {"schedule": "step"}, {"optimizer": "adam"}, {"epoch": 3}],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingSettings(**wrong)
