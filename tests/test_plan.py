"""What is to be done, under which keys, and how it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unlearnbench.bench import DATASETS, METHODS, DataError, Dataset, InputError
from unlearnbench.bench.plan import LoadedData, load_data, make_plan
from unlearnbench.bench.planview import describe_plan
from unlearnbench.bench.runner import plan_sweep
from unlearnbench.bench.scenario import split_validation
from unlearnbench.bench.store import Store
from unlearnbench.bench.sweep import resolve

from .toys import NARROW, toy_options, toy_plan, toy_spec

MINE = """
from unlearnbench.bench import Unlearner

class Mine(Unlearner):
    '''Do nothing.'''
    name = "mine-to-edit"
    reference = "none"
    recipe = "mine"
    penalty_fields = frozenset({"weight"})
    weight: float = 0.1
    strength: float = 0.5
    def training_penalty(self, model):
        return self.weight * sum(p.square().sum() for p in model.parameters())
    def unlearn(self, model, task):
        return model
"""


def originals(plan):
    return {cell.job.original.key for cell in plan.cells}


def keys(plan, method=None):
    return {cell.key for cell in plan.cells if method in (None, cell.method.name)}


def test_references_come_first_and_every_cell_knows_the_retrained_model_of_its_seed():
    plan = toy_plan(toy_spec(methods=["finetune", "osp"], seeds=2))
    order = [(c.method.name, c.recipe.name, c.seed) for c in plan.cells]
    references = [("identity", 0), ("identity", 1), ("retrain", 0), ("retrain", 1)]
    assert order == [
        *((name, "plain", seed) for name, seed in references),
        *((name, "orthogonal", seed) for name, seed in references),
        *(("finetune", "plain", seed) for seed in (0, 1)),
        *(("osp", "orthogonal", seed) for seed in (0, 1)),
    ]
    by_key = {cell.key: cell for cell in plan.cells}
    for cell in plan.cells:
        retrained = by_key[cell.retrained]
        assert retrained.method.name == "retrain"
        assert (retrained.seed, retrained.recipe) == (cell.seed, cell.recipe)
    assert set(plan.originals) == originals(plan)
    assert len(plan.originals) == 4


def test_a_method_that_is_listed_as_well_as_a_reference_runs_once():
    plan = toy_plan(toy_spec(methods=["retrain", "identity", "identity", "finetune", "finetune"]))
    assert [c.method.name for c in plan.cells] == ["identity", "retrain", "finetune"]


def test_scenarios_methods_and_sweeps_of_any_name_share_originals():
    base = toy_plan(toy_spec())
    other = toy_plan(
        toy_spec(
            name="other",
            scenarios=["random[fraction=0.2]", "class[classes=[1]]"],
            methods=["finetune", "neggrad"],
            save_models=False,
            time_limit_s=5,
        )
    )
    assert originals(other) == originals(base)
    assert not keys(other) & keys(base)


def test_name_time_limit_and_saving_change_no_key():
    base = toy_plan(toy_spec(methods=["finetune"]))
    again = toy_plan(
        toy_spec(methods=["finetune"], name="again", save_models=False, time_limit_s=9)
    )
    assert keys(again) == keys(base)


def test_sweeps_that_draw_the_same_set_in_two_ways_share_their_cells(tmp_path):
    base = toy_plan(toy_spec(scenarios=["class[classes=[2]]"]))
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(map(str, base.cells[0].request.forget)))
    again = toy_plan(toy_spec(scenarios=[{"name": "ids", "file": str(ids)}]))
    assert keys(again) == keys(base)


def test_two_scenarios_of_a_sweep_may_not_draw_the_same_set():
    spec = toy_spec(scenarios=["class[classes=[2]]", "random", "class[classes=[class-2]]"])
    with pytest.raises(InputError, match=r"`class.*2.*` and `class.*class-2.*` draw the same"):
        toy_plan(spec)


def test_what_a_sweep_names_twice_is_run_once():
    twice = toy_spec(datasets=toy_spec().datasets * 2, methods=["identity", "identity"])
    assert keys(toy_plan(twice)) == keys(toy_plan(toy_spec()))
    assert len(toy_plan(twice).cells) == len(toy_plan(toy_spec()).cells)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [1]},
        {"models": [NARROW.replace("8,8", "8,16")]},
        {"models": ["resnet10t"]},
        {"models": [NARROW.removesuffix("]") + ",stem=own]"]},
        {"validation_fraction": 0.2},
        {"training": {"epochs": 3, "batch_size": 32, "lr": 0.05}},
        {"datasets": ["synthetic[classes=4,size=8,channels=1,train_per_class=31]"]},
    ],
    ids=["seed", "width", "architecture", "stem", "validation", "training", "data"],
)
def test_what_changes_an_original_changes_every_key(change):
    base, changed = toy_plan(toy_spec()), toy_plan(toy_spec(**change))
    assert not originals(base) & originals(changed)
    assert not keys(base) & keys(changed)


def test_hyper_parameters_change_the_key_of_their_cells_only():
    base = toy_plan(toy_spec(methods=["finetune", "osp"]))
    changed = toy_plan(toy_spec(methods=["finetune[epochs=7]", "osp[rho=0.1]"]))
    assert originals(changed) == originals(base)
    assert not keys(changed, "finetune") & keys(base, "finetune")
    assert not keys(changed, "osp") & keys(base, "osp")
    assert keys(changed, "retrain") == keys(base, "retrain")
    prepared = [{c.job.prepared_key for c in p.cells if c.method.name == "osp"}
                for p in (base, changed)]  # fmt: skip
    assert prepared[0] == prepared[1]  # rho has no part in what OSP prepares


def test_penalty_parameters_make_another_recipe():
    base = toy_plan(toy_spec(methods=["osp"]))
    changed = toy_plan(toy_spec(methods=["osp[ortho_lambda=0.5]"]))
    assert not originals(base) & originals(changed)
    assert {c.recipe.name for c in changed.cells} == {"orthogonal[ortho_lambda=0.5]"}


def test_the_device_changes_keys_of_cells_but_of_no_original():
    spec = toy_spec(methods=["finetune"])
    sweep = resolve(spec)
    images = sweep.datasets[0].load(Path("unused"))
    data = [LoadedData(sweep.datasets[0], images, split_validation(images, 0.1))]
    cpu, first, second = (make_plan(sweep, data, device) for device in ("cpu", "cuda", "cuda:1"))
    assert originals(cpu) == originals(first)
    assert not keys(cpu) & keys(first)
    assert keys(first) == keys(second)


def test_recipes_can_be_crossed_with_methods():
    plan = toy_plan(toy_spec(methods=["finetune", "osp"], recipes=["plain", "orthogonal"]))
    run = {(c.method.name, c.recipe.name) for c in plan.cells}
    assert run == {
        (method, recipe)
        for method in ("identity", "retrain", "finetune", "osp")
        for recipe in ("plain", "orthogonal")
    }


def test_a_method_that_declines_is_skipped_with_its_reason_and_needs_no_original():
    plan = toy_plan(toy_spec(methods=["finetune", "osp"], scenarios=["random[fraction=0.1]"]))
    skipped = [c for c in plan.cells if c.skip]
    assert [c.method.name for c in skipped] == ["osp"]
    assert skipped[0].skip == ("forgets whole classes only, and this forget set is not one",)
    assert {c.recipe.name for c in plan.cells if not c.skip} == {"plain"}
    assert len(plan.originals) == 1


def test_all_scenarios_that_do_not_fit_are_reported_together():
    spec = toy_spec(
        scenarios=["class[classes=[4]]", "random", "class[classes=[a]]", "random[count=500]"]
    )
    with pytest.raises(InputError) as caught:
        toy_plan(spec)
    assert len(caught.value.sentences) == 3


def test_editing_a_plugin_changes_its_cells_and_no_original(plugin):
    path = plugin(MINE)
    before = toy_plan(toy_spec(methods=["mine-to-edit", "finetune"], plugins=[path]))
    path = plugin(MINE.replace("return model\n", "return model.eval()\n"))
    after = toy_plan(toy_spec(methods=["mine-to-edit", "finetune"], plugins=[path]))
    assert set(after.originals) == set(before.originals)
    assert not keys(after, "mine-to-edit") & keys(before, "mine-to-edit")
    assert keys(after) - keys(after, "mine-to-edit") == keys(before) - keys(before, "mine-to-edit")
    assert {c.recipe.name for c in after.cells} == {"plain", "mine"}


def test_a_penalty_version_makes_new_originals_of_that_recipe_only(plugin):
    path = plugin(MINE)
    before = toy_plan(toy_spec(methods=["mine-to-edit", "finetune"], plugins=[path]))
    path = plugin(MINE.replace('recipe = "mine"', 'recipe = "mine"; penalty_version = 2'))
    after = toy_plan(toy_spec(methods=["mine-to-edit", "finetune"], plugins=[path]))
    assert len(set(after.originals) & set(before.originals)) == 1
    assert len(set(after.originals) | set(before.originals)) == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('depth')", "`unsupported_reasons` raised KeyError: 'depth'"),
        ("return 'no'", "must return a list of sentences; got 'no'"),
        ("return None", "must return a list of sentences; got None"),
    ],
)
def test_a_plugin_that_cannot_say_what_it_supports_is_one_sentence(plugin, body, message):
    source = MINE + f"    def unsupported_reasons(self, task):\n        {body}\n"
    spec = toy_spec(methods=["mine-to-edit"], plugins=[plugin(source)])
    with pytest.raises(InputError, match="method `mine-to-edit`") as caught:
        toy_plan(spec)
    assert message in str(caught.value)
    assert len(caught.value.sentences) == 1


# --- what the plan shows ----------------------------------------------------------------------


def test_the_plan_as_text_counts_what_would_be_done(tmp_path):
    spec = toy_spec(methods=["finetune", "osp"], scenarios=["class", "random"], seeds=2)
    plan = toy_plan(spec)
    text = describe_plan(spec, plan, Store(tmp_path / "none", create=False), 2)
    lines = text.splitlines()
    assert sum(line.endswith("to run") for line in lines) == 18
    assert sum("skipped: forgets whole classes only" in line for line in lines) == 2
    assert lines[-4:] == [
        "Sweep toy: 20 cells; 18 to run, 2 skipped.",
        "Would train 4 originals and 6 retrained models (2 epochs each), and unlearn 12 times.",
        "No U-LIRA attack; `--shadows 64` adds it.",
        "Time: not known, for nothing of the kind is in the store yet.",
    ]
    assert not (tmp_path / "none").exists()


ORIGINAL = {"original_s": 5.4, "model_info": {"parameters": 1000}}
CELL = {"times": {"unlearn_s": 2.7, "prepare_s": 0.0}}


def test_the_plan_as_text_knows_what_is_done(tmp_path):
    spec = toy_spec(methods=["finetune"])
    plan = toy_plan(spec)
    store = Store(tmp_path)
    for cell in plan.cells:
        if cell.method.name != "finetune":
            store.put("cell", cell.key, CELL)
    for key in plan.originals:
        store.put("original", key, ORIGINAL)
    lines = describe_plan(spec, plan, store, 1).splitlines()
    assert lines[-4] == "Sweep toy: 3 cells; 1 to run, 2 done."
    assert lines[-3].startswith("Would train 0 originals and 0 retrained models")
    assert lines[-3].endswith("and unlearn 1 times.")
    assert lines[-1] == "Time: not known, for nothing of the kind is in the store yet."


def test_the_plan_tells_what_the_attack_will_cost_before_it_is_spent(tmp_path):
    spec = toy_spec(
        methods=["finetune", "osp"], scenarios=["class", "random"], ulira={"shadows": 8}
    )
    plan = toy_plan(spec)
    store = Store(tmp_path)
    lines = describe_plan(spec, plan, store, 2).splitlines()
    assert lines[-5].startswith(
        # plain: identity, retrain, finetune in two scenarios; orthogonal: three in one
        "U-LIRA: 9 attacks on 2 banks of 8 shadow models, each trained on half of the training "
        "set. Would train 16 of these 16 and 24 retrained models, and unlearn 48 times."
    )
    assert lines[-4].endswith("plain recipe, 0 of 8 models there")
    assert lines[-3].endswith("orthogonal recipe, 0 of 8 models there")
    # 180 images of one view: 4 bytes a margin and 9 beside, for 16 models and 72 unlearnings
    assert lines[-1] == f"Disk for shadow models: margins {(16 + 72) * 180 * 13 / 2**10:.1f} KiB."


def test_the_plan_estimates_time_from_what_the_store_has_timed(tmp_path):
    spec = toy_spec(methods=["identity"], ulira={"shadows": 8})
    plan = toy_plan(spec)
    store = Store(tmp_path)
    for key in plan.originals:
        store.put("original", key, ORIGINAL)
    for cell in plan.cells:
        store.put("cell", cell.key, CELL)
    lines = describe_plan(spec, plan, store, 2).splitlines()
    # half of the data: eight trainings of 2.7 s, sixteen unlearnings of 1.35 s, two workers
    assert lines[-2] == "Time: about 22 s with 2 workers."
    assert lines[-1].endswith(f"weights {8 * 1000 * 4 / 2**10:.1f} KiB.")


def test_planning_writes_nothing(tmp_path):
    plan_sweep(toy_spec(methods=["finetune"]), toy_options(tmp_path), build_models=True)
    assert list(tmp_path.iterdir()) == []


def test_planning_can_check_the_models():
    spec = toy_spec(models=["resnet18[depth=3]", "vit_tiny_patch16_224[patch_size=5]"])
    options = replace(toy_options(Path("unused")), device="cpu")
    plan_sweep(spec, options)
    with pytest.raises(InputError) as caught:
        plan_sweep(spec, options, build_models=True)
    assert len(caught.value.sentences) == 2
    assert "`resnet18[depth=3]`" in caught.value.sentences[0]


def test_registered_methods_and_datasets_are_as_before_a_plugin():
    assert "mine-to-edit" not in METHODS.names()
    assert "digits" in DATASETS.names()


def test_a_dataset_that_returns_something_else_is_one_sentence(tmp_path):
    class Odd(Dataset):
        name = "odd"
        reference = about = "none"

        def load(self, data_root):
            return [1, 2]

    with pytest.raises(DataError) as caught:
        load_data(Odd(), tmp_path, 0.1)
    assert str(caught.value) == ("dataset `odd` must return `ImageData` from `load`; got list.")
