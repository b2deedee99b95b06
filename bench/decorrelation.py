"""How far the filters and features of an original are decorrelated: what its recipe did to it.

The two need not go together: orthogonal kernels give uncorrelated features only where the inputs
are uncorrelated and alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

import torch
from torch import Tensor, nn

from .batches import ExampleSet
from .layers import find_layers
from .observe import observe
from .orthogonality import CorrelationSum, chosen_convolutions, filter_cosine

EXAMPLES = 64


def decorrelation(model: nn.Module, examples: ExampleSet) -> dict[str, float]:
    """Measure an original.

    Args:
        model: A trained network.
        examples: The training set, of which 64, evenly spread, are the fixed batch; not counted.

    Returns:
        `filter_cosine`, mean |cosine| between different filters of the convolutions that the
        orthogonal recipe penalises by default, and `feature_correlation`, mean |correlation|
        between different channels of a convolution as its norm and activation leave them; each the
        mean over layers, in [0, 1], and absent where there is nothing to measure.
    """
    count = min(EXAMPLES, len(examples))
    places = torch.arange(count) * len(examples) // max(1, count)  # they may be sorted by class
    batch = examples.with_generator(torch.Generator()).subset(places)
    found = {"filter_cosine": filter_cosine(chosen_convolutions(model))}
    image = next(batch.batches(1)).images
    layers = [x for x in find_layers(model, image) if x.is_conv and not x.is_head]
    sums = {x.output: CorrelationSum() for x in layers if not x.is_excitation}

    def adder(total: CorrelationSum) -> Callable[[Tensor], None]:
        return lambda activation: total.add(activation)

    observe(model, batch, outputs={module: adder(total) for module, total in sums.items()})
    values = [total.mean() for total in sums.values()]
    values = [value for value in values if not math.isnan(value)]
    found["feature_correlation"] = fmean(values) if values else math.nan
    return {name: value for name, value in found.items() if not math.isnan(value)}
