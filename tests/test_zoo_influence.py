"""Influence unlearning: Newton's step against a retrained classifier, and the public recursion."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS
from unlearnbench.methods.influence import public_recursion

from .toys import toy_task, trained

INFLUENCE = METHODS.get("influence")
RIDGE = 0.05
FEW = "random[count=6]"


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def fitted(batches):
    """The minimum of mean CE + RIDGE / 2 |theta|^2, to convergence."""
    model = linear()
    images = torch.cat([batch.images for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        ridge = sum(p.square().sum() for p in model.parameters())
        loss = F.cross_entropy(model(images), labels) + RIDGE / 2 * ridge
        loss.backward()
        return loss

    optimizer.step(closure)
    for parameter in model.parameters():
        parameter.grad = None
    return model


def whole(task):
    return next(task.forget.batches(500)), next(task.retain.batches(500))


def test_a_step_from_a_convex_minimum_lands_near_the_retrained_minimum():
    """The damping takes the part of a ridge penalty, so that the step is Newton's."""
    method = INFLUENCE(damping=RIDGE, iterations=300)
    forget, retain = whole(toy_task(method, FEW))
    original, retrained = fitted([forget, retain]), fitted([retain])
    before = flat(original)
    after = flat(method.unlearn(original, toy_task(method, FEW)))
    target = flat(retrained)
    assert (before - target).norm() > 1e-2
    assert (after - target).norm() < 0.1 * (before - target).norm()


def test_alpha_is_the_length_of_the_step():
    steps = []
    for alpha in (1.0, 3.0):
        method = INFLUENCE(alpha=alpha)
        steps.append(flat(method.unlearn(linear(), toy_task(method))) - flat(linear()))
    assert torch.allclose(3 * steps[0], steps[1], rtol=1e-3, atol=1e-5)
    assert steps[0].norm() > 1e-3


def test_the_vector_is_the_gradient_that_the_forget_set_leaves():
    method = INFLUENCE()
    task = toy_task(method)
    forget, retain = whole(toy_task(method))
    parts = []
    for batch in (forget, retain):
        model = trained()
        F.cross_entropy(model(batch.images), batch.labels, reduction="sum").backward()
        parts.append({name: p.grad for name, p in model.named_parameters()})
    n_f, n_r = 27, 81
    found = method.vector(trained(), task)
    for name, tensor in found.items():
        expected = parts[0][name] / 108 - n_f / (108 * n_r) * parts[1][name]
        scale = float(expected.abs().max())
        assert torch.allclose(tensor, expected, rtol=1e-3, atol=1e-5 * scale), name


def test_the_public_recursion_by_hand():
    v, g1, g2 = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0])
    found = public_recursion({"w": v}, [{"w": g1}, {"w": g2}], count=2)
    # o g2 = 2, k g2 = 2: k = (1, 0) - 2 / 4 (1, 1); then o = (1, 1) / 2
    assert found["w"].tolist() == [0.5, -0.5]
    found = public_recursion({"w": v}, [{"w": g1}, {"w": g2}, {"w": g1}], count=2)
    # o g1 = 1, k g1 = 0: nothing moves
    assert found["w"].tolist() == [0.5, -0.5]
    assert (v.tolist(), g1.tolist()) == ([1.0, 0.0], [1.0, 1.0])


def test_what_public_code_adds_is_parallel_to_the_first_gradient():
    """Its H is the identity but for one direction, which is why it is not the default."""
    method = INFLUENCE(solver="public", samples=20)
    task = toy_task(method)
    model = trained()
    vector = method.vector(model, toy_task(method))
    step = flat(method.unlearn(trained(), task)) - flat(model)
    order = torch.randperm(task.retain_size, generator=toy_task(method).rng)
    first = next(toy_task(method).retain.subset(order[:1]).batches(1))
    F.cross_entropy(model(first.images), first.labels).backward()
    g = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).double()
    added = step.double() - torch.cat([v.reshape(-1) for v in vector.values()]).double()
    assert added.norm() > 1e-4
    assert abs(float(added @ g / added.norm() / g.norm())) == pytest.approx(1, abs=1e-3)


def test_it_forgets_a_class_keeps_the_others_and_says_how_well_it_solved():
    task = toy_task(INFLUENCE())
    model = INFLUENCE().unlearn(trained(), task)
    assert task.accuracy(model, task.forget) < 0.2
    assert task.accuracy(model, task.retain) > 0.8
    assert task.reported["residual"] < 0.1
    assert 1 <= task.reported["iterations_done"] <= 20
    served = toy_task(INFLUENCE())
    INFLUENCE(iterations=2).unlearn(trained(), served)
    assert served.served == {"forget": 27, "retain": 81 + 2 * 81}
    assert set(served.phases) == {"statistics_s"}
