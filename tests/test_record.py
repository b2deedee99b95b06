"""Records: what a line of `records.jsonl` may hold, and the joining of cells to records."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from unlearnbench.bench import DataError, InputError, Record, read_records
from unlearnbench.bench.bank_record import BankRecord, read_banks, write_banks
from unlearnbench.bench.record import latest_by_key, write_records
from unlearnbench.bench.results import assemble, stored_results
from unlearnbench.bench.store import Store

from .toys import toy_plan, toy_spec

METRICS = {"retain_acc": 0.9, "forget_acc": 0.5, "test_acc": 0.8}
CELL = {
    "sweep": "s", "key": "k", "dataset": "digits", "model": "resnet18", "recipe": "plain",
    "scenario": "class", "forget_request": "abc", "forget_size": 3, "retain_size": 7,
    "method": "scrub", "seed": 0,
}  # fmt: skip


def record(**changes):
    status = changes.get("status", "ok")
    ended = {"metrics": METRICS} if status == "ok" else {"reason": "because"}
    return Record(**CELL | {"status": status} | ended | changes)


# --- the schema -----------------------------------------------------------------------------------


def test_every_field_that_was_promised_is_written():
    content = json.loads(record().to_json())
    assert content.keys() >= {
        "schema", "sweep", "key", "dataset", "model", "recipe", "scenario", "forget_request",
        "method", "hyperparameters", "seed", "status", "reason", "metrics", "times",
        "peak_memory_bytes", "samples", "environment",
    }  # fmt: skip
    assert content["schema"] == "unlearnbench.record/1"
    assert content["reason"] is None


@pytest.mark.parametrize(
    ("part", "value", "where"),
    [
        ("hyperparameters", '{"lr": NaN}', "hyperparameters.lr is not a finite number"),
        ("method_info", '{"tried": [1, {"a": Infinity}]}', "method_info.tried.1.a is not a finite"),
        ("training", '{"lr": 1e999}', "training.lr is not a finite number"),
        ("training", '{"penalty": null}', "training.penalty: Input should be"),
        ("attack", '{"shadows": "x"}', "attack.shadows: Input should be a valid integer"),
        ("attack", '{"shadows": 16.5}', "attack.shadows: Input should be a valid integer"),
        ("attack", '{"examples": true}', "attack.examples: Input should be a valid integer"),
        ("attack", '{"views": [1]}', "attack.views: Input should be a valid integer"),
        ("attack", '{"scores": [1]}', "attack.scores: Input should be a valid string"),
        ("tuning", '{"seconds": null}', "tuning.seconds: Input should be a valid number"),
        ("tuning", '{"seconds": "abc"}', "tuning.seconds: Input should be a valid number"),
        ("model_info", '{"weights": "abc"}', "model_info.weights: Input should be"),
        ("model_info", '{"weights": {"name": "x"}}', "model_info.weights.digest: Field required"),
        ("model_info", '{"filter_cosine": "abc"}', "model_info.filter_cosine: Input should be"),
        ("probe", '{"notes": 5}', "probe.notes: Input should be a valid list"),
    ],
)
def test_what_is_read_of_the_open_parts_has_its_type(tmp_path, part, value, where):
    line = record().to_json()
    path = tmp_path / "records.jsonl"
    wrong = line.replace(f'"{part}": {{}}', f'"{part}": {value}')
    path.write_text(f"{line}\n{wrong}\n")
    with pytest.raises(InputError) as error:
        read_records(path)
    (sentence,) = error.value.sentences
    assert f"`{path}` line 2 is not a valid record: " in sentence
    assert where in sentence


def test_the_open_parts_may_hold_more():
    parts = {
        "attack": {"shadows": 16, "examples": 3, "views": 1, "more": [None, {"x": "y"}]},
        "tuning": {"seconds": 3},
        "model_info": {"weights": {"name": "w", "digest": "d"}, "filter_cosine": -0.1},
        "probe": {"notes": []},
    }
    made = record(**parts)
    assert {name: getattr(made, name) for name in parts} == parts


def test_the_records_of_this_repository_are_valid():
    paths = sorted(Path(__file__).parents[1].glob("results/*/records.jsonl"))
    for path in paths:
        assert read_records(path)


@pytest.mark.parametrize("status", ["ok", "failed", "skipped"])
def test_every_status_has_its_form(status):
    made = record(status=status)
    assert (made.reason is None) == (status == "ok")
    assert bool(made.metrics) == (status == "ok")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metrics": {}}, "an ok record needs the metrics retain_acc, forget_acc, test_acc"),
        ({"metrics": {"retain_acc": 1, "test_acc": 1}}, "needs the metrics forget_acc"),
        ({"reason": "none"}, "an ok record has no reason"),
        ({"status": "failed", "reason": None}, "a failed record needs a reason"),
        ({"status": "skipped", "reason": ""}, "a skipped record needs a reason"),
        ({"status": "failed", "metrics": METRICS}, "a failed record has no metrics"),
        ({"status": "done"}, "status"),
        ({"metrics": METRICS | {"val_acc": 1.01}}, "fractions in .*val_acc"),
        ({"metrics": METRICS | {"test_acc": -0.1}}, "fractions in .*test_acc"),
        ({"metrics": METRICS | {"gap_test_acc": 80}}, "fractions in .*gap_test_acc"),
        ({"metrics": METRICS | {"tow": math.nan}}, "tow"),
        ({"metrics": METRICS | {"tow": math.inf}}, "tow"),
        ({"times": {"unlearn_s": math.nan}}, "unlearn_s"),
        ({"metrics": METRICS | {"ulira.privacy/auc_se": math.nan}}, "auc_se"),
        ({"schema": "unlearnbench.record/2"}, "schema"),
        ({"forget_size": -1}, "forget_size"),
        ({"colour": "red"}, "colour"),
        ({"seed": "zero"}, "seed"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        record(**wrong)


ATTACK_FRACTIONS = (
    "ulira.privacy/acc", "ulira.efficacy/auc", "ulira.privacy/tpr_0.001", "ulira.privacy/fpr_0.05",
    "ulira.privacy/p", "ulira.privacy/auc_p", "ulira.privacy/null_lo", "ulira.privacy/auc_null_hi",
    "ulira.privacy/null_mean", "ulira.privacy/low_share", "ulira/per_example_p95",
    "ulira/power_d0.5", "ulira/share_above_identity", "mia.population/auc",
    "mia.population/loss_auc", "mia.population/threshold_acc", "rmia/auc", "forgetting_score/f",
    "forgetting_score/null", "mia_svc_efficacy", "mia_entropy_member_rate",
    "mia_challenge_accuracy",
)  # fmt: skip
ATTACK_NUMBERS = (
    "ulira.privacy/se", "ulira.privacy/spread_ratio", "ulira.privacy/acc_vs_identity",
    "ulira.privacy/acc_vs_retrain_se", "ulira/control_rise", "ulira/control_rise_se",
    "ulira.retain/auc_change", "ulira.retain/acc_change_se", "klom/mean", "klom/p95",
    "klom/floor_p95", "klom_gauss/floor_mean", "rmia/auc_se",
)  # fmt: skip


@pytest.mark.parametrize("value", [-0.01, 57.4])
@pytest.mark.parametrize("name", ATTACK_FRACTIONS)
def test_rates_shares_and_p_values_of_the_attack_are_fractions(name, value):
    assert record(metrics=METRICS | {name: 0.574}).metrics[name] == 0.574
    with pytest.raises(ValidationError, match=f"fractions in .*{name}"):
        record(metrics=METRICS | {name: value})


@pytest.mark.parametrize("name", ATTACK_NUMBERS)
def test_differences_errors_and_distances_of_the_attack_are_any_number(name):
    for value in (-3.0, 3.0):
        assert record(metrics=METRICS | {name: value}).metrics[name] == value


def test_records_from_before_there_was_an_attack_are_read(tmp_path):
    content = json.loads(record().to_json())
    assert content.pop("attack") == {}
    (tmp_path / "records.jsonl").write_text(json.dumps(content), encoding="utf-8")
    assert read_records(tmp_path) == [record()]


@pytest.mark.parametrize("field", sorted(CELL))
def test_a_record_without_a_part_of_its_name_is_refused(field):
    content = json.loads(record().to_json())
    del content[field]
    with pytest.raises(ValidationError, match=field):
        Record.model_validate(content)


def test_numbers_without_a_json_form_are_never_written():
    line = record(method_info={"alpha": math.nan}).to_json()
    assert json.loads(line, parse_constant=pytest.fail)["method_info"] == {"alpha": None}


# --- the file -------------------------------------------------------------------------------------


def test_records_are_read_back_as_they_were_written(tmp_path):
    path = tmp_path / "out" / "records.jsonl"
    odd = "two\nlines, a \u2028 separator, a \x85 next line, \x1e and ü"
    records = [
        record(hyperparameters={"lr": 0.1, "x": None}, times={"unlearn_s": 1.25},
               samples={"retain": 3}, peak_memory_bytes=10, environment={"torch": "2"}),
        record(key="k2", status="failed", reason=odd),
        record(key="k3", status="skipped"),
    ]  # fmt: skip
    write_records(path, records)
    assert read_records(path) == records
    assert read_records(path.parent) == records
    assert path.read_text(encoding="utf-8").count("\n") == 3
    write_records(path, records[:1])
    assert read_records(path) == records[:1]


def test_empty_lines_between_records_are_no_records(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(f"\n{record().to_json()}\n\n{record(key='k2').to_json()}\n", encoding="utf-8")
    assert [made.key for made in read_records(path)] == ["k", "k2"]


def test_every_bad_line_is_named_with_its_number(tmp_path):
    path = tmp_path / "records.jsonl"
    lines = [
        record().to_json(),
        "{",
        record().to_json().replace('"seed": 0', '"seed": null'),
        record().to_json().replace('"forget_acc": 0.5', '"forget_acc": NaN'),
        record().to_json().replace('"status": "ok"', '"status": "failed"'),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_records(path)
    starts = [f"`{path}` line {number} is not a valid record: " for number in (2, 3, 4, 5)]
    assert len(caught.value.sentences) == 4
    for sentence, start, part in zip(
        caught.value.sentences, starts, ("JSON", "seed", "forget_acc", "reason"), strict=True
    ):
        assert sentence.startswith(start)
        assert part in sentence
        assert sentence.endswith(".")


def test_a_file_that_is_missing_or_no_text_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"there are no records at `.*records\.jsonl`; run a sweep"):
        read_records(tmp_path)
    (tmp_path / "records.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="it is not UTF-8 text"):
        read_records(tmp_path)


def test_the_last_record_of_a_cell_counts_at_the_place_of_the_first():
    records = [record(key="a", seed=1), record(key="b"), record(key="a", seed=2)]
    assert [(made.key, made.seed) for made in latest_by_key(records)] == [("a", 2), ("b", 0)]
    assert latest_by_key([]) == []


# --- banks of shadow models -----------------------------------------------------------------------

BANK = {
    "bank": "b0", "dataset": "digits", "model": "resnet18", "recipe": "plain", "shadows": 16,
    "views": 2, "metrics": {"acc/in_mean": 0.99, "lira/auc": 0.7, "time/training_s": 812.0},
    "environment": {"torch": "2"},
}  # fmt: skip


def test_banks_are_read_back_as_they_were_written(tmp_path):
    path = tmp_path / "out" / "banks.jsonl"
    banks = [BankRecord(**BANK), BankRecord(**BANK | {"bank": "b1", "metrics": {}})]
    write_banks(path, banks)
    assert read_banks(path) == banks
    assert read_banks(path.parent) == banks
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert first == BANK | {"schema": "unlearnbench.bank/1"}


def test_a_sweep_without_banks_has_no_file_of_them(tmp_path):
    assert read_banks(tmp_path) == []
    assert read_banks(tmp_path / "banks.jsonl") == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shadows": 15}, "shadows: .*multiple of 2"),
        ({"shadows": 0}, "shadows"),
        ({"views": 0}, "views"),
        ({"metrics": {"acc/out_mean": 93}}, "fractions in .*acc/out_mean"),
        ({"metrics": {"lira/auc": -1}}, "fractions in .*lira/auc"),
        ({"schema": "unlearnbench.bank/2"}, "schema"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_bank_is_named_with_its_file_and_line(wrong, message, tmp_path):
    path = tmp_path / "banks.jsonl"
    path.write_text("\n".join([json.dumps(BANK), json.dumps(BANK | wrong)]), encoding="utf-8")
    with pytest.raises(
        InputError, match=rf"`.*banks\.jsonl` line 2 is not a valid bank: .*{message}"
    ):
        read_banks(path)


# --- from cells to records ------------------------------------------------------------------------


def result(unlearn_s, retain, forget, test, hardware="this cpu"):
    """What a worker writes."""
    return {
        "metrics": {"retain_acc": retain, "forget_acc": forget, "test_acc": test},
        "times": {"unlearn_s": unlearn_s, "prepare_s": 0.5, "evaluate_s": 0.1, "original_s": 9.0},
        "peak_memory_bytes": 7, "samples": {"forget": 3}, "method_info": {"alpha": 2},
        "model_info": {"stem": "small"}, "environment": {"hardware": hardware},
    }  # fmt: skip


def joined(spec, plan, results, failures=None):
    return assemble(spec, plan, results, failures or {}, {}, {})


@pytest.fixture
def sweep():
    """One class scenario with references, a method, and a sample scenario which it declines."""
    spec = toy_spec(methods=["finetune", "head-mask"], scenarios=["class[classes=[0]]", "random"])
    return spec, toy_plan(spec)


def cells_of(plan, scenario="class"):
    return {cell.method.name: cell for cell in plan.cells if cell.scenario == scenario}


def test_a_cell_is_joined_with_the_retrained_model_of_its_seed(sweep):
    spec, plan = sweep
    cells = cells_of(plan)
    results = {
        cells["finetune"].key: result(0.5, 0.999, 0.98, 0.93),
        cells["retrain"].key: result(4.0, 1.0, 0.94, 0.942),
    }
    records = {made.method: made for made in joined(spec, plan, results) if made.metrics}
    made = records["finetune"]
    assert made.metrics == pytest.approx({
        "retain_acc": 0.999, "forget_acc": 0.98, "test_acc": 0.93, "gap_retain_acc": 0.001,
        "gap_forget_acc": 0.04, "gap_test_acc": 0.012, "tow": 0.999 * 0.96 * 0.988,
    })  # fmt: skip
    assert made.metrics["tow"] == pytest.approx(0.947532, abs=1e-6)
    assert made.times == {"unlearn_s": 0.5, "prepare_s": 0.5, "evaluate_s": 0.1, "original_s": 9.0,
                          "retrain_s": 4.0, "speedup": 8.0}  # fmt: skip
    assert (made.peak_memory_bytes, made.samples) == (7, {"forget": 3})
    assert made.model_info == {"stem": "small"}
    assert made.method_info == {"alpha": 2}
    cell = cells["finetune"]
    assert made.hyperparameters == cell.method.params
    assert made.forget_request == cell.request.hash
    assert (made.forget_size, made.retain_size) == (27, 81)
    assert made.training == {**cell.recipe.describe(), "validation_fraction": 0.1}
    assert (made.sweep, made.key, made.seed) == (spec.name, cell.key, 0)
    retrained = records["retrain"]
    assert retrained.metrics["tow"] == 1
    assert retrained.metrics["gap_forget_acc"] == 0
    assert retrained.times["speedup"] == 1


def test_times_of_different_hardware_are_not_compared(sweep):
    spec, plan = sweep
    cells = cells_of(plan)
    results = {
        cells["finetune"].key: result(0.5, 1, 1, 1),
        cells["retrain"].key: result(4.0, 1, 1, 1, hardware="that gpu"),
    }
    made = next(r for r in joined(spec, plan, results) if r.method == "finetune")
    assert "speedup" not in made.times
    assert made.times["retrain_s"] == 4.0
    assert made.metrics["tow"] == 1


def test_a_method_that_took_no_time_has_no_speedup(sweep):
    spec, plan = sweep
    cells = cells_of(plan)
    results = {cells[name].key: result(0.0, 1, 1, 1) for name in ("finetune", "retrain")}
    assert all("speedup" not in made.times for made in joined(spec, plan, results))


def test_without_the_retrained_model_there_are_no_gaps(sweep):
    spec, plan = sweep
    cell = cells_of(plan)["finetune"]
    ended = [r for r in joined(spec, plan, {cell.key: result(1, 1, 1, 1)}) if r.metrics]
    (made,) = ended
    assert made.metrics.keys() == {"retain_acc", "forget_acc", "test_acc"}
    assert made.times.keys() == {"unlearn_s", "prepare_s", "evaluate_s", "original_s"}


def test_cells_are_joined_with_their_own_seed_and_scenario():
    spec = toy_spec(
        methods=["finetune"], seeds=2, scenarios=["class[classes=[0]]", "class[classes=[1]]"]
    )
    plan = toy_plan(spec)
    retrains = {(c.scenario, c.seed): c for c in plan.cells if c.method.name == "retrain"}
    assert len(retrains) == 4
    results = {}
    for number, cell in enumerate(retrains.values()):
        results[cell.key] = result(1 + number, 1, number / 10, 1)
    for cell in plan.cells:
        if cell.method.name == "finetune":
            results[cell.key] = result(1, 1, 0.0, 1)
    for made in joined(spec, plan, results):
        if made.method == "finetune":
            partner = results[retrains[made.scenario, made.seed].key]
            assert made.metrics["gap_forget_acc"] == partner["metrics"]["forget_acc"]
            assert made.times["retrain_s"] == partner["times"]["unlearn_s"]


def test_what_failed_or_was_declined_has_a_reason_and_what_has_not_ended_no_record(sweep):
    spec, plan = sweep
    failed = cells_of(plan)["finetune"]
    records = joined(spec, plan, {}, {failed.key: "it broke"})
    assert [(made.method, made.status) for made in records] == [
        ("finetune", "failed"), ("head-mask", "skipped"),
    ]  # fmt: skip
    assert records[0].reason == "it broke"
    assert "whole classes" in records[1].reason
    assert records[1].scenario == "random"


def test_results_are_read_from_the_store_where_they_are(tmp_path):
    store = Store(tmp_path)
    store.put("cell", "aa", {"n": 1})
    store.put("original", "bb", {"n": 2})
    assert stored_results(store, ["aa", "bb", "cc"]) == {"aa": {"n": 1}}
