"""Recipes: what a recipe is called, what determines it, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from unlearnbench.bench import METHODS, InputError, UnknownNameError
from unlearnbench.bench.recipe import Recipe, TrainingSettings, create_recipe, recipe_of

SETTINGS = TrainingSettings(epochs=3)


def test_methods_without_a_penalty_ask_for_the_plain_recipe():
    for name in METHODS.names():
        if METHODS.get(name).recipe is None:
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
        "ortho_layers": "default",
        "ortho_schedule": "constant",
        "ortho_weight_decay": "keep",
        "finetune_epochs": None,
        "finetune_lr": 0.01,
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


# --- variants and fine-tuning ---------------------------------------------------------------------


def test_variants_share_the_recipe_of_the_method_that_they_vary():
    own = recipe_of(METHODS.create("osp"), SETTINGS)
    for name in ("osp-weight", "random-channels", "l2-channels"):
        assert recipe_of(METHODS.create(name), SETTINGS) == own
    strong = recipe_of(METHODS.create("random-channels[ortho_lambda=0.01]"), SETTINGS)
    assert strong == create_recipe("orthogonal[ortho_lambda=0.01]", SETTINGS)


RIVAL = """
from unlearnbench.bench import METHODS, Unlearner

class Rival(METHODS.get("osp")):
    '''Not declared as a variant.'''
    name = "rival"
"""


def test_two_methods_that_make_a_recipe_of_one_name_are_told_apart_or_refused(plugin):
    from unlearnbench.bench.registry import load_plugin_files

    load_plugin_files([plugin(RIVAL)])
    with pytest.raises(InputError, match=r"made by two methods, `osp` and `rival`; .*variant_of"):
        create_recipe("orthogonal", SETTINGS)
    assert create_recipe("plain", SETTINGS).name == "plain"


def test_a_variant_has_no_recipe_or_preparation_of_its_own(plugin):
    from unlearnbench.bench.registry import load_plugin_files

    source = RIVAL.replace('name = "rival"', 'name = "rival"\n    variant_of = "osp"\n'
                           '    def prepare(self, model, task): return None')  # fmt: skip
    with pytest.raises(InputError, match="`rival` is a variant of `osp`, whose `prepare` it uses"):
        load_plugin_files([plugin(source)])


def test_fine_tuning_is_part_of_the_recipe_and_of_its_name():
    recipe = create_recipe("orthogonal[finetune_epochs=2]", SETTINGS)
    assert recipe.name == "orthogonal[finetune_epochs=2]"
    assert recipe.fine_tuning == (2, 0.01)
    assert recipe.plain == create_recipe("plain", SETTINGS)
    assert create_recipe("orthogonal", SETTINGS).fine_tuning is None
