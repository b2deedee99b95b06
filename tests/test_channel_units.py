"""Which channels can be damped over timm's families, and what damping them does."""

from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
import torch
from torch import nn

from unlearnbench.bench import (
    DeclinedError,
    damp_channels,
    find_channel_units,
    is_exact,
    restore_channels,
)
from unlearnbench.bench.layers import find_layers
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec

SERVED = {
    "resnet18[layers=[1,1,1,1]]": "conv",
    "vgg11_bn[mlp_ratio=0.01]": "conv",
    "mobilenetv2_035": "conv",
    "efficientnet_b0": "conv",
    "seresnet18[layers=[1,1,1,1]]": "conv",
    "convnext_atto": "conv",
    "vit_tiny_patch16_224[depth=2]": "mlp",
    "swin_tiny_patch4_window7_224[depths=[1,1,1,1]]": "mlp",
    "mixer_s16_224": "mlp",
}
DECLINED = {
    ("vit_tiny_patch16_224[depth=2]", "conv"): "only 1 of 9 layers are convolutions",
    ("swin_tiny_patch4_window7_224[depths=[1,1,1,1]]", "conv"): "only 1 of 20 layers are conv",
    ("levit_128s", "conv"): "of .* layers are convolutions",
    ("resnetv2_18", "conv"): "only 9 of 20 convolutions",
    ("resnet18[layers=[1,1,1,1]]", "mlp"): "no MLP whose hidden units",
}
IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def built(spec):
    """A network as if trained: timm begins some weights at 0, which silences branches."""
    model = build_model(create_model_spec(spec), 7, (3, 32, 32), seed=0).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def units_of(model, *kinds):
    return find_channel_units(model, find_layers(model, IMAGE[:1]), kinds)


def activation(model, unit):
    """What the unit's output module gives for the image."""
    seen = {}
    handle = model.get_submodule(unit.output).register_forward_hook(
        lambda module, inputs, output: seen.update(out=output.clone())
    )
    with torch.no_grad():
        logits = model(IMAGE)
    handle.remove()
    return unit.values(seen["out"]), logits


@pytest.mark.parametrize(("spec", "kind"), SERVED.items())
def test_a_family_is_served_and_every_unit_is_silenced_by_its_gate(spec, kind):
    """With all factors 0 the network no longer hears the unit: other weights before it do not
    change its outputs."""
    model = built(spec)
    units = units_of(model, kind).found
    assert units
    for unit in (units[0], units[len(units) // 2], units[-1]):
        silenced = deepcopy(model)
        damp_channels(silenced, unit, torch.zeros(unit.channels), "gate")
        values, logits = activation(silenced, unit)
        assert values.abs().max() == 0
        layer = silenced.get_submodule(unit.layer)
        with torch.no_grad():
            layer.weight.copy_(torch.randn_like(layer.weight))
            assert torch.equal(silenced(IMAGE), logits)


@pytest.mark.parametrize(("spec", "kind"), SERVED.items())
def test_the_default_target_does_what_the_gate_does_wherever_it_is_exact(spec, kind):
    model = built(spec)
    exact = [u for u in units_of(model, kind).found if u.homogeneous or u.consumer]
    assert exact
    generator = torch.Generator().manual_seed(1)
    for unit in exact[:: max(1, len(exact) // 4)]:
        gate = torch.rand(unit.channels, generator=generator)
        with torch.no_grad():
            plain = model(IMAGE)
            outputs = []
            for target in ("gate", "bn_affine"):
                damped = deepcopy(model)
                damp_channels(damped, unit, gate, target)
                outputs.append(damped(IMAGE))
        change = (outputs[0] - plain).abs().max()
        assert change > 1e-5, unit
        assert (outputs[0] - outputs[1]).abs().max() < 1e-2 * change, unit


@pytest.mark.parametrize(("case", "reason"), DECLINED.items())
def test_what_could_be_damped_only_in_part_is_declined_with_a_reason(case, reason):
    spec, kind = case
    with pytest.raises(DeclinedError, match=reason):
        units_of(built(spec), kind)


def test_units_and_layers_left_out_are_all_layers_of_the_kind():
    model = built("resnet18[layers=[1,1,1,1]]")
    units = units_of(model, "conv")
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert sorted([unit.layer for unit in units.found] + units.left) == sorted(convolutions)
    assert units.left == []
    late = {unit.layer.split(".")[0]: unit.late for unit in units.found}
    assert late == {"conv1": 2, "layer1": 2, "layer2": 2, "layer3": 1, "layer4": 0}
    assert all(unit.homogeneous for unit in units.found)


def test_both_kinds_serve_a_transformer_and_a_convolutional_network():
    vit = units_of(built("vit_tiny_patch16_224[depth=2]"), "conv", "mlp")
    assert {unit.kind for unit in vit.found} == {"mlp"}
    assert vit.left == ["patch_embed.proj"]
    resnet = units_of(built("resnet18[layers=[1,1,1,1]]"), "conv", "mlp")
    assert {unit.kind for unit in resnet.found} == {"conv"}


def test_squeeze_and_excitation_and_the_classifier_are_no_units():
    assert not [u for u in units_of(built("seresnet18"), "conv").found if ".se." in u.layer]
    assert not [u for u in units_of(built("vgg11_bn"), "conv").found if u.layer == "head.fc"]


def test_activations_that_are_not_homogeneous_are_told_apart():
    efficient = {u.layer: u for u in units_of(built("efficientnet_b0"), "conv").found}
    assert not efficient["conv_stem"].homogeneous  # SiLU
    assert efficient["blocks.1.0.conv_pw"].consumer == "blocks.1.0.conv_dw"
    assert efficient["blocks.1.0.conv_pwl"].homogeneous  # linear
    mobile = units_of(built("mobilenetv2_035"), "conv").found
    assert not mobile[0].homogeneous  # ReLU6 is cut off


def test_weight_scales_kernel_and_bias_and_leaves_the_norm():
    model = built("resnet18[layers=[1,1,1,1]]")
    unit = next(u for u in units_of(model, "conv").found if u.layer == "layer3.0.conv1")
    kernel, norm = model.layer3[0].conv1.weight.clone(), model.layer3[0].bn1.weight.clone()
    damp_channels(model, unit, torch.full((unit.channels,), 0.5), "weight")
    assert torch.equal(model.layer3[0].conv1.weight, kernel * 0.5)
    assert torch.equal(model.layer3[0].bn1.weight, norm)


def test_a_damped_kernel_in_front_of_a_norm_tends_to_a_constant_and_not_to_zero():
    """y -> g y + (1 - g) (beta - gamma mu / sigma)."""
    model = built("resnet18[layers=[1,1,1,1]]")
    norm = model.layer3[0].bn2
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.bias.uniform_(-1, 1)
    unit = next(u for u in units_of(model, "conv").found if u.layer == "layer3.0.conv2")
    before, _ = activation(model, unit)
    damp_channels(model, unit, torch.full((unit.channels,), 0.25), "weight")
    after, _ = activation(model, unit)
    sigma = (norm.running_var + norm.eps).sqrt()
    constant = norm.bias - norm.weight * norm.running_mean / sigma
    assert torch.allclose(after, 0.25 * before + 0.75 * constant, atol=1e-5)


def test_without_a_norm_the_kernel_and_its_bias_are_scaled():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 4))
    (unit,) = units_of(net, "conv").found
    kernel, bias = net[0].weight.detach().clone(), net[0].bias.detach().clone()
    damp_channels(net, unit, torch.full((4,), 0.25), "bn_affine")
    assert unit.norm is None
    assert torch.equal(net[0].weight, kernel * 0.25)
    assert torch.equal(net[0].bias, bias * 0.25)


def test_a_norm_without_scale_and_shift_cannot_be_damped():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(),
                        nn.Flatten(), nn.Linear(3600, 4)).eval()  # fmt: skip
    with pytest.raises(DeclinedError, match="only 0 of 1 convolutions"):
        units_of(net, "conv")


# --- gates as hooks -------------------------------------------------------------------------------


def test_gates_multiply_survive_copying_and_pickling_and_can_be_undone():
    model = built("resnet18[layers=[1,1,1,1]]")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = model(IMAGE)
    unit = units_of(model, "conv").found[4]
    for _ in range(2):
        damp_channels(model, unit, torch.linspace(0.1, 1, unit.channels), "gate")
    with torch.no_grad():
        gated = model(IMAGE)
        assert not torch.allclose(gated, before)
        assert torch.equal(deepcopy(model)(IMAGE), gated)
        assert torch.equal(pickle.loads(pickle.dumps(model))(IMAGE), gated)
    gate = model.get_submodule(unit.output).channel_gate
    assert torch.allclose(gate, torch.linspace(0.1, 1, unit.channels).square())
    extra = set(model.state_dict()) - set(state)
    assert extra == {f"{unit.output}.channel_gate"}  # a file says that there are gates
    with pytest.raises(RuntimeError, match="channel_gate"):
        built("resnet18[layers=[1,1,1,1]]").load_state_dict(model.state_dict())
    restore_channels(model, state)
    with torch.no_grad():
        assert torch.equal(model(IMAGE), before)
    assert set(model.state_dict()) == set(state)


def test_gates_that_a_network_had_before_stay_when_later_ones_are_undone():
    model = built("resnet18[layers=[1,1,1,1]]")
    units = units_of(model, "conv").found
    damp_channels(model, units[2], torch.full((units[2].channels,), 0.5), "gate")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = model(IMAGE)
    for unit in units[2:4]:
        damp_channels(model, unit, torch.full((unit.channels,), 0.25), "gate")
    restore_channels(model, state)
    with torch.no_grad():
        assert torch.equal(model(IMAGE), before)


def test_what_is_exact_is_told():
    efficient = {u.layer: u for u in units_of(built("efficientnet_b0"), "conv").found}
    dw, pw = efficient["blocks.1.0.conv_dw"], efficient["blocks.1.0.conv_pw"]
    assert [is_exact(pw, t) for t in ("bn_affine", "weight", "gate")] == [True, False, True]
    assert [is_exact(dw, t) for t in ("bn_affine", "weight", "gate")] == [False, False, True]


def test_undoing_takes_back_every_target():
    for target in ("bn_affine", "weight", "gate"):
        model = built("mobilenetv2_035")
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for unit in units_of(model, "conv").found:
            damp_channels(model, unit, torch.full((unit.channels,), 0.5), target)
        restore_channels(model, state)
        after = model.state_dict()
        assert after.keys() == state.keys()
        assert all(torch.equal(after[name], state[name]) for name in state)


def test_a_kernel_that_is_standardised_before_it_is_used_is_not_damped():
    """Its scale cancels: damping it would do nothing and say that it had."""
    with pytest.raises(DeclinedError, match=r"of .* convolutions have a norm or activation"):
        units_of(built("nf_resnet26"), "conv")
