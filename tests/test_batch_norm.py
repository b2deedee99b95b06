"""BatchNorm: batches of one, and statistics for a network that has none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearnbench.bench import InputError, measure_batch_norm

from .test_batches import example_set
from .test_task import Open
from .toys import fresh, toy_task, trained


def test_a_lone_example_is_trained_on_with_the_statistics_that_are_there():
    task = toy_task(Open(), "random[count=1]")
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4))
    start = model[2].weight.detach().clone()
    task.fit(model, task.forget, task.optimizer(model, lr=0.1), epochs=2)
    assert int(model[1].num_batches_tracked) == 0
    assert not torch.equal(model[2].weight, start)
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        model.train()(torch.zeros(1, 1, 8, 8))


def test_measured_statistics_are_the_means_of_those_of_the_batches():
    examples = example_set([0] * 12, batch_size=6)
    model = nn.Sequential(
        nn.BatchNorm2d(1, momentum=0.3), nn.Flatten(), nn.Dropout(), nn.BatchNorm1d(4)
    )
    model[0].running_mean.fill_(7.0)
    same = example_set([0] * 12, batch_size=6)
    inputs = [b.images for b in same.batches(training=True)]
    means = torch.stack([x.mean() for x in inputs])
    variances = torch.stack([x.var() for x in inputs])
    measure_batch_norm(model, examples)
    assert model[0].running_mean.item() == pytest.approx(means.mean().item(), rel=1e-4)
    assert model[0].running_var.item() == pytest.approx(variances.mean().item(), rel=1e-4)
    assert model[0].momentum == 0.3
    # the second norm sees what the first gives in training: mean 0, variance 1 of each batch
    assert torch.allclose(model[3].running_mean, torch.zeros(4), atol=1e-5)
    assert torch.allclose(model[3].running_var, torch.full((4,), 6 / 5), rtol=1e-2)


def test_measuring_changes_no_weight_and_no_mode():
    task, model = toy_task(Open()), trained()
    model.layer1.eval()
    before = {n: p.clone() for n, p in model.named_parameters()}
    model.layer2.train()
    modes = [m.training for m in model.modules()]
    measure_batch_norm(model, task.retain)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    statistics = trained().state_dict()
    assert not torch.equal(model.state_dict()["bn1.running_mean"], statistics["bn1.running_mean"])


def test_a_fresh_network_tells_images_apart_only_with_measured_statistics():
    """With mean 0 and variance 1 in every norm, as initialised, its outputs hardly vary."""
    task = toy_task(Open())

    def spread(model):
        return task.logits(model, task.retain).std(0).mean().item()

    plain, measured = fresh(), fresh()
    measure_batch_norm(measured, task.retain)
    assert spread(measured) > 3 * spread(plain)


def test_one_example_has_no_statistics():
    with pytest.raises(InputError, match="at least two examples to measure; got 1"):
        measure_batch_norm(fresh(), example_set([0]))
