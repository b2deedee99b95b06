"""Projections by factorisation against eigenvectors in double precision."""

from __future__ import annotations

import pytest
import torch

from unlearnbench.bench import Energy
from unlearnbench.bench.input_moments import Moments

ALPHAS = [1e-3, 0.3, 1.0, 3.0, 100.0, 3000.0]


def columns(width, count, seed=0, groups=1):
    """Columns whose energies fall over five orders of magnitude."""
    rng = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -2.5, width, dtype=torch.float64)
    mixed = torch.randn(groups, width, width, generator=rng, dtype=torch.float64)
    basis = torch.linalg.qr(mixed)[0]
    noise = torch.randn(groups, width, count, generator=rng, dtype=torch.float64)
    return basis @ (scale[:, None] * noise)


def moments(x, dtype, factored=False):
    x = x.to(dtype)
    return Moments(x if factored else x @ x.mT, factored)


def projection(x, alpha):
    """P(alpha) by equations 2 and 3 of the paper, from the singular values of R."""
    U, S, _ = torch.linalg.svd(x, full_matrices=False)
    e = S.square() / S.square().sum(-1, keepdim=True)
    return U * (alpha * e / ((alpha - 1) * e + 1)).unsqueeze(1) @ U.mT


def rows(width, count=5, groups=1):
    rng = torch.Generator().manual_seed(3)
    return torch.randn(groups, count, width, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(
    ("width", "dtype", "factored", "tolerance"),
    [
        (60, torch.float64, False, 1e-10),
        (60, torch.float64, True, 1e-10),
        (300, torch.float32, False, 2e-5),
        (300, torch.float32, True, 2e-5),
    ],
)
def test_projections_equal_those_by_singular_vectors(alpha, width, dtype, factored, tolerance):
    x = columns(width, width // 4 if factored else 3 * width, groups=2)
    energy = Energy(moments(x, dtype, factored))
    W, P = rows(width, groups=2), projection(x, alpha)
    inside = energy.project(energy.times(W.to(dtype)), alpha)
    outside = energy.project_out(W.to(dtype), alpha)
    assert inside.dtype == energy.dtype == dtype
    assert (inside - W @ P).norm() <= tolerance * W.norm()
    assert (outside - (W - W @ P)).norm() <= tolerance * W.norm()


@pytest.mark.slow
def test_the_widest_layer_of_resnet18_is_exact_enough_in_single_precision():
    width = 4608
    rng = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -2.5, width)[:, None]
    samples = [torch.relu(torch.randn(width, 6000, generator=rng) * scale + 0.05) for _ in range(2)]
    W = torch.randn(1, 8, width, generator=rng)
    energy_r, energy_f = (Energy(moments(x[None], torch.float32)) for x in samples)
    spaces = []
    for x in samples:
        e, U = torch.linalg.eigh(x.double() @ x.double().mT)
        spaces.append((e.clamp(min=0) / e.clamp(min=0).sum(), U))

    def projected(rows, space, alpha):
        e, U = space
        return (rows @ U * (alpha * e / ((alpha - 1) * e + 1))) @ U.mT

    for alpha_r, alpha_f in ((100.0, 3.0), (1000.0, 30.0), (3000.0, 300.0)):
        unshared = energy_r.project_out(W, alpha_r)
        found = W - energy_f.project(energy_f.times(unshared), alpha_f)
        left = W[0].double() - projected(W[0].double(), spaces[0], alpha_r)
        expected = W[0].double() - projected(left, spaces[1], alpha_f)
        assert (found[0] - expected).norm() <= 1e-5 * expected.norm(), (alpha_r, alpha_f)


def test_importance_golden_values():
    """Energies 0.1, 0.01 and 0.001 on axes of their own; the rest on a fourth."""
    x = torch.tensor([0.1, 1e-2, 1e-3, 0.889], dtype=torch.float64).sqrt().diag()[None]
    energy = Energy(moments(x, torch.float64))
    eye = torch.eye(4, dtype=torch.float64)[None]
    expected = {
        1000: [0.99108, 0.90992, 0.50025], 100: [0.9174, 0.5025, 0.0910],
        3: [0.25, 0.0294, 0.0030], 1: [0.1, 1e-2, 1e-3],
    }  # fmt: skip
    for alpha, values in expected.items():
        found = energy.project(energy.times(eye), alpha)[0]
        assert found.diagonal()[:3].tolist() == pytest.approx(values, abs=5e-5)
        assert torch.equal(found, found.diagonal().diag())


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_huge_alpha_is_the_plain_projection_onto_the_span(dtype, factored):
    x = columns(40, 6)
    energy = Energy(moments(x, dtype, factored))
    U = torch.linalg.svd(x, full_matrices=False)[0]
    W = rows(40)
    for alpha in (1e9, 1e15):
        found = energy.project_out(W.to(dtype), alpha)
        within = (found.double() @ U).norm() / W.norm()
        assert within < 1e-5
    if dtype == torch.float64:
        found = energy.project_out(W, 1e9)
        assert (found - (W - W @ U @ U.mT)).norm() <= 1e-4 * W.norm()


@pytest.mark.parametrize("factored", [False, True])
def test_alpha_zero_and_inputs_of_zeros_project_nothing(factored):
    x = columns(20, 5)
    energy = Energy(moments(x, torch.float64, factored))
    W = rows(20)
    assert not energy.project(energy.times(W), 0).any()
    energy = Energy(moments(torch.zeros_like(x), torch.float64, factored))
    assert not energy.project(energy.times(W), 100).any()
    assert torch.equal(energy.project_out(W, 100), W)
