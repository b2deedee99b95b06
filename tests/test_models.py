"""Architectures: which stem an image gets, what is recorded of it, and what is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from unlearnbench.bench import InputError, UnknownNameError
from unlearnbench.bench.models import build_model, describe_model, list_models
from unlearnbench.bench.modelspec import ModelSpec, create_model_spec

from .toys import same_tensors

RESNET = "resnet18[layers=[1,1,1,1],channels=[8,8,16,16]]"
VIT = "vit_tiny_patch16_224[depth=1]"


def built(spec, size=32, channels=3, *, classes=5, seed=0):
    shape = (channels, size, size) if isinstance(size, int) else (channels, *size)
    return build_model(create_model_spec(spec), classes, shape, seed)


def stem(spec, size=32, channels=3):
    """What is recorded of the stem."""
    shape = (channels, size, size)
    model = built(spec, size, channels)
    return describe_model(create_model_spec(spec), model, shape).stem


def first(model):
    """Kernel and stride of the first convolution."""
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    return conv.kernel_size, conv.stride


def grid(model, size, channels=3):
    """Height and width of the last feature map, or number of tokens."""
    with torch.no_grad():
        return tuple(model.eval().forward_features(torch.zeros(1, channels, size, size)).shape)


SMALL, OWN = ((3, 3), (1, 1)), ((7, 7), (2, 2))


# --- convolutional stems --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_a_resnet_for_small_images_starts_with_stride_one_and_does_not_pool(size):
    model = built(RESNET, size)
    assert first(model) == SMALL
    assert model.conv1.padding == (1, 1)
    assert isinstance(model.maxpool, nn.Identity)
    assert stem(RESNET, size) == "small"
    assert grid(model, size)[2:] == (-(-size // 8),) * 2  # three halvings, rounded up


@pytest.mark.parametrize("size", [65, 96])
def test_a_resnet_for_larger_images_keeps_its_own_stem(size):
    model = built(RESNET, size)
    assert first(model) == OWN
    assert isinstance(model.maxpool, nn.MaxPool2d)
    assert stem(RESNET, size) == "own"


@pytest.mark.parametrize(
    ("wish", "size", "expected"), [("own", 32, OWN), ("small", 96, SMALL), ("auto", 32, SMALL)]
)
def test_the_stem_can_be_chosen(wish, size, expected):
    spec = f"resnet18[layers=[1,1,1,1],stem={wish}]"
    assert first(built(spec, size)) == expected
    assert stem(spec, size) == ("small" if expected == SMALL else "own")


def test_a_deep_stem_loses_its_stride_and_keeps_its_depth():
    spec = "resnet18[layers=[1,1,1,1],stem_type=deep,stem_width=8]"
    model = built(spec, 32)
    convolutions = [module for module in model.conv1 if isinstance(module, nn.Conv2d)]
    assert [conv.stride for conv in convolutions] == [(1, 1)] * 3
    assert [conv.in_channels for conv in convolutions] == [3, 8, 8]
    assert grid(model, 32)[2:] == (4, 4)
    assert stem(spec, 32) == "small"
    assert stem(spec, 96) == "own"


def test_vgg_has_nothing_to_adapt_and_is_recorded_as_its_own():
    spec = "vgg11_bn[mlp_ratio=0.01]"
    own = built(f"{spec[:-1]},stem=own]", 32)
    assert same_tensors(built(spec, 32), own)
    assert stem(spec, 32) == "own"
    assert stem(f"{spec[:-1]},stem=small]", 32) == "own"


@pytest.mark.parametrize("spec", ["efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv2_035"])
def test_mobile_networks_lose_the_stride_of_their_first_convolution(spec):
    model = built(spec, 32)
    assert first(model) == SMALL
    assert grid(model, 32)[2:] == (2, 2)
    assert stem(spec, 32) == "small"


@pytest.mark.parametrize(
    ("spec", "last"),
    [("convnext_atto", 4), ("densenet121", 4), ("dpn68", 4), ("legacy_seresnet18", 4),
     ("pvt_v2_b0", 4), ("regnetx_002", 2), ("resnetv2_18", 4)],
)  # fmt: skip
def test_a_small_image_is_not_thrown_away(spec, last):
    model = built(spec, 32)
    assert first(model) == SMALL
    assert grid(model, 32)[2:] == (last, last)
    assert stem(spec, 32) == "small"


def test_every_branch_of_a_stem_is_adapted_in_its_own_way():
    model = built("repvgg_a0", 32)
    assert model.stem.conv_kxk.conv.kernel_size == (3, 3)
    assert model.stem.conv_1x1.conv.kernel_size == (1, 1)
    assert model.stem.conv_kxk.conv.stride == model.stem.conv_1x1.conv.stride == (1, 1)


# --- patches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (16, 2), (28, 4), (32, 4), (60, 6), (64, 8)])
def test_a_small_image_is_cut_into_about_eight_patches_a_side_without_remainder(size, patch):
    model = built(VIT, size)
    assert first(model) == ((patch, patch), (patch, patch))
    assert grid(model, size)[1] == (size // patch) ** 2 + 1
    assert stem(VIT, size) == "small"


def test_a_large_image_keeps_the_patches_of_the_architecture():
    assert first(built(VIT, 96)) == ((16, 16), (16, 16))
    assert stem(VIT, 96) == "own"


def test_patches_that_are_the_architectures_own_are_recorded_so():
    swin = "swin_tiny_patch4_window7_224[depths=[1,1]]"
    assert first(built(swin, 32)) == ((4, 4), (4, 4))
    assert stem(swin, 32) == "own"
    assert stem(swin, 16) == "small"


def test_patches_can_be_chosen():
    assert first(built("vit_tiny_patch16_224[depth=1,patch_size=8]", 32)) == ((8, 8), (8, 8))
    assert first(built("vit_tiny_patch16_224[depth=1,stem=own]", 32)) == ((16, 16), (16, 16))


@pytest.mark.parametrize("spec", ["vit_tiny_patch16_224[patch_size=5]", "mixer_s16_224"])
def test_patches_that_leave_a_border_unseen_are_refused(spec):
    with pytest.raises(InputError, match="do not divide the image"):
        built(spec, 28)


def test_where_an_architecture_does_not_let_itself_be_adapted_its_own_stem_stays():
    assert first(built("mixer_s16_224", 32)) == ((16, 16), (16, 16))
    assert stem("mixer_s16_224", 32) == "own"
    with pytest.raises(InputError, match=r"`mixer_s16_224\[stem=small\]`.*patch_size"):
        built("mixer_s16_224[stem=small]", 32)


# --- images of any kind ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [RESNET, "resnet50[layers=[1,1,1,1]]", "vgg11_bn[mlp_ratio=0.01]", "mobilenetv2_035",
     "mobilenetv3_small_050", "efficientnet_b0", "densenet121[block_config=[2,2]]", "regnety_002",
     "convnext_atto", VIT, "deit_tiny_patch16_224[depth=1]", "beit_base_patch16_224[depth=1]",
     "swin_tiny_patch4_window7_224[depths=[1,1]]", "mixer_s16_224", "levit_128s", "nfnet_l0",
     "ghostnet_050", "repvgg_a0", "mobilevit_xxs", "lcnet_035", "xcit_nano_12_p16_224[depth=1]"],
)  # fmt: skip
def test_many_families_give_finite_logits_for_small_images(spec):
    for channels in (1, 3):
        model = built(spec, 32, channels).eval()
        with torch.no_grad():
            out = model(torch.randn(2, channels, 32, 32, generator=torch.Generator()))
        assert out.shape == (2, 5)
        assert torch.isfinite(out).all()


def test_an_image_may_be_higher_than_wide():
    for spec in (RESNET, VIT):
        assert built(spec, (16, 8)).eval()(torch.zeros(1, 3, 16, 8)).shape == (1, 5)


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [RESNET, VIT])
def test_the_seed_decides_the_weights_and_global_randomness_is_left_alone(spec):
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one, two, other = built(spec, seed=1), built(spec, seed=1), built(spec, seed=2)
    describe_model(create_model_spec(spec), one, (3, 32, 32))
    assert same_tensors(one, two)
    assert not same_tensors(one, other)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()


def test_a_model_comes_in_training_mode_with_untouched_statistics():
    model = built(RESNET)
    assert all(module.training for module in model.modules())
    assert model.bn1.running_mean.eq(0).all()
    assert model.bn1.num_batches_tracked == 0


def test_the_description_counts_parameters_and_names_size_and_stem():
    model = built(RESNET, 8, 1)
    info = describe_model(create_model_spec(RESNET), model, (1, 8, 8))
    assert info.as_dict() == {
        "stem": "small",
        "parameters": sum(p.numel() for p in model.parameters()),
        "input_size": [1, 8, 8],
    }


# --- what is refused ------------------------------------------------------------------------------


def one_sentence(caught):
    assert len(caught.value.sentences) == 1
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    return str(caught.value)


def test_an_unknown_architecture_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"unknown model `resnet81`; did you mean.*`resnet18`"
    ):
        built("resnet81")


@pytest.mark.parametrize(
    ("spec", "size", "reason"),
    [("resnet18[lyers=[1,1,1,1]]", 32, "lyers"), ("resnet18[layers=3]", 32, "TypeError"),
     ("inception_v3", 32, "[Kk]ernel size"), ("vit_tiny_patch16_224[depth=-1]", 32, "Error"),
     ("vgg11[mlp_ratio=0.01]", 8, "too small")],
)  # fmt: skip
def test_what_timm_refuses_is_one_sentence_that_names_the_model(spec, size, reason):
    with pytest.raises(InputError, match=reason) as caught:
        built(spec, size)
    assert one_sentence(caught).startswith(f"timm cannot build model `{spec}` for images of shape")


def test_a_model_with_outputs_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"gives .* where \(1, 5\) is needed"):
        built("vit_tiny_patch16_224[depth=1,global_pool='']", 32)


# --- specs ----------------------------------------------------------------------------------------


def test_a_spec_is_written_as_it_is_read():
    spec = create_model_spec("resnet18[stem=own,layers=[1,1,1,1]]")
    assert spec == ModelSpec("resnet18", {"layers": [1, 1, 1, 1]}, "own")
    assert str(spec) == "resnet18[layers=[1,1,1,1],stem=own]"
    assert create_model_spec(str(spec)) == spec
    assert str(create_model_spec({"name": "vgg11", "stem": "auto"})) == "vgg11"


@pytest.mark.parametrize("key", ["num_classes", "in_chans", "pretrained"])
def test_what_the_dataset_decides_cannot_be_set(key):
    with pytest.raises(InputError, match=f"model `resnet18`: `{key}` is set by the harness"):
        create_model_spec(f"resnet18[{key}=3]")


@pytest.mark.parametrize("value", ["tiny", "3", "[own]"])
def test_the_stem_is_one_of_three(value):
    with pytest.raises(InputError, match="`stem` must be auto, small or own; got"):
        create_model_spec(f"resnet18[stem={value}]")


def test_names_are_listed_by_pattern():
    assert {"resnet18", "resnet18d"} <= set(list_models("resnet18*"))
    assert len(list_models()) > 1000
    assert list_models("no such model") == []
