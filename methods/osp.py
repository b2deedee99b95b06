"""OSP: orthogonal soft pruning. Train decorrelated filters, then damp those of the forget class.

Source: Gong, Yang, Tang, "Orthogonal Soft Pruning for Efficient Class Unlearning", 2025,
    https://arxiv.org/abs/2506.19891 (v1). The penalty: Bansal, Chen, Wang, "Can We Gain More from
    Orthogonality Regularizations in Training Deep CNNs?", NeurIPS 2018,
    https://arxiv.org/abs/1810.09102.
Reference code: none was published. The selected share (25 %) and the floor of the damping (0.5)
    come from a third party's account of the formulas, so this is not an official reproduction.
Differences: the gate acts on scale and shift of the norm behind a convolution by default
    (`target=bn_affine`), because damping a kernel in front of BatchNorm moves its channel to a
    constant instead of silencing it. Channels whose score is not positive are left alone. Means of
    the kept classes count equally, whatever their sizes.
Cost: the penalty while the original is trained; `samples_per_class` forward passes in `prepare`,
    once for an original; then no data and no passes at all: an edit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import DeclinedError, Range, Unlearner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Layer, UnlearningTask

DEEP_STEM = 3  # convolutions in the deepest stem of timm's ResNets


class Osp(Unlearner):
    """Train with orthogonal filters, then damp the channels that prefer the forget class.

    Attributes:
        ortho_lambda: Weight of the penalty while the original is trained.
        ortho_form: `so` is the squared distance of the smaller Gram matrix to identity, summed
            over layers; `cosine` the mean squared cosine between different filters.
        samples_per_class: Training images a class for the statistics.
        statistic: What a channel's map is reduced to: its maximum, mean or root mean square.
        score: `diff` of class means, or `dprime`, the same in standard deviations.
        rho: Share of a layer's channels that are damped; 0 is the identity.
        q_min: Least damping of a selected channel; the first of k gets 1 - 1/k.
        target: What the gate multiplies: the norm's scale and shift, or kernel and bias.
    """

    name: ClassVar[str] = "osp"
    reference: ClassVar[str] = "Gong et al., 2025, arXiv 2506.19891"
    needs: ClassVar = frozenset({"training"})
    scope: ClassVar = frozenset({"class"})
    recipe: ClassVar[str | None] = "orthogonal"
    penalty_fields: ClassVar = frozenset({"ortho_lambda", "ortho_form"})
    prepare_fields: ClassVar = frozenset({"samples_per_class", "statistic"})

    ortho_lambda: Annotated[float, Field(ge=0), Range(1e-4, 1e-1, log=True)] = 1e-3
    ortho_form: Literal["so", "cosine"] = "so"
    samples_per_class: Annotated[int, Field(ge=1), Range(8, 128)] = 64
    statistic: Literal["max", "mean", "rms"] = "max"
    score: Literal["diff", "dprime"] = "diff"
    rho: Annotated[float, Field(ge=0, le=1), Range(0.05, 0.4)] = 0.25
    q_min: Annotated[float, Field(ge=0, le=1), Range(0.25, 1)] = 0.5
    target: Literal["bn_affine", "weight"] = "bn_affine"

    # --- phase A: the orthogonal recipe ------------------------------------------------------

    def training_penalty(self, model: nn.Module) -> Tensor:
        """Lambda times the sum (`so`) or mean (`cosine`) of the penalty over the layers."""
        import torch

        kernels = [module.weight.flatten(1) for module in penalised_convolutions(model)]
        if not kernels:
            return torch.zeros((), device=next(model.parameters()).device)
        if self.ortho_form == "so":
            return self.ortho_lambda * torch.stack([gram_error(W) for W in kernels]).sum()
        return self.ortho_lambda * torch.stack([mean_squared_cosine(W) for W in kernels]).mean()

    # --- phase B: statistics of every class --------------------------------------------------

    def prepare(self, model: nn.Module, task: UnlearningTask) -> Mapping[str, Tensor]:
        """Mean and variance of every channel's activation for every class.

        Returns:
            `mean.<layer>` and `var.<layer>`, each `(C, channels)` float32.
        """
        import torch

        layers = gated_layers(task.layers(model))
        sample = task.training.sample(self.samples_per_class * task.num_classes, balanced=True)
        maps: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}

        def keeper(name: str) -> Callable[[Tensor], None]:
            return lambda output: maps[name].append(self._reduce(output))

        task.observe(model, sample, outputs={x.output: keeper(x.name) for x in layers})
        table: dict[str, Tensor] = {}
        for name, parts in maps.items():
            values = torch.cat(parts)
            of_class = [values[sample.labels == c] for c in range(task.num_classes)]
            table[f"mean.{name}"] = torch.stack([a.mean(0) for a in of_class])
            table[f"var.{name}"] = torch.stack([a.var(0, correction=0) for a in of_class])
        return table

    def _reduce(self, activation: Tensor) -> Tensor:
        """`(N, K, H, W)` activations to `(N, K)`."""
        if self.statistic == "max":
            return activation.amax((2, 3))
        if self.statistic == "mean":
            return activation.mean((2, 3))
        return activation.square().mean((2, 3)).sqrt()

    # --- phases C to F: score, select, damp --------------------------------------------------

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Damp the selected channels of every gated layer."""
        damped = 0
        for layer in gated_layers(task.layers(model)):
            mean, var = task.prepared[f"mean.{layer.name}"], task.prepared[f"var.{layer.name}"]
            gate = self.gate(self.scores(mean, var, task.forget_classes))
            apply_gate(layer, gate, self.target)
            damped += int((gate < 1).sum())
        task.report(damped_channels=damped)
        return model

    def scores(self, mean: Tensor, var: Tensor, forget_classes: tuple[int, ...]) -> Tensor:
        """Preference of every channel for the forgotten classes.

        Args:
            mean: `(C, K)` class means of K channels.
            var: `(C, K)` class variances.
            forget_classes: Classes to forget; their statistics are averaged.

        Returns:
            `(K,)` signed scores, larger for channels that fire for the forgotten classes.
        """
        import torch

        gone = torch.zeros(len(mean), dtype=torch.bool, device=mean.device)
        gone[list(forget_classes)] = True
        difference = mean[gone].mean(0) - mean[~gone].mean(0)
        if self.score == "diff":
            return difference
        return difference / ((var[gone].mean(0) + var[~gone].mean(0)) / 2 + 1e-12).sqrt()

    def gate(self, scores: Tensor) -> Tensor:
        """Factor of every channel: 1 - q_r for rank r of k selected, q_r = max(q_min, 1 - r/k).

        Args:
            scores: `(K,)` scores.

        Returns:
            `(K,)` factors in [0, 1]; 1 for channels that are not selected.
        """
        import torch

        k = ceil(self.rho * len(scores))
        order = scores.argsort(descending=True, stable=True)[:k]
        rank = torch.arange(1, k + 1, device=scores.device)
        damping = (1 - rank / max(k, 1)).clamp(min=self.q_min).to(scores.dtype)
        gate = torch.ones_like(scores)
        gate[order] = 1 - damping
        return torch.where(scores > 0, gate, torch.ones_like(gate))


def penalised_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """Convolutions except the stem, grouped ones and the 1x1 of shortcuts.

    The excluded ones cannot have orthonormal filters, having more of them than inputs, or
    are the stem, whose penalty is reported to make training unstable. The stem is the first
    convolution and, in deep stems, its neighbours in a container of at most three.
    """
    from torch import nn

    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    first = next(iter(convolutions), "")
    container = first.rpartition(".")[0]
    stem = [n for n in convolutions if container and n.startswith(f"{container}.")]
    excluded = {first, *(stem if len(stem) <= DEEP_STEM else ())}
    return [
        module
        for name, module in convolutions.items()
        if name not in excluded
        and module.groups == 1
        and "downsample" not in name
        and "shortcut" not in name
    ]


def gram_error(W: Tensor) -> Tensor:
    """||G - I||_F^2 with the smaller Gram matrix G of `(rows, columns)` filters."""
    import torch

    gram = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
    return (gram - torch.eye(len(gram), device=W.device, dtype=W.dtype)).square().sum()


def mean_squared_cosine(W: Tensor) -> Tensor:
    """Mean over pairs of different rows of their squared cosine; blind to the rows' norms."""
    from torch.nn import functional as F  # noqa: N812

    n = len(W)
    rows = F.normalize(W, dim=1)
    squares = (rows @ rows.T).square()
    return (squares.sum() - squares.diagonal().sum()) / max(1, n * (n - 1))


def gated_layers(layers: list[Layer]) -> list[Layer]:
    """The layers whose channels may be damped: convolutions with a norm or activation behind.

    Raises:
        DeclinedError: If there is none, as in a vision transformer.
    """
    gated = [
        layer
        for layer in layers
        if layer.is_conv and not layer.is_head and layer.output is not layer.module
    ]
    if not gated:
        raise DeclinedError("the network has no convolution whose channels could be damped.")
    return gated


def apply_gate(layer: Layer, gate: Tensor, target: str) -> None:
    """Multiply scale and shift of the norm, or kernel and bias, by the gate.

    With (gamma, beta) scaled by g >= 0 a normalised channel becomes g times itself, and so does
    its ReLU. A layer without an affine norm is gated at its kernel, to the same effect.
    """
    has_affine = layer.norm is not None and getattr(layer.norm, "weight", None) is not None
    module = layer.norm if target == "bn_affine" and has_affine else layer.module
    for parameter in (getattr(module, "weight", None), getattr(module, "bias", None)):
        if parameter is not None:
            shape = (-1,) + (1,) * (parameter.dim() - 1)
            parameter.data.mul_(gate.to(parameter.dtype).view(shape))
