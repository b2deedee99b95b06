"""Figures of papers: as section 19 of the specification gives them, and only where they belong."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from unlearnbench.bench import METHODS
from unlearnbench.bench.attack_rows import plain_rows
from unlearnbench.bench.leaderboard import build
from unlearnbench.bench.published import (
    GROUP,
    METRICS,
    SHOWN,
    TAGS,
    Published,
    all_published,
    published_columns,
    published_for,
    published_legend,
    published_of,
)
from unlearnbench.bench.record import Record
from unlearnbench.bench.tablecell import NONE

from .made_records import made_records

CIFAR = ("cifar10", "resnet18")


def value(figures, metric, **more):
    """The only figure of a metric, with its spread."""
    (found,) = [
        f
        for f in figures
        if f.metric == metric and all(getattr(f, k) == v for k, v in more.items())
    ]
    return found.value, found.spread


def test_every_figure_has_a_source_a_tag_and_a_value_in_range():
    figures = all_published()
    assert len(figures) > 350
    for figure in figures:
        assert figure.source.strip()
        assert figure.short.strip()
        assert figure.tag in TAGS
        assert (figure.unit, figure.split) == METRICS[figure.metric]
        assert figure.value >= 0
        if figure.unit in ("%", "points"):
            assert figure.value <= 100


def test_no_figure_is_told_twice_by_one_source():
    names = [
        (f.source, f.tag, f.dataset, f.model, f.scenario, f.method, f.metric, f.bound)
        for f in all_published()
    ]
    assert len(set(names)) == len(names)


def test_registered_methods_have_our_names():
    ours = set(METHODS.names()) & {figure.method for figure in all_published()}
    assert ours == {
        "retrain", "finetune", "neggrad", "neggrad-plus", "scrub", "svd", "osp", "identity",
        "l1-sparse", "bad-teacher", "boundary-expand", "boundary-shrink", "cf-k", "fisher",
        "influence", "jit", "lfssd", "random-label", "salun", "ssd", "unsir"
    }  # fmt: skip
    others = {figure.method for figure in all_published()} - ours
    assert not {name.lower().replace(" ", "-").replace("+", "-plus") for name in others} & ours
    assert not others & {"FT", "GA", "NegGrad", "NegGrad+", "Retrain", "Original", "SCRUB", "SVD"}


@pytest.mark.parametrize(
    ("task", "method", "source", "metric", "expected"),
    [
        # 19.1: source A, UA 4.81 +/- .27 and so on
        ("random[fraction=0.1]", "retrain", "CoUn", "forget_acc", (95.19, 0.27)),
        ("random[fraction=0.1]", "retrain", "CoUn", "test_acc", (94.67, 0.24)),
        ("random[fraction=0.1]", "retrain", "CoUn", "mia_svc_efficacy", (11.02, 0.58)),
        ("random[fraction=0.1]", "neggrad-plus", "CoUn", "forget_acc", (95.18, None)),
        ("random[fraction=0.1]", "ssd", "CoUn", "cost_pflop", (0.06, None)),
        ("random[fraction=0.1]", "bad-teacher", "CoUn", "retain_acc", (99.94, None)),
        # source B: quoted, and from memory
        ("random[fraction=0.1]", "salun", "SalUn table 1", "average_gap", (1.15, None)),
        ("random[fraction=0.1]", "random-label", "SalUn table 1", "forget_acc", (92.39, None)),
        ("random[fraction=0.1]", "neggrad", "SalUn table 1", "minutes", (0.13, None)),
        ("random[fraction=0.1]", "boundary-shrink", "SalUn table 1", "test_acc", (92.69, None)),
        # source C and D
        ("random", "boundary-shrink", "Unlearn-WorstCase", "average_gap_worst_case", (37.22, None)),
        ("random[fraction=0.1]", "scrub", "Unlearn-WorstCase", "average_gap", (9.91, None)),
        ("random[fraction=0.1]", "retrain", "MMU note", "seconds", (511, None)),
        ("random[fraction=0.5]", "retrain", "CoUn", "forget_acc", (92.71, None)),
        # 19.2
        ("class[classes=[3]]", "svd", "SVD paper table 1", "test_retain_acc", (94.19, 0.50)),
        ("class[classes=[3]]", "svd", "SVD paper table 1", "test_forget_acc", (0.03, 0.09)),
        ("class[classes=[3]]", "neggrad", "SVD paper table 1", "test_retain_acc", (69.89, 10.23)),
        ("class[classes=[3]]", "unsir", "SVD paper table 1", "mia_svc_test_forget", (61.5, 25.86)),
        ("class[classes=[3]]", "identity", "SVD paper table 1", "test_forget_acc", (94.89, 2.75)),
        ("class[classes=[5]]", "ssd", "HF card", "test_retain_acc", (12.53, None)),
        ("class[classes=[5]]", "salun", "HF cards", "test_forget_acc", (3.7, None)),
        ("class[classes=[9]]", "finetune", "CoUn table 8", "test_retain_acc", (94.99, None)),
        ("class[classes=[0]]", "salun", "MMU note", "forget_acc", (51.5, 12.6)),
        ("class[classes=[3]]", "fisher", "Unlearn-Sparse table 1", "forget_acc", (20.07, None)),
        ("class[classes=[3]]", "osp", "OSP abstract", "test_forget_acc", (2, None)),
    ],
)  # fmt: skip
def test_spot_checks_against_the_specification(task, method, source, metric, expected):
    figures = published_for(*CIFAR, task, method)
    found = value(figures, metric, short=source)
    assert found == (pytest.approx(expected[0]), expected[1])


def test_spot_checks_of_other_data():
    tiny = published_for("tiny-imagenet", "resnet18", "random[fraction=0.1]", "finetune")
    assert value(tiny, "forget_acc") == (pytest.approx(67.24), None)
    assert value(tiny, "mia_svc_efficacy") == (56.93, None)
    vit = "vit_small_patch16_224[weights=timm]"
    cmf = published_for("cifar100", vit, "class[classes=[3]]", "neggrad-plus")
    assert value(cmf, "linear_probe_forget") == (87.2, None)
    (gap,) = [f for f in published_of("cifar100", "resnet18", "class[classes=[69]]")
              if f.metric == "average_gap"]  # fmt: skip
    assert (gap.method, gap.value) == ("MU-Mis", 0.07)


def test_unlearning_accuracy_is_turned_round_and_said_so():
    figures = published_for(*CIFAR, "random[fraction=0.1]", "finetune")
    turned = [f for f in figures if f.metric == "forget_acc"]
    assert turned
    assert all("100 less" in f.note for f in turned)
    assert not any("100 less" in f.note for f in figures if f.metric != "forget_acc")


def test_a_bound_is_no_value():
    figures = published_for(*CIFAR, "class[classes=[3]]", "osp")
    assert {f.metric: f.bound for f in figures} == {
        "test_forget_acc": "at most",
        "retention": "at least",
    }


@pytest.mark.parametrize(
    "task",
    [
        ("cifar10[per_class=500]", "resnet18", "random[fraction=0.1]"),
        ("digits", "resnet18", "random[fraction=0.1]"),
        ("cifar10", "resnet34", "random[fraction=0.1]"),
        ("cifar10", "resnet18[layers=[1,1,1,1]]", "random[fraction=0.1]"),
        ("cifar10", "resnet18[weights=timm]", "class[classes=[3]]"),
        ("cifar10", "vit_small_patch16_224", "class[classes=[3]]"),
        ("cifar10", "resnet18", "random[fraction=0.2]"),
        ("cifar10", "resnet18", "random[count=5000]"),
        ("cifar10", "resnet18", "class[classes=[3,5]]"),
        ("cifar10", "resnet18", "ids[file=f.json]"),
        ("cifar10", "resnet18", "not a scenario ["),
    ],
)
def test_another_task_has_no_figures(task):
    assert published_of(*task) == []


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("random", "random[fraction=0.1]"),
        ("random[draw_seed=3,fraction=0.1]", "random[fraction=0.1]"),
        ("class", "class[classes=[0]]"),
        ("class[classes=[truck]]", "class[classes=[9]]"),
        ("class[classes=9]", "class[classes=[9]]"),
    ],
)
def test_a_task_is_known_however_it_is_written(one, same):
    assert published_of(*CIFAR, one) == published_of(*CIFAR, same) != []


def test_figures_of_one_class_are_shown_for_that_class_only():
    for number in range(10):
        of_class = published_of(*CIFAR, f"class[classes=[{number}]]")
        named = {f.scenario for f in of_class} - {"class"}
        assert named == {f"class[classes=[{number}]]"}


def made(dataset, scenario, recipes=("plain",)):
    found = made_records(methods=4, attacked=False, recipes=recipes, models=("resnet18",))
    names = dict(zip([f"method-{i:02}" for i in range(4)],
                     ["scrub", "osp", "mine", "neggrad-plus"], strict=True))  # fmt: skip
    records = [
        Record.model_validate(
            r.model_dump(by_alias=True)
            | {"dataset": dataset, "scenario": scenario, "method": names.get(r.method, r.method)}
        )
        for r in found.records
    ]
    (table,) = build(records).tables
    return table


def shown(table):
    columns = published_columns(table)
    return {
        (row["recipe"], row["method"].partition("[")[0]): {c.head: c.cell(row) for c in columns}
        for row in plain_rows(table.rows)
    }


def test_columns_stand_in_a_group_of_their_own_with_their_source():
    table = made("cifar10", "class[classes=[3]]")
    columns = published_columns(table)
    assert {column.group for column in columns} == {GROUP}
    assert [c.head for c in columns] == ["test, forgotten %", "test, kept %", "source"]
    rows = shown(table)
    kept = rows["plain", "scrub"]["test, kept %"]
    assert (kept.text, kept.spread, kept.value) == ("94.79", "± 0.63", pytest.approx(0.9479))
    assert rows["plain", "scrub"]["source"].text == "SVD paper table 1 (S)"
    assert rows["plain", "osp"]["test, forgotten %"].text == "≤ 2"
    assert rows["plain", "mine"]["source"].text == NONE
    assert rows["plain", "retrained, other seed"]["test, kept %"].text == NONE
    assert rows["plain", "original (identity)"]["test, kept %"].text == "94.89"
    assert set(published_legend(columns)) == {GROUP}


def test_all_figures_of_a_row_are_of_one_source():
    rows = shown(made("cifar10", "random[fraction=0.1]"))
    row = rows["plain", "retrained"]
    assert row["source"].text == "CoUn (P)"
    assert [row[f"{name} %"].text for name in ("forget", "retain", "test")] == [
        "95.19",
        "100",
        "94.67",
    ]


def test_what_was_trained_with_a_penalty_is_not_compared_with_what_was_not():
    rows = shown(made("cifar10", "random[fraction=0.1]", recipes=("plain", "orthogonal")))
    assert rows["plain", "scrub"]["source"].text == "CoUn (P)"
    assert rows["orthogonal", "scrub"]["source"].text == NONE


def test_a_task_without_published_figures_has_no_such_columns():
    for dataset, scenario in (("digits", "class[classes=[3]]"), ("cifar10", "random[count=7]")):
        columns = published_columns(made(dataset, scenario))
        assert columns == []
        assert published_legend(columns) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": ""}, "source"),
        ({"value": 101.0}, "out of range"),
        ({"value": -1.0}, "out of range"),
        ({"value": float("nan")}, "finite"),
        ({"metric": "accuracy"}, "unknown metric"),
        ({"split": "test"}, "forget_acc"),
        ({"tag": "X"}, "tag"),
        ({"surprise": 1}, "surprise"),
    ],
    ids=str,
)
def test_a_figure_that_is_wrong_is_refused(changes, said):
    good = {"dataset": "d", "model": "m", "scenario": "class", "method": "x", "tag": "P",
            "metric": "forget_acc", "split": "train", "unit": "%", "value": 3.0,
            "source": "paper", "short": "p"}  # fmt: skip
    Published(**good)
    with pytest.raises(ValidationError, match=said):
        Published(**good | changes)


def test_every_shown_metric_is_an_accuracy_of_ours():
    assert set(SHOWN) <= set(METRICS)


@pytest.mark.parametrize(
    "scenario",
    [
        "random[fraction=abc]",
        "random[fraction=[1]]",
        "random[fraction=true]",
        "random[count={a=1}]",
        f"random[fraction={'9' * 400}]",
        "class[classes=[]]",
        "class[classes=[[1]]]",
        "class[classes={a=1}]",
        "class[seed=1]",
        "class[",
    ],
)
def test_nothing_is_published_on_a_forget_set_that_is_not_one(scenario):
    assert published_of(*CIFAR, scenario) == []


@pytest.mark.parametrize("scenario", ["random", "random[fraction=0.10]", "random[seed=3]"])
def test_a_random_draw_is_a_tenth_if_it_is_not_said(scenario):
    assert published_of(*CIFAR, scenario) == published_of(*CIFAR, "random[fraction=0.1]") != []
