"""Orthogonal soft pruning: scores, selection, strength, edit; what must hold of them."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log

import numpy as np
import pytest
import torch
from torch import nn

from unlearnbench.bench import METHODS, ClassStatistics, DeclinedError, InputError
from unlearnbench.methods.osp import tf_idf

from .toys import NARROW, fresh, same_tensors, toy_task, trained

OSP = METHODS.get("osp")
VIT = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"
KEPT = (1, 2, 3)


def prepared(method, model=None):
    tensors = method.prepare(model or trained(), toy_task(method, preparing=True))
    return dict(tensors)


def run(method, scenario="class[classes=[0]]", *, model=None, **options):
    """Edit the trained toy network; return it with the task."""
    task = toy_task(method, scenario, prepared=prepared(method, model), **options)
    return method.unlearn(model or trained(), task), task


def gates_of(method, classes=(0,)):
    statistics = ClassStatistics.from_tensors(prepared(method))
    return statistics, method.gates(statistics, classes)


# --- phase A: the recipe in training -----------------------------------------------------------


def test_training_with_the_penalty_gives_filters_nearer_to_orthogonal():
    strong = METHODS.create("osp[ortho_lambda=0.01]")
    plain, held = (
        float(strong.training_penalty(model).detach())
        for model in (trained(), trained(penalty="osp[ortho_lambda=0.01]"))
    )
    assert held < 0.5 * plain


def test_the_weight_of_the_penalty_is_constant_or_decays_in_steps_to_nothing():
    progress = [0, 0.09, 0.1, 0.24, 0.25, 0.34, 0.35, 0.59, 0.6, 0.99]
    assert [OSP().penalty_weight(p) for p in progress] == [1.0] * 10
    steps = [1, 1, 1e-3, 1e-3, 1e-4, 1e-4, 1e-6, 1e-6, 0, 0]
    assert [OSP(ortho_schedule="decay").penalty_weight(p) for p in progress] == steps


def test_weight_decay_is_taken_off_the_penalised_kernels_alone():
    model = fresh()
    assert OSP().undecayed(model) == []
    free = OSP(ortho_weight_decay="zero").undecayed(model)
    assert any(p is model.layer2[0].conv1.weight for p in free)
    assert not any(p is model.fc.weight or p is model.layer2[0].downsample[0].weight for p in free)


# --- phase C: scores, each against NumPy ----------------------------------------------------------


def reference_score(kind, mean, var, forget, kept):
    kept = list(kept)
    if kind == "diff":
        return mean[forget] - mean[kept].mean(0)
    if kind == "dprime":
        return (mean[forget] - mean[kept].mean(0)) / np.sqrt(
            (var[forget] + var[kept].mean(0)) / 2 + 1e-12
        )
    if kind == "margin":
        return mean[forget] - mean[kept].max(0)
    a = np.maximum(mean, 0)
    tf = a[forget] / a[forget].sum()
    n = (a >= a.mean(0)).sum(0)
    return tf * np.log((1 + len(a)) / (1 + n))


@pytest.mark.parametrize("score", ["diff", "dprime", "margin", "tfidf"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("classes", [(0,), (0, 2)])
def test_scores_equal_their_formulas(score, pooling, classes):
    rng = np.random.default_rng(0)
    mean, var = rng.normal(0.5, 1, (4, 7)), rng.uniform(0.1, 2, (4, 7))
    kept = [c for c in range(4) if c not in classes]
    each = [reference_score(score, mean, var, c, kept) for c in classes]
    expected = np.mean(each, 0) if pooling == "mean" else np.max(each, 0)
    method = OSP(score=score, pooling=pooling)
    found = method.scores(torch.tensor(mean), torch.tensor(var), classes, kept)
    assert found.numpy() == pytest.approx(expected)


def test_every_kept_class_counts_once_and_scores_are_signed():
    mean = torch.tensor([[5.0, 0.0], [1.0, 1.0], [3.0, 5.0]])
    assert OSP().scores(mean, mean, (0,), (1, 2)).tolist() == [3.0, -3.0]
    assert OSP(score="margin").scores(mean, mean, (0,), (1, 2)).tolist() == [2.0, -5.0]


def test_tf_idf_is_large_for_a_channel_that_fires_for_the_class_alone():
    """The sign that re-implementations got wrong: discriminative channels score highest."""
    mean = torch.tensor([[4.0, 4.0, 0.0], [0.0, 4.0, 4.0], [0.0, 4.0, 4.0]])
    alone, everywhere, elsewhere = tf_idf(mean, (0,), (1, 2))[0].tolist()
    assert alone == pytest.approx(0.5 * log(4 / 2))
    assert everywhere == elsewhere == 0


# --- phases D and E: selection and strength -------------------------------------------------------


def test_gates_follow_the_rank_formula():
    """k = 4 of 16, floor 0.5: q = 3/4, 1/2, 1/2, 1/2, so gates 1/4, 1/2, 1/2, 1/2."""
    gate = OSP(q_min=0.5).gate(torch.linspace(1, 2, 16), 4)
    assert gate[-4:].flip(0).tolist() == [0.25, 0.5, 0.5, 0.5]
    assert (gate[:-4] == 1).all()
    eight = OSP(q_min=0.25).gate(torch.linspace(1, 2, 16), 8)  # q = 1 - r/8, at least 1/4
    assert eight[-8:].flip(0).tolist() == pytest.approx(
        [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 3 / 4, 3 / 4]
    )


def test_constant_and_proportional_strength():
    scores = torch.tensor([4.0, 1.0, 3.0, 2.0])
    assert OSP(strength="constant", q_min=0.9).gate(scores, 2).tolist() == pytest.approx(
        [0.1, 1, 0.1, 1]
    )
    assert OSP(strength="constant", q_min=1).gate(scores, 1).tolist() == [0, 1, 1, 1]
    assert OSP(strength="proportional", q_min=0.3).gate(scores, 4).tolist() == pytest.approx(
        [0, 0.7, 0.25, 0.5]
    )


def test_channels_that_do_not_prefer_the_class_are_left_alone():
    for strength in ("rank", "constant", "proportional"):
        gate = OSP(strength=strength).gate(torch.tensor([-1.0, 0.0, 2.0, -3.0]), 4)
        assert gate[[0, 1, 3]].tolist() == [1, 1, 1]
        assert gate[2] < 1


def test_a_layer_gives_its_share_of_channels():
    method = OSP(rho=0.3)
    statistics, gates = gates_of(method)
    for unit in statistics.units:
        mean = statistics.mean[unit.layer]
        score = mean[0] - mean[1:].mean(0)
        k = min(ceil(0.3 * unit.channels), int((score > 0).sum()))
        assert set(torch.where(gates[unit.layer] < 1)[0].tolist()) == set(
            score.argsort(descending=True)[:k].tolist()
        )


def test_global_selection_takes_the_best_of_all_layers_by_standardised_scores():
    method = OSP(selection="global", rho=0.1, strength="constant")
    statistics, gates = gates_of(method)
    standard = {}
    for unit in statistics.units:
        mean = statistics.mean[unit.layer].double().numpy()
        score = mean[0] - mean[1:].mean(0)
        standard[unit.layer] = ((score - score.mean()) / score.std(), score > 0)
    every = np.sort(np.concatenate([z for z, _ in standard.values()]))[::-1]
    bound = every[ceil(0.1 * len(every)) - 1]
    for layer, (z, positive) in standard.items():
        assert (gates[layer].numpy() < 1).tolist() == ((z >= bound - 1e-6) & positive).tolist()


def test_threshold_selection_takes_what_stands_out_in_its_layer():
    method = OSP(selection="threshold", tau=1.5, strength="constant")
    statistics, gates = gates_of(method)
    for unit in statistics.units:
        mean = statistics.mean[unit.layer].numpy()
        score = mean[0] - mean[1:].mean(0)
        expected = (score > score.mean() + 1.5 * score.std()) & (score > 0)
        assert (gates[unit.layer].numpy() < 1).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("stages", "touched"), [("last", {"layer4"}), ("last_two", {"layer3", "layer4"})]
)
@pytest.mark.parametrize("selection", ["layer", "global", "threshold"])
def test_stages_that_were_not_chosen_are_left_alone(stages, touched, selection):
    _, gates = gates_of(OSP(stages=stages, selection=selection, rho=0.4, tau=0.5))
    damped = {layer.split(".")[0] for layer, gate in gates.items() if (gate < 1).any()}
    assert damped == touched


# --- phase F: the edit ----------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"rho": 0.0}, {"strength": "constant", "q_min": 0.0}], ids=str)
def test_no_share_or_no_strength_is_the_identity(fields):
    model, task = run(OSP(**fields))
    assert same_tensors(model, trained())
    assert task.reported["damped_channels"] == 0


def test_a_gated_channel_is_scaled_exactly_and_running_statistics_stay():
    """One layer alone, so that what comes in is the same."""
    method = OSP(rho=0.5)
    statistics = ClassStatistics.from_tensors(prepared(method))
    unit = next(u for u in statistics.units if u.layer == "layer3.0.conv1")
    gates = method.gates(statistics, (0,))
    model, edited = trained(), trained()
    from unlearnbench.bench import damp_channels

    damp_channels(edited, unit, gates[unit.layer], "bn_affine")
    seen = []
    batch = next(iter(toy_task(method, preparing=True).training.batches(16)))
    for net in (model, edited):
        net.layer3[0].act1.register_forward_hook(lambda m, i, out: seen.append(out.clone()))
        with torch.no_grad():
            net(batch.images)
    before, after = seen
    assert (gates[unit.layer] < 1).any()
    assert torch.allclose(after, before * gates[unit.layer].view(1, -1, 1, 1), atol=1e-5)
    whole, _ = run(method)
    for name, buffer in trained().named_buffers():
        assert torch.equal(buffer, whole.get_buffer(name)), name


def test_the_edit_needs_no_data_and_equals_gates_computed_by_hand():
    method = OSP(rho=0.5)
    model, task = run(method, needs=frozenset())
    assert task.served == {}
    statistics, gates = gates_of(method)
    norms = {unit.layer: unit.norm for unit in statistics.units}
    for layer, gate in gates.items():
        before = trained().get_submodule(norms[layer]).weight
        assert torch.allclose(model.get_submodule(norms[layer]).weight, before * gate)


def test_the_edit_hurts_the_forgotten_class_most():
    method = OSP(samples_per_class=1000)
    model, task = run(method, needs=frozenset({"forget", "retain"}))
    lost = {
        role: task.accuracy(trained(), getattr(task, role))
        - task.accuracy(model, getattr(task, role))
        for role in ("forget", "retain")
    }
    assert lost["forget"] > lost["retain"]


def test_statistics_of_another_model_are_refused():
    task = toy_task(OSP(), prepared=prepared(OSP()))
    with pytest.raises(InputError, match="of another model"):
        OSP().unlearn(fresh(), task)


@pytest.mark.parametrize("target", ["bn_affine", "weight", "gate"])
def test_hidden_units_of_a_transformer_are_damped_where_they_are_consumed(target):
    method = OSP(units="mlp", target=target, rho=0.5)
    model, task = run(method, model=trained(VIT))
    before, after = dict(trained(VIT).named_parameters()), dict(model.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {"bn_affine": ["fc2.weight"], "weight": ["fc1.weight", "fc1.bias"], "gate": []}
    assert changed == {f"blocks.{b}.mlp.{name}" for b in (0, 1) for name in layers[target]}
    assert task.reported["damped_channels"] > 0
    images = next(iter(toy_task(OSP(), preparing=True).training.batches(8))).images
    with torch.no_grad():
        assert not torch.allclose(model(images), trained(VIT)(images))


def test_a_transformer_is_declined_for_channels_of_convolutions():
    with pytest.raises(DeclinedError, match=r"only 1 of 9 layers are convolutions.* `units=mlp`"):
        OSP().prepare(trained(VIT), toy_task(OSP(), preparing=True))


# --- several classes ------------------------------------------------------------------------------


def test_several_classes_at_once_are_left_out_of_the_kept():
    statistics, gates = gates_of(OSP(rho=1.0, strength="constant"), (0, 1))
    for unit in statistics.units:
        mean = statistics.mean[unit.layer]
        score = mean[:2].mean(0) - mean[2:].mean(0)
        assert torch.equal(gates[unit.layer] < 1, score > 0)


@pytest.mark.parametrize("target", ["bn_affine", "weight", "gate"])
def test_one_after_the_other_equals_single_requests_that_hand_on_their_statistics(target):
    method = OSP(target=target)
    whole, _ = run(OSP(target=target, sequential=True), "class[classes=[0,1]]")
    model = trained()
    statistics = ClassStatistics.from_tensors(prepared(method))
    first = method.edit(model, statistics, (0,))
    assert first.forgotten == (0,)
    second = method.edit(model, first, (1,))
    assert second.forgotten == (0, 1)
    assert same_tensors(whole, model)
    joint, _ = run(method, "class[classes=[0,1]]")
    assert not same_tensors(whole, joint)


def test_a_later_request_does_not_compare_with_what_is_forgotten_already():
    statistics = ClassStatistics.from_tensors(prepared(OSP()))
    after = OSP(rho=0.0).edit(trained(), statistics, (0,))  # nothing is damped
    unit = after.units[3]
    mean = after.mean[unit.layer]
    score = mean[1] - mean[2:].mean(0)
    gate = OSP(rho=1.0, strength="constant").gates(after, (1,))[unit.layer]
    assert torch.equal(gate < 1, score > 0)


def test_statistics_that_lack_the_class_or_all_others_are_declined():
    statistics = ClassStatistics.from_tensors(prepared(OSP()))
    with pytest.raises(DeclinedError, match="no statistics of a forgotten class, or of any other"):
        OSP().edit(trained(), statistics, (0, 1, 2, 3))
    statistics.count[2] = 0
    with pytest.raises(DeclinedError, match="no statistics of a forgotten class"):
        OSP().edit(trained(), statistics, (2,))


# --- phase G: the search --------------------------------------------------------------------------


def test_the_search_takes_the_best_candidate_on_validation_data_and_says_what_it_cost():
    method = OSP(search="best")
    model, task = run(method)
    kept, gone = task.validation.parted((0,))
    scores = {}
    for rho in (0.05, 0.1, 0.25, 0.4):
        for q_min in (0.25, 0.5, 0.75, 1.0):
            candidate, _ = run(OSP(rho=rho, q_min=q_min))
            scores[rho, q_min] = task.accuracy(candidate, kept) * (
                1 - task.accuracy(candidate, gone)
            )
    best = max(scores.values())
    chosen = task.reported["rho"], task.reported["q_min"]
    assert scores[chosen] == best == pytest.approx(task.reported["search_score"])
    assert same_tensors(model, run(OSP(rho=chosen[0], q_min=chosen[1]))[0])
    assert task.reported["candidates"] == 16
    assert task.phases["search_s"] > 0
    assert set(task.served) == {"validation"}


def test_with_a_threshold_the_search_varies_the_threshold():
    _, task = run(OSP(search="best", selection="threshold"))
    assert task.reported["tau"] in (1.0, 1.5, 2.0, 3.0)
    assert "rho" not in task.reported
    assert task.reported["candidates"] == 16


def test_a_control_that_draws_wants_a_generator():
    statistics = ClassStatistics.from_tensors(prepared(OSP()))
    state = torch.get_rng_state()
    with pytest.raises(InputError, match="needs a generator"):
        METHODS.create("random-channels").edit(trained(), statistics, [0])
    assert torch.equal(state, torch.get_rng_state())


def test_the_search_can_end_with_the_first_that_forgets():
    method = OSP(search="first")
    model, task = run(method)
    _, gone = task.validation.parted((0,))
    assert task.accuracy(model, gone) <= 1 / 4
    assert 1 <= task.reported["candidates"] <= 16


def test_without_validation_data_a_search_is_declined_before_it_runs():
    task = toy_task(OSP())
    task.validation_size = 0
    assert OSP().unsupported_reasons(task) == []
    assert OSP(search="best").unsupported_reasons(task) == [
        "searches on validation data, and none is held out"
    ]


# --- variants -------------------------------------------------------------------------------------


def test_a_control_that_draws_takes_what_it_tried():
    method = METHODS.create("random-channels[search=best]")
    model, task = run(method)
    kept, gone = task.validation.parted((0,))
    score = task.accuracy(model, kept) * (1 - task.accuracy(model, gone))
    assert score == pytest.approx(task.reported["search_score"])


@pytest.mark.parametrize(
    ("classes", "reason"),
    [([-1], "class -1 does not exist; allowed: 0 to 3"), ([4], "class 4 does not exist"),
     ([2, 2], "class 2 is named twice"), ([0], "class 0 has been forgotten already")],
)  # fmt: skip
def test_a_wrong_class_is_one_sentence(classes, reason):
    model = trained()
    statistics = OSP().edit(model, ClassStatistics.from_tensors(prepared(OSP())), [0])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=reason):
        OSP().edit(model, statistics, classes)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["random-channels", "l2-channels"])
def test_controls_damp_as_many_channels_by_the_same_factors(name):
    method = METHODS.create(name)
    model, task = run(method)
    own, own_task = run(OSP())
    assert task.reported["damped_channels"] == own_task.reported["damped_channels"] > 0
    statistics, gates = gates_of(OSP())
    moved = 0
    for unit in statistics.units:
        before = trained().get_submodule(unit.norm).weight
        gate = model.get_submodule(unit.norm).weight / before
        assert gate.sort().values.tolist() == pytest.approx(
            gates[unit.layer].sort().values.tolist(), abs=1e-5
        )
        moved += int((gate - gates[unit.layer]).abs().max() > 1e-3)
        if name == "l2-channels":
            norm = trained().get_submodule(unit.layer).weight.flatten(1).norm(dim=1)
            k = int((gate < 0.999).sum())
            assert norm[gate < 0.999].max() == norm.sort().values[:k].max()
    assert moved > 5
    assert not same_tensors(model, own)


def test_random_channels_depend_on_the_seed():
    method = METHODS.create("random-channels")
    (a, _), (b, _), (c, _) = (run(method, seed=s) for s in (0, 0, 1))
    assert same_tensors(a, b)
    assert not same_tensors(a, c)


def test_the_weight_variant_is_osp_with_another_target():
    assert same_tensors(run(METHODS.create("osp-weight"))[0], run(OSP(target="weight"))[0])
    assert not same_tensors(run(METHODS.create("osp-weight"))[0], run(OSP())[0])


def test_the_vanilla_variant_is_osp_on_a_plain_original():
    vanilla = METHODS.create("osp-vanilla")
    assert vanilla.recipe is None
    assert same_tensors(run(vanilla)[0], run(OSP())[0])


def test_an_edit_works_on_a_network_of_ones_own_in_three_lines(tmp_path):
    """What the README of a user would show: statistics from a file, no data, no harness."""
    ClassStatistics.from_tensors(prepared(OSP())).save(tmp_path / "statistics.safetensors")
    statistics = ClassStatistics.load(tmp_path / "statistics.safetensors")
    model = trained()
    OSP().edit(model, statistics, [0])
    assert same_tensors(model, run(OSP())[0])
    assert isinstance(model, nn.Module)
    assert NARROW.startswith("resnet18")


def test_stages_without_any_unit_are_declined_with_a_sentence():
    statistics = ClassStatistics.from_tensors(prepared(OSP()))
    early = tuple(unit._replace(late=2) for unit in statistics.units)
    for selection in ("layer", "global", "threshold"):
        with pytest.raises(DeclinedError, match=r"in the chosen stages \(last\)"):
            OSP(stages="last", selection=selection).gates(replace(statistics, units=early), (0,))
