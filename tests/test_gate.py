"""The utility gate and the places within a task, by hand."""

from __future__ import annotations

import math
import random

import pytest

from unlearnbench.bench.columns import columns_of, legend
from unlearnbench.bench.gate import gate
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.tablecell import FAILS, FEW, MACHINES, MARKS, NO_SPREAD, NONE, TIMES_SIGN

from .test_leaderboard import cell
from .test_leaderboard_attack import figures, hit, references

NO_TIMES = {"n_ok": 1, "n_failed": 0, "lost_retain_acc": math.nan, "speedup_mean": math.nan}


def judged(lost=0.0, sd=math.nan, **more):
    row = NO_TIMES | {"lost_test_acc": lost} | more
    return gate(row, {"test_acc": sd, "retain_acc": math.nan})


@pytest.mark.parametrize(
    ("lost", "sd", "passes"),
    [
        (0.02, math.nan, True),  # 2 points are allowed
        (0.93 - 0.91, math.nan, True),  # which is a little more than 0.02 in binary
        (0.0201, math.nan, False),
        (0.0201, 0.005, False),  # 2 sd are 1 point: 2 points still
        (0.029, 0.015, True),  # 2 sd are 3 points
        (0.031, 0.015, False),
        (-0.5, 0.0, True),  # better than the retrained model
    ],
)
def test_accuracy_may_be_two_points_or_two_standard_deviations_below(lost, sd, passes):
    assert judged(lost, sd).verdict == ("pass" if passes else "fail")


def test_the_reason_says_how_much_was_lost_and_how_much_is_allowed():
    assert judged(0.123).reason == (
        "test accuracy 12.3 points below the retrained model's; at most 2.0 are allowed"
    )
    # as many digits as it takes
    assert "2.02 points below the retrained model's; at most 2.00 are" in judged(0.0202).reason
    both = judged(0.1, lost_retain_acc=0.2, speedup_mean=0.5).reason
    assert both.startswith("retain accuracy 20.0 points below")
    assert "; test accuracy 10.0 points below" in both
    assert both.endswith(f"; not faster than retraining (0.500{TIMES_SIGN})")


@pytest.mark.parametrize(("speedup", "verdict"), [(1.0, "fail"), (1.01, "pass"), (0.9, "fail")])
def test_a_method_must_be_faster_than_retraining(speedup, verdict):
    assert judged(speedup_mean=speedup).verdict == verdict


def test_what_is_not_known_does_not_fail():
    assert judged(math.nan) == ("", "")
    assert judged(math.nan, speedup_mean=2.0) == ("pass", "")
    assert gate({"n_ok": 0, "n_failed": 0}, {}) == ("", "")  # declined


def test_a_method_without_an_ok_cell_or_with_void_figures_fails():
    assert gate({"n_ok": 0, "n_failed": 3}, {}) == ("fail", "no cell is ok, 3 failed")
    assert judged(attack_validity="suspected").reason == "its figures of the attack do not count"


# --- in a table -----------------------------------------------------------------------------------


def method(name, acc, *, test=0.8, speedup=None, **changes):
    times = {"unlearn_s": 1.0} | ({"speedup": speedup} if speedup else {})
    made = hit(name, figure=figures(acc), times=times, **changes)
    return made.model_copy(update={"metrics": made.metrics | {"test_acc": test}})


def table_of(*records):
    return build(records).tables[0]


def row_of(name, *records):
    return table_of(*records).rows.set_index("method").loc[name]


def test_retrained_models_that_differ_allow_more():
    retrained = [
        method("retrain", 0.5, test=test, seed=seed, forget_request="f")
        for seed, test in enumerate((0.75, 0.85))  # sd 0.0707
    ]
    wide = [method("scrub", 0.5, test=0.67, seed=seed, forget_request="f") for seed in (0, 1)]
    scrub = row_of("scrub", *retrained, *wide)
    assert scrub["lost_test_acc"] == pytest.approx(0.13)  # 0.08 and 0.18
    assert scrub["gate"] == "pass"  # 2 * 0.0707 = 0.141
    low = [r.model_copy(update={"metrics": r.metrics | {"test_acc": 0.65}}) for r in wide]
    reason = row_of("scrub", *retrained, *low)["gate_reason"]
    assert "test accuracy 15.0 points below the retrained model's; at most 14.1 are" in reason


def test_accuracy_is_lost_against_the_retrained_models_of_the_same_seeds():
    retrained = [method("retrain", 0.5, test=0.8, seed=0)]
    records = [*retrained, method("scrub", 0.5, test=0.79), method("scrub", 0.5, test=0.1, seed=1)]
    # nothing is known of seed 1, which has no retrained model
    assert row_of("scrub", *records)["lost_test_acc"] == pytest.approx(0.01)


def test_methods_are_placed_by_the_excess_over_their_band():
    records = [
        *references(),
        method("worst", 0.6, speedup=100),
        method("inside-slow", 0.51, speedup=2),
        method("failed", 0.5, test=0.5),
        method("inside-fast", 0.4, speedup=9),
        method("leaks", 0.55, speedup=3),
        cell("declined", status="skipped", reason="no"),
        cell("broken", status="failed", reason="diverged"),
    ]
    rows = table_of(*records).rows
    assert list(rows["method"][3:]) == [
        "inside-fast", "inside-slow", "leaks", "worst", "broken", "failed", "declined",
    ]  # fmt: skip
    by_name = rows.set_index("method")
    places = [1, 1, 3, 4, 5, 5]
    assert list(by_name["place"][3:9]) == places
    assert list(by_name["tied"][3:9]) == [True, True, False, False, True, True]
    assert math.isnan(by_name.loc["declined", "place"])
    assert by_name["place"][:3].isna().all()  # references have none
    assert by_name.loc["inside-slow", "excess"] == 0
    assert by_name.loc["leaks", "excess"] == pytest.approx(0.55 - 0.519)
    assert by_name.loc["retrained", "excess"] == 0
    assert list(by_name["gate"][3:]) == ["pass"] * 4 + ["fail", "fail", ""]


def test_permuted_records_give_the_same_ranked_rows():
    records = [*references(), *(method(f"m{i}", 0.5 + 0.01 * (i % 3)) for i in range(9))]
    first = table_of(*records).rows
    mixed = records.copy()
    random.Random(0).shuffle(mixed)
    mixed.sort(key=lambda r: r.method not in ("identity", "retrain"))
    ranked = ["method", "place", "tied", "excess", "gate"]
    assert table_of(*mixed).rows[ranked][3:].equals(first[ranked][3:])


def test_controls_stand_with_the_references_and_are_not_ranked():
    records = [method("scrub", 0.55), method("head-mask", 0.5), *references()]
    rows = table_of(*records, method("random-channels", 0.5, test=0.1)).rows
    assert list(rows["kind"][3:]) == ["control", "control", "method"]
    assert list(rows["method"][3:]) == ["head-mask", "random-channels", "scrub"]
    assert rows["place"][3:5].isna().all()
    assert (rows["place"].iloc[5], rows["tied"].iloc[5]) == (1, False)
    assert rows["gate"].iloc[4] == "fail"  # told, though it has no place


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([cell("scrub")], "U-LIRA was not run"),
        (references(), "there is no method to rank"),
        ([*references(identity=0.51), method("m", 0.6)], "the original model shows nothing to"),
        ([*references(retrain=0.6), method("m", 0.5)], "the retrained model lies far outside"),
        ([*references(), method("m", 0.5, test=0.1)], "no method that passes the gate has a"),
        ([hit("m", figure={"rmia/auc": 0.6})], "U-LIRA gave no figure with a null band"),
        (
            [*references(), hit("m", status="failed", reason="no", figure={})],
            "no method has a cell that is ok",
        ),
    ],
    ids=["not run", "no method", "nothing to see", "biased", "all fail", "no band", "all failed"],
)
def test_a_task_that_ranks_nothing_says_why(records, reason):
    table = table_of(*records)
    assert table.unranked.startswith(reason)
    assert table.rows["place"].isna().all()
    said = any(note.startswith(f"No method is ranked here: {reason}") for note in table.notes)
    assert said == (reason != "U-LIRA was not run")


ABSENT = "has a U-LIRA figure with a null band"


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ([], f"neither the original nor the retrained model {ABSENT}"),
        (["identity"], f"the retrained model {ABSENT}"),
        (["retrain"], f"the original model {ABSENT}"),
    ],
    ids=["none", "no retrained", "no original"],
)
def test_no_method_is_ranked_where_a_control_is_not_known(there, reason):
    made = {record.method: record for record in references()}
    records = [*(made[name] for name in there), method("a", 0.6), method("b", 0.5)]
    table = table_of(*records)
    assert table.rows["place"].isna().all()
    reason = reason if not there else reason.replace("has a", "has no")
    assert table.unranked == reason
    assert build(records).standings is None
    unjudged = (
        "There is no retrained model: whether methods keep its accuracy, as the gate asks, was "
        "not judged."
    )
    assert (unjudged in table.notes) == ("retrain" not in there)
    assert f"No method is ranked here: {reason}." in table.notes


def test_a_control_without_a_null_band_is_not_known():
    bare = {k: v for k, v in figures(0.5).items() if "null" not in k}
    records = [references()[0], hit("retrain", figure=bare), method("a", 0.5)]
    assert table_of(*records).unranked == (
        "the retrained model has no U-LIRA figure with a null band"
    )


def test_a_recipe_whose_controls_fail_is_not_ranked_beside_one_that_is():
    records = [
        *references(),
        method("scrub", 0.55),
        *references(retrain=0.6, recipe="orthogonal"),
        method("osp", 0.5, recipe="orthogonal"),
    ]
    table = table_of(*records)
    rows = table.rows.set_index("method")
    assert rows.loc["scrub", "place"] == 1
    assert math.isnan(rows.loc["osp", "place"])
    assert table.notes[-1] == (
        "Methods on recipe orthogonal are not ranked: the retrained model lies far outside its "
        "null band."
    )


# --- gaps in standard deviations, and marks -------------------------------------------------------


def shown(name, *records):
    board = build(records)
    table = board.tables[0]
    row = next(row for row in table.rows.to_dict("records") if row["method"] == name)
    return {column.flat_head: column.cell(row) for column in columns_of(table, board)}


def seeds_of(name, forget, gap, **changes):
    return [cell(name, seed, forget=f, gap=gap, **changes) for seed, f in enumerate(forget)]


def test_gaps_are_also_in_standard_deviations_of_the_retrained_models():
    records = [*seeds_of("retrain", (0.1, 0.2), 0.0), *seeds_of("scrub", (0.3, 0.4), 0.2)]
    sd = math.sqrt(0.005)  # of 0.1 and 0.2
    assert row_of("scrub", *records)["gap_forget_sd"] == pytest.approx(0.2 / sd)
    cells = shown("scrub", *records)
    assert (cells["forget gap, sd"].text, cells["forget gap, sd"].mark) == ("2.8", "")
    # all retrained models have the same test accuracy
    assert (cells["test gap, sd"].text, cells["test gap, sd"].mark) == (NONE, NO_SPREAD)
    assert math.isnan(row_of("scrub", *records)["gap_test_sd"])


def test_one_retrained_model_has_no_spread():
    records = [cell("retrain", gap=0.0), cell("scrub", gap=0.1)]
    assert shown("scrub", *records)["forget gap, sd"].mark == NO_SPREAD
    assert NO_SPREAD in legend(build(records))
    assert "forget gap, sd" not in shown("scrub", cell("scrub"))  # no retrained model, no gap


def test_fewer_than_three_seeds_are_marked():
    assert shown("scrub", *seeds_of("scrub", (0.1, 0.2), 0.1))["status"].mark == FEW
    assert shown("scrub", *seeds_of("scrub", (0.1, 0.2, 0.3), 0.1))["status"].mark == ""
    failed = [cell("scrub", status="failed", reason="no")]
    assert shown("scrub", *failed)["status"].mark == ""  # there is nothing that needs a spread


def test_times_of_several_machines_are_marked():
    records = [cell("retrain"), cell("scrub"), cell("scrub", 1, environment={"hardware": "other"})]
    cells = shown("scrub", *records)
    for head in ("unlearn s", "speed-up", "memory"):
        assert (cells[head].text, cells[head].mark) == (NONE, MACHINES), head
    assert MARKS[MACHINES] in legend(build(records)).values()


def test_a_speed_up_that_is_not_there_for_the_machine_of_retraining_is_marked():
    elsewhere = cell("retrain", environment={"hardware": "other"})
    cells = shown("scrub", elsewhere, cell("scrub"))
    assert cells["speed-up"].mark == MACHINES
    assert cells["unlearn s"].mark == ""
    assert shown("scrub", cell("retrain"), cell("scrub"))["speed-up"].mark == ""
    assert shown("original (identity)", elsewhere, cell("identity"))["speed-up"].mark == ""


def test_the_place_shows_ties_and_failures():
    records = [*references(), method("a", 0.5), method("b", 0.5), method("c", 0.5, test=0.1)]
    assert shown("a", *records)["place"] == ("=1", 1, "", "", "")
    assert shown("c", *records)["place"] == ("3", 3, "", "", FAILS)
    assert shown("retrained", *records)["place"].text == NONE
    assert "place" not in shown("scrub", cell("scrub"))  # nobody is ranked, and nobody fails
    slow = cell("scrub", times={"unlearn_s": 1.0, "speedup": 0.5})
    assert shown("scrub", slow)["place"] == (NONE, None, "", "", FAILS)


def test_primary_columns_are_those_of_the_specification():
    records = [*references(), *(method("scrub", 0.55, seed=seed, gap=0.1) for seed in (0, 1))]
    board = build(records)
    primary = [c.flat_head for c in columns_of(board.tables[0], board) if c.primary]
    assert primary == [
        "method", "place", "status", "U-LIRA % (null band)", "U-LIRA AUC",
        "forget % (retrained)", "forget gap", "forget gap, sd",
        "test % (retrained)", "test gap", "test gap, sd", "unlearn s", "speed-up",
    ]  # fmt: skip
