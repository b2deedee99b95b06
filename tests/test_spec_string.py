"""The notation `name[key=value,…]`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnbench.bench import InputError
from unlearnbench.bench.spec_string import format_spec, parse_spec, split_specs

steady = settings(derandomize=True, database=None, deadline=None, max_examples=100)

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.from_regex(r"[A-Za-z_][\w.\-]{0,8}", fullmatch=True)
scalars = st.booleans() | numbers | texts | words
keys = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc ", max_size=3), inner),
    max_leaves=5,
)
params = st.dictionaries(keys, nested, max_size=4)
names = st.from_regex(r"[a-z][a-z0-9\-]{0,8}", fullmatch=True)


def same(left, right):
    """Equal, and of equal types all the way down: 1, 1.0 and True are three things."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scrub", {}),
        ("scrub[]", {}),
        (" scrub [ ] ", {}),
        ("scrub[lr=0.001,epochs=5]", {"lr": 0.001, "epochs": 5}),
        ("scrub[ lr = 0.001 , epochs = 5 ]", {"lr": 0.001, "epochs": 5}),
        ("scrub[lr=1e-3]", {"lr": 0.001}),
        ("scrub[lr=1e-3,]", {"lr": 0.001}),
        ("scrub[n=1_000,m=-5]", {"n": 1000, "m": -5}),
        ("scrub[form=so]", {"form": "so"}),
        ("scrub[on=true,off=false]", {"on": True, "off": False}),
        ("scrub[names=[cat,dog]]", {"names": ["cat", "dog"]}),
        ("scrub[at=[1,2.5,x]]", {"at": [1, 2.5, "x"]}),
        ("scrub[at=[[1,2],[a,[b]]]]", {"at": [[1, 2], ["a", ["b"]]]}),
        ("scrub[at=[1,2,],b=3]", {"at": [1, 2], "b": 3}),
        ('scrub[names="cat,dog"]', {"names": "cat,dog"}),
        ("scrub[names='a]b']", {"names": "a]b"}),
        ('scrub[name="true"]', {"name": "true"}),
        ("scrub[file=a/b-c.txt]", {"file": "a/b-c.txt"}),
        ("scrub[day=2026-11-20]", {"day": "2026-11-20"}),
        ("scrub[n=3cats]", {"n": "3cats"}),
        ("scrub[kw={depth=3,act=relu}]", {"kw": {"depth": 3, "act": "relu"}}),
    ],
)
def test_text_is_read_as_a_person_means_it(text, expected):
    spec = parse_spec(text)
    assert spec.name == "scrub"
    assert same(spec.params, expected)


def test_table_is_read_as_a_spec():
    assert parse_spec({"name": "scrub", "lr": 0.1}) == ("scrub", {"lr": 0.1})


def test_table_is_left_as_it_was():
    table = {"name": "scrub", "lr": 0.1}
    parse_spec(table)
    assert table == {"name": "scrub", "lr": 0.1}


@pytest.mark.parametrize(
    "text",
    [
        "a[x]",
        "a[=1]",
        "a[x=]",
        "a[x=1 2]",
        "a[x=1,x=2]",
        'a[x="]',
        "a[x=[1]",
        "a[[x=1]]",
        "a[,x=1]",
    ],
)
def test_unreadable_parameters_are_one_sentence_with_an_example(text):
    with pytest.raises(InputError) as caught:
        parse_spec(text, "method")
    assert str(caught.value).startswith(f"cannot read the parameters of method `{text}`; ")
    assert "scrub[lr=0.001,epochs=5]" in str(caught.value)
    assert len(caught.value.sentences) == 1
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("text", ["", "[x=1]", "a b", "a[x=1", "a[x=1]b", "a,b"])
def test_what_is_no_spec_at_all_is_shown_the_form(text):
    with pytest.raises(InputError, match=r"a method is written `name` or `name\[key=value,…\]`"):
        parse_spec(text, "method")


@pytest.mark.parametrize("value", [3, None, ["scrub"]])
def test_other_types_are_refused(value):
    with pytest.raises(InputError, match="a method is written"):
        parse_spec(value, "method")


@pytest.mark.parametrize("table", [{}, {"lr": 1}, {"name": 3}])
def test_table_needs_a_name(table):
    with pytest.raises(InputError, match="a method given as a table needs a `name`"):
        parse_spec(table, "method")


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "scrub"),
        ({"lr": 0.001, "epochs": 5}, "scrub[epochs=5,lr=0.001]"),
        ({"form": "so"}, "scrub[form=so]"),
        ({"names": ["cat", "dog"]}, "scrub[names=[cat,dog]]"),
        ({"names": "cat,dog"}, 'scrub[names="cat,dog"]'),
        ({"on": True}, "scrub[on=true]"),
        ({"name": "true"}, 'scrub[name="true"]'),
        ({"pair": (1, 2)}, "scrub[pair=[1,2]]"),
    ],
)
def test_canonical_form(params, text):
    assert format_spec("scrub", params) == text


@steady
@given(names, params)
def test_what_is_written_is_read_back(name, params):
    spec = parse_spec(format_spec(name, params))
    assert spec.name == name
    assert same(spec.params, params)


@steady
@given(st.lists(st.builds(format_spec, names, params), max_size=4))
def test_a_list_of_specs_is_split_where_it_was_joined(specs):
    assert split_specs(", ".join(specs)) == specs


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a", ["a"]),
        (" a , b ,", ["a", "b"]),
        ("a[x=1,y=2],b", ["a[x=1,y=2]", "b"]),
        ("a[x=[1,2],y=3],b[z=[[4],5]]", ["a[x=[1,2],y=3]", "b[z=[[4],5]]"]),
        ("a[x=']'],b", ["a[x=']']", "b"]),
        ('a[x="[,"],b', ['a[x="[,"]', "b"]),
    ],
)
def test_split_leaves_commas_inside_brackets_alone(text, parts):
    assert split_specs(text) == parts
