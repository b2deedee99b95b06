"""The logit margin: golden values, exactness, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnbench.bench.errors import InputError
from unlearnbench.bench.metrics.margin import MarginError, logit_margin


@pytest.mark.parametrize(
    ("logits", "margin"),
    [
        ((30, -20, 1), 29.0),
        ((1000, 0, 0), 999.306853),
        ((-1000, 0, 0), -1000.693147),
        ((0, 0, 0), -0.693147),
    ],
)
def test_golden_values_are_met(logits, margin):
    assert logit_margin([logits], [0])[0] == pytest.approx(margin, abs=5e-7)


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.integers(0, 5), st.floats(-100, 100)
)
@settings(max_examples=100, deadline=None)
def test_it_is_the_logit_of_the_confidence_and_ignores_a_shift(logits, label, shift):
    z, y = np.array(logits), label % len(logits)
    p = np.exp(z - z.max())
    others = np.delete(p, y).sum()
    margin = logit_margin(z, y)
    assert margin == pytest.approx(np.log(p[y]) - np.log(others), abs=1e-9)
    assert logit_margin(z + shift, y) == pytest.approx(margin, abs=1e-9)


def test_two_classes_give_the_plain_difference():
    z = np.random.default_rng(0).normal(size=(50, 2)) * 20
    y = np.arange(50) % 2
    difference = z[np.arange(50), y] - z[np.arange(50), 1 - y]
    np.testing.assert_array_equal(logit_margin(z, y), difference)


def test_arguments_are_not_changed():
    z = np.random.default_rng(0).normal(size=(5, 3))
    before = z.copy()
    z.setflags(write=False)
    logit_margin(z, np.zeros(5, int))
    np.testing.assert_array_equal(z, before)
    tensor = torch.from_numpy(before.copy())
    logit_margin(tensor, torch.zeros(5, dtype=torch.int64))
    np.testing.assert_array_equal(tensor.numpy(), before)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arithmetic_is_in_double_precision(dtype):
    z = np.array([[24.0, -3.0, 1.5]], dtype=dtype)  # exact in each dtype
    margin = logit_margin(z, [0])
    assert margin.dtype == np.float64
    assert margin[0] == 24.0 - (1.5 + np.log1p(np.exp(-4.5)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensors_are_read_with_or_without_gradient(dtype):
    z = torch.tensor([[[3.0, 1.0, -2.0]] * 2], dtype=dtype, requires_grad=True)
    margin = logit_margin(z, torch.tensor([[0, 1]]))
    assert margin.shape == (1, 2)
    np.testing.assert_array_equal(margin, logit_margin(z.detach().double().numpy(), [[0, 1]]))


def test_no_examples_give_no_margins():
    assert logit_margin(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1.0, np.nan]], [0], r"must be finite; got 1 values .* index \(0, 1\)"),
        ([[1.0, np.inf]], [0], "must be finite"),
        ([[1.0]], [0], "C >= 2"),
        ([[1.0, 2.0]], [2], r"in \[0, 2\)"),
        ([[1.0, 2.0]], [-1], r"in \[0, 2\)"),
        ([[1.0, 2.0]], [0.0], "integers"),
        ([[1.0, 2.0]], [0, 1], "shape"),
        ([["a", "b"]], [0], "real numbers"),
    ],
)
def test_bad_input_is_refused(logits, labels, message):
    with pytest.raises(MarginError, match=message):
        logit_margin(logits, labels)
    assert issubclass(MarginError, InputError)
