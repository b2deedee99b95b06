"""Leaderboards of many variants take time in proportion to them, and name them as few are named."""

from __future__ import annotations

from unlearnbench.bench import cell_frame
from unlearnbench.bench.cell_frame import as_text, labels_of

from .test_leaderboard import cell


def test_variants_are_compared_in_proportion_to_the_records(monkeypatch):
    compared = 0

    class Text(str):
        __slots__ = ()

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    monkeypatch.setattr(cell_frame, "as_text", lambda value: Text(as_text(value)))
    records = [cell("scrub", hyperparameters={"lr": i / 7, "epochs": 5}) for i in range(200)]
    label = labels_of(records).methods
    named = [label(r.method, r.hyperparameters) for r in records]
    assert len(set(named)) == 200
    assert compared < 20 * len(records)  # of all with all it would be 200 * 400


def test_a_parameter_that_few_record_is_told_of_them():
    old = [cell("scrub", hyperparameters={"lr": lr}) for lr in (0.1, 0.2, 0.3)]
    new = cell("scrub", hyperparameters={"lr": 0.1, "cap": 2})
    label = labels_of([*old, new]).methods
    assert [label("scrub", r.hyperparameters) for r in [*old, new]] == [
        "scrub[lr=0.1]", "scrub[lr=0.2]", "scrub[lr=0.3]", "scrub[cap=2,lr=0.1]",
    ]  # fmt: skip
    # where most record it, it is told of those that do not
    most = [cell("scrub", hyperparameters={"lr": lr, "cap": 2}) for lr in (0.1, 0.2, 0.3)]
    first = cell("scrub", hyperparameters={"lr": 0.1})
    label = labels_of([*most, first]).methods
    assert label("scrub", most[1].hyperparameters) == "scrub[lr=0.2]"
    assert label("scrub", first.hyperparameters) == "scrub[cap=unknown,lr=0.1]"
