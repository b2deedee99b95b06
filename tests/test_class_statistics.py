"""Class statistics: one pass, any batches, stored with the model, refused for another."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearnbench.bench import METHODS, ClassStatistics, InputError, damp_channels
from unlearnbench.bench.class_statistics import HEADER, fingerprint
from unlearnbench.bench.running_moments import RunningMoments

from .toys import fresh, toy_images, toy_task, trained

OSP = METHODS.get("osp")
CPU = torch.device("cpu")


def statistics(model=None, **fields):
    method = OSP(samples_per_class=1000, **fields)
    tensors = method.prepare(model or trained(), toy_task(method, preparing=True))
    return ClassStatistics.from_tensors(tensors)


# --- running moments ------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 50], list(range(1, 60))])
def test_moments_do_not_depend_on_the_batches(cuts):
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(60, 5)) + 1000, rng.integers(0, 3, 60)  # a large offset
    moments = RunningMoments(4, 5, CPU)
    for part, of in zip(np.split(values, cuts), np.split(labels, cuts), strict=True):
        moments.update(torch.tensor(part), torch.tensor(of))
    for label in range(3):
        mine = values[labels == label]
        assert moments.mean[label].numpy() == pytest.approx(mine.mean(0), rel=1e-12)
        assert moments.var[label].numpy() == pytest.approx(mine.var(0), rel=1e-9)
    assert moments.count.tolist() == [*np.bincount(labels, minlength=3), 0]
    assert moments.mean[3].abs().max() == moments.var[3].abs().max() == 0


# --- of a network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["max", "mean", "rms"])
def test_statistics_are_those_of_the_activations_of_every_class(statistic):
    """Recompute one layer by hand: conv1 of a block, after its norm and activation."""
    found, model = statistics(statistic=statistic), trained()
    batch = next(iter(toy_task(OSP(), preparing=True).training.batches(1000)))
    block = model.layer2[0]
    with torch.no_grad():
        x = model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(batch.images)))))
        maps = torch.relu(block.bn1(block.conv1(x)))
    reduced = {
        "max": maps.amax((2, 3)),
        "mean": maps.mean((2, 3)),
        "rms": maps.square().mean((2, 3)).sqrt(),
    }[statistic]
    for label in range(toy_images().num_classes):
        of_class = reduced[batch.labels == label]
        assert found.count[label] == len(of_class)
        assert torch.allclose(found.mean["layer2.0.conv1"][label], of_class.mean(0), atol=1e-4)
        var = of_class.var(0, correction=0)
        assert torch.allclose(found.var["layer2.0.conv1"][label], var, atol=1e-4)


def test_hidden_units_of_a_transformer_are_measured_over_its_tokens():
    vit = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"
    model = trained(vit)
    found = statistics(model, units="mlp")
    assert [unit.layer for unit in found.units] == ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]
    batch = next(iter(toy_task(OSP(), preparing=True).training.batches(1000)))
    seen = {}
    model.blocks[1].mlp.act.register_forward_hook(lambda m, i, out: seen.update(out=out))
    with torch.no_grad():
        model(batch.images)
    values = seen["out"].amax(1)
    for label in range(4):
        expected = values[batch.labels == label].mean(0)
        assert torch.allclose(found.mean["blocks.1.mlp.fc1"][label], expected, atol=1e-4)


# --- stored ---------------------------------------------------------------------------------------


def test_a_file_holds_everything(tmp_path):
    found = statistics()
    found.save(tmp_path / "s.safetensors")
    again = ClassStatistics.load(tmp_path / "s.safetensors")
    assert again.units == found.units
    assert (again.statistic, again.forgotten, again.model) == ("max", (), fingerprint(trained()))
    assert torch.equal(again.count, found.count)
    for name in found.mean:
        assert torch.equal(again.mean[name], found.mean[name])
        assert torch.equal(again.var[name], found.var[name])


def test_statistics_of_another_model_are_refused():
    found = statistics()
    found.check(trained())
    for other in (fresh(), trained(penalty="osp"), trained("resnet10t")):
        with pytest.raises(InputError, match=r"of another model .* measure them again"):
            found.check(other)


@pytest.mark.parametrize("target", ["bn_affine", "weight"])
def test_every_damped_channel_makes_another_model(target):
    found, model = statistics(), trained()
    for unit in found.units:
        for channel in (0, unit.channels - 1):
            before, gate = fingerprint(model), torch.ones(unit.channels)
            gate[channel] = 0.5
            damp_channels(model, unit, gate, target)
            assert fingerprint(model) != before, (unit.layer, channel)


def test_a_masked_class_is_another_model():
    model = trained()
    with torch.no_grad():
        model.fc.bias[3] = -1e9
    assert fingerprint(model) != fingerprint(trained())


def test_one_changed_weight_tensor_is_another_model():
    model = trained()
    with torch.no_grad():
        model.layer3[0].conv2.weight += 0.01
    assert fingerprint(model) != fingerprint(trained()) == fingerprint(trained())


def test_statistics_of_another_version_are_refused(tmp_path):
    tensors = statistics().to_tensors()
    header = json.loads(bytes(tensors[HEADER].tolist()))
    header["schema"] = "unlearnbench.class-statistics/9"
    text = bytearray(json.dumps(header).encode())
    tensors[HEADER] = torch.frombuffer(text, dtype=torch.uint8)
    save_file(tensors, tmp_path / "new.safetensors")
    with pytest.raises(InputError, match=r"another version \(`unlearnbench.class-statistics/9`\)"):
        ClassStatistics.load(tmp_path / "new.safetensors")


def test_what_is_no_statistics_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(InputError, match="there are no class statistics at"):
        ClassStatistics.load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(InputError, match="cannot be read as class statistics"):
        ClassStatistics.load(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="these tensors are no class statistics"):
        ClassStatistics.load(tmp_path / "other.safetensors")
    statistics().save(tmp_path / "whole.safetensors")
    tensors = load_file(tmp_path / "whole.safetensors")
    del tensors["mean.layer2.0.conv1"]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"not whole .*layer2\.0\.conv1"):
        ClassStatistics.load(tmp_path / "part.safetensors")


@pytest.mark.parametrize("groups", [1, 2, 16, 32])
def test_every_damped_input_of_a_grouped_layer_makes_another_model(groups):
    model = torch.nn.Sequential(torch.nn.Conv2d(32, 32, 3, groups=groups))
    for channel in range(32):
        before = fingerprint(model)
        with torch.no_grad():
            per = 32 // groups
            group, local = divmod(channel, per)
            model[0].weight[group * per : (group + 1) * per, local] *= 0.5
        assert fingerprint(model) != before, channel
