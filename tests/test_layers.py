"""Layer discovery over timm's families and over small networks made to mislead it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearnbench.bench.layers import NORMS, find_layers
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec

FAMILIES = [
    "resnet18",
    "resnet50[layers=[1,1,1,1]]",
    "resnet18[stem_type=deep,stem_width=8]",
    "resnetv2_18",
    "seresnet18",
    "vgg11[mlp_ratio=0.01]",
    "vgg11_bn[mlp_ratio=0.01]",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "convnext_atto",
    "densenet121",
    "regnetx_002",
    "vit_tiny_patch16_224[depth=2]",
    "deit_tiny_distilled_patch16_224[depth=2]",
    "mixer_s16_224",
    "ghostnet_050",
    "legacy_seresnet18",
    "dla34",
]


def built(spec, size=32):
    return build_model(create_model_spec(spec), 7, (3, size, size), seed=0).eval()


def found(model, size=32, channels=3):
    return find_layers(model, torch.zeros(1, channels, size, size))


def by_name(model, **image):
    """Layers by name; each as the names of its norm and of the module that gives its activation."""
    names = {module: name for name, module in model.named_modules()}
    return {
        layer.name: (layer.norm and names[layer.norm], names[layer.output])
        for layer in found(model, **image)
    }


# --- what holds for every architecture ------------------------------------------------------------


@pytest.mark.parametrize("spec", FAMILIES)
def test_every_layer_that_runs_is_listed_once_in_running_order(spec):
    model = built(spec)
    listed = [layer.name for layer in found(model)]
    ran = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert listed == ran
    assert len(set(ran)) == len(ran) > 5


@pytest.mark.parametrize("spec", FAMILIES)
def test_first_layer_is_the_stem_and_the_classifier_the_head(spec):
    model = built(spec)
    layers = found(model)
    assert [layer.is_stem for layer in layers] == [True] + [False] * (len(layers) - 1)
    classifier = model.get_classifier()
    classifier = classifier if isinstance(classifier, tuple) else (classifier,)
    heads = [layer for layer in layers if layer.is_head]
    assert [layer.module for layer in heads] == list(classifier)
    assert all(layer.channels == 7 for layer in heads)


@pytest.mark.parametrize("spec", FAMILIES)
def test_a_linked_norm_sees_exactly_what_the_layer_gives(spec):
    """With the norm's input compared by value, on an image that is not blank."""
    model = built(spec)
    layers = found(model)
    given, taken = {}, {}

    def before(module, inputs):
        taken[module] = inputs[0].clone() if isinstance(inputs[0], torch.Tensor) else None

    def after(module, inputs, output):
        given[module] = output.clone() if isinstance(output, torch.Tensor) else None

    for module in model.modules():
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    for layer in layers:
        if layer.norm is not None:
            assert torch.equal(taken[layer.norm], given[layer.module]), layer.name
            assert isinstance(layer.norm, NORMS)
        behind = layer.norm or layer.module
        if layer.output is not behind:
            assert torch.equal(taken[layer.output], given[behind]), layer.name
        assert layer.channels in given[layer.output].shape


@pytest.mark.parametrize("spec", ["resnet18", "vit_tiny_patch16_224[depth=1]"])
def test_the_model_is_left_as_it_was(spec):
    model = built(spec).train()
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    find_layers(model, torch.randn(2, 3, 32, 32, generator=torch.Generator()))
    assert [module.training for module in model.modules()] == modes
    assert {True, False} == set(modes)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_are_removed_when_the_network_fails():
    class Failing(nn.Sequential):
        def forward(self, x):
            super().forward(x)
            raise ZeroDivisionError

    model = Failing(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).train()
    with pytest.raises(ZeroDivisionError):
        found(model, channels=1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model[1].training


# --- families, by name ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "convolutions"),
    [("resnet18", (1, 2)), ("resnet50[layers=[1,1,1,1]]", (1, 2, 3)), ("seresnet18", (1, 2))],
)
def test_convolutions_of_a_resnet_have_their_own_norms_and_the_last_no_activation(
    spec, convolutions
):
    model = built(spec)
    links = by_name(model)
    assert links.pop("conv1") == ("bn1", "act1")
    assert links.pop("fc") == (None, "fc")
    for stage in range(1, 5):
        for block in range(len(getattr(model, f"layer{stage}"))):
            at = f"layer{stage}.{block}"
            for n in convolutions:
                last = n == convolutions[-1]  # the activation behind it comes after the addition
                expected = (f"{at}.bn{n}", f"{at}.bn{n}" if last else f"{at}.act{n}")
                assert links.pop(f"{at}.conv{n}") == expected
            if f"{at}.downsample.0" in links:
                norm = f"{at}.downsample.1"
                assert links.pop(f"{at}.downsample.0") == (norm, norm)
    assert all(".se." in name for name in links)


def test_layers_of_vgg_are_followed_by_norm_and_activation():
    with_norm, without = (
        by_name(built("vgg11_bn[mlp_ratio=0.01]")),
        by_name(built("vgg11[mlp_ratio=0.01]")),
    )
    assert with_norm["features.0"] == ("features.1", "features.2")
    assert with_norm["features.25"] == ("features.26", "features.27")
    assert without["features.0"] == (None, "features.1")
    assert without["pre_logits.fc1"] == (None, "pre_logits.act1")


@pytest.mark.parametrize(
    ("spec", "links"),
    [
        ("mobilenetv2_035", {"conv_stem": "bn1", "blocks.1.0.conv_pw": "blocks.1.0.bn1",
                             "blocks.1.0.conv_pwl": "blocks.1.0.bn3", "conv_head": "bn2"}),
        ("tf_efficientnet_lite0", {"conv_stem": "bn1", "blocks.1.0.conv_dw": "blocks.1.0.bn2"}),
        ("regnetx_002", {"stem.conv": "stem.bn", "s1.b1.conv3.conv": "s1.b1.conv3.bn",
                         "s1.b1.downsample.conv": "s1.b1.downsample.bn"}),
    ],
)  # fmt: skip
def test_a_norm_that_holds_its_activation_is_the_output_itself(spec, links):
    found_links = by_name(built(spec))
    for name, norm in links.items():
        assert found_links[name] == (norm, norm)


def test_norms_in_front_of_convolutions_are_not_taken_for_those_behind_them():
    dense = by_name(built("densenet121"))
    layer = "features.denseblock1.denselayer2"
    assert dense["features.conv0"] == ("features.norm0", "features.norm0")
    assert dense[f"{layer}.conv1"] == (f"{layer}.norm2", f"{layer}.norm2")
    assert dense[f"{layer}.conv2"] == (None, f"{layer}.conv2")  # concatenated
    assert dense["features.transition1.conv"] == (None, "features.transition1.conv")
    preactivation = by_name(built("resnetv2_18"))
    block = "stages.1.blocks.0"
    assert preactivation[f"{block}.conv1"] == (f"{block}.norm2", f"{block}.norm2")
    assert preactivation[f"{block}.conv2"] == (None, f"{block}.conv2")  # added


def test_layers_of_transformers_are_followed_by_an_activation_in_the_mlp_only():
    links = by_name(built("vit_tiny_patch16_224[depth=1]"))
    block = "blocks.0"
    assert links == {
        "patch_embed.proj": (None, "patch_embed.proj"),
        f"{block}.attn.qkv": (None, f"{block}.attn.qkv"),
        f"{block}.attn.proj": (None, f"{block}.attn.proj"),
        f"{block}.mlp.fc1": (None, f"{block}.mlp.act"),
        f"{block}.mlp.fc2": (None, f"{block}.mlp.fc2"),
        "head": (None, "head"),
    }


def test_an_activation_that_serves_several_layers_is_nobodys_output():
    """In DLA one ReLU follows the first norm of a block and the addition at its end."""
    links = by_name(built("dla34"))
    assert links["level2.tree1.conv1"] == ("level2.tree1.bn1", "level2.tree1.bn1")


# --- small networks -------------------------------------------------------------------------------


class Residual(nn.Module):
    """conv1 - bn1 - relu1 - conv2 - bn2 - addition - relu2."""

    def __init__(self, *, in_place, relu_in_place=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.relu1 = nn.ReLU(inplace=relu_in_place)
        self.conv2, self.bn2 = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.relu2 = nn.ReLU(inplace=relu_in_place)
        self.in_place = in_place

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.in_place:
            y += x
        else:
            y = y + x
        return self.relu2(y)


@pytest.mark.parametrize("relu_in_place", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_an_addition_parts_a_norm_from_the_activation_behind_it(in_place, relu_in_place):
    model = Residual(in_place=in_place, relu_in_place=relu_in_place)
    assert by_name(model, channels=2) == {"conv1": ("bn1", "relu1"), "conv2": ("bn2", "bn2")}


class AddedBeforeNorm(nn.Module):
    def __init__(self, *, in_place):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()
        self.in_place = in_place

    def forward(self, x):
        y = self.conv(x)
        if self.in_place:
            y += x
        else:
            y = y + x
        return self.relu(self.bn(y))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_norm_fed_by_a_sum_belongs_to_no_layer(in_place):
    model = AddedBeforeNorm(in_place=in_place)
    assert by_name(model, channels=2) == {"conv": (None, "conv")}


class SharedNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.bn(self.b(self.bn(self.a(x))))


def test_a_norm_that_two_layers_feed_belongs_to_neither():
    assert by_name(SharedNorm(), channels=2) == {"a": (None, "a"), "b": (None, "b")}


class SharedLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn1, self.bn2 = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.bn2(self.conv(self.bn1(self.conv(x))))


def test_a_layer_used_twice_is_listed_once_and_has_neither_norm():
    assert by_name(SharedLayer(), channels=2) == {"conv": (None, "conv")}


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.side = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        return self.side(y) + self.bn(y)


def test_a_norm_on_one_of_two_branches_is_not_the_norm_of_the_layer():
    links = by_name(Branches(), channels=2)
    assert links == {"conv": (None, "conv"), "side": (None, "side")}


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.unused = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2)

    def forward(self, x):
        return self.bn(input=self.conv(input=x))


def test_layers_called_by_keyword_are_listed_and_those_that_do_not_run_are_not():
    assert by_name(Keywords(), channels=2) == {"conv": (None, "conv")}


def test_the_last_layer_is_the_head_of_a_network_that_does_not_name_it():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8),
                          nn.ReLU(), nn.Linear(8, 3))  # fmt: skip
    layers = find_layers(model, torch.zeros(1, 1, 4, 4))
    assert [layer.is_head for layer in layers] == [False, False, True]
    assert [layer.channels for layer in layers] == [2, 8, 3]
    assert [layer.is_conv for layer in layers] == [True, False, False]


def test_pass_throughs_do_not_part_a_layer_from_its_norm():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Identity(), nn.BatchNorm2d(2), nn.Dropout(0.5),
                          nn.Identity(), nn.SiLU())  # fmt: skip
    assert by_name(model, channels=1) == {"0": ("2", "5")}


def test_softmax_over_positions_and_other_modules_are_no_activation():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.ReLU())
    assert by_name(model, channels=1) == {"0": ("1", "1")}
