"""What tuning makes best, measured without the test set; and which point of a front is taken.

On the `validation` track a model is judged by what a deployer has: the forget set and images that
were held out of training.

    retain    Accuracy on validation images of the kept classes; of all, where the forget set is
              not whole classes.
    forget    For whole classes 1 - the accuracy on the forget set, of which a retrained model
              knows nothing. Else 1 - |2 AUC - 1|, where AUC is that of telling the forget set from
              validation images of the same classes by the loss: 1 if the model treats what it
              forgot like what it never saw, 0 if an attacker is always right. Where no validation
              image is of those classes, 1 - |accuracy on the forget set - retain|.
    seconds   Seconds inside `unlearn`.
    balance   retain x forget.

On the `oracle` track `retain` and `forget` are 1 - the distance to a model that was retrained from
the same development original: of the accuracy on validation images of the kept classes, and of the
mean of the accuracy on the forget set and, where they are defined, of its AUC and of the accuracy
on validation images of the forgotten classes. It is an upper bound on what tuning can do, and
stands beside no honest figure.

The AUC of a single model does not say what an attacker with shadow models learns; tuning by it may
look more private than U-LIRA finds. That is for U-LIRA to say, on models that tuning never saw.

Source: Hayes et al., 2024, https://arxiv.org/abs/2403.01218, on what tuning must not touch; the
product of accuracies in the manner of ToW, Zhao et al., 2024, https://arxiv.org/abs/2406.01257.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .metrics.rates import auc
from .tuning_settings import Objective, Track

if TYPE_CHECKING:
    from .evaluate import Outputs

MAXIMISED = {"retain": True, "forget": True, "seconds": False, "balance": True}
TIE = 0.01  # forget qualities that differ by less are a tie, which the faster one wins


def tuning_figures(
    outputs: Mapping[str, Outputs], forget_classes: tuple[int, ...]
) -> dict[str, float]:
    """What is known of a model without the test set.

    Args:
        outputs: Under `forget` and `validation`.
        forget_classes: The forgotten classes, or empty if the forget set is not whole classes.

    Returns:
        Fractions: `forget_acc`; `val_retain_acc`; for whole classes `val_forget_acc`, else
        `forget_auc`. Those of an empty set are left out.
    """
    import torch

    forget, held_out = outputs["forget"], outputs["validation"]
    device = held_out.labels.device
    figures = {"forget_acc": float(forget.hits.mean())}
    if forget_classes:
        gone = torch.isin(held_out.labels, torch.tensor(forget_classes, device=device)).cpu()
        for name, part in (("val_forget_acc", gone), ("val_retain_acc", ~gone)):
            if bool(part.any()):
                figures[name] = float(held_out.hits[part].mean())
        return figures
    figures["val_retain_acc"] = float(held_out.hits.mean())
    same = torch.isin(held_out.labels, torch.unique(forget.labels))
    if bool(same.any()):
        losses = [
            torch.nn.functional.cross_entropy(
                part.logits.double(), part.labels, reduction="none"
            ).cpu()
            for part in (forget, held_out)
        ]
        figures["forget_auc"] = auc(-losses[0].numpy(), -losses[1][same.cpu()].numpy())
    return figures


def qualities(
    figures: Mapping[str, float],
    retrained: Mapping[str, float] | None = None,
    *,
    whole: bool = False,
) -> dict[str, float]:
    """`retain`, `forget` and `balance` of one model, each in [0, 1].

    They are not linear in the figures: models are judged one by one, and then averaged.

    Args:
        figures: What `tuning_figures` gave.
        retrained: The same of the retrained model, on the oracle track.
        whole: Whether the forget set is whole classes.
    """
    if retrained is not None:
        near = {k: 1 - abs(figures[k] - retrained[k]) for k in figures.keys() & retrained.keys()}
        retain = near.pop("val_retain_acc", 0.0)
        forget = fmean(near.values())
    else:
        retain = figures.get("val_retain_acc", 0.0)
        if "forget_auc" in figures:
            forget = 1 - abs(2 * figures["forget_auc"] - 1)
        elif "val_forget_acc" in figures or whole:
            forget = 1 - figures["forget_acc"]
        else:
            forget = 1 - abs(figures["forget_acc"] - retain)
    return {"retain": retain, "forget": forget, "balance": retain * forget}


def judge(
    models: Sequence[Mapping[str, float]],
    retrained: Sequence[Mapping[str, float]] | None = None,
    *,
    whole: bool,
) -> dict[str, float]:
    """Means over development models of their qualities.

    Args:
        models: Figures of each.
        retrained: Figures of the model that was retrained from each, on the oracle track.
        whole: Whether the forget sets are whole classes.
    """
    none: list[Mapping[str, float] | None] = [None] * len(models)
    references = none if retrained is None else list(retrained)
    judged = [qualities(m, r, whole=whole) for m, r in zip(models, references, strict=True)]
    return {name: fmean(each[name] for each in judged) for name in judged[0]}


def means(models: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over development models of the figures that all of them have."""
    names = set.intersection(*(set(figures) for figures in models))
    return {name: fmean(figures[name] for figures in models) for name in sorted(names)}


class Point(NamedTuple):
    """A trial that came to its end.

    Attributes:
        number: Of the trial.
        retain: See above.
        forget: See above.
        seconds: See above.
    """

    number: int
    retain: float
    forget: float
    seconds: float

    def value(self, objective: Objective) -> float:
        """What is made best."""
        if objective == "balance":
            return self.retain * self.forget
        return float(getattr(self, objective))


def front(points: Sequence[Point], objectives: Sequence[Objective]) -> list[Point]:
    """The points than which no other is better in one objective and worse in none, in order."""
    signs = np.array([1.0 if MAXIMISED[name] else -1.0 for name in objectives])
    values = np.array([[point.value(name) for name in objectives] for point in points])
    values = values.reshape(len(points), len(objectives)) * signs
    return [
        point
        for point, own in zip(points, values, strict=True)
        if not bool(((values >= own).all(1) & (values > own).any(1)).any())
    ]


def choose(
    points: Sequence[Point], objectives: Sequence[Objective], original: float, tolerance: float
) -> Point | None:
    """The one point that is taken, by a rule that is the same for every method.

    With one objective it is the best. With several, of the front: those that keep at least
    (1 - tolerance) of the original's `retain`; of these, those whose `forget` is within 0.01 of
    the best; of these, the fastest. If none keeps so much, the best `balance` of the front. Ties
    go to the earlier trial.

    Args:
        points: Trials that came to their end.
        objectives: What was made best.
        original: `retain` of the development originals before unlearning.
        tolerance: Share of it that may be lost.

    Returns:
        None if there are no points.
    """
    if not points:
        return None
    best = front(points, objectives)
    if len(objectives) == 1:
        name = objectives[0]
        return max(best, key=lambda p: (p.value(name) * (1 if MAXIMISED[name] else -1), -p.number))
    kept = [p for p in best if p.retain >= (1 - tolerance) * original]
    if not kept:
        return max(best, key=lambda p: (p.value("balance"), -p.number))
    most = max(p.forget for p in kept)
    return min((p for p in kept if p.forget >= most - TIE), key=lambda p: (p.seconds, p.number))


def rule(objectives: Sequence[Objective], track: Track, tolerance: float) -> str:
    """The rule of `choose` as a sentence."""
    compared = " (distances to the retrained model)" if track == "oracle" else ""
    if len(objectives) == 1:
        return f"Chosen: the best {objectives[0]}{compared}; ties go to the earlier trial."
    return (
        f"Chosen from the front of {', '.join(objectives)}{compared}: of the trials that keep at "
        f"least {100 * (1 - tolerance):g} % of the original's retain, and forget within {TIE:g} "
        "of the best, the fastest; if none keeps so much, the best retain x forget."
    )
