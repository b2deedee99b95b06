"""Aggregation of records: every expected number is worked out by hand in the test."""

import math

import pandas as pd
import pytest

from unlearnbench.bench.diff import compare
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.markdown import markdown
from unlearnbench.bench.record import Record
from unlearnbench.bench.render import write_leaderboard
from unlearnbench.bench.sweep_records import SweepRecords
from unlearnbench.bench.terminal import terminal_table

from .made_records import made_records


def cell(method, seed=0, *, forget=0.5, gap=None, status="ok", reason=None, **changes):
    """One record; `forget` is its forget accuracy, and `gap` the distance of that to retrained."""
    ok = status == "ok"
    metrics = {"forget_acc": forget, "retain_acc": 0.9, "test_acc": 0.8}
    if gap is not None:
        metrics |= {"gap_forget_acc": gap, "gap_retain_acc": 0.0, "gap_test_acc": 0.0}
        metrics["tow"] = 1 - gap
    fields = {
        "sweep": "tests",
        "dataset": "digits",
        "model": "resnet18[stem=small]",
        "recipe": "plain",
        "scenario": "class[classes=[3]]",
        "forget_request": "f0",
        "forget_size": 10,
        "retain_size": 90,
        "method": method,
        "seed": seed,
        "status": status,
        "reason": reason,
        "metrics": metrics if ok else {},
        "times": {"unlearn_s": 2.0, "prepare_s": 0.5, "original_s": 20.0} if ok else {},
        "environment": {"hardware": "one machine", "unlearnbench": "0.1.0"},
    } | changes
    what = ("dataset", "model", "scenario", "recipe", "method", "hyperparameters", "seed")
    return Record(key=str([fields.get(name) for name in what]), **fields)


def rows(records, table=0):
    frame = build(records).tables[table].rows
    assert not frame.duplicated(["recipe", "method"]).any()
    return frame.set_index(["recipe", "method"])


def row(records, method, recipe="plain"):
    return rows(records).loc[(recipe, method)]


RETRAINED = [cell("retrain", seed, forget=value) for seed, value in enumerate((0.1, 0.2, 0.6))]


def test_mean_spread_gap_and_count_are_over_the_seeds():
    records = [
        *RETRAINED,
        cell("scrub", 0, forget=0.2, gap=0.1),
        cell("scrub", 1, forget=0.3, gap=0.1),
        cell("scrub", 2, forget=0.4, gap=0.2),
    ]
    scrub = row(records, "scrub")
    assert scrub["forget_acc_mean"] == pytest.approx(0.3)
    assert scrub["forget_acc_std"] == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert scrub["forget_acc_retrained"] == pytest.approx(0.3)
    # the means agree, the models of a seed do not: the gap is not the difference of the means
    assert scrub["gap_forget_acc"] == pytest.approx(0.4 / 3)
    assert scrub["tow_mean"] == pytest.approx(1 - 0.4 / 3)
    assert (scrub["n_ok"], scrub["n_failed"], scrub["n_skipped"]) == (3, 0, 0)
    assert scrub["status"] == "3 ok"


def test_retrained_value_beside_a_method_is_that_of_its_own_seeds():
    failed = cell("scrub", 2, status="failed", reason="diverged")
    scrub = row([*RETRAINED, cell("scrub", 0), cell("scrub", 1), failed], "scrub")
    assert scrub["forget_acc_retrained"] == pytest.approx(0.15)


def test_one_seed_has_no_spread():
    records = [cell("retrain", forget=0.1), cell("scrub", forget=0.2, gap=0.1)]
    scrub = row(records, "scrub")
    assert scrub["forget_acc_mean"] == pytest.approx(0.2)
    assert math.isnan(scrub["forget_acc_std"])
    line = next(line for line in terminal_table(records).splitlines() if "scrub" in line)
    assert "20.0" in line
    assert "±" not in line


def test_noise_floor_is_the_mean_distance_of_all_pairs_of_retrained_models():
    floor = row(RETRAINED, "retrained, other seed")
    # |0.1 - 0.2| = 0.1, |0.1 - 0.6| = 0.5, |0.2 - 0.6| = 0.4
    assert floor["gap_forget_acc"] == pytest.approx(1.0 / 3)
    assert floor["gap_retain_acc"] == 0
    assert (floor["n_pairs"], floor["n_ok"], floor["status"]) == (3, 3, "3 pairs of seeds")
    assert math.isnan(floor["forget_acc_mean"])


def test_noise_floor_pairs_only_models_with_the_same_forget_set():
    records = [
        cell("retrain", 0, forget=0.1, forget_request="a"),
        cell("retrain", 1, forget=0.3, forget_request="a"),
        cell("retrain", 2, forget=0.9, forget_request="b"),
    ]
    floor = row(records, "retrained, other seed")
    assert (floor["n_pairs"], floor["gap_forget_acc"]) == (1, pytest.approx(0.2))
    apart = row(records[1:], "retrained, other seed")
    assert apart["status"] == "no two seeds share a forget set"
    assert math.isnan(apart["gap_forget_acc"])
    assert row(records[:1], "retrained, other seed")["status"] == "needs 2 seeds"


def test_failed_and_skipped_cells_are_counted_and_their_reasons_listed_once():
    records = [
        cell("neggrad", 0),
        cell("neggrad", 1, status="failed", reason="not\n finite"),
        cell("svd", 1, status="failed", reason="not finite"),
        cell("svd", 0, status="failed", reason="not finite"),
        cell("head-mask", 0, status="skipped", reason="only whole classes"),
        cell("head-mask", 1, status="skipped", reason="only whole classes"),
    ]
    frame = rows(records).loc["plain"]
    assert frame.loc["neggrad", "status"] == "1 ok, 1 failed"
    assert frame.loc["svd", "status"] == "2 failed"
    assert frame.loc["head-mask", "status"] == "not applicable"
    assert list(frame.loc["head-mask", ["n_ok", "n_failed", "n_skipped"]]) == [0, 0, 2]
    assert math.isnan(frame.loc["svd", "forget_acc_mean"])
    assert build(records).tables[0].reasons == (
        ("failed", "not finite", (("neggrad", "plain", (1,)), ("svd", "plain", (0, 1)))),
        ("skipped", "only whole classes", (("head-mask", "plain", (0, 1)),)),
    )


def test_references_come_first_and_are_shown_even_if_they_were_not_run():
    frame = rows([cell("scrub"), cell("finetune")]).loc["plain"]
    assert list(frame.index) == [
        "original (identity)",
        "retrained",
        "retrained, other seed",
        "scrub",
        "finetune",
    ]
    assert list(frame["status"][:3]) == ["not run", "not run", "needs 2 seeds"]
    assert list(frame["kind"]) == ["reference", "reference", "noise floor", "method", "method"]


def test_each_recipe_has_its_own_references_and_retrained_model():
    records = []
    for recipe, forget in (("plain", 0.1), ("orthogonal", 0.4)):
        records += [
            cell("identity", recipe=recipe, forget=1.0, times={"original_s": 100 * forget}),
            cell("retrain", recipe=recipe, forget=forget),
            cell("svd", recipe=recipe, forget=0.5, gap=abs(0.5 - forget)),
        ]
    frame = rows(records)
    assert list(frame["kind"][:6]) == ["reference", "reference", "noise floor"] * 2
    assert frame.loc[("plain", "svd"), "forget_acc_retrained"] == pytest.approx(0.1)
    assert frame.loc[("orthogonal", "svd"), "forget_acc_retrained"] == pytest.approx(0.4)
    assert frame.loc[("orthogonal", "svd"), "gap_forget_acc"] == pytest.approx(0.1)
    costs = build(records).tables[0].costs.set_index("recipe")
    assert costs["original_s_mean"].to_dict() == pytest.approx({"plain": 10, "orthogonal": 40})
    assert costs["test_acc_mean"].to_dict() == pytest.approx({"plain": 0.8, "orthogonal": 0.8})


def test_variants_of_a_method_are_named_by_the_parameters_in_which_they_differ():
    records = [
        cell("scrub", hyperparameters={"lr": 0.1, "epochs": 5}),
        cell("scrub", hyperparameters={"lr": 0.2, "epochs": 5}),
        cell("svd", hyperparameters={"alpha": 1.0}),
        cell("svd", 1, hyperparameters={}, status="skipped", reason="too small"),
    ]
    methods = rows(records).loc["plain"].index
    assert list(methods[3:]) == ["scrub[lr=0.1]", "scrub[lr=0.2]", "svd"]


def test_each_dataset_model_and_scenario_has_a_table_of_its_own():
    records = [
        cell("scrub"),
        cell("scrub", scenario="random[fraction=0.1]"),
        cell("scrub", dataset="cifar10"),
        cell("scrub", model="vgg11"),
    ]
    tables = build(records).tables
    assert [(t.dataset, t.model, t.scenario) for t in tables] == [
        ("digits", "resnet18[stem=small]", "class[classes=[3]]"),
        ("digits", "resnet18[stem=small]", "random[fraction=0.1]"),
        ("cifar10", "resnet18[stem=small]", "class[classes=[3]]"),
        ("digits", "vgg11", "class[classes=[3]]"),
    ]


def test_the_last_record_of_a_cell_counts():
    scrub = row([cell("scrub", forget=0.1), cell("scrub", forget=0.7)], "scrub")
    assert (scrub["n_ok"], scrub["forget_acc_mean"]) == (1, pytest.approx(0.7))


def test_times_of_different_machines_are_never_averaged():
    fast = {"unlearn_s": 1.0, "speedup": 8.0}
    records = [
        cell("scrub", 0, times=fast),
        cell("scrub", 1, times=fast, environment={"hardware": "another; with a semicolon"}),
        cell("svd", 0, times=fast),
    ]
    frame = rows(records).loc["plain"]
    assert math.isnan(frame.loc["scrub", "unlearn_s_mean"])
    assert math.isnan(frame.loc["scrub", "speedup_mean"])
    assert frame.loc["scrub", "forget_acc_mean"] == pytest.approx(0.5)
    assert frame.loc["svd", "speedup_mean"] == pytest.approx(8.0)
    assert frame.loc["scrub", "hardware"] == "one machine; another, with a semicolon"


def test_absent_speedup_is_not_made_up():
    records = [cell("retrain", times={"unlearn_s": 9.0}), cell("scrub", times={"unlearn_s": 3.0})]
    assert math.isnan(row(records, "scrub")["speedup_mean"])


def test_peak_memory_is_the_largest_of_the_seeds():
    records = [cell("scrub", 0, peak_memory_bytes=10), cell("scrub", 1, peak_memory_bytes=30)]
    assert row(records, "scrub")["peak_memory_bytes"] == 30


def test_no_records_give_no_tables():
    assert build([]).tables == []


def test_csv_holds_the_values_of_the_records_as_fractions(tmp_path):
    exact = 0.1 + 0.2  # a number whose shortest form has seventeen digits
    records = [cell("retrain", forget=0.1), cell("scrub", forget=exact, gap=exact - 0.1)]
    write_leaderboard(records, tmp_path)
    frame = pd.read_csv(tmp_path / "leaderboard.csv", dtype=str).set_index("method")
    assert float(frame.loc["scrub", "forget_acc_mean"]) == exact
    assert float(frame.loc["scrub", "gap_forget_acc"]) == exact - 0.1
    assert float(frame.loc["scrub", "forget_acc_retrained"]) == 0.1
    assert float(frame.loc["scrub", "unlearn_s_mean"]) == 2.0
    assert frame.loc["scrub", "n_ok"] == "1"
    assert pd.isna(frame.loc["scrub", "forget_acc_std"])
    assert set(frame["scenario"]) == {"class[classes=[3]]"}


def test_markdown_shows_every_method_reason_and_retrained_value():
    records = [
        *RETRAINED,
        cell("scrub", 0, forget=0.3, gap=0.2, hyperparameters={"lr": 0.1}),
        cell("scrub", 0, forget=0.4, gap=0.3, hyperparameters={"lr": 0.2}),
        cell("neggrad", status="failed", reason="`neggrad` diverged | badly <b>"),
        cell("head-mask", status="skipped", reason="only whole classes"),
    ]
    board = build(records)
    text = markdown(board, ["figure"], [[]])
    for shown in (
        "original (identity)",
        "retrained, other seed",
        "`scrub[lr=0.1]`",
        "`scrub[lr=0.2]`",
        "30.0 (10.0)",
        "`neggrad` diverged \\| badly \\<b\\>",
        "only whole classes",
        "not run",
        "Hardware: one machine.",
        "unlearnbench 0.1.0",
        "not ranked",
    ):
        assert shown in text, shown


def test_terminal_table_names_long_specs_in_its_heading_and_fits():
    long = "resnet18[" + ",".join(f"argument_{i}={i}" for i in range(20)) + "]"
    several = [
        cell(
            "neggrad-plus",
            seed,
            forget=0.123,
            gap=0.023,
            model=long,
            hyperparameters={"alpha": alpha, "lr": alpha / 7, "epochs": int(10 * alpha)},
        )
        for seed in (0, 1)
        for alpha in (0.5, 1.5)
    ]
    lines = terminal_table([*several, cell("retrain", model=long)]).splitlines()
    assert max(map(len, lines)) <= 112
    assert sum("argument_3=3" in line for line in lines) == 1
    assert any("neggrad-plus[alpha=0.5" in line for line in lines)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_seconds_whose_mean_is_beyond_any_number_do_no_harm():
    records = made_records(methods=1, attacked=False).records
    long = [
        Record.model_validate(
            r.model_dump(by_alias=True) | {"times": dict.fromkeys(r.times, 1e308)}
        )
        for r in records
    ]
    assert "inf" in terminal_table(long)
    assert compare(SweepRecords(long, [], []), SweepRecords(long, [], [])).rows
