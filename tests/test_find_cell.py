"""Which cell is meant by a few letters of its key, or by a method's name."""

from __future__ import annotations

import pytest

from unlearnbench.bench.errors import InputError
from unlearnbench.bench.find_cell import find_cell, short_keys

from .report_cases import cell

RECORDS = [
    cell("identity"),
    cell("scrub", hyperparameters={"lr": 0.01, "epochs": 2}, key="aa11223344"),
    cell("scrub", hyperparameters={"lr": 0.02, "epochs": 2}, key="aa11223355"),
    cell("scrub", 1, hyperparameters={"lr": 0.02, "epochs": 2}, key="bb00000000"),
    cell("svd", hyperparameters={}, key="cc"),
    cell("svd", hyperparameters={}, scenario="random[fraction=0.1]", key="ff00000000"),
]


def key_of(text, **options):
    return find_cell(RECORDS, text, **options).key


def test_short_keys_are_as_long_as_they_must_be():
    short = short_keys(RECORDS)
    assert short["aa11223344"] == "aa1122334"
    assert short["aa11223355"] == "aa1122335"
    assert short["bb00000000"] == "bb000000"
    assert short["cc"] == "cc"
    assert len(set(short.values())) == len(short)


@pytest.mark.parametrize(
    ("text", "options", "key"),
    [
        ("bb", {}, "bb00000000"),
        ("BB0", {}, "bb00000000"),
        ("aa1122334", {}, "aa11223344"),
        ("scrub", {"seed": 1}, "bb00000000"),
        ("scrub[lr=0.01]", {}, "aa11223344"),
        ("scrub[ epochs=2, lr=1e-2 ]", {}, "aa11223344"),
        ("scrub[lr=0.02]", {"seed": 0}, "aa11223355"),
        ("svd", {"scenario": "random"}, "ff00000000"),
        ("svd", {"scenario": "class[classes=[cat,dog]]"}, "cc"),
        ("original (identity)", {}, RECORDS[0].key),
    ],
    ids=str,
)
def test_a_cell_is_found(text, options, key):
    assert key_of(text, **options) == key


def test_the_row_of_exactly_that_name_comes_first():
    other = cell("scrub", hyperparameters={"lr": 0.02, "epochs": 3}, key="dd00000000")
    # what most of three variants have is not told: scrub[lr=0.01], scrub and scrub[epochs=3]
    records = [*RECORDS, other]
    assert find_cell(records, "scrub", seed=0).key == "aa11223355"
    assert find_cell(records, "scrub[epochs=3]").key == "dd00000000"


def test_what_is_not_unique_lists_the_candidates_with_what_tells_them_apart():
    with pytest.raises(InputError) as caught:
        key_of("scrub[lr=0.02]", where="`here`")
    assert str(caught.value) == (
        "`scrub[lr=0.02]` is 2 cells of `here`; name one by its key, or with `--seed` and "
        "`--scenario`: aa1122335 (seed 0), bb000000 (seed 1)."
    )
    with pytest.raises(InputError, match=r"is 2 cells .*: cc \(class\[classes=\[cat,dog\]\], seed"):
        key_of("svd")
    with pytest.raises(InputError) as caught:
        key_of("aa")
    assert str(caught.value).endswith(
        ": aa1122334 (scrub[lr=0.01], seed 0), aa1122335 (scrub[lr=0.02], seed 0)."
    )


def test_what_is_not_known_says_what_there_is():
    with pytest.raises(InputError, match=r"`scurb` is no method .* `scrub`, `svd`; for example"):
        key_of("scurb")
    with pytest.raises(InputError, match="`scrub\\[lr=3\\]` is no method"):
        key_of("scrub[lr=3]")
    with pytest.raises(InputError, match=r"no cell with seed 7 and scenario `ids` in .*it has cc"):
        key_of("svd", seed=7, scenario="ids")
    with pytest.raises(InputError, match="`` is no method"):
        key_of("")


def test_a_long_list_is_cut():
    many = [cell("scrub", seed) for seed in range(50)]
    with pytest.raises(InputError, match=r"is 50 cells .* and 30 more\."):
        find_cell(many, "scrub")


def test_a_method_comes_before_a_key_that_begins_like_it():
    records = [cell("add", key="1234"), cell("scrub", key="add0")]
    assert find_cell(records, "add").key == "1234"
    assert find_cell(records, "add0").key == "add0"
