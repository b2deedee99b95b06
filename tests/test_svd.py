"""SVD forgetting: invariants of specs and agreement with a straightforward implementation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS, DeclinedError, Energy, InputError
from unlearnbench.bench.input_moments import Moments
from unlearnbench.bench.layers import find_layers
from unlearnbench.methods.svd import LayerSurgery

from .toys import same_tensors, toy_task, trained

SVD = METHODS.get("svd")
ALL = {"retain_samples": 10_000, "forget_samples": 10_000}
FIXED = {"alpha_retain": 100, "alpha_forget": 3, **ALL}
VIT = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"


# --- invariants -----------------------------------------------------------------------------------


def test_alpha_forget_zero_changes_nothing():
    method = SVD(alpha_retain=100, alpha_forget=0)
    model = method.unlearn(trained(), toy_task(method))
    assert same_tensors(model, trained())


def test_a_vanishing_alpha_forget_changes_next_to_nothing():
    changes = []
    for alpha in (1e-2, 1e-4, 1e-6):
        method = SVD(alpha_retain=100, alpha_forget=alpha, **ALL)
        model = method.unlearn(trained(), toy_task(method))
        changes.append(float((_conv(model) - _conv(trained())).norm()))
    assert changes[0] > 10 * changes[1] > 0
    assert changes[2] < 1e-4 * float(_conv(trained()).norm())


def edit(linear, retain, forget, alpha_retain, alpha_forget):
    """Edit a linear layer whose inputs are the rows of two matrices."""
    surgery = LayerSurgery(find_layers(linear, torch.zeros(1, linear.in_features).double())[0])
    surgery.leave_retain(Energy(Moments((retain.T @ retain)[None], False)), [alpha_retain])
    surgery.enter_forget(Energy(Moments((forget.T @ forget)[None], False)))
    surgery.put(surgery.candidates(alpha_forget)[0])
    return linear.weight.detach()


def test_equal_sets_and_a_full_retain_projection_change_nothing():
    generator = torch.Generator().manual_seed(0)
    for rank in (4, 12):
        basis = torch.randn(rank, 12, generator=generator, dtype=torch.float64)
        seen = torch.randn(40, rank, generator=generator, dtype=torch.float64) @ basis
        linear = nn.Linear(12, 6, bias=False).double()
        before = linear.weight.detach().clone()
        assert torch.allclose(edit(linear, seen, seen, 1e11, 30.0), before, atol=1e-5)
        assert not torch.allclose(edit(linear, seen, seen, 10.0, 30.0), before, atol=1e-2)


def test_weights_within_the_retain_space_stay():
    """P_dis w = P_f (I - P_r) w = 0 for w in span(R_r) once alpha_r is large."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    retain = torch.randn(40, 3, generator=generator, dtype=torch.float64) @ basis
    forget = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    linear = nn.Linear(12, 6, bias=False).double()
    with torch.no_grad():
        linear.weight[:3] = basis  # three rows within the retain space, three anywhere
    before = linear.weight.detach().clone()
    after = edit(linear, retain, forget, 1e11, 100.0)
    assert torch.allclose(after[:3], basis, atol=1e-3)
    assert ((after - before)[3:].norm(dim=1) > 0.1).all()


def test_directions_that_only_the_forget_samples_use_are_removed():
    eye = torch.eye(8, dtype=torch.float64)
    linear = nn.Linear(8, 5, bias=False).double()
    before = linear.weight.detach().clone()
    after = edit(linear, eye[:6], eye[4:], 1e11, 1e11)
    assert torch.allclose(after[:, :6], before[:, :6], atol=1e-6)  # 4 and 5 are shared
    assert torch.allclose(after[:, 6:], torch.zeros(5, 2).double(), atol=1e-6)


# --- the paper ------------------------------------------------------------------------------------


def straightforward(model, layers, retain, forget, alphas=(100, 3)):
    """Store R, take its SVD, build the projections, W (I - P_dis)^T; the weights by name."""
    edited = {}
    inputs = {"retain": _inputs(model, layers, retain), "forget": _inputs(model, layers, forget)}
    for layer in layers:
        projection = {}
        for role, alpha in zip(("retain", "forget"), alphas, strict=True):
            R = inputs[role][layer.name].double().T
            U, S, _ = torch.linalg.svd(R, full_matrices=False)
            energy = S**2 / (S**2).sum()
            importance = alpha * energy / ((alpha - 1) * energy + 1)
            projection[role] = U @ importance.diag() @ U.T
        eye = torch.eye(len(U), dtype=torch.float64)
        discriminatory = projection["forget"] @ (eye - projection["retain"])
        W = layer.module.weight.detach().flatten(1).double()
        edited[layer.name] = (W @ (eye - discriminatory).T).reshape(layer.module.weight.shape)
    return edited


def assert_same_weights(model, expected):
    for name, weight in expected.items():
        found = model.get_submodule(name).weight.double()
        assert (found - weight).norm() < 1e-4 * weight.norm(), name


@pytest.mark.parametrize("network", [None, VIT], ids=["batch-norm", "vit"])
def test_weights_equal_a_straightforward_implementation_of_the_paper(network):
    named = {} if network is None else {"model": network}
    method = SVD(**FIXED)
    task = toy_task(method, **named)
    edited = method.unlearn(trained(**named), task)
    model = trained(**named)
    expected = straightforward(model, task.layers(model), task.retain, task.forget)
    assert len(expected) > 8
    assert_same_weights(edited, expected)


def test_several_classes_at_once_are_one_forget_set():
    method = SVD(**FIXED)
    task = toy_task(method, "class[classes=[0,2]]")
    edited = method.unlearn(trained(), task)
    model = trained()
    assert sorted(set(task.forget.labels.tolist())) == [0, 2]
    assert_same_weights(
        edited, straightforward(model, task.layers(model), task.retain, task.forget)
    )


def test_sequential_forgets_class_by_class_from_the_model_as_edited_so_far():
    """For class 2 the model is the edited one, and class 0 is in neither set."""
    method = SVD(sequential=True, **FIXED)
    task = toy_task(method, "class[classes=[0,2]]")
    edited = method.unlearn(trained(), task)
    assert task.reported == {
        "alpha_retain_class_0": 100, "alpha_forget_class_0": 3,
        "alpha_retain_class_2": 100, "alpha_forget_class_2": 3,
    }  # fmt: skip
    first = toy_task(method, "class[classes=[0]]")  # class 2 is retained at first
    model = SVD(**FIXED).unlearn(trained(), first)
    assert_same_weights(
        edited,
        straightforward(
            model, task.layers(model), task.retain,
            task.forget.subset((task.forget.labels == 2).nonzero()[:, 0]),
        ),
    )  # fmt: skip
    at_once = toy_task(method, "class[classes=[0,2]]")
    union = SVD(**FIXED).unlearn(trained(), at_once)
    assert not torch.allclose(_conv(union), _conv(edited), atol=1e-4)


def test_sequential_steps_share_the_samples_among_the_classes_that_are_kept():
    method = SVD(sequential=True, alpha_retain=100, alpha_forget=3, retain_samples=9,
                 forget_samples=5)  # fmt: skip
    task = toy_task(method, "class[classes=[0,2]]")
    method.unlearn(trained(), task)
    # first step: classes 1 and 3 give 3 each and class 2, kept so far, 3; then 4 each of 1 and 3
    assert task.served == {"retain": 6 + 8, "forget": 3 + 5 + 5}


def test_sequential_with_one_class_is_one_shot():
    method = SVD(sequential=True, **FIXED)
    task = toy_task(method)
    again = SVD(**FIXED)
    assert same_tensors(method.unlearn(trained(), task), again.unlearn(trained(), toy_task(again)))
    assert task.reported == {"alpha_retain": 100, "alpha_forget": 3}


def test_result_does_not_depend_on_the_order_of_batches():
    results = []
    for seed in (0, 1):  # all samples are used, in an order that the seed draws
        method = SVD(**FIXED)
        results.append(method.unlearn(trained(), toy_task(method, seed=seed)).state_dict())
    for name, tensor in results[0].items():
        assert torch.allclose(tensor, results[1][name], atol=1e-5), name


# --- the options of the authors' code -------------------------------------------------------------


def test_options_that_do_not_bind_change_nothing():
    plain = SVD(**FIXED)
    expected = plain.unlearn(trained(), toy_task(plain))
    method = SVD(max_patches=10**9, **FIXED)
    model = method.unlearn(trained(), toy_task(method))
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, expected.state_dict()[name], atol=1e-5), name


@pytest.mark.parametrize("option", ["max_patches", "crop3k", "augmented"])
def test_each_option_changes_the_edit_and_is_repeatable(option):
    plain = SVD(**FIXED)
    expected = plain.unlearn(trained(), toy_task(plain))
    method = SVD(**FIXED, **{option: 50 if option == "max_patches" else True})
    models = []
    for _ in range(2):
        task = toy_task(method)
        for examples in (task.retain, task.forget):
            examples._pixels.flip, examples._pixels.crop_pad = True, 2
        models.append(method.unlearn(trained(), task))
    weights = expected.state_dict()
    changes = [(t - weights[n]).abs().max() for n, t in models[0].state_dict().items()]
    assert max(changes) > 1e-3
    assert same_tensors(*models)
    everything = len(task.retain), len(task.forget)
    assert (task.served["retain"], task.served["forget"]) == everything  # one pass each


# --- the search -----------------------------------------------------------------------------------


def test_search_stays_within_the_grids_and_takes_what_is_given():
    method = SVD(alpha_retain=70, grid_forget=(5, 0.5), **ALL)
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert task.reported["alpha_retain"] == 70
    assert task.reported["alpha_forget"] in (5, 0.5)
    assert METHODS.create("svd[grid_retain=[5,50],grid_forget=[2]]").grid_forget == (2,)
    with pytest.raises(InputError, match="grid_retain"):
        METHODS.create("svd[grid_retain=[]]")
    with pytest.raises(InputError, match="grid_forget"):
        METHODS.create("svd[grid_forget=[1,-1]]")


def test_of_equal_scores_the_gentlest_wins():
    """With next to no scaling of the forget side, no pair changes any prediction."""
    method = SVD(grid_retain=(10, 1000, 100), grid_forget=(1e-9, 1e-10), **ALL)
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert (task.reported["alpha_retain"], task.reported["alpha_forget"]) == (1000, 1e-10)


def test_search_reports_the_validation_accuracies_of_its_choice():
    method = SVD(**ALL)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    labels = task.validation.labels
    hits = (task.logits(model, task.validation).argmax(1) == labels).double()
    assert task.reported["validation_retain_acc"] == pytest.approx(float(hits[labels != 0].mean()))
    assert task.reported["validation_forget_acc"] == pytest.approx(float(hits[labels == 0].mean()))


def test_sequential_searches_in_every_step():
    method = SVD(sequential=True, grid_retain=(30, 300), grid_forget=(3, 30), **ALL)
    task = toy_task(method, "class[classes=[0,2]]")
    model = method.unlearn(trained(), task)
    assert set(task.reported) == {
        f"{key}_class_{c}"
        for c in (0, 2)
        for key in ("alpha_retain", "alpha_forget", "validation_retain_acc",
                    "validation_forget_acc")
    }  # fmt: skip
    labels = task.validation.labels
    hits = (task.logits(model, task.validation).argmax(1) == labels).double()
    kept = (labels == 1) | (labels == 3)  # in the last step
    found = task.reported["validation_retain_acc_class_2"]
    assert found == pytest.approx(float(hits[kept].mean()))


def test_statistics_and_search_are_timed_apart():
    method = SVD(**ALL)
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert set(task.phases) == {"statistics_s", "search_s"}
    method = SVD(**FIXED)
    task = toy_task(method)
    method.unlearn(trained(), task)
    assert set(task.phases) == {"statistics_s"}


def test_search_takes_the_best_validation_score_and_reports_it():
    method = SVD(**ALL)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    chosen = {k: v for k, v in task.reported.items() if k.startswith("alpha")}

    def score(net):
        labels = task.validation.labels
        hits = task.logits(net, task.validation).argmax(1) == labels
        kept = hits[labels != 0].double().mean()
        gone = hits[labels == 0].double().mean()
        return float(kept * (1 - gone))

    best = score(model)
    for alphas in ((10, 1), (100, 3), (1000, 100), (1000, 1)):
        fixed = SVD(alpha_retain=alphas[0], alpha_forget=alphas[1], **ALL)
        assert best >= score(fixed.unlearn(trained(), toy_task(fixed)))
    again = SVD(**chosen, **ALL)
    repeated = again.unlearn(trained(), toy_task(again))
    assert score(repeated) == pytest.approx(best)


def test_only_weights_of_layers_change():
    method = SVD(alpha_retain=100, alpha_forget=30, **ALL)
    model = method.unlearn(trained(), toy_task(method))
    before = trained().state_dict()
    layers = {f"{layer.name}.weight" for layer in toy_task(method).layers(trained())}
    changed = {k for k, t in model.state_dict().items() if not torch.equal(t, before[k])}
    assert changed
    assert changed <= layers


def _conv(model):
    return model.layer4[0].conv2.weight.detach()


def test_only_weights_of_layers_change_in_a_vision_transformer():
    method = SVD(alpha_retain=100, alpha_forget=30, **ALL)
    model = method.unlearn(trained(VIT), toy_task(method, model=VIT))
    before = trained(VIT).state_dict()
    layers = find_layers(trained(VIT), toy_task(method).blank_batch().images)
    changed = {k for k, t in model.state_dict().items() if not torch.equal(t, before[k])}
    left = set(before) - changed
    assert {"cls_token", "pos_embed", "norm.weight", "blocks.0.attn.qkv.bias"} <= left
    # patches of one grey pixel have one direction, which both sets use
    assert changed == {f"{layer.name}.weight" for layer in layers} - {"patch_embed.proj.weight"}


def test_a_network_with_weights_out_of_reach_is_declined_with_their_names():
    method = SVD(**FIXED)
    task = toy_task(method)
    model = trained()
    model.layer1[0].act1.table = nn.Parameter(torch.ones(3, 2))
    with pytest.raises(DeclinedError, match=r"cannot reach .*`layer1.0.act1.table` of ReLU"):
        method.unlearn(model, task)


def test_it_declines_what_it_cannot_do():
    from unlearnbench.bench.taskinfo import TaskInfo

    task = toy_task(SVD(), "random[fraction=0.2]")
    assert SVD().unsupported_reasons(task) == [
        "forgets whole classes only, and this forget set is not one"
    ]
    task = toy_task(SVD())
    assert SVD().unsupported_reasons(task) == []
    task.validation_size = 0
    assert "validation" in SVD().unsupported_reasons(task)[0]
    assert SVD(alpha_retain=1, alpha_forget=1).unsupported_reasons(task) == []
    assert SVD(grid_retain=(1,), grid_forget=(1,)).unsupported_reasons(task) == []
    assert isinstance(task, TaskInfo)


def _inputs(model, layers, examples):
    """Rows of every layer's inputs, stored whole, by im2col of our own."""
    rows: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in layers}

    def keep(layer):
        def hook(module, inputs):
            x = inputs[0]
            if isinstance(module, nn.Conv2d):
                x = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
                x = x.permute(0, 2, 1).flatten(0, 1)
            rows[layer.name].append(x.flatten(0, -2) if x.dim() > 2 else x)

        return hook

    hooks = [layer.module.register_forward_pre_hook(keep(layer)) for layer in layers]
    with torch.no_grad():
        for batch in examples.batches():
            model(batch.images)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in rows.items()}
