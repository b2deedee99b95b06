"""Training several models together: the same as each alone, or a reason why not."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from unlearnbench.bench import DivergedError, InputError
from unlearnbench.bench.batches import Batch, ExampleSet, Pixels
from unlearnbench.bench.evaluate import logits
from unlearnbench.bench.metrics.margin import logit_margin
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.recipe import TrainingSettings
from unlearnbench.bench.stacked import stackable, train_stacked
from unlearnbench.bench.training import train_recipe

from .toys import CPU, NARROW, toy_images, toy_recipe

SHAPE = toy_images().image_shape
# warm-up, cosine, smoothing and a last batch of another size: 60 = 24 + 24 + 12
SETTINGS = TrainingSettings(epochs=3, batch_size=24, lr=0.05, label_smoothing=0.1)


class DoubleSet(ExampleSet):
    """Images in float64, in which stacked and single training agree to the last digits."""

    def batches(self, batch_size=None, *, training=False):
        for batch in super().batches(batch_size, training=training):
            yield Batch(batch.images.double(), batch.labels, batch.ids)


def network(spec=NARROW, seed=0):
    return build_model(create_model_spec(spec), toy_images().num_classes, SHAPE, seed)


def examples(number, *, size=60, of=DoubleSet, draw=0):
    """A random part of the training images, and a generator of its own."""
    rng = torch.Generator().manual_seed(1000 * draw + number)
    ids = torch.randperm(len(toy_images().train_labels), generator=rng)[:size].sort().values
    return of("training", Pixels(toy_images(), "train", CPU), ids, 32, rng, {})


def recipe(penalty=None, **changes):
    return toy_recipe(penalty, SETTINGS.model_copy(update=changes))


def bank(spec=NARROW, count=3, **changes):
    """Models in float64 that differ in everything but architecture, and their examples."""
    models = [network(spec, seed).double() for seed in range(count)]
    return models, [examples(number, **changes) for number in range(count)]


def assert_same_training(spec, settings, **changes):
    models, sets = bank(spec, **changes)
    train_stacked(models, sets, settings)
    alone, again = bank(spec, **changes)
    for model, single, own in zip(models, alone, again, strict=True):
        train_recipe(single, own, settings)
        assert {model.training, single.training} == {False}
        torch.testing.assert_close(
            model.state_dict(), single.state_dict(), rtol=1e-7, atol=1e-9, check_stride=True
        )


# --- the same as alone ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "lr": 1e-3},
        {"schedule": "constant", "momentum": 0.0, "augment": False},
    ],
    ids=["sgd", "adamw", "plain"],
)
def test_stacked_training_gives_each_model_the_state_it_gets_alone(changes):
    assert_same_training(NARROW, recipe(**changes))


def test_a_stack_of_one_is_training_alone():
    assert_same_training(NARROW, recipe(), count=1)


def test_a_lone_last_example_joins_the_batch_before():
    models, sets = bank(size=49)
    train_stacked(models, sets, recipe(epochs=1))
    assert {int(model.bn1.num_batches_tracked) for model in models} == {2}
    assert_same_training(NARROW, recipe(epochs=1), size=49)


@pytest.mark.parametrize(
    "spec",
    [
        "mobilenetv2_035",
        "seresnet18[layers=[1,1,1,1],channels=[8,8,16,16]]",
        "resnet18[layers=[1,1,1,1],channels=[64,64,64,64],norm_layer=groupnorm]",
    ],
    ids=["depthwise and fused norms", "squeeze and excite", "group norm"],
)
def test_other_architectures_train_the_same(spec):
    assert_same_training(spec, recipe(epochs=1), count=2)


def test_margins_in_float32_are_those_of_training_alone():
    sets = [examples(number, of=ExampleSet) for number in range(3)]
    models = [network(seed=seed) for seed in range(3)]
    train_stacked(models, sets, recipe(epochs=2))
    test = examples(9, of=ExampleSet)
    for seed, model in enumerate(models):
        single = network(seed=seed)
        train_recipe(single, examples(seed, of=ExampleSet), recipe(epochs=2))
        got, wanted = (logit_margin(logits(m, test), test.labels) for m in (model, single))
        assert abs(got - wanted).max() < 1e-3


def test_a_model_does_not_depend_on_the_others():
    models, sets = bank()
    train_stacked(models, sets, recipe())
    others, own = bank()
    others[1:] = [network(seed=seed).double() for seed in (8, 9)]
    own[1:] = [examples(number, draw=1) for number in (1, 2)]
    train_stacked(others, own, recipe())
    torch.testing.assert_close(models[0].state_dict(), others[0].state_dict())
    assert not torch.allclose(models[1].fc.weight, others[1].fc.weight)


def test_frozen_parameters_stay():
    models, sets = bank()
    before = [deepcopy(model.conv1.state_dict()) for model in models]
    for model in models:
        for weight in model.conv1.parameters():
            weight.requires_grad_(False)
    train_stacked(models, sets, recipe(epochs=1))
    assert all(
        torch.equal(state["0.weight"], model.conv1[0].weight)
        for state, model in zip(before, models, strict=True)
    )
    assert all(p.requires_grad for p in models[0].fc.parameters())


def test_bf16_runs_the_forward_pass_in_lower_precision():
    trained = []
    for precision in ("fp32", "bf16"):
        models = [network(seed=seed) for seed in range(2)]
        sets = [examples(number, of=ExampleSet) for number in range(2)]
        train_stacked(models, sets, recipe(epochs=1, precision=precision))
        trained.append(models[1].fc.weight)
    assert trained[0].dtype == trained[1].dtype == torch.float32
    assert not torch.equal(*trained)
    assert torch.allclose(*trained, atol=0.05)


# --- failures -------------------------------------------------------------------------------------


def test_the_model_that_diverges_is_named():
    models, sets = bank()
    with torch.no_grad():
        models[1].fc.bias.fill_(torch.inf)
    with pytest.raises(DivergedError, match=r"^the loss of model 2 of 3 became nan in epoch 1\.$"):
        train_stacked(models, sets, recipe())


def test_training_refuses_what_cannot_be_stacked():
    models, sets = bank()
    with pytest.raises(InputError, match=r"cannot be trained together: `clip_norm` is of the"):
        train_stacked(models, sets, recipe(clip_norm=1.0))


# --- reasons --------------------------------------------------------------------------------------


def reason(models=None, sets=None, settings=None):
    """The only reason against a bank of which one thing is changed."""
    found_models, found_sets = bank()
    reasons = stackable(models or found_models, sets or found_sets, settings or recipe(), SHAPE)
    assert len(reasons) == 1
    return reasons[0]


def test_what_can_be_stacked_has_no_reasons_and_stays_as_it_was():
    models, sets = bank()
    before, state = deepcopy(models[0].state_dict()), torch.get_rng_state()
    assert stackable(models, sets, recipe(), SHAPE) == []
    torch.testing.assert_close(models[0].state_dict(), before, rtol=0, atol=0)
    assert models[0].training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_penalty_is_a_reason():
    assert "has a penalty" in reason(settings=recipe("osp"))


def test_clipping_is_a_reason():
    assert "`clip_norm`" in reason(settings=recipe(clip_norm=1.0))


def test_sets_of_unequal_size_are_a_reason():
    sets = [examples(0), examples(1), examples(2, size=59)]
    assert reason(sets=sets) == "the sets differ in size, from 59 to 60"


def test_a_set_too_few_is_a_reason():
    assert reason(sets=[examples(0)]) == "there must be a set for each of 3 models; got 1"


def test_different_architectures_are_a_reason():
    wider = NARROW.replace("stem_width=8", "stem_width=16")
    assert "same architecture" in reason([network(), network(wider), network()])


def test_unequal_counters_of_batches_are_a_reason():
    models = bank()[0]
    models[2].bn1.num_batches_tracked += 1
    assert "counters" in reason(models)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("drop_rate=0.1", "the network draws random numbers"),
        ("drop_path_rate=0.1", "DropPath (`layer2.0.drop_path` and 2 more) draws random numbers"),
    ],
    ids=["a function", "a layer"],
)
def test_active_dropout_is_a_reason(option, text):
    spec = NARROW.replace("stem_width=8", f"stem_width=8,{option}")
    assert reason([network(spec, seed) for seed in range(3)]) == text


def test_joined_channels_are_a_reason():
    spec = "densenet121[growth_rate=4,block_config=[2,2]]"
    assert "it mixes channels" in reason([network(spec, seed) for seed in range(3)])


def test_an_unknown_layer_is_a_reason():
    models = [nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 4)) for _ in range(3)]
    assert reason(models) == "LayerNorm (`1`) holds parameters in a way that is not known"


def test_a_layer_over_all_channels_is_a_reason():
    models = [nn.Sequential(nn.Flatten(), nn.Softmax(1), nn.Linear(64, 4)) for _ in range(3)]
    assert reason(models) == "Softmax (`1`) is not known to treat every channel apart"


def test_shared_parameters_are_a_reason():
    models = []
    for _ in range(3):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4))
        net[2].weight = net[1].weight
        models.append(net)
    assert reason(models) == "layers share parameters"
