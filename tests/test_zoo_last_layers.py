"""CF-k and EU-k: what is trained, what stays, and from where the trained part starts."""

from __future__ import annotations

import pytest
import torch

from unlearnbench.bench import METHODS
from unlearnbench.bench.recipe import TrainingSettings
from unlearnbench.bench.task import UnlearningTask

from .toys import NARROW, SETTINGS, toy_task, trained

CF, EU = METHODS.get("cf-k"), METHODS.get("eu-k")
VIT = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"


def moved(model, name):
    before = trained(name).state_dict()
    return {key for key, t in model.state_dict().items() if not torch.equal(t, before[key])}


@pytest.mark.parametrize("method", [CF(epochs=2, part="head"), EU(epochs=2, part="head")])
@pytest.mark.parametrize("name", [NARROW, VIT])
def test_with_the_head_alone_nothing_else_moves(method, name):
    task = toy_task(method, model=name)
    model = method.unlearn(trained(name), task)
    head = "fc" if name == NARROW else "head"
    assert moved(model, name) == {f"{head}.weight", f"{head}.bias"}
    assert task.reported["k"] == 1


@pytest.mark.parametrize("cls", [CF, EU])
def test_the_last_stage_is_trained_with_its_statistics_and_the_others_keep_theirs(cls):
    method = cls(epochs=1, part="stage")
    model = method.unlearn(trained(), toy_task(method))
    last = {k for k in trained().state_dict() if k.startswith(("layer4.", "fc."))}
    assert moved(model, NARROW) == last
    assert "layer4.0.bn1.running_mean" in last


@pytest.mark.parametrize("cls", [CF, EU])
def test_half_of_the_layers_is_counted_from_the_output(cls):
    method = cls(epochs=1)
    task = toy_task(method)
    layers = [layer.name for layer in task.layers(trained())]
    model = method.unlearn(trained(), task)
    kernels = [name for name in layers if f"{name}.weight" in moved(model, NARROW)]
    assert task.reported["k"] == len(kernels) == -(-len(layers) // 2)
    assert set(kernels) == set(layers[-len(kernels) :])


def test_k_is_taken_in_place_of_a_part():
    method = CF(epochs=1, part="head", k=3)
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert task.reported["k"] == 3


def test_cf_of_all_layers_is_finetune():
    finetune = METHODS.get("finetune")(epochs=2, lr=0.02)
    expected = finetune.unlearn(trained(), toy_task(finetune))
    method = CF(epochs=2, lr=0.02, k=1000)
    model = method.unlearn(trained(), toy_task(method))
    for (name, a), b in zip(
        model.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_eu_starts_from_a_fresh_part_that_does_not_depend_on_the_original():
    """After training from the same seed, the head is the same whatever it was before."""
    method = EU(epochs=1, part="head")
    other = trained()
    with torch.no_grad():
        other.fc.weight.mul_(-3)
    a = method.unlearn(trained(), toy_task(method))
    b = method.unlearn(other, toy_task(method))
    assert torch.equal(a.fc.weight, b.fc.weight)
    tuned = CF(epochs=1, part="head")
    c = tuned.unlearn(other, toy_task(tuned))
    assert not torch.equal(tuned.unlearn(trained(), toy_task(tuned)).fc.weight, c.fc.weight)


def test_eu_resets_modules_deep_inside_stages(monkeypatch):
    """Not only the direct children of the network, as in public code."""
    fitted = {}

    def spy(self, model, *args, **options):
        fitted.update({k: t.clone() for k, t in model.state_dict().items()})
        fitted["options"] = options

    monkeypatch.setattr(UnlearningTask, "fit", spy)
    method = EU(part="stage")
    method.unlearn(trained(), toy_task(method))
    for name, tensor in trained().state_dict().items():
        same = torch.equal(fitted[name], tensor)
        assert same is not name.startswith(("layer4.", "fc.")), name
    assert not fitted["layer4.0.bn2.running_mean"].any()
    options = fitted["options"]
    assert options["epochs"] == SETTINGS.epochs
    assert (options["schedule"], options["warmup_frac"]) == ("cosine", SETTINGS.warmup_frac)


def test_eu_of_everything_forgets_a_class():
    method = EU(k=1000)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    assert task.served == {"retain": SETTINGS.epochs * task.retain_size}
    look = toy_task(method, needs=frozenset({"forget", "retain"}))
    assert look.accuracy(model, look.forget) == 0
    assert look.accuracy(model, look.retain) > 0.9


def test_an_original_that_was_not_trained_here_needs_a_number_of_epochs():
    untrained = TrainingSettings(epochs=0)
    task = toy_task(EU(), settings=untrained)
    assert EU().unsupported_reasons(task) == [
        "trains as long as the original, which was not trained; give `epochs`"
    ]
    assert EU(epochs=3).unsupported_reasons(task) == CF().unsupported_reasons(task) == []
