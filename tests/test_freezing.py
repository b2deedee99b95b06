"""What training must leave alone: frozen modules, masked weights; and what begins anew."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from unlearnbench.bench import Callback, InputError
from unlearnbench.bench.freezing import last_modules, training_only

from .test_task import Open
from .toys import fresh, same_tensors, toy_task, trained

VIT = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"
IMAGE = torch.zeros(1, 1, 8, 8)


def parameters_of(modules):
    return {id(p) for module in modules for p in module.parameters()}


def names_of(model, modules):
    chosen = parameters_of(modules)
    return [name for name, p in model.named_parameters() if id(p) in chosen]


# --- the last layers ------------------------------------------------------------------------------


class Branched(nn.Module):
    """A convolution, a norm without parameters, and two layers with a norm between them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3)
        self.plain = nn.BatchNorm2d(2, affine=False)
        self.drop = nn.Dropout(0.5)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, 4)

    def forward(self, images):
        return self.head(self.body(self.drop(self.plain(self.stem(images)))))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ["head"]),
        (2, ["body.1", "body.2", "head"]),
        (3, [""]),
        (99, [""]),
    ],
)
def test_the_last_layers_come_with_all_that_runs_after_them(count, expected):
    model = Branched()
    names = {module: name for name, module in model.named_modules()}
    assert [names[m] for m in last_modules(model, IMAGE, count)] == expected


def test_the_last_layers_of_a_resnet_are_counted_as_they_run_with_their_norms():
    model = fresh()
    tail = names_of(model, last_modules(model, IMAGE, 4))
    assert tail == [
        "layer4.0.conv1.weight",
        "layer4.0.bn1.weight",
        "layer4.0.bn1.bias",
        "layer4.0.conv2.weight",
        "layer4.0.bn2.weight",
        "layer4.0.bn2.bias",
        "layer4.0.downsample.0.weight",
        "layer4.0.downsample.1.weight",
        "layer4.0.downsample.1.bias",
        "fc.weight",
        "fc.bias",
    ]
    assert not any(name.startswith(("conv1", "layer1")) for name in tail)


def test_the_norm_in_front_of_a_transformers_head_is_behind_its_last_block():
    model = fresh(VIT)
    assert names_of(model, last_modules(model, IMAGE, 1)) == ["head.weight", "head.bias"]
    tail = names_of(model, last_modules(model, IMAGE, 2))
    assert tail == [
        "blocks.1.mlp.fc2.weight",
        "blocks.1.mlp.fc2.bias",
        "norm.weight",
        "norm.bias",
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize("model", [fresh(), fresh(VIT)], ids=["resnet", "vit"])
def test_more_layers_hold_all_that_fewer_hold(model):
    layers = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
    before = set()
    for count in range(1, layers + 1):
        tail = last_modules(model, IMAGE, count)
        found = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for t in tail for m in t.modules())
        assert found == count
        assert before < parameters_of(tail)
        assert max(Counter(p for m in tail for p in map(id, m.parameters())).values()) == 1
        before = parameters_of(tail)
    assert before == {id(p) for p in model.parameters()}


def test_the_model_is_left_as_it_was_when_it_is_traced():
    model = fresh().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    last_modules(model, IMAGE, 2)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


# --- frozen modules -------------------------------------------------------------------------------


def test_outside_the_chosen_modules_nothing_moves_not_even_statistics():
    task, model = toy_task(Open()), trained()
    tail = task.last_modules(model, 3)
    inside = {id(t) for module in tail for t in module.state_dict(keep_vars=True).values()}
    names = {n for n, t in model.state_dict(keep_vars=True).items() if id(t) in inside}
    with task.training_only(model, tail):
        optimizer = task.optimizer(model, lr=0.1)
        task.fit(model, task.retain, optimizer, epochs=2)
        task.train(model, task.retain)
    before = trained().state_dict()
    moved = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == names
    assert any("running_mean" in name for name in moved)
    assert all(p.requires_grad for p in model.parameters())


def test_after_the_context_all_parts_are_trained_again():
    task, model = toy_task(Open()), trained()
    with task.training_only(model, [model.get_classifier()]):
        pass
    task.fit(model, task.retain, task.optimizer(model, lr=0.1))
    before = trained().state_dict()
    assert all(not torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_frozen_modules_without_parameters_stay_in_eval_mode_too():
    model, modes = Branched(), {}

    class Look(Callback):
        def after_step(self, model, batch):
            modes.update({name: module.training for name, module in model.named_modules()})

    task = toy_task(Open())
    with task.training_only(model, task.last_modules(model, 2)):
        task.fit(model, task.retain, task.optimizer(model, lr=0.1), callbacks=[Look()])
    still = {"stem", "plain", "drop", "body.0"}
    assert {name for name, training in modes.items() if not training} == still
    assert torch.equal(model.plain.running_mean, torch.zeros(2))


def test_what_was_frozen_before_stays_frozen_whatever_happens():
    model = Branched()
    model.stem.weight.requires_grad_(requires_grad=False)

    def inside():
        with training_only(model, [model.head]):
            assert [n for n, p in model.named_parameters() if p.requires_grad] == [
                "head.weight",
                "head.bias",
            ]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inside()
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["stem.weight"]


# --- masked weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_masked_weights_keep_their_bits_under_decay_and_momentum(optimizer):
    task, model = toy_task(Open()), trained()
    rng = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(p.shape, generator=rng) < 0.5 for n, p in model.named_parameters()}
    with task.masked(model, masks):
        task.fit(
            model,
            task.retain,
            task.optimizer(model, lr=0.05, name=optimizer, momentum=0.9, weight_decay=0.1),
            epochs=3,
        )
    before = dict(trained().named_parameters())
    for name, parameter in model.named_parameters():
        moved = parameter != before[name]
        assert not (moved & ~masks[name]).any(), name
        assert (moved | ~masks[name]).float().mean() > 0.9, name


def test_what_is_free_moves_as_if_the_rest_were_constant():
    """One plain step: theta - lr m grad."""
    task, model = toy_task(Open()), trained()
    reference = trained()
    batch = next(task.retain.batches(1000))
    masks = {n: p.detach() > 0 for n, p in model.named_parameters()}
    nn.functional.cross_entropy(reference(batch.images), batch.labels).backward()
    settings = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    with task.masked(model, masks):
        task.fit(
            model,
            task.retain,
            task.optimizer(model, **settings),
            loss=lambda m, _: nn.functional.cross_entropy(m(batch.images), batch.labels),
            batch_size=1000,
            batch_norm="eval",
        )
    for (name, parameter), start in zip(
        model.named_parameters(), reference.parameters(), strict=True
    ):
        expected = start - 0.1 * masks[name] * start.grad
        assert torch.allclose(parameter, expected, atol=1e-6), name


def test_held_gradients_do_not_count_in_the_norm_that_is_clipped():
    task = toy_task(Open())
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    start = model[1].weight.detach().clone()
    mask = torch.zeros(4, 64, dtype=torch.bool)
    mask[0] = True
    held = {"1.weight": mask, "1.bias": torch.zeros(4, dtype=torch.bool)}
    with task.masked(model, held):
        task.fit(
            model,
            task.retain,
            task.optimizer(model, lr=1.0, momentum=0.0, weight_decay=0.0),
            batch_size=1000,
            loss=lambda m, b: 1e3 * nn.functional.cross_entropy(m(b.images), b.labels),
            clip_norm=0.5,
        )
    assert (model[1].weight - start).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_a_mask_that_fits_no_parameter_is_refused_by_name():
    task, model = toy_task(Open()), trained()
    with pytest.raises(InputError, match="`nothing`, which is no parameter"):
        task.masked(model, {"nothing": torch.ones(1)}).__enter__()
    with pytest.raises(InputError, match=r"`fc.bias` has shape \(3,\).*\(4,\)"):
        task.masked(model, {"fc.bias": torch.ones(3)}).__enter__()


# --- a new beginning ------------------------------------------------------------------------------


def test_reinitialised_modules_are_those_of_a_fresh_model_and_the_others_stay():
    model = trained()
    task, again = toy_task(Open(), seed=4), toy_task(Open(), seed=4)
    task.reinitialise(model, [model.layer4, model.fc])
    new, old = again.fresh_model().state_dict(), trained().state_dict()
    for name, tensor in model.state_dict().items():
        source = new if name.startswith(("layer4.", "fc.")) else old
        assert torch.equal(tensor, source[name]), name
    assert not same_tensors(model, trained())
    assert not model.layer4[0].bn1.running_mean.any()
