"""SVD forgetting: project the directions that only the forget class uses out of every layer.

Source: Kodge, Saha, Roy, "Deep Unlearning: Fast and Efficient Gradient-free Approach to Class
    Forgetting", TMLR 2024, https://arxiv.org/abs/2312.00761, section 4 and algorithm 1.
Reference code: https://github.com/sangamesh-kodge/class_forgetting (read for its facts; none used).
Differences: instead of the singular vectors of a stored representation matrix R we take the
    eigenvectors of R R^T, accumulated over all patches: mathematically the same U and S^2, without
    subsampling. Full feature maps are unfolded (the authors crop to 3k x 3k); samples are drawn at
    random with the evaluation transform (the authors take the first ones, augmented); alphas are
    chosen on validation data (the authors' script uses the test set).
Cost: one forward pass over `retain_samples` and one over `forget_samples`, an eigendecomposition a
    layer, and a forward pass over the validation set for every pair of alphas tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..bench import DeclinedError, Range, Unlearner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import ExampleSet, Layer, TaskInfo, UnlearningTask

DOUBLE_UP_TO = 1200  # largest width whose moments are kept in float64
ALPHAS_RETAIN = (1000.0, 300.0, 100.0, 30.0, 10.0)
ALPHAS_FORGET = (1.0, 3.0, 10.0, 30.0, 100.0)


class Svd(Unlearner):
    """Remove what the forget class does not share with the retain set, layer by layer.

    Attributes:
        alpha_retain: Scaling of the retain projection; None searches the authors' grid.
        alpha_forget: Scaling of the forget projection; None likewise. 0 changes nothing.
        retain_samples: Retain images for the statistics, the same number from every class.
        forget_samples: Forget images for the statistics.
    """

    name: ClassVar[str] = "svd"
    reference: ClassVar[str] = "Kodge et al., TMLR 2024, arXiv 2312.00761"
    needs: ClassVar = frozenset({"forget", "retain", "validation"})
    scope: ClassVar = frozenset({"class"})

    alpha_retain: Annotated[float, Field(gt=0), Range(10, 3000, log=True)] | None = None
    alpha_forget: Annotated[float, Field(ge=0), Range(0.3, 300, log=True)] | None = None
    retain_samples: Annotated[int, Field(ge=1), Range(90, 990)] = 900
    forget_samples: Annotated[int, Field(ge=1), Range(90, 900)] = 900

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Project every convolution and linear layer of the original at once."""
        layers = task.layers(model)
        kept = task.retain.sample(self.retain_samples, balanced=True)
        retain = moments(task, model, layers, kept)
        forget = moments(task, model, layers, task.forget.sample(self.forget_samples))
        surgery = [
            LayerSurgery(layer, eigenspace(r), eigenspace(f))
            for layer, r, f in zip(layers, retain, forget, strict=True)
        ]
        alphas = self._search(model, task, surgery)
        for layer in surgery:
            layer.apply(*alphas)
        task.report(alpha_retain=alphas[0], alpha_forget=alphas[1])
        return model

    def _search(
        self, model: nn.Module, task: UnlearningTask, surgery: list[LayerSurgery]
    ) -> tuple[float, float]:
        """Pair of alphas with the best RA (1 - FA) on validation data; gentlest first on ties."""
        retains = (self.alpha_retain,) if self.alpha_retain is not None else ALPHAS_RETAIN
        forgets = (self.alpha_forget,) if self.alpha_forget is not None else ALPHAS_FORGET
        pairs = [(r, f) for f in forgets for r in retains]
        if len(pairs) == 1:
            return pairs[0]
        kept, gone = split_by_class(task.validation, task.forget_classes)
        if not (len(kept) and len(gone)):
            raise DeclinedError(
                "searches its alphas on validation data, which lack the forgotten or the kept."
            )
        scores = []
        for pair in pairs:
            for layer in surgery:
                layer.apply(*pair)
            scores.append(task.accuracy(model, kept) * (1 - task.accuracy(model, gone)))
        return pairs[scores.index(max(scores))]

    def unsupported_reasons(self, task: TaskInfo) -> list[str]:
        """Add: the search needs validation data."""
        reasons = super().unsupported_reasons(task)
        searching = self.alpha_retain is None or self.alpha_forget is None
        if searching and not task.validation_size:
            reasons.append("searches its alphas on validation data, and none is held out")
        return reasons


@dataclass(frozen=True, eq=False)
class Eigenspace:
    """Eigenvectors of a second-moment matrix and their shares of its trace.

    Attributes:
        vectors: `(G, d, d)` float, eigenvectors in columns; G groups of the convolution.
        energies: `(G, d)` float, non-negative, summing to 1.
    """

    vectors: Tensor
    energies: Tensor

    def importance(self, alpha: float) -> Tensor:
        """Scaled importance alpha e / ((alpha - 1) e + 1), equation 3: 0 at alpha 0, 1 at inf."""
        return alpha * self.energies / ((alpha - 1) * self.energies + 1).clamp(min=1e-30)


class LayerSurgery:
    """One layer's weight in the two eigenspaces, so that each pair of alphas is cheap.

    Args:
        layer: Layer whose weight is replaced.
        retain: Eigenspace of its inputs on retain samples.
        forget: Eigenspace of its inputs on forget samples.
    """

    def __init__(self, layer: Layer, retain: Eigenspace, forget: Eigenspace) -> None:
        self.weight = layer.module.weight
        groups = len(retain.energies)
        self.original = self.weight.detach().clone()
        matrix = self.original.reshape(groups, len(self.weight) // groups, -1).to(
            retain.vectors.dtype
        )
        self.retain, self.forget = retain, forget
        self.in_retain = matrix @ retain.vectors
        self.in_forget = matrix @ forget.vectors
        self.overlap = retain.vectors.transpose(1, 2) @ forget.vectors

    def apply(self, alpha_retain: float, alpha_forget: float) -> None:
        """Set W - W P_f + W P_r P_f, equation 5; biases and norms stay."""
        by_retain = self.retain.importance(alpha_retain).unsqueeze(1)
        by_forget = self.forget.importance(alpha_forget).unsqueeze(1)
        shared = (self.in_retain * by_retain) @ self.overlap
        removed = ((self.in_forget - shared) * by_forget) @ self.forget.vectors.transpose(1, 2)
        self.weight.data.copy_(self.original - removed.reshape(self.weight.shape))


def moments(
    task: UnlearningTask, model: nn.Module, layers: list[Layer], examples: ExampleSet
) -> list[Tensor]:
    """Second moments of the inputs of every layer over all examples and positions.

    Args:
        task: Gives the pass over the examples.
        model: The original.
        layers: Its convolutions and linear layers.
        examples: N images, served with the evaluation transform.

    Returns:
        One `(G, d, d)` tensor a layer, the sum of x x^T; d is C_in k k / G for a convolution of
        G groups and the number of input features for a linear layer. Summed over batches
        in float64 up to d = 1200.
    """
    sums: dict[nn.Module, Tensor] = {}

    def adder(module: nn.Module) -> Callable[[Tensor], None]:
        def add(inputs: Tensor) -> None:
            rows = input_rows(module, inputs)
            wide = rows.shape[-1] > DOUBLE_UP_TO or rows.device.type == "mps"
            product = rows.transpose(1, 2) @ rows
            product = product if wide else product.double()
            sums[module] = sums[module] + product if module in sums else product

        return add

    task.observe(model, examples, inputs={x.module: adder(x.module) for x in layers})
    return [sums[layer.module] for layer in layers]


def input_rows(module: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs of a layer as the rows that its weight multiplies.

    Args:
        module: `nn.Conv2d` (any stride, padding, dilation, groups) or `nn.Linear`.
        inputs: `(N, C, H, W)` or `(..., d)`.

    Returns:
        `(G, n, d)`: for a convolution of G groups every patch of every image is a row.
    """
    from torch import nn
    from torch.nn import functional as F  # noqa: N812

    if not isinstance(module, nn.Conv2d):
        return inputs.reshape(1, -1, inputs.shape[-1])
    if type(module).__name__ == "Conv2dSame":  # timm: pads by the size of the input
        from timm.layers.padding import pad_same

        inputs = pad_same(
            inputs, list(module.kernel_size), list(module.stride), list(module.dilation)
        )
    else:
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        inputs = F.pad(inputs, module._reversed_padding_repeated_twice, mode)
    patches = F.unfold(inputs, module.kernel_size, module.dilation, 0, module.stride)
    n, wide, positions = patches.shape
    groups = module.groups
    grouped = patches.reshape(n, groups, wide // groups, positions)
    return grouped.permute(1, 0, 3, 2).reshape(groups, n * positions, wide // groups)


def eigenspace(moment: Tensor) -> Eigenspace:
    """Eigenvectors and normalised energies of `(G, d, d)` second moments."""
    import torch

    on_cpu = moment.device.type == "mps"  # no eigendecomposition there
    values, vectors = torch.linalg.eigh(moment.cpu() if on_cpu else moment)
    values = values.clamp(min=0)
    energies = values / values.sum(-1, keepdim=True).clamp(min=1e-30)
    return Eigenspace(vectors.to(moment.device), energies.to(moment.device))


def split_by_class(examples: ExampleSet, classes: tuple[int, ...]) -> tuple[ExampleSet, ExampleSet]:
    """Part a set into the examples outside and inside the given classes."""
    import torch

    inside = torch.isin(examples.labels, torch.tensor(classes, device=examples.ids.device))
    return examples.subset((~inside).nonzero()[:, 0]), examples.subset(inside.nonzero()[:, 0])
