"""Orthogonal soft pruning: penalty, statistics, gates; the invariants of the specification."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearnbench.bench import METHODS
from unlearnbench.bench.layers import find_layers
from unlearnbench.methods.osp import (
    apply_gate,
    gated_layers,
    gram_error,
    mean_squared_cosine,
    penalised_convolutions,
)

from .toys import fresh, same_tensors, toy_images, toy_task, trained

OSP = METHODS.get("osp")


def prepared(method, model):
    return dict(method.prepare(model, toy_task(method, preparing=True)))


# --- phase A ------------------------------------------------------------------------------------


def test_gram_error_golden_values():
    assert gram_error(torch.eye(3, 5)) == 0
    assert gram_error(torch.eye(5, 3)) == 0  # the smaller side counts
    assert gram_error(torch.tensor([[2.0, 0.0], [0.0, 1.0]])) == 9
    assert gram_error(torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == 2


def test_cosine_penalty_is_blind_to_norms_and_zero_for_orthogonal_rows():
    rows = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    assert mean_squared_cosine(rows) == 0
    aligned = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0]])
    assert mean_squared_cosine(aligned) == pytest.approx(2 / 6)
    assert mean_squared_cosine(7 * aligned) == pytest.approx(2 / 6)


def test_penalty_is_the_weighted_sum_over_the_right_convolutions():
    model = fresh()
    names = {m: n for n, m in model.named_modules()}
    chosen = [names[m] for m in penalised_convolutions(model)]
    assert not [name for name in chosen if name.startswith("conv1")]  # a deep stem
    assert not [name for name in chosen if "downsample" in name]
    assert {"layer1.0.conv1", "layer4.0.conv2"} <= set(chosen)
    plain = nn.ModuleDict({"features": nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(5)))})
    assert penalised_convolutions(plain) == list(plain["features"])[1:]
    expected = sum(gram_error(m.weight.flatten(1)) for m in penalised_convolutions(model))
    penalty = OSP(ortho_lambda=0.5).training_penalty(model)
    assert penalty.item() == pytest.approx(0.5 * expected.item(), rel=1e-6)
    penalty.backward()
    assert model.layer1[0].conv1.weight.grad.abs().sum() > 0
    assert model.layer1[0].bn1.weight.grad is None


def test_depthwise_convolutions_are_not_penalised():
    model = fresh("mobilenetv2_050")
    assert all(m.groups == 1 for m in penalised_convolutions(model))


def test_training_with_the_penalty_gives_filters_nearer_to_orthogonal():
    def error(model):
        kernels = [m.weight.flatten(1) for m in penalised_convolutions(model)]
        return sum(gram_error(W).item() for W in kernels)

    assert error(trained(penalty="osp[ortho_lambda=0.01]")) < 0.5 * error(trained())


# --- phase B ------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["max", "mean", "rms"])
def test_statistics_are_those_of_the_activations_of_every_class(statistic):
    """Recompute one layer by hand: conv1 of a block, after its norm and activation."""
    model = trained()
    method = OSP(samples_per_class=1000, statistic=statistic)
    table = prepared(method, trained())
    images = toy_images()
    task = toy_task(method, preparing=True)
    batch = next(iter(task.training.batches(1000)))
    block = model.layer2[0]
    with torch.no_grad():
        x = model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(batch.images)))))
        maps = torch.relu(block.bn1(block.conv1(x)))
    reduced = {
        "max": maps.amax((2, 3)),
        "mean": maps.mean((2, 3)),
        "rms": maps.square().mean((2, 3)).sqrt(),
    }[statistic]
    for label in range(images.num_classes):
        of_class = reduced[batch.labels == label]
        mean = table["mean.layer2.0.conv1"][label]
        assert torch.allclose(mean, of_class.mean(0), atol=1e-4)
        var = table["var.layer2.0.conv1"][label]
        assert torch.allclose(var, of_class.var(0, correction=0), atol=1e-4)


def test_the_last_norm_of_a_block_is_measured_before_the_residual_addition():
    model = trained()
    layers = {layer.name: layer for layer in toy_task(OSP()).layers(model)}
    assert layers["layer2.0.conv1"].output is model.layer2[0].act1
    assert layers["layer2.0.conv2"].output is model.layer2[0].bn2
    assert layers["layer2.0.conv2"].norm is model.layer2[0].bn2


# --- phases C to F ------------------------------------------------------------------------------


def test_scores_are_signed_and_count_every_kept_class_once():
    mean = torch.tensor([[5.0, 0.0], [1.0, 1.0], [3.0, 5.0]])
    var = torch.tensor([[2.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    assert OSP().scores(mean, var, (0,)).tolist() == [3.0, -3.0]
    assert OSP().scores(mean, var, (0, 2)).tolist() == [3.0, 1.5]
    dprime = OSP(score="dprime").scores(mean, var, (0,))
    assert dprime.tolist() == pytest.approx([3 / 2**0.5, -3.0])


def test_gates_follow_the_rank_formula():
    """k = 4 of 16, floor 0.5: q = 3/4, 1/2, 1/2, 1/2, so gates 1/4, 1/2, 1/2, 1/2."""
    scores = torch.linspace(1, 2, 16)
    gate = OSP(rho=0.25, q_min=0.5).gate(scores)
    assert gate[-4:].flip(0).tolist() == [0.25, 0.5, 0.5, 0.5]
    assert (gate[:-4] == 1).all()
    eight = OSP(rho=0.5, q_min=0.25).gate(scores)  # q = 1 - r/8, at least 1/4
    assert eight[-8:].flip(0).tolist() == pytest.approx(
        [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 3 / 4, 3 / 4]
    )


def test_channels_that_do_not_prefer_the_class_are_left_alone():
    gate = OSP(rho=1.0).gate(torch.tensor([-1.0, 0.0, 2.0, -3.0]))
    assert gate.tolist() == [1.0, 1.0, 0.25, 1.0]


def test_rho_zero_is_the_identity():
    method = OSP(rho=0.0)
    task = toy_task(method, prepared=prepared(method, trained()))
    assert same_tensors(method.unlearn(trained(), task), trained())
    assert task.reported == {"damped_channels": 0}


def test_a_gated_channel_is_scaled_exactly_and_running_statistics_stay():
    model, gated = trained(), trained()
    layer = next(x for x in toy_task(OSP()).layers(gated) if x.name == "layer3.0.conv1")
    gate = torch.linspace(0.1, 1, layer.channels)
    apply_gate(layer, gate, "bn_affine")
    seen = {}
    for name, net in (("before", model), ("after", gated)):
        net.layer3[0].act1.register_forward_hook(
            lambda m, i, out, name=name: seen.__setitem__(name, out.clone())
        )
        batch = next(iter(toy_task(OSP(), preparing=True).training.batches(16)))
        with torch.no_grad():
            net(batch.images)
    assert torch.allclose(seen["after"], seen["before"] * gate.view(1, -1, 1, 1), atol=1e-5)
    norm = gated.layer3[0].bn1
    assert torch.equal(norm.running_mean, model.layer3[0].bn1.running_mean)
    assert torch.equal(norm.running_var, model.layer3[0].bn1.running_var)


def test_weight_target_scales_the_kernel_and_leaves_the_norm():
    model = trained()
    layer = next(x for x in toy_task(OSP()).layers(model) if x.name == "layer3.0.conv1")
    kernel = layer.module.weight.detach().clone()
    apply_gate(layer, torch.full((layer.channels,), 0.5), "weight")
    assert torch.equal(layer.module.weight, kernel * 0.5)
    assert torch.equal(layer.norm.weight, trained().layer3[0].bn1.weight)


def test_without_a_norm_the_kernel_and_its_bias_are_gated():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    (layer,) = gated_layers(find_layers(net, torch.zeros(1, 1, 8, 8)))
    kernel, bias = layer.module.weight.detach().clone(), layer.module.bias.detach().clone()
    apply_gate(layer, torch.full((4,), 0.25), "bn_affine")
    assert layer.norm is None
    assert torch.equal(layer.module.weight, kernel * 0.25)
    assert torch.equal(layer.module.bias, bias * 0.25)


def test_the_edit_needs_no_data_and_equals_gates_computed_by_hand():
    method = OSP(rho=0.5)
    table = prepared(method, trained())
    task = toy_task(method, prepared=table, needs=frozenset())
    model = method.unlearn(trained(), task)
    assert task.served == {}
    for layer in gated_layers(task.layers(trained())):
        mean = table[f"mean.{layer.name}"]
        score = mean[0] - mean[1:].mean(0)
        expected = layer.norm.weight * method.gate(score)
        after = dict(model.named_modules())[f"{layer.name}"]
        norm = next(x.norm for x in task.layers(model) if x.module is after)
        assert torch.allclose(norm.weight, expected)


def test_full_strength_on_every_channel_of_a_class_hurts_that_class_most():
    method = OSP(rho=0.25, samples_per_class=1000)
    task = toy_task(
        method, prepared=prepared(method, trained()), needs=frozenset({"forget", "retain"})
    )
    model = method.unlearn(trained(), task)
    lost = {
        role: task.accuracy(trained(), getattr(task, role))
        - task.accuracy(model, getattr(task, role))
        for role in ("forget", "retain")
    }
    assert lost["forget"] > lost["retain"]
