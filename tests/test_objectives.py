"""What tuning makes best, and which trial wins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.bench.evaluate import Outputs
from unlearnbench.bench.objectives import (
    Point,
    choose,
    front,
    judge,
    means,
    qualities,
    rule,
    tuning_figures,
)

ALL = ("retain", "forget", "seconds")


def outputs(predicted, labels, sure=5.0):
    logits = torch.zeros(len(labels), 3)
    logits[torch.arange(len(labels)), torch.tensor(predicted)] = sure
    return Outputs(logits, torch.tensor(labels))


def test_figures_of_whole_classes_part_the_validation_images():
    sets = {
        "forget": outputs([0, 1, 2, 1], [0, 0, 0, 0]),
        "validation": outputs([0, 1, 1, 2, 0], [0, 0, 1, 2, 2]),
    }
    assert tuning_figures(sets, (0,)) == pytest.approx(
        {"forget_acc": 0.25, "val_forget_acc": 0.5, "val_retain_acc": 2 / 3}
    )
    assert qualities(tuning_figures(sets, (0,))) == pytest.approx(
        {"retain": 2 / 3, "forget": 0.75, "balance": 0.5}
    )


def test_the_attack_on_examples_compares_with_unseen_images_of_the_same_classes():
    forget = outputs([0, 0], [0, 0], sure=9.0)
    unseen = outputs([0, 0, 1], [0, 0, 1])  # the third is of another class, and better still
    unseen.logits[2, 1] = 50
    seen_through = tuning_figures({"forget": forget, "validation": unseen}, ())
    assert seen_through["forget_auc"] == 1.0
    assert seen_through["val_retain_acc"] == 1.0
    assert "val_forget_acc" not in seen_through
    assert qualities(seen_through)["forget"] == 0.0
    alike = tuning_figures({"forget": outputs([0], [0]), "validation": outputs([0], [0])}, ())
    assert alike["forget_auc"] == 0.5
    assert qualities(alike)["forget"] == 1.0
    # losses that are higher than those of unseen images give the forget set away as well
    worse = tuning_figures({"forget": outputs([1], [0]), "validation": outputs([0], [0])}, ())
    assert qualities(worse)["forget"] == 0.0


def test_without_unseen_images_of_those_classes_the_accuracy_has_to_do():
    figures = tuning_figures(
        {"forget": outputs([0, 1, 1, 1], [0, 0, 0, 0]), "validation": outputs([1], [1])}, ()
    )
    assert "forget_auc" not in figures
    assert qualities(figures)["forget"] == 0.25  # as far from what is kept as can be seen


def test_models_are_judged_one_by_one():
    models = [{"forget_acc": 0.5, "val_retain_acc": 0.9, "forget_auc": auc} for auc in (0.2, 0.8)]
    assert judge(models, whole=False)["forget"] == pytest.approx(0.4)  # and not 1
    own = [{"forget_acc": acc, "val_retain_acc": 0.9} for acc in (0.0, 1.0)]
    retrained = [{"forget_acc": 0.5, "val_retain_acc": 0.9}] * 2
    assert judge(own, retrained, whole=True)["forget"] == pytest.approx(0.5)
    assert means([*models, {"forget_acc": 0.2}]) == pytest.approx({"forget_acc": 0.4})


def test_the_oracle_measures_distances_to_the_retrained_model():
    own = {"forget_acc": 0.3, "val_forget_acc": 0.1, "val_retain_acc": 0.8}
    retrained = {"forget_acc": 0.1, "val_forget_acc": 0.1, "val_retain_acc": 0.9}
    judged = qualities(own, retrained)
    assert judged["retain"] == pytest.approx(0.9)
    assert judged["forget"] == pytest.approx(1 - (0.2 + 0.0) / 2)
    assert judged["balance"] == pytest.approx(0.9 * 0.9)
    assert qualities(own, own) == {"retain": 1.0, "forget": 1.0, "balance": 1.0}


unit = st.integers(0, 4).map(lambda i: i / 4)
clouds = st.lists(st.tuples(unit, unit, unit), max_size=12).map(
    lambda rows: [Point(i, *row) for i, row in enumerate(rows)]
)


@given(clouds, st.sampled_from([ALL, ("retain", "forget"), ("balance",), ("seconds", "forget")]))
def test_the_front_is_what_nothing_beats(points, objectives):
    def better(p, q):
        pairs = [
            (p.value(n), q.value(n)) if n != "seconds" else (q.value(n), p.value(n))
            for n in objectives
        ]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    expected = [p for p in points if not any(better(q, p) for q in points)]
    assert front(points, objectives) == expected
    best = choose(points, objectives, original=0.5, tolerance=0.02)
    assert best in expected if points else best is None


def test_of_those_that_keep_enough_and_forget_as_well_the_fastest_wins():
    points = [
        Point(0, 0.99, 0.20, 0.1),
        Point(1, 0.97, 0.995, 5.0),
        Point(2, 0.97, 0.99, 2.0),
        Point(3, 0.97, 0.98, 1.0),  # forgets less, by more than a tie
        Point(4, 0.90, 1.00, 0.5),  # keeps too little
    ]
    assert choose(points, ALL, original=0.98, tolerance=0.02).number == 2
    assert choose(points, ALL, original=0.98, tolerance=0.1).number == 4
    assert choose(points[3:], ALL, original=1.0, tolerance=0.0).number == 3  # best product


def test_with_one_objective_the_best_wins_and_the_earlier_of_two():
    points = [Point(0, 0.5, 0.5, 2.0), Point(1, 0.9, 0.9, 3.0), Point(2, 0.9, 0.9, 1.0)]
    assert choose(points, ("balance",), 1.0, 0.02).number == 1
    assert choose(points, ("seconds",), 1.0, 0.02).number == 2
    assert choose([], ALL, 1.0, 0.02) is None


def test_the_rule_is_told():
    assert "at least 98 % of the original's retain" in rule(ALL, "validation", 0.02)
    assert "distances to the retrained model" in rule(("balance",), "oracle", 0.02)
