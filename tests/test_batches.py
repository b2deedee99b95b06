"""Batches: what is cut, shuffled, augmented, normalised and counted."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import ImageData, InputError
from unlearnbench.bench.batches import ExampleSet, Pixels, augment

from .toys import CPU


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=40, channels=3, height=6, width=5):
    """Images in which every pixel has a value of its own, as far as a byte reaches."""
    return torch.randint(1, 256, (n, channels, height, width), generator=generator(9)).byte()


def image_data(labels, *, mean=(0.5,), std=(0.25,), flip=False, crop_pad=0):
    """Grey images of 2x2; all pixels of example i are i."""
    labels = np.asarray(labels, dtype=np.int64)
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3)
    return ImageData(pixels, labels, pixels[:1], labels[:1], ("a", "b", "c"), mean, std,
                     flip=flip, crop_pad=crop_pad)  # fmt: skip


def example_set(labels, ids=None, *, batch_size=4, rng=None, served=None, **data):
    labels = list(labels)
    ids = np.arange(len(labels)) if ids is None else np.asarray(ids, dtype=np.int64)
    return ExampleSet("retain", Pixels(image_data(labels, **data), "train", CPU), ids, batch_size,
                      rng or generator(), {} if served is None else served)  # fmt: skip


def sizes(batches):
    return [len(batch) for batch in batches]


# --- augmentation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_augment_equals_a_crop_and_a_mirror_of_every_image_by_itself(pad, flip):
    batch = images()
    result = augment(batch, generator(3), pad, flip=flip)
    draws = generator(3)
    tops, lefts = torch.zeros(2, len(batch), dtype=torch.int64)
    if pad:
        tops, lefts = torch.randint(0, 2 * pad + 1, (2, len(batch), 1), generator=draws)[..., 0]
    mirrored = torch.rand(len(batch), generator=draws) < 0.5 if flip else [False] * len(batch)
    for image, top, left, mirror, got in zip(batch, tops, lefts, mirrored, result, strict=True):
        padded = F.pad(image, (pad, pad, pad, pad))
        expected = padded[:, top : top + 6, left : left + 5]
        assert torch.equal(got, expected.flip(-1) if mirror else expected)


def test_augment_draws_for_every_image_anew():
    same = images(1).repeat(64, 1, 1, 1)
    distinct = {
        tuple(image.flatten().tolist()) for image in augment(same, generator(), 1, flip=True)
    }
    assert len(distinct) > 12  # of 18 that there are


def test_augment_mirrors_about_half():
    batch = images(1000)
    kept = (augment(batch, generator(), 0, flip=True) == batch).flatten(1).all(1).sum()
    assert 440 < kept < 560


def test_augment_reaches_every_shift_of_a_crop():
    dot = torch.zeros(400, 1, 5, 5, dtype=torch.uint8)
    dot[:, :, 2, 2] = 1
    where = augment(dot, generator(), 1, flip=False).flatten(1).float().argmax(1)
    assert set(where.tolist()) == {6, 7, 8, 11, 12, 13, 16, 17, 18}


def test_augment_keeps_bytes_bytes_and_the_memory_in_order():
    out = augment(images(), generator(), 2, flip=True)
    assert out.dtype == torch.uint8
    assert out.shape == (40, 3, 6, 5)
    assert out.is_contiguous()


def test_augment_without_crop_and_flip_is_the_identity_and_draws_nothing():
    rng = generator()
    before = rng.get_state()
    assert torch.equal(augment(images(), rng, 0, flip=False), images())
    assert torch.equal(rng.get_state(), before)


def test_augment_leaves_its_input_alone():
    batch = images()
    augment(batch, generator(), 2, flip=True)
    assert torch.equal(batch, images())


# --- normalisation --------------------------------------------------------------------------------


def test_images_are_normalised_by_mean_and_deviation_of_their_channel():
    data = image_data([0] * 52, mean=(0.1,), std=(0.5,))
    batch = Pixels(data, "train", CPU).batch(torch.tensor([51]), None)
    assert batch.images.dtype == torch.float32
    assert torch.allclose(batch.images, torch.full((1, 1, 2, 2), (51 / 255 - 0.1) / 0.5))


def test_every_channel_has_its_own_normalisation():
    white = np.full((1, 2, 3, 3), 255, dtype=np.uint8)
    label = np.zeros(1, dtype=np.int64)
    data = ImageData(white, label, white, label, ("only",), (0.0, 0.5), (1.0, 0.25))
    batch = Pixels(data, "test", CPU).batch(torch.tensor([0]), None)
    assert batch.images[0, :, 0, 0].tolist() == [1.0, 2.0]


def test_padding_is_black_before_normalisation():
    data = image_data([0] * 200, crop_pad=2, mean=(0.5,), std=(0.5,))
    batch = Pixels(data, "train", CPU).batch(torch.tensor([199] * 50), generator())
    values = {round(value, 4) for value in batch.images.flatten().tolist()}
    assert values == {-1.0, round((199 / 255 - 0.5) / 0.5, 4)}


# --- order and size of batches --------------------------------------------------------------------


def test_evaluation_batches_come_in_order_unchanged_and_draw_nothing():
    rng = generator()
    before = rng.get_state()
    examples = example_set([0, 1, 2, 0, 1, 2], [5, 0, 3, 1, 2], rng=rng, flip=True, crop_pad=1)
    batches = list(examples.batches(2))
    assert [batch.ids.tolist() for batch in batches] == [[5, 0], [3, 1], [2]]
    assert [batch.labels.tolist() for batch in batches] == [[2, 0], [0, 1], [2]]
    first = torch.cat([batch.images for batch in batches])[:, 0, 0, 0]
    assert torch.allclose(first, (torch.tensor([5, 0, 3, 1, 2]) / 255 - 0.5) / 0.25)
    assert torch.equal(rng.get_state(), before)


def test_training_batches_are_a_shuffle_of_the_set():
    examples = example_set([0] * 30, ids=range(5, 25))
    first, second = (
        torch.cat([batch.ids for batch in examples.batches(training=True)]).tolist()
        for _ in range(2)
    )
    assert sorted(first) == sorted(second) == list(range(5, 25))
    assert first != second
    assert first != list(range(5, 25))


def test_labels_and_images_stay_with_their_ids_when_shuffled():
    labels = np.arange(30) % 3
    for batch in example_set(labels).batches(training=True):
        assert torch.equal(batch.labels, batch.ids % 3)
        assert torch.allclose(batch.images[:, 0, 0, 0], (batch.ids / 255 - 0.5) / 0.25)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [1]), (4, [4]), (5, [5]), (6, [4, 2]), (8, [4, 4]), (9, [4, 5]), (0, [])],
)
def test_a_lone_last_training_example_joins_the_batch_before(n, expected):
    examples = example_set([0] * n)
    assert sizes(examples.batches(training=True)) == expected


def test_a_lone_last_evaluation_example_stays_alone():
    assert sizes(example_set([0] * 9).batches()) == [4, 4, 1]


def test_endless_passes_over_the_set_again_and_again_each_time_in_another_order():
    examples = example_set([0] * 8)
    ids = torch.cat([batch.ids for batch in islice(examples.endless(), 6)]).view(3, 8)
    passes = [tuple(p.tolist()) for p in ids]
    assert all(sorted(p) == list(range(8)) for p in passes)
    assert len(set(passes)) == 3


def test_endless_augments_every_pass_anew():
    examples = example_set([0] * 40, crop_pad=1, batch_size=40)
    shown = []
    for batch in islice(examples.endless(), 2):
        shown.append(batch.images[batch.ids.argsort()])
    assert not torch.equal(*shown)


def test_an_empty_set_has_no_batches_and_endless_says_so():
    examples = example_set([0, 1], ids=[])
    assert list(examples.batches()) == list(examples.batches(training=True)) == []
    with pytest.raises(InputError, match="the retain set is empty"):
        next(examples.endless())


def test_training_images_are_not_augmented_where_the_recipe_says_so():
    data = image_data([0] * 40, flip=True, crop_pad=1)
    pixels = Pixels(data, "train", CPU)
    for augmenting in (True, False):
        examples = ExampleSet("retain", pixels, np.arange(40), 40, generator(), {},
                              augment=augmenting)  # fmt: skip
        (batch,) = examples.batches(training=True)
        plain = pixels.batch(batch.ids, None)
        assert torch.equal(batch.images, plain.images) != augmenting


def test_same_seed_gives_same_batches():
    one, two = (
        torch.cat([b.images for b in example_set([0] * 20, crop_pad=1).batches(training=True)])
        for _ in range(2)
    )
    assert torch.equal(one, two)


# --- counts, subsets, samples ---------------------------------------------------------------------


def test_what_is_served_is_counted_by_role_as_it_is_served():
    served = {}
    examples = example_set([0] * 10, served=served)
    list(examples.batches())
    assert served == {"retain": 10}
    batches = examples.endless()
    next(batches)
    next(batches)
    assert served == {"retain": 18}


def test_a_set_that_is_not_served_is_not_counted():
    served = {}
    examples = example_set([0] * 10, served=served)
    _ = len(examples), examples.labels, examples.sample(3)
    assert served == {}


def test_a_subset_shares_role_and_count_and_size_of_batch():
    served = {}
    subset = example_set([0, 1, 2, 0, 1], ids=[4, 2, 0], served=served, batch_size=1)
    subset = subset.subset(torch.tensor([2, 0]))
    assert subset.ids.tolist() == [0, 4]
    assert subset.labels.tolist() == [0, 1]
    assert sizes(subset.batches()) == [1, 1]
    assert served == {subset.role: 2} == {"retain": 2}


def test_a_sample_never_repeats_and_has_the_size_asked_for():
    examples = example_set([0] * 20, ids=range(3, 20))
    ids = examples.sample(10).ids.tolist()
    assert len(ids) == len(set(ids)) == 10
    assert set(ids) <= set(range(3, 20))
    assert sorted(examples.sample(99).ids.tolist()) == list(range(3, 20))


def test_two_samples_differ_and_the_seed_decides():
    examples = example_set([0] * 50)
    first, second = examples.sample(20).ids.tolist(), examples.sample(20).ids.tolist()
    assert first != second
    assert example_set([0] * 50).sample(20).ids.tolist() == first


@pytest.mark.parametrize(
    ("size", "counts"), [(9, [3, 3, 3]), (11, [3, 3, 3]), (2, [1, 1, 1]), (60, [20, 4, 8])]
)
def test_a_balanced_sample_has_the_same_number_of_every_class_that_is_there(size, counts):
    labels = [0] * 20 + [1] * 4 + [2] * 8
    sample = example_set(labels).sample(size, balanced=True)
    assert sample.labels.bincount().tolist() == counts
    assert len(set(sample.ids.tolist())) == sum(counts)


def test_a_balanced_sample_of_a_set_without_a_class_is_shared_by_the_others():
    sample = example_set([0] * 9 + [1] * 9 + [2] * 9, ids=[*range(9), *range(18, 27)])
    assert sample.sample(8, balanced=True).labels.bincount().tolist() == [4, 0, 4]


def test_a_balanced_sample_is_random_within_its_classes():
    examples = example_set([0] * 50 + [1] * 50)
    first, second = (examples.sample(10, balanced=True).ids.tolist() for _ in range(2))
    assert sorted(first) != sorted(second)


@pytest.mark.parametrize("balanced", [False, True])
def test_a_sample_of_nothing_is_empty(balanced):
    assert len(example_set([0], ids=[]).sample(5, balanced=balanced)) == 0


def test_a_set_of_one_example_is_served_alone():
    (batch,) = example_set([0, 1, 2], ids=[1]).batches(training=True)
    assert batch.ids.tolist() == batch.labels.tolist() == [1]
    assert batch.images.shape == (1, 1, 2, 2)
