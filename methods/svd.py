"""SVD forgetting: project the directions that only the forget class uses out of every layer.

Source: Kodge, Saha, Roy, "Deep Unlearning: Fast and Efficient Gradient-free Approach to Class
    Forgetting", TMLR 2024, https://arxiv.org/abs/2312.00761, section 4 and algorithm 1.
Reference code: https://github.com/sangamesh-kodge/class_forgetting (read for its facts; none used).
Differences: none in the equations. Instead of a singular value decomposition of the stored
    representation matrix R, the projection is worked out from R R^T, which is accumulated over
    all patches and tokens, by a Cholesky factorisation: the same matrix for a small part of the
    memory and time. The authors' code subsamples R, cuts feature maps to 3k x 3k and augments:
    `max_patches`, `crop3k` and `augmented` do so here. Samples are drawn at random (the authors
    take the first ones). Alphas are chosen on validation data (the authors' script uses the test
    set). A network with a weight matrix that cannot be reached is declined.
Cost: one forward pass over `retain_samples` and one over `forget_samples`, a factorisation of each
    layer for every alpha, and a forward pass over the validation set for every pair of alphas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import Field

from ..bench import DeclinedError, Range, Unlearner, Unsearched

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..bench import Energy, ExampleSet, Layer, TaskInfo, UnlearningTask

Alpha = Annotated[float, Field(gt=0)]
SHOWN = 3  # weights that are named when a network is declined


class Svd(Unlearner):
    """Remove what the forget class does not share with the retain set, layer by layer.

    Attributes:
        alpha_retain: Scaling of the retain projection; None searches `grid_retain`.
        alpha_forget: Scaling of the forget projection; None likewise. 0 changes nothing.
        grid_retain: Scalings of the retain projection that are searched.
        grid_forget: Scalings of the forget projection that are searched.
        retain_samples: Retain images for the statistics, the same number from every class.
        forget_samples: Forget images for the statistics.
        sequential: Forget several classes one by one, each from the model as edited so far, the
            classes forgotten before being in neither set and the later ones in the retain set;
            else all at once.
        max_patches: Patches or tokens of a layer that are used at most, drawn from all; None
            uses all. The authors use 10,000.
        crop3k: Cut feature maps wider than three kernels to one random window of three kernels.
        augmented: Take the statistics under the training transform.
    """

    name: ClassVar[str] = "svd"
    reference: ClassVar[str] = "Kodge et al., TMLR 2024, arXiv 2312.00761"
    needs: ClassVar = frozenset({"forget", "retain", "validation"})
    scope: ClassVar = frozenset({"class"})

    alpha_retain: Annotated[float, Field(gt=0), Range(10, 3000, log=True)] | None = None
    alpha_forget: Annotated[float, Field(ge=0), Range(0.3, 300, log=True)] | None = None
    grid_retain: Annotated[tuple[Alpha, ...], Field(min_length=1)] = (10, 30, 100, 300, 1000)
    grid_forget: Annotated[tuple[Alpha, ...], Field(min_length=1)] = (1, 3, 10, 30, 100)
    retain_samples: Annotated[int, Field(ge=1), Range(90, 990)] = 900
    forget_samples: Annotated[int, Field(ge=1), Range(90, 900)] = 900
    sequential: Annotated[bool, Unsearched()] = False
    max_patches: Annotated[int, Field(ge=1)] | None = None
    crop3k: Annotated[bool, Unsearched()] = False
    augmented: Annotated[bool, Unsearched()] = False

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Project every convolution and linear layer at once; class by class if sequential."""
        layers = reachable_layers(model, task)
        steps = make_steps(task.forget_classes, self.sequential)
        for step in steps:
            chosen = self._forget(model, task, layers, step)
            suffix = f"_class_{step.classes[0]}" if len(steps) > 1 else ""
            task.report(**{f"{key}{suffix}": value for key, value in chosen.items()})
        return model

    def _forget(
        self, model: nn.Module, task: UnlearningTask, layers: list[Layer], step: Step
    ) -> dict[str, float]:
        """Edit with the alphas given or, if there are several, with the best; say which.

        The moments of the retain samples are given up before those of the forget samples come.
        """
        import torch

        grid = self._grid()
        surgery = [LayerSurgery(layer) for layer in layers]
        retain, forget = self._samples(task, step)
        windows = torch.rand(len(layers), 2, generator=task.rng).tolist() if self.crop3k else None
        for part, samples in (("retain", retain), ("forget", forget)):
            with task.phase("statistics"):
                energies = self._measure(model, task, layers, samples, windows)
            with task.phase("search") if grid.is_search else nullcontext():
                for edited, energy in zip(surgery, energies, strict=True):
                    if part == "retain":
                        edited.leave_retain(energy, grid.retain)
                    else:
                        edited.enter_forget(energy)
        if grid.is_search:
            with task.phase("search"):
                return search(model, task, surgery, grid, step)
        for edited in surgery:
            edited.put(edited.candidates(grid.forget[0])[0])
        return {"alpha_retain": grid.retain[0], "alpha_forget": grid.forget[0]}

    def _grid(self) -> Grid:
        """The alphas given, or those to search."""
        retains = {self.alpha_retain} if self.alpha_retain is not None else set(self.grid_retain)
        forgets = {self.alpha_forget} if self.alpha_forget is not None else set(self.grid_forget)
        return Grid(sorted(retains, reverse=True), sorted(forgets))

    def _samples(
        self, task: UnlearningTask, step: Step
    ) -> tuple[list[ExampleSet], list[ExampleSet]]:
        """Retain and forget samples; of what is kept, the same number from every class."""
        later, classes = len(step.later), len(step.later) + len(set(task.retain.labels.tolist()))
        share = round(self.retain_samples * later / classes)
        retain = [task.retain.sample(self.retain_samples - share, balanced=True)]
        if later:
            retain.append(task.forget.parted(step.later)[1].sample(share, balanced=True))
        return retain, [task.forget.parted(step.classes)[1].sample(self.forget_samples)]

    def _measure(
        self,
        model: nn.Module,
        task: UnlearningTask,
        layers: list[Layer],
        samples: list[ExampleSet],
        windows: Sequence[tuple[float, float]] | None,
    ) -> Iterator[Energy]:
        """Energies of the inputs of every layer, each to be given up as soon as it is used."""
        from ..bench import Energy, second_moments

        moments = second_moments(
            model,
            [layer.module for layer in layers],
            samples,
            task.rng,
            windows=windows,
            max_columns=self.max_patches,
            augmented=self.augmented,
        )
        return (Energy(moments.pop(0)) for _ in layers)

    def unsupported_reasons(self, task: TaskInfo) -> list[str]:
        """Add: the search needs validation data."""
        reasons = super().unsupported_reasons(task)
        if self._grid().is_search and not task.validation_size:
            reasons.append("searches its alphas on validation data, and none is held out")
        return reasons


class Step(NamedTuple):
    """Classes to forget now, those forgotten before, and those to forget later."""

    classes: tuple[int, ...]
    before: tuple[int, ...]
    later: tuple[int, ...]


class Grid(NamedTuple):
    """Scalings to try, the gentlest first."""

    retain: list[float]
    forget: list[float]

    @property
    def is_search(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.retain) * len(self.forget) > 1


class LayerSurgery:
    """One layer's weight, projected halfway, so that each pair of alphas is cheap.

    Args:
        layer: Layer whose weight is replaced.
    """

    def __init__(self, layer: Layer) -> None:
        from ..bench import weight_matrix

        self.module = layer.module
        self.original = weight_matrix(layer.module)

    def leave_retain(self, energy: Energy, alphas: Sequence[float]) -> None:
        """W (I - P_r), below one another for R alphas, given the energy on retain samples."""
        import torch

        W = self.original.to(energy.dtype)
        self.rows = torch.cat([energy.project_out(W, alpha) for alpha in alphas], 1)

    def enter_forget(self, energy: Energy) -> None:
        """The part of W (I - P_r) P_f that is common to all alphas, from the forget energy."""
        self.energy = energy
        self.rows = energy.times(self.rows)

    def candidates(self, alpha_forget: float) -> list[Tensor]:
        """W - W (I - P_r) P_f for every alpha_retain, equation 5; biases and norms stay."""
        removed = self.energy.project(self.rows, alpha_forget).to(self.original.dtype)
        count = self.original.shape[1]
        starts = range(0, removed.shape[1], count)
        return [self.original - removed[:, start : start + count] for start in starts]

    def put(self, matrix: Tensor) -> None:
        """Make it the layer's weight."""
        from ..bench import set_weight_matrix

        set_weight_matrix(self.module, matrix)


def search(
    model: nn.Module, task: UnlearningTask, surgery: list[LayerSurgery], grid: Grid, step: Step
) -> dict[str, float]:
    """Edit with the alphas of the largest RA (1 - FA) on validation data, of equals the first.

    Raises:
        DeclinedError: If the validation data lack the forgotten classes or the kept.
    """
    kept, _ = task.validation.parted((*step.before, *step.classes))
    _, gone = task.validation.parted(step.classes)
    if not (len(kept) and len(gone)):
        raise DeclinedError(
            "searches its alphas on validation data, which lack the forgotten or the kept."
        )
    best, weights, highest = {}, [], -1.0
    for alpha_forget in grid.forget:
        candidates = [layer.candidates(alpha_forget) for layer in surgery]
        for place, alpha_retain in enumerate(grid.retain):
            for layer, matrices in zip(surgery, candidates, strict=True):
                layer.put(matrices[place])
            retain_acc, forget_acc = task.accuracy(model, kept), task.accuracy(model, gone)
            if retain_acc * (1 - forget_acc) > highest:
                highest = retain_acc * (1 - forget_acc)
                weights = [matrices[place] for matrices in candidates]
                best = {
                    "alpha_retain": alpha_retain,
                    "alpha_forget": alpha_forget,
                    "validation_retain_acc": retain_acc,
                    "validation_forget_acc": forget_acc,
                }
    for layer, matrix in zip(surgery, weights, strict=True):
        layer.put(matrix)
    return best


def reachable_layers(model: nn.Module, task: UnlearningTask) -> list[Layer]:
    """All convolutions and linear layers.

    Raises:
        DeclinedError: If the network has a weight matrix that is none of theirs.
    """
    from ..bench import uncovered_weights

    layers = task.layers(model)
    gaps = uncovered_weights(model, layers, task.blank_batch().images)
    if gaps:
        more = f"; and {len(gaps) - SHOWN} more" if len(gaps) > SHOWN else ""
        raise DeclinedError(
            "would edit this network in part only, for it cannot reach all of its weights: "
            f"{'; '.join(gaps[:SHOWN])}{more}."
        )
    return layers


def make_steps(classes: tuple[int, ...], sequential: bool) -> list[Step]:
    """One step for all classes, or one for each in turn."""
    if not sequential:
        return [Step(classes, (), ())]
    return [Step(classes[i : i + 1], classes[:i], classes[i + 1 :]) for i in range(len(classes))]
