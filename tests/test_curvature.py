"""Products with the Gauss-Newton matrix and with its damped inverse, against dense ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearnbench.bench import InputError, UndeclaredNeedError, Unlearner
from unlearnbench.bench.curvature import curvature_product, damped_inverse_product, dot

from .toys import same_tensors, toy_task, trained

VIT = "vit_tiny_patch16_224[depth=2,embed_dim=24,num_heads=3]"


class Open(Unlearner):
    """Declares what the tools need."""

    name = "open"
    reference = "test"
    needs = frozenset({"forget", "retain", "gradients"})

    def unlearn(self, model, task):
        return model


def linear(scale=0.1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        model[1].weight.mul_(scale)
    return model.eval()


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


def drawn(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=rng) for n, p in model.named_parameters()}


def dense(model, images):
    """Mean of J^T (diag p - p p^T) J, from a Jacobian of one backward pass a logit."""
    total = 0
    for image in images.split(1):
        logits = model(image)[0]
        rows = [
            flat(dict(enumerate(torch.autograd.grad(
                logits[k], list(model.parameters()), retain_graph=True, materialize_grads=True
            ))))
            for k in range(4)
        ]  # fmt: skip
        J = torch.stack(rows).double()
        p = logits.detach().double().softmax(0)
        total = total + J.T @ (torch.diag(p) - torch.outer(p, p)) @ J
    return total / len(images)


@pytest.mark.parametrize("network", ["network", "vit"])
def test_the_product_is_that_of_the_dense_matrix(network):
    kind = {"model": VIT} if network == "vit" else {}
    model, task = trained(**kind), toy_task(Open(), **kind)
    some = task.retain.subset(torch.tensor([0, 30, 60]))
    vector = drawn(model)
    batch = next(some.batches(3))
    J_like = flat(curvature_product(model, some, vector)).double()
    parameters = list(model.parameters())
    expected = 0
    for image in batch.images.split(1):  # the matrix itself would be too large
        logits = model(image)[0]
        p = logits.detach().double().softmax(0)
        rows = torch.stack([
            flat(dict(enumerate(torch.autograd.grad(
                logits[k], parameters, retain_graph=True, materialize_grads=True
            ))))
            for k in range(4)
        ]).double()  # fmt: skip
        along = rows @ flat(vector).double()
        expected = expected + rows.T @ (p * along - p * (p @ along)) / 3
    assert torch.allclose(J_like, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert expected.abs().max() > 0


def test_for_a_linear_classifier_it_is_the_hessian_of_the_cross_entropy():
    model, task = linear(), toy_task(Open())
    batch = next(task.retain.batches(200))

    def loss(weight, bias):
        logits = batch.images.flatten(1) @ weight.view(4, 64).T + bias
        return nn.functional.cross_entropy(logits, batch.labels)

    blocks = torch.autograd.functional.hessian(
        loss, (model[1].weight.detach().reshape(-1), model[1].bias.detach())
    )
    hessian = torch.cat([torch.cat(row, 1) for row in blocks])
    vector = drawn(model)
    found = curvature_product(model, task.retain, vector, damping=0.5)
    expected = hessian @ flat(vector) + 0.5 * flat(vector)
    assert torch.allclose(flat(found), expected, rtol=1e-3, atol=1e-4)


def test_the_inverse_is_that_of_the_dense_matrix():
    model, task = linear(), toy_task(Open())
    vector = drawn(model)
    found = task.damped_inverse_product(model, task.retain, vector, damping=0.1, iterations=200)
    matrix = dense(model, next(task.retain.batches(200)).images)
    matrix = matrix + 0.1 * torch.eye(len(matrix))
    expected = torch.linalg.solve(matrix, flat(vector).double())
    assert found.residual <= 1e-3
    assert found.iterations < 200
    error = (flat(found.values).double() - expected).norm() / expected.norm()
    assert error < 1e-2


def test_the_residual_is_what_is_left_of_the_right_hand_side():
    model, task = trained(), toy_task(Open())
    vector = drawn(model)
    solved = damped_inverse_product(model, task.forget, vector, damping=1.0, iterations=3)
    back = curvature_product(model, task.forget, solved.values, damping=1.0)
    left = {name: vector[name] - back[name] for name in vector}
    assert solved.iterations == 3
    assert solved.residual == pytest.approx((dot(left, left) / dot(vector, vector)) ** 0.5, rel=0.1)
    assert task.served["forget"] == 4 * task.forget_size


def test_without_curvature_the_inverse_divides_by_the_damping():
    model, task = linear(), toy_task(Open())
    with torch.no_grad():  # certain outputs have no curvature
        model[1].bias.copy_(torch.tensor([1e4, 0, 0, 0]))
    vector = drawn(model)
    found = damped_inverse_product(model, task.retain, vector, damping=0.25, iterations=5)
    assert found.iterations == 1
    assert torch.allclose(flat(found.values), 4 * flat(vector), rtol=1e-4)


def test_nothing_on_the_right_gives_nothing():
    model, task = trained(), toy_task(Open())
    nothing = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    found = damped_inverse_product(model, task.retain, nothing, damping=0.1, iterations=5)
    assert (found.iterations, found.residual) == (0, 0.0)
    assert not flat(found.values).any()


def test_the_model_is_left_as_it_came():
    model, task = trained().train(), toy_task(Open())
    curvature_product(model, task.forget, drawn(model))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert same_tensors(model, trained())


def test_an_empty_set_and_undeclared_gradients_are_named():
    model, task = trained(), toy_task(Open())
    nothing = task.forget.subset(torch.tensor([], dtype=torch.int64))
    with pytest.raises(InputError, match="the forget set is empty"):
        curvature_product(model, nothing, drawn(model))
    with torch.no_grad(), pytest.raises(UndeclaredNeedError, match="gradients"):
        task.damped_inverse_product(model, task.retain, drawn(model), damping=1.0, iterations=1)
