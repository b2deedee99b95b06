"""Draws some of the columns that a layer sees, without knowing them all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .batches import ExampleSet
from .evaluate import in_eval_mode
from .observe import observe
from .patches import Window, columns_per_image, crop

HYPERGEOMETRIC = 10**9  # NumPy draws from no more


class ColumnDraws:
    """Chooses some columns of every layer, a batch at a time.

    Of the columns that are still to come, each batch gets a hypergeometric number of the places
    that are left: every set of columns is equally likely, without all being known at once.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Sequence[nn.Module],
        sets: Sequence[ExampleSet],
        rng: torch.Generator,
        windows: Sequence[Window] | None,
        places: int | None,
    ) -> None:
        self.left: dict[nn.Module, list[int]] = {}
        if places is None:
            return
        self.rng = np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
        images = sum(len(part) for part in sets)
        counts = dict.fromkeys(modules, 0)

        def counter(place: int, module: nn.Module) -> Callable[[Tensor], None]:
            def count(inputs: Tensor) -> None:
                if isinstance(module, nn.Conv2d):
                    cut = inputs if windows is None else crop(module, inputs, windows[place])
                    counts[module] += columns_per_image(module, cut) * len(cut)
                else:
                    counts[module] += inputs[..., 0].numel()

            return count

        watches = {module: counter(place, module) for place, module in enumerate(modules)}
        one = next(part for part in sets if len(part)).subset(torch.zeros(1, dtype=torch.int64))
        with in_eval_mode(model):
            observe(model, one.with_generator(rng), inputs=watches)
        self.left = {
            m: [count * images, min(places, count * images)] for m, count in counts.items()
        }

    def some(self, module: nn.Module, columns: Tensor) -> Tensor:
        """The chosen ones of `(G, d, n)` columns; all if columns are not limited."""
        if not self.left:
            return columns
        here, (coming, places) = columns.shape[-1], self.left[module]
        drawn_of = min(here, coming)
        if coming < HYPERGEOMETRIC:
            chosen = int(self.rng.hypergeometric(places, max(0, coming - places), drawn_of))
        else:  # so many that putting back makes no difference
            chosen = min(places, int(self.rng.binomial(drawn_of, places / coming)))
        self.left[module] = [max(0, coming - here), places - chosen]
        drawn = torch.from_numpy(self.rng.permutation(here)[:chosen]).to(columns.device)
        return columns.index_select(2, drawn)
