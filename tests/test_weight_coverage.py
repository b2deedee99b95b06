"""Every weight matrix is edited, or the network is declined: never a silent part of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from unlearnbench.bench import (
    DATASETS,
    METHODS,
    DeclinedError,
    ImageData,
    TaskInfo,
    UnlearningTask,
    uncovered_weights,
)
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.layers import find_layers
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.recipe import Recipe, TrainingSettings

from .toys import CPU

SVD = METHODS.get("svd")
SWIN = "[embed_dim=12,depths=[1,1,1,1],num_heads=[1,1,2,2],window_size=2,patch_size=4]"
SERVED = {
    "resnet18": "resnet18[channels=[8,8,16,16]]",
    "bottleneck": "resnet26[channels=[4,4,8,8]]",
    "vgg": "vgg11_bn",
    "mobilenet-depthwise": "mobilenetv2_050",
    "convnext": "convnext_atto",
    "efficientnet": "efficientnet_b0",
    "pads-by-size": "tf_efficientnet_lite0",
    "vit": "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]",
    "swin": f"swin_tiny_patch4_window7_224{SWIN}",
    "mixer": "mixer_s16_224",
    "separate-q-k-v": "cait_xxs24_224[depth=2,embed_dim=24,num_heads=3]",
    "densenet": "densenet121[growth_rate=4]",
}
DECLINED = {
    "beit": ("beitv2_base_patch16_224[depth=1,embed_dim=24,num_heads=3]", "qkv.weight` of Linear"),
    "swin-v2": ("swinv2_tiny_window8_256[embed_dim=12,depths=[1,1,1,1],num_heads=[1,1,2,2],"
                "window_size=2,patch_size=4]", "qkv.weight` of Linear"),
    "eva": ("eva02_tiny_patch14_224[depth=1,embed_dim=24,num_heads=3]", "qkv.weight` of Linear"),
    "standardised": ("resnetv2_50x1_bit", "conv.weight` is not the plain product"),
    "norm-free": ("nf_resnet26", "conv.weight` is not the plain product"),
    "conv-1d": ("eca_resnet33ts", "weight` of Conv1d"),
}  # fmt: skip
SLOW = {"vgg"}  # its classifier is a convolution of 25,088 inputs


@cache
def images() -> ImageData:
    """Three classes of 32x32 images."""
    spec = "synthetic[classes=3,size=32,channels=3,train_per_class=8,test_per_class=1]"
    return DATASETS.create(spec).load(Path("unused"))


def network_of(model):
    """An untrained network for these images."""
    data = images()
    return build_model(create_model_spec(model), data.num_classes, data.image_shape, seed=3)


def task_of(model):
    """A request to forget class 0."""
    data, rng = images(), torch.Generator().manual_seed(0)
    gone = data.train_labels == 0
    members = {"forget": np.flatnonzero(gone), "retain": np.flatnonzero(~gone)}
    sets = {
        role: ExampleSet(role, Pixels(data, "train", CPU, ids), ids, 8, rng, {})
        for role, ids in members.items()
    }
    info = TaskInfo(
        model_spec=create_model_spec(model),
        recipe=Recipe("plain", TrainingSettings()),
        forget_classes=(0,),
        forget_size=8,
        retain_size=16,
        validation_size=0,
        num_classes=data.num_classes,
        image_shape=data.image_shape,
    )
    return UnlearningTask(info, method="svd", sets=sets, device=CPU, rng=rng, served={})


def families(table):
    return [
        pytest.param(*(v if isinstance(v, tuple) else (v,)), id=k,
                     marks=pytest.mark.slow if k in SLOW else ())
        for k, v in table.items()
    ]  # fmt: skip


@pytest.mark.parametrize("model", families(SERVED))
def test_every_layer_of_a_family_that_is_served_is_edited(model):
    method = SVD(alpha_retain=1, alpha_forget=300)
    network = shaken(network_of(model))
    before = {name: t.clone() for name, t in network.state_dict().items()}
    task = task_of(model)
    edited = method.unlearn(network, task)
    layers = {f"{layer.name}.weight" for layer in task.layers(edited)}
    changed = {n for n, t in edited.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == layers
    matrices = {n for n, p in edited.named_parameters() if p.squeeze().dim() >= 2}
    assert {n for n in matrices - layers if "pos" not in n} == set()


@pytest.mark.parametrize(("model", "reason"), families(DECLINED))
def test_a_family_that_cannot_be_edited_whole_is_declined_and_left_as_it_was(model, reason):
    method = SVD(alpha_retain=10, alpha_forget=10)
    network = network_of(model).eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    with pytest.raises(DeclinedError, match=reason) as error:
        method.unlearn(network, task_of(model))
    assert "\n" not in str(error.value)
    assert str(error.value).count("`") <= 6  # three names
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


@torch.no_grad()
def shaken(network):
    """Statistics of norms from noise, and no weight or scale at zero, as after some training."""
    rng = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter += 0.02 * torch.randn(parameter.shape, generator=rng)
    network.train()(torch.randn(8, 3, 32, 32, generator=rng))
    return network.eval()


# --- single layers --------------------------------------------------------------------------------


class Attached(nn.Module):
    """A plain layer, with something beside it."""

    def __init__(self, beside, forward=None):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.beside = beside
        self.use = forward or (lambda layer, x: x)

    def forward(self, x):
        return self.use(self.beside, self.first(x))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Plain(nn.Linear):
    def forward(self, x):
        return super().forward(x)


class Table(nn.Module):
    def __init__(self, name, shape):
        super().__init__()
        setattr(self, name, nn.Parameter(torch.ones(shape)))


def gaps(model, shape=(1, 6)):
    image = torch.zeros(shape)
    return uncovered_weights(model, find_layers(model, image), image)


def by_functional(layer, x):
    return nn.functional.linear(x, layer.weight)


def run(layer, x):
    return layer(x)


@pytest.mark.parametrize(
    ("beside", "forward", "expected"),
    [
        (nn.Linear(6, 2), run, []),
        (Plain(6, 2), run, []),
        (nn.LayerNorm((1, 6)), run, []),
        (nn.LayerNorm((2, 6)), None, []),
        (Table("gamma", (6,)), None, []),
        (Table("temperature", (3, 1, 1)), None, []),
        (Table("pos_embed", (1, 4, 6)), None, []),
        (Table("reg_token", (1, 4, 6)), None, []),
        (Table("relative_position_bias_table", (9, 3)), None, []),
        (Table("matrix", (2, 6)), None, ["`beside.matrix` of Table"]),
        (nn.Linear(6, 2), None, ["`beside.weight` of Linear"]),
        (nn.Linear(6, 2), by_functional, ["`beside.weight` of Linear"]),
        (Doubled(6, 2), run, ["`beside.weight` is not the plain product"]),
        (nn.Conv1d(1, 1, 3), None, ["`beside.weight` of Conv1d"]),
        (nn.ConvTranspose2d(2, 2, 3), None, ["`beside.weight` of ConvTranspose2d"]),
        (nn.Embedding(4, 6), None, ["`beside.weight` of Embedding"]),
        (nn.Bilinear(2, 2, 2), None, ["`beside.weight` of Bilinear"]),
        (nn.LSTM(6, 2), None, ["`beside.weight_ih_l0` of LSTM", "`beside.weight_hh_l0` of LSTM"]),
        (nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)), run,
         ["`beside.parametrizations.weight.original1` of ParametrizationList"]),
        (nn.MultiheadAttention(6, 2), lambda m, x: m(x, x, x)[0],
         ["`beside.in_proj_weight` of MultiheadAttention",
          "`beside.out_proj.weight` of NonDynamicallyQuantizableLinear"]),
    ],
)  # fmt: skip
def test_what_stands_beside_a_plain_layer(beside, forward, expected):
    found = gaps(Attached(beside, forward))
    assert len(found) == len(expected)
    assert all(gap.startswith(start) for gap, start in zip(found, expected, strict=True))


def test_a_weight_that_two_layers_share_is_named():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    assert gaps(model) == ["`2.weight` is shared by two layers"]


def test_a_forward_that_is_replaced_on_the_instance_is_tried():
    model = nn.Sequential(nn.Linear(6, 6))
    model[0].forward = lambda x: 3 * nn.functional.linear(x, model[0].weight)
    assert gaps(model) == ["`0.weight` is not the plain product of weight and input"]


def test_standardised_convolutions_are_told_from_plain_subclasses():
    from timm.layers import ScaledStdConv2d, StdConv2d
    from timm.layers.conv2d_same import Conv2dSame

    for layer, plain in ((StdConv2d, False), (ScaledStdConv2d, False), (Conv2dSame, True)):
        model = nn.Sequential(layer(3, 4, 3, stride=2))
        assert (gaps(model, (1, 3, 9, 9)) == []) == plain


def test_what_a_network_keeps_from_weight_decay_is_left_alone():
    model = Attached(Table("matrix", (2, 6)))
    model.no_weight_decay = lambda: {"beside.matrix"}
    assert gaps(model) == []


def test_the_check_leaves_the_network_as_it_was():
    network = timm.create_model("resnetv2_50x1_bit").train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    state = torch.get_rng_state()
    assert gaps(network, (1, 3, 16, 16))
    assert network.training
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
