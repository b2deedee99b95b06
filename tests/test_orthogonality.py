"""Penalties and measures of orthogonality against NumPy and hand-made answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from unlearnbench.bench import METHODS
from unlearnbench.bench.decorrelation import decorrelation
from unlearnbench.bench.layers import find_layers
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.orthogonality import (
    FORMS,
    CorrelationSum,
    channel_correlation,
    chosen_convolutions,
    convolution_error,
    double_gram_error,
    filter_cosine,
    gram_error,
    mean_squared_cosine,
    orthogonality_penalty,
    spectral_error,
)

from .toys import fresh, toy_task, trained

SHAPES = [(3, 7), (7, 3), (5, 5)]


def filters(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def frobenius(matrix):
    return float(((matrix - np.eye(len(matrix))) ** 2).sum())


def model_of(spec, size=32):
    return build_model(create_model_spec(spec), 4, (3, size, size), seed=0)


def names_of(model, selection):
    names = {module: name for name, module in model.named_modules()}
    return [names[layer] for layer in chosen_convolutions(model, selection)]


# --- penalties ------------------------------------------------------------------------------------


def test_gram_error_golden_values():
    assert gram_error(torch.eye(3, 5)) == 0
    assert gram_error(torch.eye(5, 3)) == 0  # the smaller side counts
    assert gram_error(torch.tensor([[2.0, 0.0], [0.0, 1.0]])) == 9
    assert gram_error(torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_gram_errors_equal_numpy(shape):
    W = filters(shape)
    rows, columns = frobenius(W @ W.T), frobenius(W.T @ W)
    assert gram_error(torch.tensor(W)).item() == pytest.approx(
        rows if shape[0] <= shape[1] else columns
    )
    assert double_gram_error(torch.tensor(W)).item() == pytest.approx(rows + columns)


@pytest.mark.parametrize("shape", SHAPES)
def test_spectral_error_converges_to_the_spectral_norm_from_below(shape):
    W = filters(shape)
    gram = W @ W.T if shape[0] <= shape[1] else W.T @ W
    exact = np.linalg.norm(gram - np.eye(len(gram)), 2)
    few, many = (spectral_error(torch.tensor(W), iterations=n).item() for n in (1, 200))
    assert few <= exact * (1 + 1e-9)
    assert many == pytest.approx(exact)


def test_cosine_penalty_is_blind_to_norms_and_zero_for_orthogonal_rows():
    rows = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    assert mean_squared_cosine(rows) == 0
    aligned = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0]])
    assert mean_squared_cosine(aligned) == pytest.approx(2 / 6)
    assert mean_squared_cosine(7 * aligned) == pytest.approx(2 / 6)


def convolution_matrix(kernel, stride, size):
    """The matrix of a convolution with circular padding: rows are outputs, columns inputs."""
    conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], stride, bias=False,
                     padding=kernel.shape[2] // 2, padding_mode="circular")  # fmt: skip
    conv.weight.data = kernel
    basis = torch.eye(kernel.shape[1] * size * size, dtype=kernel.dtype)
    with torch.no_grad():
        out = conv.double()(basis.reshape(-1, kernel.shape[1], size, size))
    return out.flatten(1).T


@pytest.mark.parametrize(("stride", "size"), [(1, 9), (2, 12)])
def test_convolution_error_is_the_distance_of_the_operator_from_orthonormal_rows(stride, size):
    """Away from borders, every output position contributes the same to ||A A^T - I||_F^2."""
    kernel = torch.tensor(filters((2, 3, 3, 3)))
    A = convolution_matrix(kernel, stride, size)
    positions = (size // stride) ** 2
    whole = (A @ A.T - torch.eye(len(A), dtype=A.dtype)).square().sum().item()
    per_position = convolution_error(kernel, (stride, stride)).item()
    assert per_position == pytest.approx(whole / positions)


def test_orthogonal_kernels_are_not_enough_for_an_orthogonal_convolution():
    kernel = torch.zeros(1, 1, 1, 3)
    kernel[0, 0, 0, :2] = 0.5**0.5  # one filter of norm 1 that overlaps its shifted self
    assert gram_error(kernel.flatten(1)).item() == pytest.approx(0, abs=1e-12)
    assert convolution_error(kernel, (1, 1)).item() == pytest.approx(2 * 0.5**2)
    centre = torch.zeros(1, 1, 3, 3)
    centre[0, 0, 1, 1] = 1  # the identity
    assert convolution_error(centre, (1, 1)) == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_penalty_is_the_sum_over_layers_and_carries_gradients(form):
    model = fresh()
    layers = chosen_convolutions(model)
    torch.manual_seed(3)
    value = orthogonality_penalty(model, form)
    torch.manual_seed(3)  # `srip` draws
    each = torch.stack([FORMS[form](layer) for layer in layers])
    assert value.item() == pytest.approx((each.mean() if form == "cosine" else each.sum()).item())
    value.backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in layers)
    assert model.layer1[0].bn1.weight.grad is None


@pytest.mark.parametrize("form", FORMS)
def test_descending_a_penalty_brings_it_near_its_minimum(form):
    layer = nn.Conv2d(4, 3, 3, bias=False)
    nn.init.normal_(layer.weight, std=0.4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    floor = 36 - 3 if form == "dso" else 0  # I - W^T W has rank 36 and W 3
    torch.manual_seed(0)
    before = FORMS[form](layer).item() - floor
    for _ in range(400):
        optimizer.zero_grad()
        FORMS[form](layer).backward()
        optimizer.step()
    assert FORMS[form](layer).item() - floor < 0.05 * before


def test_a_network_without_convolutions_has_no_penalty():
    assert orthogonality_penalty(nn.Linear(3, 3), "so") == 0


# --- which layers ---------------------------------------------------------------------------------


def test_by_default_stem_shortcuts_and_grouped_convolutions_are_left_out():
    names = names_of(fresh(), "default")  # a deep stem
    assert not [name for name in names if name.startswith("conv1") or "downsample" in name]
    assert {"layer1.0.conv1", "layer4.0.conv2"} <= set(names)
    assert all(layer.groups == 1 for layer in chosen_convolutions(model_of("mobilenetv2_050")))
    plain = nn.ModuleDict({"features": nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(5)))})
    assert chosen_convolutions(plain) == list(plain["features"])[1:]


def test_a_small_network_is_not_all_stem():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    assert chosen_convolutions(nn.ModuleDict({"features": net})) == [net[2], net[3]]


def test_what_a_network_goes_through_is_no_shortcut():
    names = names_of(model_of("convnext_atto"), "default")
    assert "stages.1.downsample.1" in names  # 2x2, on the main path


def test_all_adds_the_stem_and_the_shortcuts():
    model = model_of("resnet18")
    default, everything = names_of(model, "default"), names_of(model, "all")
    assert set(everything) - set(default) == {
        "conv1", "layer2.0.downsample.0", "layer3.0.downsample.0", "layer4.0.downsample.0"
    }  # fmt: skip


def test_the_first_of_every_block_and_the_last_two_stages():
    model = model_of("resnet18")
    assert names_of(model, "first") == [
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3, 4) for block in (0, 1)
    ]
    wrapped = names_of(model_of("regnety_002"), "first")  # `conv1` is a module around `conv`
    assert wrapped[:2] == ["s1.b1.conv1.conv", "s2.b1.conv1.conv"]
    assert len(wrapped) == 13
    late = names_of(model, "last_two")
    assert {name.split(".")[0] for name in late} == {"layer3", "layer4"}
    assert len(late) == 8
    vgg = names_of(model_of("vgg11_bn[mlp_ratio=0.01]"), "last_two")
    assert "features.22" in vgg
    assert "features.11" not in vgg


def test_squeeze_and_excitation_is_no_filter_of_an_image():
    assert not [name for name in names_of(model_of("seresnet18"), "all") if ".se." in name]


# --- measures -------------------------------------------------------------------------------------


def test_filter_cosine_is_the_mean_over_pairs_and_layers():
    a, b = nn.Conv2d(2, 3, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
    with torch.no_grad():
        a.weight[:, :, 0, 0] = torch.tensor([[1.0, 0.0], [-5.0, 0.0], [0.0, 2.0]])
        b.weight[:, :, 0, 0] = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    assert filter_cosine([a]) == pytest.approx(1 / 3)
    assert filter_cosine([a, b]) == pytest.approx((1 / 3 + 0.5**0.5) / 2)
    assert math.isnan(filter_cosine([]))


def test_the_features_of_an_original_are_measured_before_anything_changes_them_in_place():
    """The last norm of a block: its output is added to, and activated, in place."""
    model = trained()
    task = toy_task(METHODS.create("osp"), preparing=True)
    batch = task.training.subset(torch.arange(64) * len(task.training) // 64)
    found = decorrelation(model, task.training)
    images = next(iter(batch.batches(64))).images
    values = []
    for layer in find_layers(model, images[:1]):
        if layer.is_conv:
            maps = []
            handle = layer.output.register_forward_hook(
                lambda module, inputs, output, maps=maps: maps.append(output.clone())
            )
            with torch.no_grad():
                model(images)
            handle.remove()
            values.append(channel_correlation(maps[0]))
    values = [value for value in values if not math.isnan(value)]
    assert found["feature_correlation"] == pytest.approx(np.mean(values), rel=1e-4)
    assert found["filter_cosine"] == filter_cosine(chosen_convolutions(model))


def test_correlation_does_not_depend_on_the_batches():
    maps = torch.tensor(filters((12, 5, 4, 4))) + 1000  # a large offset
    total = CorrelationSum()
    for part in maps.split([1, 4, 7]):
        total.add(part)
    assert total.mean() == pytest.approx(channel_correlation(maps), rel=1e-9)
    assert math.isnan(CorrelationSum().mean())


def test_channel_correlation_equals_numpy_and_leaves_out_constant_channels():
    maps = filters((6, 4, 3, 3)) + 10
    rows = maps.transpose(1, 0, 2, 3).reshape(4, -1)
    correlations = np.abs(np.corrcoef(rows))
    expected = (correlations.sum() - 4) / 12
    assert channel_correlation(torch.tensor(maps)) == pytest.approx(expected)
    with_constant = np.concatenate([maps, np.full((6, 1, 3, 3), 7.0)], axis=1)
    assert channel_correlation(torch.tensor(with_constant)) == pytest.approx(expected)
    assert math.isnan(channel_correlation(torch.ones(3, 2, 4, 4)))
