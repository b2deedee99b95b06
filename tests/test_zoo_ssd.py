"""SSD and LFSSD: importances, the choice of weights, and the factors, worked out apart."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import METHODS, InputError

from .toys import toy_task, trained

SSD, LFSSD = METHODS.get("ssd"), METHODS.get("lfssd")


def gradients(loss):
    """Gradients of a scalar by `backward`, by parameter; the model is a fresh copy."""
    model = trained()
    loss(model).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def everything(task, role):
    return next(getattr(task, role).batches(500))


def importances(batch, loss, power):
    """Mean over single examples of |gradient| ** power."""
    total = {}
    for i in range(len(batch)):
        one = gradients(lambda model, i=i: loss(model, batch, slice(i, i + 1)))
        for name, gradient in one.items():
            total[name] = total.get(name, 0) + gradient.abs() ** power / len(batch)
    return total


def entropy(model, batch, part):
    return F.cross_entropy(model(batch.images[part]), batch.labels[part])


def squared_norm(model, batch, part):
    return model(batch.images[part]).square().sum()


@pytest.mark.parametrize(
    ("cls", "loss", "power"), [(SSD, entropy, 2), (LFSSD, squared_norm, 1)], ids=["ssd", "lfssd"]
)
def test_weights_are_chosen_and_dampened_as_the_equations_say(cls, loss, power):
    method = cls(alpha=1.5, dampening=1.2, importance="example")
    preparing = toy_task(method, preparing=True)
    prepared = method.prepare(trained(), preparing)
    assert preparing.served == {"training": 108}
    of_all = importances(everything(preparing, "training"), loss, power)
    task = toy_task(method, prepared=prepared)
    of_forget = importances(everything(task, "forget"), loss, power)
    task = toy_task(method, prepared=prepared)
    after = dict(method.unlearn(trained(), task).named_parameters())
    dampened, capped = 0, 0
    for name, before in trained().named_parameters():
        scale = float(of_all[name].max())
        assert torch.allclose(prepared[name], of_all[name], rtol=1e-3, atol=1e-6 * scale), name
        chosen = of_forget[name] > 1.5 * prepared[name]
        near = (of_forget[name] / (1.5 * prepared[name]) - 1).abs() < 1e-2  # either may be right
        factor = (1.2 * prepared[name] / of_forget[name]).clamp(max=1)
        expected = torch.where(chosen, before * factor, before)
        assert torch.allclose(after[name][~near], expected[~near], rtol=2e-3, atol=1e-7), name
        untouched = ~chosen & ~near
        assert torch.equal(after[name][untouched], before[untouched]), name
        dampened += int(chosen.sum())
        capped += int((chosen & (factor < 1)).sum())
    assert capped > 10
    total = sum(p.numel() for p in trained().parameters())
    assert task.reported["dampened_frac"] == pytest.approx(dampened / total, abs=0.01)
    assert task.served == {"forget": 27}


def test_a_factor_above_one_is_cut_to_one():
    """With lambda above alpha, weights that are chosen by little would otherwise grow."""
    method = SSD(alpha=0.5, dampening=5.0)
    prepared = method.prepare(trained(), toy_task(method, preparing=True))
    model = method.unlearn(trained(), toy_task(method, prepared=prepared))
    for (name, after), (_, before) in zip(
        model.named_parameters(), trained().named_parameters(), strict=True
    ):
        assert (after.abs() <= before.abs()).all(), name


def test_importances_of_batches_are_squares_of_the_gradient_of_the_mean():
    method = SSD(batch_size=500)
    preparing = toy_task(method, preparing=True)
    found = method.prepare(trained(), preparing)
    batch = everything(toy_task(method, preparing=True), "training")
    expected = gradients(lambda model: entropy(model, batch, slice(None)))
    for name, gradient in expected.items():
        scale = float(gradient.square().max())
        assert torch.allclose(found[name], gradient.square(), rtol=1e-2, atol=1e-5 * scale), name


def test_importances_of_batches_depend_on_their_size_and_those_of_examples_do_not():
    def of(importance, size):
        method = SSD(importance=importance, batch_size=size)
        return method.prepare(trained(), toy_task(method, preparing=True))["fc.weight"].sum()

    assert of("batch", 4) > 2 * of("batch", 54)
    assert of("example", 4) == pytest.approx(float(of("example", 54)), rel=1e-5)


def test_with_single_examples_alpha_has_a_limit_beyond_which_nothing_is_chosen():
    """The training set has the forget set in it: I_D >= I_f n_f / n, and n / n_f is 4 here."""
    for alpha, some in ((3.5, True), (4.01, False)):
        method = SSD(alpha=alpha, importance="example")
        prepared = method.prepare(trained(), toy_task(method, preparing=True))
        task = toy_task(method, prepared=prepared)
        method.unlearn(trained(), task)
        assert (task.reported["dampened_frac"] > 0) == some


def test_it_forgets_a_class_and_keeps_more_of_the_others():
    prepared = SSD().prepare(trained(), toy_task(SSD(), preparing=True))
    task = toy_task(SSD(), prepared=prepared, needs=SSD.needs | {"retain"})
    model = SSD().unlearn(trained(), task)
    assert task.accuracy(model, task.forget) < 0.1
    assert task.accuracy(model, task.retain) > 0.5


def test_nothing_to_forget_is_an_error_that_says_so():
    task = toy_task(SSD())
    task._sets["forget"] = task.forget.subset(torch.tensor([], dtype=torch.int64))
    with pytest.raises(InputError, match="the forget set is empty"):
        SSD().unlearn(trained(), task)
