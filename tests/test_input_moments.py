"""Second moments against a brute-force unfolding, whatever the layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import second_moments, weight_matrix
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.patches import layer_columns, set_weight_matrix

from .toys import CPU, toy_images

CONVOLUTIONS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "no-padding": {"kernel_size": 3},
    "padding-above-half": {"kernel_size": 3, "padding": 2},
    "more-padding-than-kernel": {"kernel_size": 2, "padding": 3},
    "even-kernel": {"kernel_size": 4, "padding": (1, 2)},
    "rectangular": {"kernel_size": (1, 3), "padding": (0, 1)},
    "tall": {"kernel_size": (5, 2), "padding": (2, 0)},
    "pointwise": {"kernel_size": 1},
    "pointwise-padded": {"kernel_size": 1, "padding": 1},
    "same": {"kernel_size": (3, 4), "padding": "same"},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "reflected": {"kernel_size": 5, "padding": 2, "padding_mode": "reflect"},
    "larger-than-map": {"kernel_size": 9, "padding": 4},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "dilated-rectangular": {"kernel_size": (2, 3), "padding": (0, 3), "dilation": (1, 3)},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "strided-one-way": {"kernel_size": 3, "padding": 1, "stride": (1, 2)},
    "patches": {"kernel_size": 3, "stride": 3},
    "strided-pointwise": {"kernel_size": 1, "stride": 2},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 4},
    "depthwise-7": {"kernel_size": 7, "padding": 3, "groups": 4},
    "strided-dilated-grouped": {
        "kernel_size": 3, "padding": 2, "stride": 2, "dilation": 2, "groups": 2,
    },
}  # fmt: skip


class Images:
    """Noise that can be served like an `ExampleSet`; every use gives the same images."""

    def __init__(self, count, seed=1, shape=(4, 6, 7)):
        self.images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
        self.served = 0

    batch_size = 3

    @property
    def image_shape(self):
        return tuple(self.images.shape[1:])

    def __len__(self):
        return len(self.images)

    def batches(self, batch_size=3, *, training=False):
        for part in self.images.split(batch_size):
            self.served += len(part)
            yield Batch(part)

    def subset(self, positions):
        part = Images(0)
        part.images = self.images[positions]
        return part

    def with_generator(self, generator):
        return self.subset(slice(None))


class Batch:
    def __init__(self, images):
        self.images = images


def columns(module, x):
    """The patches of every image as columns, taps first, by torch's own unfolding; float64."""
    if isinstance(module, nn.Linear):
        return x.double().flatten(0, -2).T[None]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x.double(), module._reversed_padding_repeated_twice, mode)
    unfolded = F.unfold(x, module.kernel_size, module.dilation, 0, module.stride)
    n, _, places = unfolded.shape
    grouped = unfolded.reshape(n, module.groups, x.shape[1] // module.groups, -1, places)
    return grouped.permute(1, 3, 2, 0, 4).reshape(module.groups, -1, n * places)


def measured(module, images, **options):
    rng = torch.Generator().manual_seed(5)
    (moments,) = second_moments(module, [module], [images], rng, **options)
    return moments


def close(found, expected):
    return (found.double() - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_moments_are_the_product_of_all_patches(options):
    module, images = nn.Conv2d(4, 8, bias=False, **options), Images(7)
    x = columns(module, images.images)
    found = measured(module, images)
    assert close(found.matrix(), x @ x.mT)
    assert close(found.matrix().mT, x @ x.mT)
    assert images.served == 7


@pytest.mark.parametrize("shape", [(4, 2, 2), (4, 1, 1), (4, 1, 9)])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_maps_may_be_smaller_than_the_kernel(kernel, shape):
    module, images = nn.Conv2d(4, 2, kernel, padding=kernel // 2), Images(30, shape=shape)
    x = columns(module, images.images)
    assert close(measured(module, images).matrix(), x @ x.mT)


@pytest.mark.parametrize("shape", [(12,), (5, 12), (3, 2, 12)])
def test_tokens_of_a_linear_layer_are_all_counted(shape):
    module, images = nn.Linear(12, 3), Images(20, shape=shape)
    x = columns(module, images.images)
    assert close(measured(module, images).matrix(), x @ x.mT)


def test_wide_layers_are_summed_block_by_block():
    module, images = nn.Linear(300, 2), Images(200, shape=(300,))
    x = columns(module, images.images)
    found = measured(module, images)
    assert not found.factored
    assert close(found.matrix(), x @ x.mT)
    assert close(found.matrix().mT, x @ x.mT)


@pytest.mark.parametrize(("images", "factored"), [(2, True), (6, True), (7, False)])
def test_few_columns_are_kept_as_they_are(images, factored):
    module = nn.Conv2d(12, 2, 1)
    served = Images(images, shape=(12, 1, 1))
    found = measured(module, served)
    x = columns(module, served.images)
    assert found.factored == factored
    assert found.values.shape == (1, 12, images if factored else 12)
    assert close(found.matrix(), x @ x.mT)


@pytest.mark.parametrize(("width", "dtype"), [(1200, torch.float64), (1201, torch.float32)])
def test_narrow_layers_are_summed_in_double_precision(width, dtype):
    found = measured(nn.Linear(width, 1), Images(3, shape=(800, width)))
    assert found.values.dtype == dtype


def test_sets_add_up_and_all_layers_are_seen_in_one_pass():
    model = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 3, stride=2))
    layers = [model[2], model[0]]
    one, other = Images(4), Images(5, seed=2)
    rng = torch.Generator()
    last, first = second_moments(model, layers, [one, other], rng)
    images = torch.cat([one.images, other.images])
    x = columns(model[0], images)
    assert close(first.matrix(), x @ x.mT)
    x = columns(model[2], model[:2](images).detach())
    assert close(last.matrix(), x @ x.mT)
    assert (one.served, other.served) == (4, 5)


def test_inputs_that_the_next_module_changes_in_place_are_measured_as_they_came():
    model = nn.Sequential(nn.Identity(), nn.Linear(12, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    images = Images(2, shape=(12,))

    class Spoilt(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            x.zero_()
            return out

    model[1] = Spoilt(12, 4)
    before = images.images.clone()
    (found,) = second_moments(model, [model[1]], [images], torch.Generator())
    x = columns(model[1], before)
    assert close(found.matrix(), x @ x.mT)


# --- subsampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 10, 10_000])
def test_no_more_columns_than_the_limit_are_used(limit):
    """Of unit columns the trace counts how many there are."""
    module, images = nn.Conv2d(1, 1, 1), Images(10, shape=(1, 6, 7))
    images.images = torch.ones_like(images.images)
    assert float(measured(module, images, max_columns=limit).matrix()) == min(limit, 420)


def test_columns_are_drawn_from_all_images_without_replacement():
    """Images are one-hot, so that the diagonal counts how often each was drawn from."""
    module, images = nn.Linear(50, 1), Images(50, shape=(4, 50))
    images.images = torch.eye(50).unsqueeze(1).repeat(1, 4, 1)
    counts = torch.zeros(50)
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        (found,) = second_moments(module, [module], [images], rng, max_columns=40)
        diagonal = found.matrix().diagonal(dim1=1, dim2=2)[0]
        assert diagonal.sum() == 40
        assert diagonal.max() <= 4
        counts += diagonal
    # 160 expected; a hypergeometric count of 40 of 200, 4 at a time, 200 times: deviation 11
    assert (counts - 160).abs().max() < 4 * 11.3


def test_a_wide_map_is_cut_to_the_same_window_of_three_kernels_in_every_image():
    module, images = nn.Conv2d(4, 6, 3, padding=1), Images(5, shape=(4, 20, 8))
    cut = images.images[:, :, 6:15]  # 20 - 9 + 1 = 12 places; 8 is not wider than 9
    x = columns(module, cut)
    assert close(measured(module, images, windows=[(0.5, 0.9)]).matrix(), x @ x.mT)
    for place, start in ((0.0, 0), (0.999999, 11)):
        x = columns(module, images.images[:, :, start : start + 9])
        assert close(measured(module, images, windows=[(place, 0.1)]).matrix(), x @ x.mT)


def test_augmented_images_are_the_training_transforms():
    data = replace(toy_images(), flip=True, crop_pad=2)
    ids = np.arange(20)

    def examples():
        rng = torch.Generator().manual_seed(1)
        return ExampleSet("retain", Pixels(data, "train", CPU, ids), ids, 8, rng, {})

    module, served = nn.Conv2d(1, 1, 3, padding=1), examples()
    rng = torch.Generator()
    (found,) = second_moments(module, [module], [served], rng, augmented=True)
    x = torch.cat([batch.images for batch in examples().batches(training=True)])
    x = columns(module, x)
    assert close(found.matrix(), x @ x.mT)
    (plain,) = second_moments(module, [module], [served], rng)
    assert not close(plain.matrix(), x @ x.mT)


# --- columns and weights --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_weight_times_columns_is_the_layer(options):
    module, x = nn.Conv2d(4, 8, **options), Images(2).images
    out = (weight_matrix(module) @ layer_columns(module, x)).flatten(0, 1)
    out = out + module.bias[:, None]
    assert torch.allclose(out, module(x).transpose(0, 1).flatten(1), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_timm_convolutions_that_pad_by_input_size_are_unfolded_alike(stride):
    from timm.layers.conv2d_same import Conv2dSame

    module, images = Conv2dSame(4, 5, (3, 4), stride=stride, bias=False), Images(5)
    found = layer_columns(module, images.images)
    out = (weight_matrix(module) @ found)[0]
    assert torch.allclose(out, module(images.images).transpose(0, 1).flatten(1), atol=1e-5)
    assert close(measured(module, images).matrix(), (found @ found.mT).double())


def test_a_weight_comes_back_as_it_was():
    module = nn.Conv2d(4, 6, (3, 2), groups=2)
    before = module.weight.detach().clone()
    matrix = weight_matrix(module)
    assert matrix.shape == (2, 3, 12)
    set_weight_matrix(module, torch.zeros_like(matrix))
    assert not module.weight.any()
    set_weight_matrix(module, matrix)
    assert torch.equal(module.weight, before)
