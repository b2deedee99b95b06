"""The sweep file of a row makes the row's cells again: proved by planning, nothing is run."""

from __future__ import annotations

import tomllib
from itertools import groupby
from pathlib import Path

import pytest

from unlearnbench.bench.errors import InputError
from unlearnbench.bench.plan import load_data, make_plan
from unlearnbench.bench.record import Record
from unlearnbench.bench.reproduce import command, reproduce
from unlearnbench.bench.results import assemble
from unlearnbench.bench.sweep import read_sweep, resolve

from .toys import NARROW, toy_plan, toy_spec

REFERENCES = ("identity", "retrain")


def records_of(spec, plan):
    """A record of every cell of a plan, as if none of them had come to an end."""
    failures = {cell.key: "was not run" for cell in plan.cells}
    return assemble(spec, plan, {}, failures, {}, {})


def rows_of(records):
    def row(record):
        return (record.scenario, record.recipe, record.method, str(record.hyperparameters))

    return [list(group) for _, group in groupby(sorted(records, key=row), key=row)]


def planned_again(records, folder, spec=None, plan=toy_plan):
    """The plan of the sweep file, read from disk as a person would."""
    path = folder / "again.toml"
    path.write_text(reproduce(records, spec), encoding="utf-8")
    return plan(read_sweep(path))


def comment_of(text):
    """The comment at the top without its line breaks."""
    head = text.partition("\n\n")[0]
    return " ".join(line.removeprefix("# ").strip() for line in head.splitlines())


def assert_same_cells(records, again):
    keys = {record.key for record in records}
    others = [cell for cell in again.cells if cell.key not in keys]
    assert keys <= {cell.key for cell in again.cells}
    assert {cell.method.name for cell in others} <= set(REFERENCES)


SWEEP = {
    "scenarios": ["class[classes=[0,2]]", "random[count=20,draw_seed=3]"],
    "methods": [
        "finetune[lr=1e-3]",
        "finetune",
        "scrub[forget_batch_size=8,optimizer=adamw]",
        "svd[grid_retain=[10,30.5]]",
        "osp[ortho_lambda=0.003,rho=0.4]",
        "osp[finetune_epochs=1]",
        "osp-vanilla",
        "head-mask",
    ],
    "seeds": [3, 0],
    "validation_fraction": 0.2,
    "training": {"epochs": 2, "batch_size": 32, "clip_norm": 0.7, "optimizer": "adamw"},
    "ulira": {"shadows": 6, "variance": "pooled", "redraws": 30, "seed": 4,
              "stratify": ["random[count=20,draw_seed=3]"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def sweep():
    spec = toy_spec(**SWEEP)
    return spec, toy_plan(spec)


def test_every_row_of_a_sweep_is_planned_again_with_its_attack(sweep, tmp_path):
    spec, plan = sweep
    attacks = {cell.key: cell.attack for cell in plan.cells}
    rows = rows_of(records_of(spec, plan))
    # of the methods, five decline random examples; references of 3 recipes, and of plain
    assert len(rows) == (8 + 3 * 2) + (8 + 2)
    for row in rows:
        again = planned_again(row, tmp_path, spec.model_dump(mode="json"))
        assert_same_cells(row, again)
        assert {cell.key: cell.attack for cell in again.cells}.items() <= attacks.items()


def test_records_alone_give_the_same_cells(sweep, tmp_path):
    spec, plan = sweep
    for row in rows_of(records_of(spec, plan)):
        assert_same_cells(row, planned_again(row, tmp_path))
        assert "since no cell is ok" in comment_of(reproduce(row))


def test_the_quickstart_is_planned_again(tmp_path):
    spec = read_sweep(None)
    data = [load_data(d, Path("unused"), spec.validation_fraction) for d in resolve(spec).datasets]

    def plan(spec):
        return make_plan(resolve(spec), data, "cpu")

    whole = plan(spec)
    attacks = {cell.key: cell.attack for cell in whole.cells}
    rows = rows_of(records_of(spec, whole))
    assert len(rows) > 15
    for row in rows:
        again = planned_again(row, tmp_path, spec.model_dump(mode="json"), plan)
        assert_same_cells(row, again)
        assert {cell.key: cell.attack for cell in again.cells}.items() <= attacks.items()


def test_methods_on_a_recipe_that_is_not_their_own(tmp_path):
    spec = toy_spec(recipes=["plain", "orthogonal"], methods=["osp", "finetune"])
    rows = rows_of(records_of(spec, toy_plan(spec)))
    assert {row[0].recipe for row in rows} == {"plain", "orthogonal"}
    for row in rows:
        assert_same_cells(row, planned_again(row, tmp_path, spec.model_dump(mode="json")))


def test_hyper_parameters_that_were_found_by_tuning_are_written_out(tmp_path):
    found = tmp_path / "tuned.toml"
    found.write_text(
        '[[tuned]]\nmethod = "finetune"\nparams = {lr = 0.003, epochs = 2}\n'
        '[tuned.tuning]\nstudy = "of finetune"\ntrack = "validation"\ntrials = 5\n'
        'development_models = 1\nobjectives = ["retain"]\nseconds = 1.5\n'
    )
    spec = toy_spec(methods=["finetune"], hyperparameters=found)
    records = [r for r in records_of(spec, toy_plan(spec)) if r.method == "finetune"]
    text = reproduce(records, spec.model_dump(mode="json"))
    assert tomllib.loads(text)["methods"][0]["lr"] == 0.003
    assert "found by tuning (study `of finetune`)" in comment_of(text)
    assert_same_cells(records, planned_again(records, tmp_path, spec.model_dump(mode="json")))


def test_a_list_of_ids_is_looked_for_beside_the_file(tmp_path):
    ids = tmp_path / "asked for" / "ids.txt"
    ids.parent.mkdir()
    ids.write_text("3\n5\n8\n13\n")
    spec = toy_spec(scenarios=[f"ids[file={str(ids)!r}]"], methods=["finetune"])
    records = [r for r in records_of(spec, toy_plan(spec)) if r.method == "finetune"]
    assert_same_cells(records, planned_again(records, tmp_path, spec.model_dump(mode="json")))
    elsewhere = [r.model_copy(update={"scenario": "ids[file=asked/ids.txt]"}) for r in records]
    text = reproduce(elsewhere)
    request = records[0].forget_request
    assert f"Needs the forget request {request}, 4 ids, as the file" in comment_of(text)
    with pytest.raises(InputError, match=r"ids\.txt` does not exist"):
        planned_again(elsewhere, tmp_path)
    ids.rename(tmp_path / "ids.txt")
    assert_same_cells(records, planned_again(elsewhere, tmp_path))


def test_weights_are_looked_for_beside_the_file(tmp_path):
    weights = tmp_path / "given" / "start.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"anything: a plan only takes its digest")
    model = NARROW.removesuffix("]") + f",weights={str(weights)!r}]"
    spec = toy_spec(models=[model], methods=["finetune"])
    info = {"weights": {"name": weights.name, "digest": "ab12"}}
    records = [r.model_copy(update={"model_info": info}) for r in records_of(spec, toy_plan(spec))]
    records = [r for r in records if r.method == "finetune"]
    text = reproduce(records, spec.model_dump(mode="json"))
    needs = "Needs the file of weights `start.safetensors` (sha256 ab12) beside this file."
    assert needs in comment_of(text)
    assert str(tmp_path) not in text
    weights.rename(tmp_path / weights.name)
    assert_same_cells(records, planned_again(records, tmp_path, spec.model_dump(mode="json")))


ODD = '''
from typing import ClassVar
from unlearnbench.bench import Unlearner

class Odd(Unlearner):
    """Has parameters that are hard to write."""
    name: ClassVar[str] = "odd"
    reference: ClassVar[str] = "none"
    words: str = "plain"
    small: float = 1.0
    listed: tuple[float, ...] = ()
    nested: dict[str, tuple[str, ...]] = {}
    switch: bool = False
    limit: int | None = 3
    def unlearn(self, model, task):
        return model
'''
HARD = {
    "words": "\"quoted\" 'twice' \\ back\nslash\t# ‽ übel ]] = \x7f",
    "small": 1e-3 / 3,
    "listed": [1e-300, 2.0, 0.1 + 0.2],
    "nested": {"a b": ["x,y", "true"], "é": []},
    "switch": True,
}


def test_values_that_are_hard_to_write_come_back_as_they_were(plugin, tmp_path):
    file = plugin(ODD)
    spec = toy_spec(methods=[{"name": "odd", **HARD}], plugins=[file])
    records = [r for r in records_of(spec, toy_plan(spec)) if r.method == "odd"]
    assert {k: v for k, v in records[0].hyperparameters.items() if k != "limit"} == HARD
    again = planned_again(records, tmp_path, spec.model_dump(mode="json"))
    assert_same_cells(records, again)
    assert any(cell.method.params == records[0].hyperparameters for cell in again.cells)


def test_what_toml_cannot_say_is_named(plugin):
    spec = toy_spec(methods=[{"name": "odd", "limit": None}], plugins=[plugin(ODD)])
    records = [r for r in records_of(spec, toy_plan(spec)) if r.method == "odd"]
    text = reproduce(records)
    assert "Left out, for TOML has no word for None: `limit`." in text
    assert "limit" not in tomllib.loads(text)["methods"][0]


def test_plug_ins_are_named_or_asked_for(plugin):
    spec = toy_spec(methods=["odd"], plugins=[plugin(ODD)])
    records = [r for r in records_of(spec, toy_plan(spec)) if r.method == "odd"]
    relative = spec.model_dump(mode="json") | {"plugins": ["some/where/plugin.py"]}
    text = reproduce(records, relative)
    assert tomllib.loads(text)["plugins"] == ["plugin.py"]
    assert "Needs the plug-in files `plugin.py` beside this file." in text
    assert "give them with `--plugin`" in reproduce(records)


def record(method="scrub", seed=0, **changes):
    fields = {
        "sweep": "tests", "key": f"{method}{seed}", "dataset": "digits", "model": "resnet18",
        "recipe": "plain", "scenario": "class[classes=[3]]", "forget_request": "f0",
        "forget_size": 10, "retain_size": 90, "method": method, "seed": seed, "status": "ok",
        "metrics": {"forget_acc": 0.5, "retain_acc": 0.9, "test_acc": 0.8},
        "training": {"epochs": 4, "validation_fraction": 0.2},
        "hyperparameters": {"lr": 0.01},
    }  # fmt: skip
    return Record(**fields | changes)


def test_records_alone_say_how_they_were_attacked_and_probed():
    attack = {"shadows": 16, "variance": "pooled", "redraws": 99, "bank": "b"}
    made = record(
        attack=attack,
        probe={"probes": ["recovery", "cka"], "notes": []},
        metrics=record().metrics | {"klom/mean": 1.0},
    )
    text = reproduce([made])
    found = tomllib.loads(text)
    assert found["ulira"] == {"shadows": 16, "variance": "pooled", "redraws": 99, "klom": True}
    assert found["probes"] == ["recovery", "cka"]
    assert "left at the default: the time limit; the seed of U-LIRA" in comment_of(text)
    failed = record(attack={"bank": "b", "reason": "it diverged"}, probe={"reason": "no"})
    text = comment_of(reproduce([failed]))
    assert "the probes, which gave no figures" in text
    assert "the number of shadow models of U-LIRA, which gave no figures" in text


def test_old_records_that_do_not_say_how_they_were_trained_are_left_at_the_default():
    text = reproduce([record(training={})])
    unknown = "the settings of training; the share of images held out for validation"
    assert unknown in comment_of(text)
    assert "training" not in tomllib.loads(text)


def test_the_sweep_of_other_records_is_not_believed():
    other = {"name": "another", "probes": ["cka"], "ulira": {"shadows": 8}, "seeds": [0]}
    assert reproduce([record()], other) == reproduce([record()])
    own = tomllib.loads(reproduce([record()], other | {"name": "tests"}))
    assert (own["probes"], own["ulira"]) == (["cka"], {"shadows": 8})


def test_seeds_stand_in_the_order_of_the_sweep_whatever_that_of_the_records():
    made = [record(seed=seed) for seed in (0, 5, 2)]
    spec = {"name": "tests", "seeds": [5, 0, 2]}
    assert tomllib.loads(reproduce(made, spec))["seeds"] == [5, 0, 2]
    assert reproduce(made) == reproduce(made[::-1])
    assert reproduce(made, spec) == reproduce(made[::-1], spec)


def test_a_name_of_its_own_that_a_sweep_may_have():
    for sweep in ("tests", "my sweep/ü", "…", "x" * 200):
        text = reproduce([record(sweep=sweep)])
        name = tomllib.loads(text)["name"]
        assert name != sweep
        assert toy_spec(name=name).name == name


def test_a_comment_holds_no_line_end_of_a_record():
    text = reproduce([record(method="odd\nname = 'x'\x00", sweep="a\u2028b")])
    assert [line for line in text.partition("\n\n")[0].splitlines() if line[:2] != "# "] == []
    assert tomllib.loads(text)["methods"][0]["name"] == "odd\nname = 'x'\x00"


def test_the_command_names_the_kind_of_device():
    made = record(environment={"device": "cuda:1"})
    assert command(made, "f.toml") == "unlearnbench run f.toml --device cuda"
    assert f"\n#     {command(made)}\n" in reproduce([made])
    assert command(record()) == "unlearnbench run again.toml"


def test_records_of_several_rows_are_refused():
    with pytest.raises(InputError, match="there are no records"):
        reproduce([])
    for other in (record("svd"), record(scenario="random"), record(hyperparameters={"lr": 0.02})):
        with pytest.raises(InputError, match="not of one row: they differ in"):
            reproduce([record(), other])
    # a cell that never ran may not say its parameters
    silent = record(seed=1, hyperparameters={}, training={})
    assert tomllib.loads(reproduce([record(), silent]))["seeds"] == [0, 1]
