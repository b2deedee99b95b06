"""Features of any timm network: the input of the classifier, and what the blocks give."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.dataset import ImageData
from unlearnbench.bench.evaluate import pass_size
from unlearnbench.bench.features import FeatureError, block_features, penultimate

CPU = torch.device("cpu")
# name, arguments, size of the image, blocks
FAMILIES = {
    "resnet18": ({}, 32, ["act1", "layer1", "layer2", "layer3", "layer4"]),
    "vgg11_bn": ({}, 32, ["features.2", "features.6", "features.13", "features.20", "features.27",
                          "features.28"]),
    "mobilenetv2_050": ({}, 32, ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"]),
    "convnext_atto": ({}, 32, ["stages.0", "stages.1", "stages.2", "stages.3"]),
    "mobilenetv3_small_050": ({}, 32, ["bn1", "blocks.0", "blocks.1", "blocks.3", "blocks.5"]),
    "vit_tiny_patch16_224": (
        {"img_size": 32, "patch_size": 8, "depth": 10, "embed_dim": 24, "num_heads": 2}, 32,
        [f"blocks.{i}" for i in (0, 1, 3, 4, 5, 6, 8, 9)],
    ),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 32, "embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [2] * 4,
         "window_size": 2}, 32, ["layers.0", "layers.1", "layers.2", "layers.3"],
    ),
    "mixer_s32_224": ({"img_size": 64}, 64, [f"blocks.{i}" for i in range(8)]),
}  # fmt: skip


def images(size=32, count=6):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, size=(count, 3, size, size), dtype=np.uint8)
    labels = np.arange(count) % 3
    data = ImageData(
        train_images=pictures,
        train_labels=labels,
        test_images=pictures[:3],
        test_labels=labels[:3],
        class_names=("a", "b", "c"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    ids = np.arange(count)
    return ExampleSet("x", Pixels(data, "train", CPU, ids), ids, 4, torch.Generator(), {})


def batch(examples):
    return next(examples.batches(len(examples))).images


def build(name, arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=7, **arguments).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    arguments, size, blocks = FAMILIES[request.param]
    return build(request.param, arguments), images(size), blocks


def test_the_classifier_reads_what_timm_calls_the_features_before_the_logits(family):
    model, examples, _ = family
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(batch(examples)), pre_logits=True)
        logits = model(batch(examples))
    found = penultimate(model, examples)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.flatten(1).numpy(), rtol=1e-5, atol=1e-6)
    head = model.get_classifier()
    again = head(torch.from_numpy(found).float()).detach()
    np.testing.assert_allclose(again.numpy(), logits.numpy(), rtol=1e-4, atol=1e-5)


def test_blocks_are_the_stages_of_timm_averaged_over_all_but_channels(family):
    model, examples, blocks = family
    outputs = {}
    modules = dict(model.named_modules())
    handles = [
        modules[b].register_forward_hook(
            # a copy, since a later layer may write into it
            lambda _, __, out, b=b: outputs.__setitem__(b, out.detach().clone())
        )
        for b in blocks
    ]
    with torch.no_grad():
        model(batch(examples))
    for handle in handles:
        handle.remove()
    found = block_features(model, examples)
    assert list(found) == blocks
    channels = {info["module"]: info["num_chs"] for info in model.feature_info}
    for name, features in found.items():
        assert features.shape == (6, channels[name])
        out = outputs[name].double().numpy()
        axis = out.shape.index(channels[name], 1)  # found by its size
        expected = np.moveaxis(out, axis, 1).reshape(6, channels[name], -1).mean(-1)
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def test_reading_changes_nothing_and_leaves_no_hook(family):
    model, examples, _ = family
    model.train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    penultimate(model, examples)
    block_features(model, examples)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model.eval()


def test_two_heads_side_by_side_have_their_inputs_side_by_side():
    model = build(
        "deit_tiny_distilled_patch16_224",
        {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2},
    )
    found = penultimate(model, images())
    assert found.shape == (6, 48)
    assert not np.allclose(found[:, :24], found[:, 24:])


class Plain(nn.Module):
    """No network of timm's: the last layer is the head, and all children are blocks."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(3600, 5)

    def before(self, x):
        return self.conv(x).relu().flatten(1)

    def forward(self, x):
        return self.last(self.before(x))


def test_of_a_network_that_timm_does_not_know_the_last_layer_is_the_head():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Plain()
    examples = images()
    with torch.no_grad():
        expected = model.before(batch(examples)).double().numpy()
    np.testing.assert_allclose(penultimate(model, examples), expected, rtol=1e-6)
    found = block_features(model, examples)
    assert list(found) == ["conv", "last"]
    assert found["conv"].shape == (6, 4)


def test_a_network_without_layers_is_told():
    class Nothing(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :5]

    with pytest.raises(FeatureError, match="no classifier"):
        penultimate(Nothing(), images())
    with pytest.raises(FeatureError, match="no blocks"):
        block_features(Nothing(), images())


def test_large_images_are_passed_a_few_at_a_time():
    sizes = []

    class Watching(nn.Sequential):
        def forward(self, images):
            sizes.append(len(images))
            return super().forward(images)

    net = Watching(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 3, 128, 128), dtype=np.uint8)
    labels = np.zeros(200, dtype=np.int64)
    data = ImageData(images, labels, images[:1], labels[:1], ("a",), (0.5,) * 3, (0.5,) * 3)
    pixels = Pixels(data, "train", torch.device("cpu"))
    examples = ExampleSet("t", pixels, pixels.ids, 1, torch.Generator(), {})
    block_features(net, examples)
    assert sum(sizes) == 200
    assert max(sizes) == pass_size(examples) < 200


def test_where_shapes_do_not_tell_the_network_says_that_channels_come_last():
    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, images):  # (N, C, H, W) -> (N, H, W, 8) with H = 8
            seen = images.permute(0, 2, 3, 1).repeat(1, 1, 1, 8)[..., :8]
            return seen + torch.arange(8.0)

    class Net(nn.Module):
        output_fmt = "NHWC"

        def __init__(self):
            super().__init__()
            self.stage, self.fc = Stage(), nn.Linear(8, 2)
            self.feature_info = [{"num_chs": 8, "module": "stage"}]

        def forward(self, images):
            return self.fc(self.stage(images).mean((1, 2)))

    images = np.zeros((5, 1, 8, 8), dtype=np.uint8)
    labels = np.zeros(5, dtype=np.int64)
    data = ImageData(images, labels, images[:1], labels[:1], ("a",), (0.0,), (1.0,))
    pixels = Pixels(data, "train", torch.device("cpu"))
    examples = ExampleSet("t", pixels, pixels.ids, 1, torch.Generator(), {})
    (features,) = block_features(Net().eval(), examples).values()
    assert features.tolist() == [list(range(8))] * 5
