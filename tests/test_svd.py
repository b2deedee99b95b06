"""SVD forgetting: invariants of specs and agreement with a straightforward implementation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS
from unlearnbench.bench.layers import find_layers
from unlearnbench.methods.svd import Eigenspace, LayerSurgery, eigenspace, input_rows, moments

from .toys import same_tensors, toy_task, trained

SVD = METHODS.get("svd")
ALL = {"retain_samples": 10_000, "forget_samples": 10_000}


def test_importance_golden_values():
    space = Eigenspace(torch.eye(3)[None], torch.tensor([[1e-3, 1e-2, 0.1]], dtype=torch.float64))
    expected = {100: [0.0910, 0.5025, 0.9174], 3: [0.0030, 0.0294, 0.25], 1: [1e-3, 1e-2, 0.1]}
    for alpha, values in expected.items():
        assert space.importance(alpha)[0].tolist() == pytest.approx(values, abs=5e-5)
    assert space.importance(0).abs().max() == 0
    assert space.importance(1e12)[0].tolist() == pytest.approx([1, 1, 1], abs=1e-6)


def test_alpha_forget_zero_changes_nothing():
    method = SVD(alpha_retain=100, alpha_forget=0)
    model = method.unlearn(trained(), toy_task(method))
    assert same_tensors(model, trained())


def test_equal_sets_and_a_full_retain_projection_change_nothing():
    task = toy_task(SVD())
    model = trained().double()
    layers = find_layers(model, task.blank_batch().images.double())
    for layer, moment in zip(layers, _moments64(model, layers, task.retain), strict=True):
        before = layer.module.weight.detach().clone()
        LayerSurgery(layer, eigenspace(moment), eigenspace(moment)).apply(1e18, 30.0)
        assert torch.allclose(layer.module.weight, before, atol=1e-8)


def test_weights_within_the_retain_space_stay():
    """P_dis w = P_f (I - P_r) w = 0 for w in span(R_r) once alpha_r is large."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    retain = torch.randn(40, 3, generator=generator, dtype=torch.float64) @ basis
    forget = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    linear = nn.Linear(12, 6, bias=False).double()
    with torch.no_grad():
        linear.weight[:3] = basis  # three rows within the retain space, three anywhere
    surgery = LayerSurgery(
        _as_layer(linear),
        eigenspace((retain.T @ retain)[None]),
        eigenspace((forget.T @ forget)[None]),
    )
    surgery.apply(1e12, 100.0)
    assert torch.allclose(linear.weight[:3], basis, atol=1e-3)
    assert ((linear.weight - surgery.original)[3:].norm(dim=1) > 0.1).all()


def test_weights_equal_a_straightforward_implementation_of_the_paper():
    """Store R, take its SVD, build the projections, W (I - P_dis)^T: same weights."""
    method = SVD(alpha_retain=100, alpha_forget=3, **ALL)
    task = toy_task(method)
    edited = method.unlearn(trained(), task)
    model = trained()
    layers = task.layers(model)
    inputs = {role: _inputs(model, layers, getattr(task, role)) for role in ("retain", "forget")}
    for layer, other in zip(layers, task.layers(edited), strict=True):
        projection = {}
        for role, alpha in (("retain", 100), ("forget", 3)):
            R = inputs[role][layer.name].double().T
            U, S, _ = torch.linalg.svd(R, full_matrices=True)
            energy = torch.zeros(len(U), dtype=torch.float64)
            energy[: len(S)] = S**2 / (S**2).sum()
            importance = alpha * energy / ((alpha - 1) * energy + 1)
            projection[role] = U @ importance.diag() @ U.T
        eye = torch.eye(len(U), dtype=torch.float64)
        discriminatory = projection["forget"] @ (eye - projection["retain"])
        W = layer.module.weight.detach().flatten(1).double()
        expected = (W @ (eye - discriminatory).T).reshape(layer.module.weight.shape)
        error = (other.module.weight.double() - expected).norm() / expected.norm()
        assert error < 1e-4, layer.name


def test_result_does_not_depend_on_the_order_of_batches():
    task = toy_task(SVD())
    model = trained()
    layers = task.layers(model)
    forward = moments(task, model, layers, task.retain)
    backward = moments(
        task, model, layers, task.retain.subset(torch.arange(len(task.retain)).flip(0))
    )
    for a, b in zip(forward, backward, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, bias=False),
        nn.Conv2d(4, 4, (1, 3), padding="same", groups=4, bias=False),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False),
        nn.Linear(4, 6, bias=False),
    ],
    ids=["strided", "dilated-grouped", "depthwise-same", "circular", "linear"],
)
def test_rows_times_weight_is_the_layer(module):
    x = torch.randn(2, 4, 7, 9, generator=torch.Generator().manual_seed(1))
    x = x if isinstance(module, nn.Conv2d) else x.permute(0, 2, 3, 1)
    out = module(x)
    rows = input_rows(module, x)
    groups = getattr(module, "groups", 1)
    weight = module.weight.reshape(groups, len(module.weight) // groups, -1)
    product = rows @ weight.transpose(1, 2)  # (G, n, out/G)
    if isinstance(module, nn.Conv2d):
        product = product.reshape(groups, 2, *out.shape[2:], -1).permute(1, 0, 4, 2, 3)
    assert torch.allclose(product.reshape(out.shape), out, atol=1e-5)


def test_timm_convolutions_that_pad_by_input_size_are_unfolded_alike():
    from timm.layers.conv2d_same import Conv2dSame

    conv = Conv2dSame(3, 5, 3, stride=2, bias=False)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    rows = input_rows(conv, x)
    product = (rows[0] @ conv.weight.flatten(1).T).reshape(2, 4, 4, 5).permute(0, 3, 1, 2)
    assert torch.allclose(product, conv(x), atol=1e-5)


def test_search_takes_the_best_validation_score_and_reports_it():
    method = SVD(**ALL)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    chosen = task.reported

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
    assert isinstance(task, TaskInfo)


def _as_layer(linear):
    return find_layers(linear, torch.zeros(1, linear.in_features, dtype=linear.weight.dtype))[0]


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


def _moments64(model, layers, examples):
    """Second moments in float64 throughout."""
    rows: dict[str, torch.Tensor] = {}
    hooks = [
        layer.module.register_forward_pre_hook(
            lambda module, inputs, name=layer.name: rows.__setitem__(
                name, input_rows(module, inputs[0])
            )
        )
        for layer in layers
    ]
    with torch.no_grad():
        model(next(iter(examples.batches(1000))).images.double())
    for hook in hooks:
        hook.remove()
    return [rows[layer.name].transpose(1, 2) @ rows[layer.name] for layer in layers]
