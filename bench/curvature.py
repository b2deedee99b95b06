"""The curvature of the cross-entropy: products with it and with its inverse, without a matrix.

The curvature is the generalised Gauss-Newton matrix, which for the cross-entropy is the Fisher
information with labels drawn from the model: G = mean over x of J^T (diag(p) - p p^T) J, where J
is the derivative of the logits by the parameters and p the softmax. It is never indefinite, and
for a linear classifier it is the Hessian.

Source: Schraudolph, "Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent",
    Neural Computation 14, 2002; Martens, "New Insights and Perspectives on the Natural Gradient
    Method", JMLR 21, 2020.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .batches import Batch, ExampleSet
from .evaluate import in_eval_mode, pass_size
from .gradients import NamedTensors, check_some, trainable, zeros_like_parameters


class Solution(NamedTuple):
    """What solving a linear system gave.

    Attributes:
        values: The solution, by parameter name.
        residual: Norm of what is left, as a share of the norm of the right-hand side.
        iterations: Products with the curvature that it took.
    """

    values: NamedTensors
    residual: float
    iterations: int


def curvature_product(
    model: nn.Module, examples: ExampleSet, vector: NamedTensors, damping: float = 0.0
) -> NamedTensors:
    """(G + damping I) v, with G over all examples.

    Args:
        model: Run in eval mode; left as it came.
        examples: Served once, with the evaluation transform.
        vector: v, by the name of every trainable parameter, in its shape and dtype.
        damping: Added to the diagonal.

    Returns:
        By name of a trainable parameter.

    Raises:
        InputError: If there are no examples.
    """
    check_some(examples)
    total = zeros_like_parameters(model)
    size = pass_size(examples, examples.batch_size)
    with in_eval_mode(model), sdpa_kernel(SDPBackend.MATH):  # fused attention has one derivative
        for batch in examples.batches(size):
            for name, part in _summed_product(model, batch, vector).items():
                total[name] += part
    return {name: tensor / len(examples) + damping * vector[name] for name, tensor in total.items()}


def damped_inverse_product(
    model: nn.Module,
    examples: ExampleSet,
    vector: NamedTensors,
    *,
    damping: float,
    iterations: int,
    tolerance: float = 1e-3,
) -> Solution:
    """(G + damping I)^-1 v by conjugate gradients, from zero.

    Args:
        model: Run in eval mode; left as it came.
        examples: Served once an iteration.
        vector: v, by the name of every trainable parameter.
        damping: Above 0. Directions of less curvature count as if they had this.
        iterations: Largest number of products with G.
        tolerance: Residual at which it ends, as a share of the norm of v.

    Raises:
        InputError: If there are no examples.
    """
    check_some(examples)
    solution = {name: torch.zeros_like(tensor) for name, tensor in vector.items()}
    residual = {name: tensor.clone() for name, tensor in vector.items()}
    direction = {name: tensor.clone() for name, tensor in vector.items()}
    first = left = dot(residual, residual)
    done = 0
    while done < iterations and left > tolerance**2 * first:
        product = curvature_product(model, examples, direction, damping)
        step = left / dot(direction, product)
        for name, tensor in solution.items():
            tensor += step * direction[name]
            residual[name] -= step * product[name]
        before, left = left, dot(residual, residual)
        for name, tensor in direction.items():
            tensor.mul_(left / before).add_(residual[name])
        done += 1
    return Solution(solution, (left / first) ** 0.5 if first else 0.0, done)


def dot(a: NamedTensors, b: NamedTensors) -> float:
    """Inner product over all parameters."""
    return float(torch.stack([(tensor * b[name]).sum() for name, tensor in a.items()]).sum())


def _summed_product(model: nn.Module, batch: Batch, vector: NamedTensors) -> NamedTensors:
    """Sum over a batch of J^T (diag(p) - p p^T) J v.

    J v is found backwards: J^T u is linear in u, and its derivative along v by u is J v.
    """
    parameters = trainable(model)
    outputs = model(batch.images)
    u = torch.zeros_like(outputs, requires_grad=True)
    pulled = torch.autograd.grad(
        outputs, list(parameters.values()), u, create_graph=True, materialize_grads=True
    )
    linked = [(g, vector[n]) for n, g in zip(parameters, pulled, strict=True) if g.requires_grad]
    (along,) = torch.autograd.grad([g for g, _ in linked], u, [v for _, v in linked])
    p = outputs.detach().softmax(1)
    curved = p * (along - (p * along).sum(1, keepdim=True))
    found = torch.autograd.grad(outputs, list(parameters.values()), curved, materialize_grads=True)
    return dict(zip(parameters, found, strict=True))
