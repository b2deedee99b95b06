"""Fisher forgetting: the information, the variance, the noise, and where the classifier is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unlearnbench.bench import METHODS

from .toys import same_tensors, toy_task, trained

FISHER = METHODS.get("fisher")
SAMPLES = "random[fraction=0.2]"


def test_the_information_is_that_of_all_labels_by_their_probability():
    method = FISHER(samples=6)
    task = toy_task(method)
    found = method.information(trained(), task)
    order = torch.randperm(task.retain_size, generator=toy_task(method).rng)[:6]
    batch = next(toy_task(method).retain.subset(order).batches(6))
    expected = {}
    for image in batch.images.split(1):
        for label in range(4):
            model = trained()
            log_p = model(image).log_softmax(1)[0, label]
            log_p.backward()
            for name, p in model.named_parameters():
                part = float(log_p.detach().exp()) * p.grad**2 / 6
                expected[name] = expected.get(name, 0) + part
    for name, tensor in expected.items():
        scale = float(tensor.max())
        assert torch.allclose(found[name], tensor, rtol=1e-3, atol=1e-6 * scale), name
    assert task.served == {"retain": 4 * 6}
    assert task.reported == {"fisher_samples": 6}


def test_the_information_of_a_linear_classifier_has_a_closed_form():
    """Of the weight from input j to class c it is the mean of p_c (1 - p_c) x_j^2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    method = FISHER(samples=500)
    found = method.information(model, toy_task(method))
    batch = next(toy_task(method).retain.batches(500))
    p = model(batch.images).softmax(1).detach()
    expected = (p * (1 - p)).T @ batch.images.flatten(1).square() / len(batch)
    assert torch.allclose(found["1.weight"], expected, rtol=1e-3, atol=1e-7)
    assert torch.allclose(found["1.bias"], (p * (1 - p)).mean(0), rtol=1e-3, atol=1e-7)


def test_variances_are_alpha_over_the_information_with_limits_and_factors():
    method = FISHER(alpha=1e-6)
    inside = torch.tensor([[0.5, 0.25], [0.0, 0.01]])
    assert torch.allclose(
        method.variance(inside, is_head=False),
        1e-6 * torch.tensor([[3.0, 3.0], [550.0, 550.0]]), rtol=1e-4,
    )  # fmt: skip
    assert torch.allclose(
        method.variance(inside, is_head=True),
        1e-5 * torch.tensor([[3.0, 3.0], [100.0, 100.0]]), rtol=1e-4,
    )  # fmt: skip
    bias = torch.tensor([0.5, 0.0])
    assert torch.allclose(
        method.variance(bias, is_head=False), torch.tensor([2e-5, 1e-2]), rtol=1e-4
    )
    assert torch.allclose(
        method.variance(bias, is_head=True), torch.tensor([2e-5, 1e-3]), rtol=1e-4
    )


def test_noise_has_the_variance_and_no_mean(monkeypatch):
    """Over many draws, in units of the deviation that the information tells."""
    method = FISHER(alpha=1e-5, samples=50)
    information = method.information(trained(), toy_task(method, SAMPLES))
    monkeypatch.setattr(FISHER, "information", lambda self, model, task: information)
    before = dict(trained().named_parameters())
    for name in ("layer1.0.conv1.weight", "fc.weight", "fc.bias", "bn1.weight"):
        deviation = method.variance(information[name], is_head=name.startswith("fc")).sqrt()
        draws = []
        for seed in range(40):
            model = method.unlearn(trained(), toy_task(method, SAMPLES, seed=seed))
            draws.append((dict(model.named_parameters())[name] - before[name]) / deviation)
        z = torch.stack(draws).detach()
        count = z.numel()
        assert abs(float(z.mean())) < 4 / count**0.5, name
        assert abs(float(z.var()) - 1) < 4 * (2 / count) ** 0.5 + 0.01, name


def test_without_noise_only_the_rows_of_forgotten_classes_are_drawn_anew():
    method = FISHER(alpha=0, samples=4)
    rows = []
    for seed in range(40):
        task = toy_task(method, "class[classes=[2]]", seed=seed)
        after, before = method.unlearn(trained(), task).state_dict(), trained().state_dict()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert changed == ["fc.weight", "fc.bias"]
        kept = [0, 1, 3]
        assert torch.equal(after["fc.weight"][kept], before["fc.weight"][kept])
        assert torch.equal(after["fc.bias"][kept], before["fc.bias"][kept])
        rows.append(torch.cat([after["fc.weight"][2], after["fc.bias"][2:3]]))
    z = torch.stack(rows) / 1e-2
    assert abs(float(z.mean())) < 4 / z.numel() ** 0.5
    assert abs(float(z.var()) - 1) < 4 * (2 / z.numel()) ** 0.5


def test_a_hidden_layer_as_wide_as_there_are_classes_is_no_classifier():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 4, bias=False)
        ).eval()

    method = FISHER(alpha=0, samples=4)
    after = method.unlearn(network(), toy_task(method)).state_dict()
    before = network().state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["3.weight"]


def test_for_samples_of_all_classes_no_row_is_drawn_anew():
    method = FISHER(alpha=0, samples=4)
    assert same_tensors(method.unlearn(trained(), toy_task(method, SAMPLES)), trained())


@pytest.mark.parametrize("samples", [10, 500])
def test_it_forgets_a_class_and_keeps_the_others(samples):
    method = FISHER(alpha=1e-6, samples=samples)
    task = toy_task(method)
    model = method.unlearn(trained(), task)
    look = toy_task(method, needs=frozenset({"forget", "retain"}))
    assert look.accuracy(model, look.forget) < 0.2
    assert look.accuracy(model, look.retain) > 0.9
