"""Population attacks: one attacker for all examples of one model.

They are weak where a per-example attack is strong, and stand beside it to show the difference.
Each goes by its own name, because published figures called "MIA" measure different things.

Members and non-members must be of one class mix, or the attack learns classes instead: with whole
classes forgotten, compare the forget set with never-trained examples of the same class.

Source:
    thresholds, modified entropy: Song, Mittal, "Systematic evaluation of privacy risks of machine
        learning models", USENIX Security 2021, https://arxiv.org/abs/2003.10595
    `mia_challenge_accuracy`: starter kit of the NeurIPS 2023 unlearning challenge, also used by
        SCRUB, https://arxiv.org/abs/2302.09880
    `mia_entropy_member_rate`: Chundawat et al., "Can bad teaching induce forgetting?", AAAI 2023,
        https://arxiv.org/abs/2205.08096, with logistic regression as SSD has it,
        https://arxiv.org/abs/2308.07707
    `mia_svc_efficacy`: Jia et al., "Model sparsity can simplify machine unlearning", NeurIPS 2023,
        https://arxiv.org/abs/2304.04934
Differences: modified entropy is Song and Mittal's; the `m_entropy` of later code is another
quantity, and not reproduced.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

from .folds import select
from .lrt import FloatArray
from .margin import MarginError, Values, as_array, check_finite, logit_margin
from .pairs import pool_ids
from .rates import auc

VERSION = 1


def confidence(logits: Values, labels: Values) -> FloatArray:
    """Probability of the true class, `(...)`, from `(..., C)` logits."""
    p: FloatArray = special.expit(logit_margin(logits, labels))
    return p


def cross_entropy(logits: Values, labels: Values) -> FloatArray:
    """Loss of the true class in nats, `(...)`, from `(..., C)` logits."""
    loss: FloatArray = np.logaddexp(0, -logit_margin(logits, labels))
    return loss


def entropy(logits: Values) -> FloatArray:
    """Entropy of the prediction in nats, `(...)`, from `(..., C)` logits."""
    log_p = _log_softmax(logits)
    bits: FloatArray = -(np.exp(log_p) * log_p).sum(-1)
    return bits


def mod_entropy_songmittal(logits: Values, labels: Values) -> FloatArray:
    """Modified entropy in nats: 0 for a sure right answer, large for a sure wrong one.

    `-(1 - p_y) log p_y - sum over j != y of p_j log(1 - p_j)`

    Args:
        logits: `(..., C)`.
        labels: `(...)` integers.

    Example:
        >>> p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
        >>> mod_entropy_songmittal(np.log(p), [0, 1]).round(6).tolist()
        [0.162167, 3.370413]
    """
    margin = logit_margin(logits, labels)  # checks both
    log_p = _log_softmax(logits)
    every = np.broadcast_to(np.arange(log_p.shape[-1]), log_p.shape)
    of_class = logit_margin(np.repeat(log_p[..., None, :], log_p.shape[-1], axis=-2), every)
    # log(1 - p_j) = -log(1 + exp(phi_j)), which does not cancel where p_j is near 1
    terms = np.exp(log_p) * np.logaddexp(0, of_class)
    true = np.asarray(as_array(labels), dtype=np.intp)[..., None]
    others = terms.sum(-1) - np.take_along_axis(terms, true, -1)[..., 0]
    total: FloatArray = special.expit(-margin) * np.logaddexp(0, -margin) + others
    return total


# Scores by name; the higher, the more like a member.
SIGNALS: dict[str, Callable[[Values, Values], FloatArray]] = {
    "confidence": confidence,
    "loss": lambda logits, labels: -cross_entropy(logits, labels),
    "entropy": lambda logits, _labels: -entropy(logits),
    "mod_entropy_songmittal": lambda logits, labels: -mod_entropy_songmittal(logits, labels),
}


def margin_auc(margins: Values, keep: npt.ArrayLike, pool: npt.ArrayLike | None = None) -> float:
    """AUC of forgotten against never-trained examples of one model, averaged over models.

    One-sided: below 0.5 forgotten examples look less familiar than never-trained ones.

    Args:
        margins: `(2P, D)` or `(2P, V, D)` margins, of which the mean over views is taken.
        keep: `(2P, D)` bool, whether a model was trained on an example before it forgot it.
        pool: Ids or mask of the target examples; None is all D.

    Raises:
        InputError: If an argument is bad; see `leave_pair_out`.
    """
    values, matrix = select(margins, keep, pool, least_pairs=1)
    mean = values.mean(1)
    return float(
        np.mean([auc(row[kept], row[~kept]) for row, kept in zip(mean, matrix, strict=True)])
    )


def threshold_accuracy(
    scores: Values,
    keep: npt.ArrayLike,
    pool: npt.ArrayLike | None = None,
    classes: npt.ArrayLike | None = None,
) -> float:
    """Balanced accuracy of a global threshold, or one a class, set on the other pairs of models.

    Args:
        scores: `(2P, D)` a signal for which members are high, such as one of `SIGNALS`.
        keep: `(2P, D)` bool, whether a model was trained on an example before it forgot it.
        pool: Ids or mask of the target examples; None is all D.
        classes: `(D,)` integers, for a threshold each; None for one.

    Raises:
        InputError: If an argument is bad; see `leave_pair_out`.
    """
    values, matrix = select(scores, keep, pool, least_pairs=2)
    rows = values.mean(1)
    ids = pool_ids(pool, np.shape(keep)[1])
    groups = np.zeros(len(ids), dtype=np.int64) if classes is None else np.asarray(classes)[ids]
    right = 0
    for group in np.unique(groups):
        part = groups == group
        right += _right_calls(rows[:, part], matrix[:, part])
    return right / int(rows.size)


def mia_challenge_accuracy(forget: npt.ArrayLike, test: npt.ArrayLike, seed: int = 0) -> float:
    """Cross-validated accuracy of telling the losses of forget from test examples.

    Logistic regression, ten stratified random splits; the larger set is thinned to the smaller.
    The ideal is the retrained model's value, near 0.5.

    Args:
        forget: `(n,)` losses of the forget set, nats.
        test: `(m,)` losses of the test set, nats.
        seed: Of thinning and splits.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    rng = np.random.default_rng(seed)
    sets = [_features(values, name) for values, name in ((forget, "forget"), (test, "test"))]
    size = min(len(values) for values in sets)
    thinned = [values[rng.permutation(len(values))[:size]] for values in sets]
    splits = StratifiedShuffleSplit(n_splits=10, random_state=seed)
    target = np.repeat([1, 0], size)
    folds = cross_val_score(
        LogisticRegression(random_state=0), np.concatenate(thinned), target, cv=splits
    )
    return float(np.mean(folds))


def mia_entropy_member_rate(
    retain: npt.ArrayLike, test: npt.ArrayLike, forget: npt.ArrayLike
) -> float:
    """Share of the forget set that entropies of retain and test set call a member.

    Balanced logistic regression. The ideal is the retrained model's value, not 0.

    Args:
        retain: `(n,)` entropies of predictions on the retain set, nats.
        test: `(m,)` on the test set.
        forget: `(f,)` on the forget set.
    """
    from sklearn.linear_model import LogisticRegression

    members, others = _features(retain, "retain"), _features(test, "test")
    attack = LogisticRegression(class_weight="balanced", random_state=0)
    attack.fit(np.concatenate([members, others]), np.repeat([1, 0], [len(members), len(others)]))
    return float(np.mean(attack.predict(_features(forget, "forget")) == 1))


def mia_svc_efficacy(retain: npt.ArrayLike, test: npt.ArrayLike, forget: npt.ArrayLike) -> float:
    """Share of the forget set that a support vector machine calls a NON-member.

    The machine (C = 3, radial kernel, gamma one over the number of features) tells the first
    members of the retain set, as many as there are test examples, from the test set. The ideal is
    the retrained model's value.

    Args:
        retain: `(n,)` or `(n, F)` features on the retain set, usually the confidence.
        test: `(m,)` or `(m, F)` on the test set.
        forget: `(f,)` or `(f, F)` on the forget set.
    """
    from sklearn.svm import SVC

    others = _features(test, "test")
    members = _features(retain, "retain")[: len(others)]
    attack = SVC(C=3, kernel="rbf", gamma="auto", random_state=0)
    attack.fit(np.concatenate([members, others]), np.repeat([1, 0], [len(members), len(others)]))
    return float(np.mean(attack.predict(_features(forget, "forget")) == 0))


def _log_softmax(logits: Values) -> FloatArray:
    z = as_array(logits)
    check_finite(z, "logits")
    log_p: FloatArray = special.log_softmax(z, axis=-1)
    return log_p


def _features(values: npt.ArrayLike, name: str) -> FloatArray:
    rows = as_array(values)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not len(rows):
        raise MarginError(f"`{name}` must be `(n,)` or `(n, F)`, n >= 1; got {rows.shape}.")
    check_finite(rows, name)
    return rows


def _right_calls(rows: FloatArray, kept: npt.NDArray[np.bool_]) -> int:
    """Number of right calls, each pair by the threshold that is best on all others."""
    order = np.argsort(rows, axis=None, kind="stable")[::-1]
    value, member = rows.ravel()[order], kept.ravel()[order]
    pair = order // rows.shape[1] // 2
    right = 0
    for own in range(len(rows) // 2):
        other = pair != own
        seen, gain = value[other], np.cumsum(np.where(member[other], 1, -1))
        last = np.r_[seen[1:] != seen[:-1], True]  # a threshold does not part equal scores
        best = int(np.argmax(np.where(last, gain, -1)))
        threshold = seen[best] if gain[best] > 0 else np.inf
        right += int(((value[~other] >= threshold) == member[~other]).sum())
    return right
