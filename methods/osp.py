"""OSP: orthogonal soft pruning. Train decorrelated filters, then damp those of the forget class.

Source: Gong, Yang, Tang, "Orthogonal Soft Pruning for Efficient Class Unlearning", 2025,
    https://arxiv.org/abs/2506.19891 (v1); "adaptive" after the title of a later version. The score
    `tfidf`: Wang, Guo, Xie, Qi, "Federated Unlearning via Class-Discriminative Pruning", WWW 2022,
    https://arxiv.org/abs/2110.11794. Penalties: see `bench/orthogonality.py`.
Reference code: none was published. The selected share (25 %) and the floor of the damping (0.5)
    come from a third party's account of the formulas, so this is not an official reproduction.
Differences: the gate acts on scale and shift of the norm behind a convolution by default
    (`target=bn_affine`), because damping a kernel in front of BatchNorm moves its channel to a
    constant instead of silencing it. Channels whose score is not positive are left alone. Means of
    the kept classes count equally, whatever their sizes. Hidden units of MLPs (`units=mlp`), the
    search and the scores other than `diff` are extensions.
Cost: the penalty while the original is trained; `samples_per_class` forward passes in `prepare`,
    once for an original; then no data and no passes at all: an edit. A search adds a pass over the
    validation set for every candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..bench import DeclinedError, FineTuning, Range, Unlearner, Unsearched, When

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..bench import ChannelUnit, ClassStatistics, TaskInfo, UnlearningTask

RHOS = (0.05, 0.1, 0.25, 0.4)
TAUS = (3.0, 2.0, 1.5, 1.0)  # in place of shares, where a threshold selects
Q_MINS = (0.25, 0.5, 0.75, 1.0)
# shares of the epochs up to which the penalty has its weight, after Bansal et al.
DECAY = ((0.1, 1.0), (0.25, 1e-3), (0.35, 1e-4), (0.6, 1e-6))
STAGES = {"all": 2, "last_two": 1, "last": 0}
TINY = 1e-12


class Osp(Unlearner):
    """Train with orthogonal filters, then damp the channels that prefer the forget class.

    Attributes:
        ortho_lambda: Weight of the penalty while the original is trained; `cosine`, a mean and
            not a sum, needs 0.1 to 10 to do anything.
        ortho_form: `so`, `cosine`, `dso`, `srip` or `oconv`; see `bench/orthogonality.py`.
        ortho_layers: Convolutions that are penalised: `default` leaves out the stem, shortcuts of
            1x1 and grouped ones; `all`; `first` of every block; those of the `last_two` stages.
        ortho_schedule: `constant`, or `decay` in steps to 0 at 60 % of the epochs.
        ortho_weight_decay: `keep` it on penalised kernels, or `zero`, which the penalty replaces.
        finetune_epochs: A plain original goes on for so many epochs with the penalty; None trains
            with it from scratch.
        finetune_lr: Peak step size of that.
        samples_per_class: Training images a class for the statistics.
        statistic: What a channel's map is reduced to: its maximum, mean or root mean square.
        units: Channels of convolutions (`conv`), hidden units of MLPs (`mlp`), or both.
        score: `diff` of class means; `dprime`, the same in standard deviations; `margin` above
            the kept class with the largest mean; or `tfidf`.
        pooling: Several classes have the `mean` or the `max` of their scores.
        selection: The share `rho` of every `layer`, or of all channels by standardised scores
            (`global`), or those above a `threshold` of `tau` standard deviations in their layer.
        rho: Share of the channels that is damped; 0 is the identity.
        tau: See `selection`.
        stages: Stages in which channels are damped.
        strength: By `rank`: the r-th of k is damped by max(q_min, 1 - r / k). `constant`: by
            q_min. `proportional` to the score, at least q_min.
        q_min: Least damping of a selected channel; 1 silences it.
        target: What the gate multiplies: `bn_affine`, `weight` or `gate`; see
            `bench/channel_units.py`.
        sequential: Forget several classes one after the other, each without those before.
        search: Try 4 shares, or thresholds, with 4 floors on validation data and take the `best`
            RA (1 - FA), or the `first` with FA of at most 1 / C; or `off`.
    """

    name: ClassVar[str] = "osp"
    reference: ClassVar[str] = "Gong et al., 2025, arXiv 2506.19891"
    needs: ClassVar = frozenset({"training", "validation"})
    scope: ClassVar = frozenset({"class"})
    recipe: ClassVar[str | None] = "orthogonal"
    penalty_version: ClassVar[int] = 2
    penalty_fields: ClassVar = frozenset(
        {
            "ortho_lambda",
            "ortho_form",
            "ortho_layers",
            "ortho_schedule",
            "ortho_weight_decay",
            "finetune_epochs",
            "finetune_lr",
        }
    )
    prepare_fields: ClassVar = frozenset({"samples_per_class", "statistic", "units"})

    ortho_lambda: Annotated[float, Field(ge=0), Range(1e-4, 1e-1, log=True)] = 1e-3
    ortho_form: Literal["so", "cosine", "dso", "srip", "oconv"] = "so"
    ortho_layers: Literal["default", "all", "first", "last_two"] = "default"
    ortho_schedule: Literal["constant", "decay"] = "constant"
    ortho_weight_decay: Literal["keep", "zero"] = "keep"
    finetune_epochs: Annotated[int, Field(ge=1)] | None = None
    finetune_lr: Annotated[float, Field(gt=0), Range(1e-3, 1e-1, log=True)] = 0.01
    samples_per_class: Annotated[int, Field(ge=1), Range(8, 128)] = 64
    statistic: Literal["max", "mean", "rms"] = "max"
    units: Annotated[Literal["conv", "mlp", "both"], Unsearched()] = "conv"
    score: Literal["diff", "dprime", "margin", "tfidf"] = "diff"
    pooling: Annotated[Literal["mean", "max"], Unsearched()] = "mean"
    selection: Literal["layer", "global", "threshold"] = "layer"
    rho: Annotated[
        float, Field(ge=0, le=1), Range(0.05, 0.4), When(selection=("layer", "global"))
    ] = 0.25
    tau: Annotated[float, Field(ge=0), Range(1, 3), When(selection="threshold")] = 2.0
    stages: Literal["all", "last_two", "last"] = "all"
    strength: Literal["rank", "constant", "proportional"] = "rank"
    q_min: Annotated[float, Field(ge=0, le=1), Range(0.25, 1)] = 0.5
    target: Literal["bn_affine", "weight", "gate"] = "bn_affine"
    sequential: Annotated[bool, Unsearched()] = False
    search: Annotated[Literal["off", "best", "first"], Unsearched()] = "off"

    # --- phase A: the orthogonal recipe ------------------------------------------------------

    def training_penalty(self, model: nn.Module) -> Tensor:
        """Lambda times the distance of the chosen convolutions from orthogonal ones."""
        from ..bench import orthogonality_penalty

        return self.ortho_lambda * orthogonality_penalty(model, self.ortho_form, self.ortho_layers)

    def penalty_weight(self, progress: float) -> float:
        """1, or the steps of `DECAY`."""
        if self.ortho_schedule == "constant":
            return 1.0
        return next((weight for end, weight in DECAY if progress < end), 0.0)

    def undecayed(self, model: nn.Module) -> list[Tensor]:
        """The penalised kernels, if the penalty replaces their weight decay."""
        from ..bench import chosen_convolutions

        if self.ortho_weight_decay == "keep":
            return []
        return [layer.weight for layer in chosen_convolutions(model, self.ortho_layers)]

    @property
    def fine_tuning(self) -> FineTuning | None:
        """As the fields say."""
        if self.finetune_epochs is None:
            return None
        return FineTuning(self.finetune_epochs, self.finetune_lr)

    # --- phase B: statistics of every class --------------------------------------------------

    def prepare(self, model: nn.Module, task: UnlearningTask) -> Mapping[str, Tensor]:
        """Mean and variance of every channel's activation for every class."""
        from ..bench import find_channel_units, measure_classes

        kinds: tuple[Literal["conv", "mlp"], ...]
        kinds = ("conv", "mlp") if self.units == "both" else (self.units,)
        units = find_channel_units(model, task.layers(model), kinds)
        sample = task.training.sample(self.samples_per_class * task.num_classes, balanced=True)
        return measure_classes(model, sample, task.num_classes, units, self.statistic).to_tensors()

    # --- phases C to F: score, select, damp --------------------------------------------------

    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Damp the selected channels; no data are needed, unless a search is asked for."""
        from ..bench import ClassStatistics, is_exact

        statistics = ClassStatistics.from_tensors(task.prepared)
        statistics.check(model)
        method = self if self.search == "off" else self._search(model, statistics, task)
        _, damped = method.apply(model, statistics, task.forget_classes, task.rng)
        inexact = sum(not is_exact(unit, self.target) for unit in statistics.units)
        task.report(
            units=len(statistics.units),
            inexact_units=inexact,
            layers_left=len(statistics.left),
            damped_channels=damped,
        )
        return model

    def edit(
        self,
        model: nn.Module,
        statistics: ClassStatistics,
        classes: Sequence[int],
        rng: torch.Generator | None = None,
    ) -> ClassStatistics:
        """Forget classes by a model's own statistics, in place and without data.

        Args:
            model: The model that they are of.
            statistics: What its channels do on each class.
            classes: Classes to forget, which have not been forgotten yet.
            rng: For variants that draw.

        Returns:
            The statistics of the edited model, for the next request.

        Raises:
            DeclinedError: If the statistics lack a class, or no class would be kept.
            InputError: If they are of another model, or a class is wrong.
        """
        statistics.check(model)
        statistics.check_classes(classes)
        return self.apply(model, statistics, classes, rng)[0].of(model)

    def apply(
        self,
        model: nn.Module,
        statistics: ClassStatistics,
        classes: Sequence[int],
        rng: torch.Generator | None,
    ) -> tuple[ClassStatistics, int]:
        """Damp the channels; the statistics after it, not yet of any model, and how many."""
        from ..bench import damp_channels

        steps = [(c,) for c in classes] if self.sequential else [tuple(classes)]
        damped = 0
        for step in steps:
            gates = self.gates(statistics, step)
            for unit in statistics.units:
                gates[unit.layer] = self.rearrange(gates[unit.layer], unit, model, rng)
                damp_channels(model, unit, gates[unit.layer], self.target)
            damped += sum(int((gate < 1).sum()) for gate in gates.values())
            statistics = statistics.damped(gates, step)
        return statistics, damped

    def rearrange(
        self, gate: Tensor, unit: ChannelUnit, model: nn.Module, rng: torch.Generator | None
    ) -> Tensor:
        """Give the factors to other channels than their own; controls do."""
        return gate

    def gates(self, statistics: ClassStatistics, classes: Sequence[int]) -> dict[str, Tensor]:
        """Factors of all channels, `(K,)` in [0, 1] by name of the unit's layer."""
        import torch

        gone = sorted({*classes, *statistics.forgotten})
        kept = [c for c in range(statistics.num_classes) if c not in gone]
        counts = statistics.count.tolist()
        kept = [c for c in kept if counts[c]]
        if not any(unit.late <= STAGES[self.stages] for unit in statistics.units):
            raise DeclinedError(f"no channel could be damped in the chosen stages ({self.stages}).")
        if not kept or not all(counts[c] for c in classes):
            raise DeclinedError("there are no statistics of a forgotten class, or of any other.")
        scores = {}
        for unit in statistics.units:
            mean, var = statistics.mean[unit.layer], statistics.var[unit.layer]
            if unit.late > STAGES[self.stages]:
                scores[unit.layer] = torch.full_like(mean[0], -torch.inf)
            else:
                scores[unit.layer] = self.scores(mean, var, classes, kept)
        sizes = self._sizes(scores)
        return {name: self.gate(score, sizes[name]) for name, score in scores.items()}

    def scores(
        self, mean: Tensor, var: Tensor, classes: Sequence[int], kept: Sequence[int]
    ) -> Tensor:
        """Preference of every channel for the forgotten classes.

        Args:
            mean: `(C, K)` class means of K channels.
            var: `(C, K)` class variances.
            classes: Classes to forget.
            kept: Classes to compare with.

        Returns:
            `(K,)` signed scores, larger for channels that fire for the forgotten classes.
        """
        f, r = mean[list(classes)], mean[list(kept)]
        if self.score == "diff":
            each = f - r.mean(0)
        elif self.score == "dprime":
            spread = (var[list(classes)] + var[list(kept)].mean(0)) / 2
            each = (f - r.mean(0)) / (spread + TINY).sqrt()
        elif self.score == "margin":
            each = f - r.amax(0)
        else:
            each = tf_idf(mean, classes, kept)
        return each.mean(0) if self.pooling == "mean" else each.amax(0)

    def _sizes(self, scores: Mapping[str, Tensor]) -> dict[str, int]:
        """How many channels of a unit are selected; those without preference drop out later."""
        import torch

        if self.selection == "layer":
            return {name: ceil(self.rho * len(s)) for name, s in scores.items()}
        standard = {
            name: (s - s.mean()) / (s.std(correction=0) + TINY)
            for name, s in scores.items()
            if bool(s.isfinite().all())
        }
        if self.selection == "threshold":
            chosen = {name: s > self.tau for name, s in standard.items()}
        else:
            every = torch.cat(list(standard.values()))
            k = ceil(self.rho * len(every))
            bound = every.topk(k).values[-1] if k else torch.inf
            chosen = {name: s >= bound for name, s in standard.items()}
        return {name: int(chosen[name].sum()) if name in chosen else 0 for name in scores}

    def gate(self, scores: Tensor, k: int) -> Tensor:
        """Factor 1 - q of every channel, for the k with the largest scores.

        Args:
            scores: `(K,)` scores.
            k: How many are selected; those whose score is not positive drop out.

        Returns:
            `(K,)` factors in [0, 1]; 1 for channels that are not selected.
        """
        import torch

        order = scores.argsort(descending=True, stable=True)[:k]
        if self.strength == "rank":
            rank = torch.arange(1, k + 1, device=scores.device, dtype=scores.dtype)
            damping = (1 - rank / max(k, 1)).clamp(min=self.q_min)
        elif self.strength == "constant":
            damping = torch.full_like(scores[order], self.q_min)
        else:
            damping = (scores[order] / scores.max().clamp(min=TINY)).clamp(self.q_min, 1)
        gate = torch.ones_like(scores)
        gate[order] = 1 - damping
        return torch.where(scores > 0, gate, torch.ones_like(gate))

    # --- phase G: the search -----------------------------------------------------------------

    def _search(self, model: nn.Module, statistics: ClassStatistics, task: UnlearningTask) -> Osp:
        """The method with the share and floor that serve best on validation data."""
        from ..bench import restore_channels

        kept, gone = task.validation.parted(task.forget_classes)
        if not (len(kept) and len(gone)):
            raise DeclinedError(
                "searches on validation data, which lack the forgotten or the kept."
            )
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        drawn = task.rng.get_state()  # what is tried is what is taken: controls draw the same
        field, sizes = ("tau", TAUS) if self.selection == "threshold" else ("rho", RHOS)
        best, found, tried = -1.0, self, 0
        with task.phase("search"):
            for size, q_min in ((size, q) for size in sizes for q in Q_MINS):
                candidate = self.model_copy(update={field: size, "q_min": q_min})
                task.rng.set_state(drawn)
                candidate.apply(model, statistics, task.forget_classes, task.rng)
                fa, ra = task.accuracy(model, gone), task.accuracy(model, kept)
                restore_channels(model, state)
                tried += 1
                reached = fa <= 1 / task.num_classes
                if (self.search == "first" and reached) or ra * (1 - fa) > best:
                    best, found = ra * (1 - fa), candidate
                if self.search == "first" and reached:
                    break
        task.rng.set_state(drawn)
        chosen = {field: getattr(found, field), "q_min": found.q_min}
        task.report(**chosen, candidates=tried, search_score=best)
        return found

    def unsupported_reasons(self, task: TaskInfo) -> list[str]:
        """Add: the search needs validation data."""
        reasons = super().unsupported_reasons(task)
        if self.search != "off" and not task.validation_size:
            reasons.append("searches on validation data, and none is held out")
        return reasons


def tf_idf(mean: Tensor, classes: Sequence[int], kept: Sequence[int]) -> Tensor:
    """Share of a channel in its class's activation, times how few classes it fires for.

    Args:
        mean: `(C, K)` class means; negative ones count as 0.
        classes: F classes to forget.
        kept: The others that count.

    Returns:
        `(F, K)` scores TF IDF with TF_j = a_cj / sum_j' a_cj' and IDF_j = log((1 + C) / (1 + n_j)),
        n_j being the number of classes whose mean is at least the mean over classes.
    """
    a = mean[[*classes, *kept]].clamp(min=0)
    share = a[: len(classes)] / a[: len(classes)].sum(1, keepdim=True).clamp(min=TINY)
    fires = (a >= a.mean(0)).sum(0)
    return share * ((1 + len(a)) / (1 + fires)).log()
