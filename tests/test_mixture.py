"""Sets under other labels, and several sets served as one."""

from __future__ import annotations

import pytest
import torch

from unlearnbench.bench import DeclinedError, InputError, Mixture
from unlearnbench.bench.relabelling import random_labels

from .test_batches import example_set, generator, sizes
from .test_task import Open
from .toys import toy_task


def test_other_labels_go_with_the_same_images_and_the_first_set_keeps_its_own():
    served = {}
    first = example_set([0, 1, 2, 0, 1, 2], ids=[1, 3, 5], served=served)
    other = first.relabelled(torch.tensor([2, 0, 1]))
    (batch,) = other.batches()
    (own,) = first.batches()
    assert batch.ids.tolist() == own.ids.tolist() == [1, 3, 5]
    assert torch.equal(batch.images, own.images)
    assert batch.labels.tolist() == other.labels.tolist() == [2, 0, 1]
    assert own.labels.tolist() == first.labels.tolist() == [1, 0, 2]
    assert served == {"retain": 6}


def test_labels_stay_with_their_examples_in_subsets_and_shuffled_batches():
    labels = torch.arange(10)
    some = example_set([0] * 12).subset(torch.arange(11, 1, -1)).relabelled(labels)
    assert some.subset(torch.tensor([3, 9])).labels.tolist() == [3, 9]
    for batch in some.batches(3, training=True):
        assert (11 - batch.ids).tolist() == batch.labels.tolist()


def test_every_example_needs_a_label():
    with pytest.raises(InputError, match="3 examples need as many labels; got 2"):
        example_set([0, 1, 2]).relabelled(torch.tensor([0, 1]))


@pytest.mark.parametrize("exclude", [True, False])
def test_random_labels_are_uniform_over_the_others_or_over_all(exclude):
    labels = torch.arange(4).repeat_interleave(3000)
    drawn = random_labels(labels, 4, generator(), exclude_own=exclude)
    table = torch.bincount(labels * 4 + drawn, minlength=16).view(4, 4) / 3000
    expected = (1 - torch.eye(4)) / 3 if exclude else torch.full((4, 4), 0.25)
    assert torch.allclose(table, expected, atol=0.04)
    assert torch.equal(table.diagonal() == 0, torch.full((4,), exclude))


def test_there_is_no_label_of_another_class_where_there_is_but_one():
    with pytest.raises(DeclinedError, match="only one class"):
        random_labels(torch.zeros(2, dtype=torch.int64), 1, generator())


def test_a_mixture_serves_every_member_once_with_its_own_label_and_count():
    served = {}
    labels = [0, 1, 2] * 8
    first = example_set(labels, ids=range(10), served=served, batch_size=7)
    second = example_set(labels, ids=range(10, 24), served=served)
    second.role = "forget"
    mixed = Mixture(first, second.relabelled(torch.full((14,), 5)))
    assert len(mixed) == 24
    batches = list(mixed.batches(training=True))
    assert sizes(batches) == [7, 7, 7, 3]
    seen = torch.cat([b.ids for b in batches])
    assert sorted(seen.tolist()) == list(range(24))
    for batch in batches:
        pixels = (batch.images[:, 0, 0, 0] * 0.25 + 0.5) * 255
        assert pixels.round().int().tolist() == batch.ids.tolist()
        expected = [labels[i] if i < 10 else 5 for i in batch.ids.tolist()]
        assert batch.labels.tolist() == expected
    assert served == {"retain": 10, "forget": 14}
    assert any(0 < (b.ids < 10).sum() < len(b) for b in batches)
    assert seen.tolist() != list(range(24))


def test_a_mixture_out_of_training_comes_in_order_and_a_lone_last_is_joined_in_training():
    parts = [example_set([0] * 9, ids=range(4)), example_set([0] * 9, ids=range(4, 9))]
    mixed = Mixture(*parts)
    assert torch.cat([b.ids for b in mixed.batches(4)]).tolist() == list(range(9))
    assert sizes(mixed.batches(4)) == [4, 4, 1]
    assert sizes(mixed.batches(4, training=True)) == [4, 5]
    assert mixed.ids.tolist() == list(range(9))


def test_a_mixture_draws_from_the_tasks_generator():
    def order(seed):
        task = toy_task(Open(), seed=seed)
        mixed = Mixture(task.forget, task.retain)
        return [b.ids.tolist() for b in mixed.batches(training=True)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least one set"):
        Mixture()


def test_fit_takes_a_mixture():
    task = toy_task(Open())
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    task.fit(model, Mixture(task.forget, task.retain), task.optimizer(model, lr=0.1), epochs=2)
    assert task.served == {"forget": 2 * task.forget_size, "retain": 2 * task.retain_size}
