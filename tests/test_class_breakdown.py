"""Methods class by class: means and the worst class, by hand."""

from __future__ import annotations

import math

import pytest

from unlearnbench.bench.class_breakdown import class_breakdowns, single_class
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.markdown import markdown

from .made_records import made_records
from .test_leaderboard import cell
from .test_leaderboard_attack import figures, hit


def of_class(method, label, *, forget=0.5, kept=0.8, gap=None, acc=None, **changes):
    """A cell that forgets one class; `kept` is the test accuracy on the other classes."""
    scenario = f"class[classes=[{label}]]"
    figure = figures(acc) if acc is not None else {}
    make = hit if figure else cell
    more = {"figure": figure} if figure else {}
    made = make(method, forget=forget, gap=gap, scenario=scenario, **more, **changes)
    if made.status != "ok":
        return made
    metrics = {"test_forget_acc": forget, "test_retain_acc": kept, "test_acc": kept}
    return made.model_copy(update={"metrics": made.metrics | metrics})


def summary_of(*records):
    (found,) = class_breakdowns(build(records))
    return found.summary.set_index("method")


RECORDS = [
    of_class("retrain", 2, forget=0.1, kept=0.9, acc=0.5),
    of_class("retrain", 10, forget=0.3, kept=0.9, acc=0.5),
    of_class("retrain", "cat", forget=0.2, kept=0.9, acc=0.5),
    of_class("scrub", 2, forget=0.0, kept=0.7, gap=0.1, acc=0.6),
    of_class("scrub", 10, forget=0.28, kept=0.8, gap=0.02, acc=0.55),
    of_class("scrub", "cat", forget=0.25, kept=0.75, gap=0.05, acc=0.5),
]


def test_means_and_the_worst_class_stand_beside_each_other():
    scrub = summary_of(*RECORDS).loc["scrub"]
    assert scrub["classes"] == 3
    assert scrub["forget_acc_mean"] == pytest.approx((0 + 0.28 + 0.25) / 3)
    # 0 is 0.1 away from retrained, 0.28 only 0.02
    assert (scrub["forget_acc_worst"], scrub["forget_acc_worst_class"]) == (0.0, "2")
    assert (scrub["test_forget_acc_worst"], scrub["test_forget_acc_worst_class"]) == (0.0, "2")
    assert (scrub["test_retain_acc_worst"], scrub["test_retain_acc_worst_class"]) == (0.7, "2")
    assert (scrub["gap_forget_acc_worst"], scrub["gap_forget_acc_worst_class"]) == (0.1, "2")
    assert scrub["ulira.privacy/acc_mean"] == pytest.approx(0.55)
    assert (scrub["ulira.privacy/acc_worst"], scrub["ulira.privacy/acc_worst_class"]) == (0.6, "2")
    assert scrub["excess_mean"] == pytest.approx((0.081 + 0.031) / 3)


def test_without_a_retrained_model_the_highest_accuracy_on_the_forgotten_is_the_worst():
    scrub = summary_of(*(r for r in RECORDS if r.method == "scrub")).loc["scrub"]
    assert (scrub["forget_acc_worst"], scrub["forget_acc_worst_class"]) == (0.28, "10")


def test_rows_are_tidy_and_classes_in_their_order():
    (found,) = class_breakdowns(build(RECORDS[::-1]))
    assert found.classes == ("2", "10", "cat")
    assert (found.dataset, found.model) == ("digits", "resnet18[stem=small]")
    scrub = found.rows[found.rows["method"] == "scrub"]
    assert list(scrub["class"]) == ["2", "10", "cat"]
    assert list(scrub["forget_acc"]) == [0.0, 0.28, 0.25]
    assert set(found.rows["kind"]) == {"reference", "method"}
    assert list(found.rows.columns) == [
        "recipe", "method", "kind", "class", "forget_acc", "test_acc", "test_forget_acc",
        "test_retain_acc", "gap_forget_acc", "gap_test_acc", "ulira.privacy/acc", "excess",
        "status",
    ]  # fmt: skip


def test_a_class_on_which_a_method_failed_is_not_in_its_mean():
    failed = of_class("svd", 2, status="failed", reason="diverged")
    svd = summary_of(*RECORDS, failed, of_class("svd", 10, forget=0.4, gap=0.1)).loc["svd"]
    assert (svd["classes"], svd["forget_acc_mean"]) == (1, pytest.approx(0.4))
    assert math.isnan(svd["ulira.privacy/acc_mean"])
    assert svd["ulira.privacy/acc_worst_class"] == ""


def test_figures_that_do_not_count_are_in_no_mean():
    peeked = {"attack": {"suspicion": "it peeked."}}
    records = [*RECORDS, of_class("peek", 2, acc=0.5, **peeked), of_class("peek", 10, acc=0.6)]
    peek = summary_of(*records).loc["peek"]
    assert peek["ulira.privacy/acc_mean"] == pytest.approx(0.6)
    assert peek["excess_worst_class"] == "10"
    assert peek["forget_acc_mean"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scenario", "forgotten"),
    [
        ("class[classes=[3]]", "3"),
        ("class[classes=[cat]]", "cat"),
        ("class", "0"),
        ("class[classes=[3,4]]", None),
        ("random[fraction=0.1]", None),
    ],
)
def test_only_scenarios_of_one_class_count(scenario, forgotten):
    assert single_class(scenario) == forgotten


def test_one_class_is_no_breakdown_and_datasets_are_apart():
    assert class_breakdowns(build([])) == []
    assert class_breakdowns(build([of_class("scrub", 2)])) == []
    other = [of_class("scrub", 2), of_class("scrub", 3, dataset="cifar10")]
    assert class_breakdowns(build(other)) == []
    found = class_breakdowns(build(made_records(2, 1, 12).records))
    assert [(b.model, len(b.classes)) for b in found] == [("resnet18", 10), ("vgg11", 2)]


def test_markdown_has_a_table_by_class():
    board = build(RECORDS)
    text = markdown(board, [""] * 3, [[]] * 3)
    assert "## By forgotten class: `digits`, `resnet18[stem=small]`" in text
    line = next(line for line in text.splitlines() if line.startswith("| scrub") and "(2)" in line)
    cells = [part.strip() for part in line.strip("|").split("|")]
    assert cells == [
        "scrub", "3", "55.0", "60.0 (2)", "17.7", "0.0 (2)", "17.7", "0.0 (2)", "75.0", "70.0 (2)",
        "5.67", "10.00 (2)", "0.00", "0.00 (2)",
    ]  # fmt: skip
    assert "By forgotten class" not in markdown(build(RECORDS[:1]), [""], [[]])


def test_two_tables_of_one_class_are_joined():
    def bare(record):
        return record.model_copy(update={"scenario": "class"})

    records = [
        of_class("retrain", 0, forget=0.1),
        of_class("scrub", 0, forget=0.2),
        of_class("svd", 0, status="failed", reason="diverged"),
        bare(of_class("scrub", 0, forget=0.9)),
        bare(of_class("svd", 0, forget=0.3)),
        bare(of_class("finetune", 0, forget=0.4)),
        of_class("scrub", 1, forget=0.6),
    ]
    (found,) = class_breakdowns(build(records))
    zero = found.rows[found.rows["class"] == "0"].set_index("method")["forget_acc"]
    assert zero.index.is_unique
    assert zero[["retrained", "scrub", "svd", "finetune"]].to_list() == [0.1, 0.2, 0.3, 0.4]
    assert summary_of(*records).loc["scrub", "forget_acc_mean"] == pytest.approx(0.4)
