"""Scenarios and forget requests: which examples, under which name, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.bench import DataError, ImageData, InputError
from unlearnbench.bench.scenario import Split, create_scenario, make_request, split_validation

from .toys import toy_images

NAMES = ("ant", "bee", "cat", "3")


def data(labels=(0, 1, 2, 0, 1, 2, 0, 1, 0, 1), names=NAMES, first_pixel=0):
    """Images of one pixel."""
    labels = np.asarray(labels, dtype=np.int64)
    images = np.full((len(labels), 1, 1, 1), first_pixel, dtype=np.uint8)
    return ImageData(images, labels, images[:1], labels[:1], names, (0.5,), (0.5,))


def whole(images):
    """A split that holds nothing out."""
    return split_validation(images, 0.0)


def request(spec, images=None, split=None):
    images = data() if images is None else images
    return create_scenario(spec).request(images, split or whole(images))


# --- class ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "forget", "classes"),
    [
        ("class", [0, 3, 6, 8], (0,)),
        ("class[classes=1]", [1, 4, 7, 9], (1,)),
        ("class[classes=[2]]", [2, 5], (2,)),
        ("class[classes=cat]", [2, 5], (2,)),
        ("class[classes=[bee,2]]", [1, 2, 4, 5, 7, 9], (1, 2)),
        ("class[classes=[2,cat,2]]", [2, 5], (2,)),
    ],
)
def test_a_class_is_given_by_number_or_name(spec, forget, classes):
    made = request(spec)
    assert made.forget.tolist() == forget
    assert made.retain.tolist() == sorted(set(range(10)) - set(forget))
    assert made.classes == classes
    assert made.data_digest == data().digest


def test_a_text_is_a_name_even_if_it_looks_like_a_number():
    images = data(labels=[0, 1, 2, 3, 3])
    assert request("class[classes='3']", images).classes == (3,)
    with pytest.raises(InputError, match=r"unknown class `0`\. Known: 3, ant, bee, cat"):
        request("class[classes='0']", images)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("class[classes=4]", r"`class\[classes=\[4\]\]`: class 4 does not exist; allowed: 0 to 3"),
        ("class[classes=-1]", "class -1 does not exist"),
        ("class[classes=[0,9]]", "class 9 does not exist"),
        ("class[classes=bea]", "unknown class `bea`; did you mean `bee`"),
        ("class[classes=3]", "leaves the forget set empty; the training set has 10 examples"),
        ("class[classes=[0,1,2]]", "leaves the retain set empty"),
        ("class[classes=[]]", "at least 1 item"),
        ("class[classes=1.5]", "classes"),
        ("class[class=1]", "unknown key `class`; did you mean `classes`"),
    ],
)
def test_a_class_that_cannot_be_forgotten_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        request(spec)


def test_a_class_without_validation_examples_is_all_forgotten_from_the_training_set_only():
    images = toy_images()
    split = split_validation(images, 0.1)
    made = request("class[classes=[2]]", images, split)
    assert set(images.train_labels[made.forget]) == {2}
    assert len(made.forget) == 27
    assert len(made.retain) == 81
    assert not set(made.forget) & set(split.validation)
    assert not set(made.retain) & set(split.validation)


# --- random ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("random", 12),
        ("random[fraction=0.25]", 30),
        ("random[count=7]", 7),
        ("random[count=119]", 119),
    ],
)
def test_a_random_draw_has_the_size_asked_for_and_no_repeats(spec, size):
    made = request(spec, toy_images())
    assert len(set(made.forget.tolist())) == len(made.forget) == size
    assert len(made.retain) == 120 - size
    assert not set(made.forget) & set(made.retain)


def test_a_random_draw_depends_on_data_and_draw_seed_and_nothing_else():
    images = toy_images()
    first = request("random[count=20]", images)
    np.random.seed(3)
    assert request("random[count=20]", images).hash == first.hash
    assert request("random[count=20,draw_seed=1]", images).hash != first.hash
    other = replace(images, flip=True)
    assert request("random[count=20]", other).forget.tolist() != first.forget.tolist()


def test_a_random_draw_is_spread_over_the_classes():
    images = toy_images()
    counts = np.bincount(images.train_labels[request("random[fraction=0.5]", images).forget])
    assert counts.min() > 5
    assert request("random[fraction=0.5]", images).classes == ()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("random[fraction=0.1,count=5]", "give `fraction` or `count`, not both"),
        ("random[fraction=0]", "`fraction` should be greater than 0; got 0"),
        ("random[fraction=1.5]", "`fraction` should be less than 1; got 1.5"),
        ("random[count=0]", "`count` should be greater than or equal to 1"),
        ("random[count=120]", "leaves the retain set empty"),
        ("random[count=121]", "`count` must be below the size of the training set, 120; got 121"),
        ("random[fraction=0.001]", "leaves the forget set empty"),
        ("random[draw_seed=-1]", "`draw_seed` should be greater than or equal to 0"),
        ("rondom", "unknown scenario `rondom`; did you mean `random`"),
    ],
)
def test_a_random_draw_that_makes_no_sense_is_refused(spec, message):
    with pytest.raises(InputError, match=message) as caught:
        request(spec, toy_images())
    assert len(caught.value.sentences) == 1


# --- ids ------------------------------------------------------------------------------------------


def ids_request(tmp_path, text, images=None, split=None):
    file = tmp_path / "forget.txt"
    file.write_text(text, encoding="utf-8")
    return request({"name": "ids", "file": str(file)}, images, split)


@pytest.mark.parametrize("text", ["3\n1\n4\n", " 4 3\n\n1", "1\n3\n4\n3\n1\n"])
def test_ids_are_read_from_a_list_whatever_its_order_and_repeats(tmp_path, text):
    made = ids_request(tmp_path, text)
    assert made.forget.tolist() == [1, 3, 4]
    assert made.retain.tolist() == [0, 2, 5, 6, 7, 8, 9]
    assert made.classes == ()


def test_an_exported_request_is_read_back_as_the_same_request(tmp_path):
    images = toy_images()
    made = request("random[count=9]", images)
    text = made.to_json("synthetic", "random[count=9]")
    again = ids_request(tmp_path, text, images)
    assert again.hash == made.hash
    assert again.forget.tolist() == made.forget.tolist()
    content = json.loads(text)
    assert content["schema"] == "unlearnbench.forget-request/1"
    assert content["hash"] == made.hash
    assert content["scenario"] == "random[count=9]"
    assert content["dataset"] == "synthetic"


def test_a_request_exported_from_other_data_is_refused(tmp_path):
    text = request("class", data(first_pixel=1)).to_json("insects", "class")
    with pytest.raises(InputError, match=r"exported from other data \(`insects`\)"):
        ids_request(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "leaves the forget set empty"),
        ("\n".join(map(str, range(10))), "leaves the retain set empty"),
        ("1\n10", "1 ids are not in the training set.*e.g. \\[10\\]"),
        ("-1\n2", "1 ids are not in the training set.*e.g. \\[-1\\]"),
        ("1.5", "neither an exported forget request nor a list of whole numbers"),
        ("one", "neither an exported"),
        ("[1, 2]", "neither an exported"),
        ("{", "neither an exported"),
        ("{}", "neither an exported"),
        ("99999999999999999999", "neither an exported"),
    ],
)
def test_a_file_that_is_no_list_of_ids_is_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        ids_request(tmp_path, text)
    assert len(caught.value.sentences) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ids", [[1.5], ["1"], [[1]], "12", {"1": 2}, [True], None, [2**70]])
def test_an_exported_request_with_ids_that_are_no_numbers_is_refused(tmp_path, ids):
    content = {"data_digest": data().digest, "ids": ids}
    with pytest.raises(InputError, match="neither an exported forget request"):
        ids_request(tmp_path, json.dumps(content))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = tmp_path / "forget.npy"
    np.save(file, np.arange(3))
    with pytest.raises(InputError, match="neither an exported forget request"):
        request({"name": "ids", "file": str(file)})


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"the file `.*nowhere\.txt` does not exist"):
        request({"name": "ids", "file": str(tmp_path / "nowhere.txt")})
    with pytest.raises(InputError, match="scenario `ids`: `file` is missing"):
        create_scenario("ids")


def test_an_id_that_is_held_out_for_validation_cannot_be_forgotten(tmp_path):
    images = toy_images()
    split = split_validation(images, 0.1)
    with pytest.raises(InputError, match="108 examples after validation is held out"):
        ids_request(tmp_path, str(split.validation[0]), images, split)


# --- requests -------------------------------------------------------------------------------------


def test_equal_sets_have_equal_names_whatever_the_scenario(tmp_path):
    by_class = request("class[classes=ant]")
    by_id = ids_request(tmp_path, "0 3 6 8")
    assert by_class.hash == by_id.hash
    assert by_id.classes == (0,)
    assert request("class[classes=bee]").hash != by_class.hash


def test_a_random_draw_that_is_a_whole_class_is_recognised():
    images = data(labels=[0, 0, 0, 0, 1])
    seeds = range(30)
    made = [request(f"random[count=1,draw_seed={seed}]", images) for seed in seeds]
    assert {(tuple(m.forget), m.classes) for m in made} >= {((4,), (1,)), ((0,), ())}


@pytest.mark.parametrize(
    ("ids", "classes"), [([2, 5], (2,)), ([2], ()), ([2, 5, 0], ()), ([2, 5, 1, 4, 7, 9], (1, 2))]
)
def test_only_exactly_whole_classes_count_as_classes(ids, classes):
    images = data()
    assert make_request(images, whole(images), np.array(ids), "test").classes == classes


def test_a_class_is_whole_if_all_that_is_not_held_out_is_forgotten():
    images = data()
    split = Split(np.array([0, 1, 3, 4, 5]), np.array([2, 6, 7, 8, 9]))
    assert make_request(images, split, np.array([5]), "test").classes == (2,)


def test_the_name_of_a_request_never_changes():
    """Pinned: published forget sets are found by this name."""
    images = data()
    assert images.digest == "b4801ebab08e9e69356ac9a59c16ee29"
    assert request("class[classes=ant]").hash == "2476ca9f5332a16f"
    assert request("class[classes=0]", toy_images()).hash == "f449ee61166b4b9b"
    assert request("random[fraction=0.1]", toy_images()).hash == "6876dcd3a8261e27"


# --- validation -----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0, 0.9))
def test_validation_is_a_stratified_share_disjoint_from_training(labels, fraction):
    images = data(labels)
    split = split_validation(images, fraction)
    assert sorted([*split.training, *split.validation]) == list(range(len(labels)))
    assert np.all(np.diff(split.training) > 0)
    assert np.all(np.diff(split.validation) > 0)
    for label in range(4):
        held = np.sum(images.train_labels[split.validation] == label)
        assert held == round(fraction * labels.count(label))


def test_validation_depends_on_the_data_alone():
    images = toy_images()
    first = split_validation(images, 0.2)
    np.random.seed(5)
    again = split_validation(toy_images(), 0.2)
    assert first.validation.tolist() == again.validation.tolist()
    other = split_validation(replace(images, flip=True), 0.2)
    assert first.validation.tolist() != other.validation.tolist()


def test_a_larger_share_holds_out_what_a_smaller_one_does_and_more():
    images = toy_images()
    small, large = (set(split_validation(images, f).validation.tolist()) for f in (0.1, 0.3))
    assert small < large
    assert (len(small), len(large)) == (12, 36)


def test_nothing_is_held_out_of_a_share_of_zero():
    assert len(split_validation(toy_images(), 0.0).validation) == 0
