"""Complementary halves: which shadow model is trained on which example.

Shadow models come in pairs. One of a pair is trained on a random half of the examples and the
other on the rest, so that each example has, in every pair, one model that saw it and one that
never did. The halves are stratified by class and by every declared pool.

Source: the construction is ours (evaluation specification, section 2.6, steps 2 and 7); halves
of a fixed population after Carlini et al., "Membership inference attacks from first principles",
IEEE S&P 2022, https://arxiv.org/abs/2112.03570.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..errors import InputError

VERSION = 1
STREAM = 1  # keeps these random numbers apart from those of redraws with the same seed
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class PairError(InputError):
    """A keep matrix, a pool or seeds that are not of complementary, independent pairs."""


class LeakyReferenceError(PairError):
    """A target whose own scores, or its pair partner's, would be among the reference scores."""


@dataclass(frozen=True, eq=False)
class PairDesign:
    """The halves of a bank of shadow models.

    Attributes:
        keep: `(2P, D)` bool, whether a model is trained on an example; rows 2p and 2p+1 are
            complements.
        strata: `(D,)` int64, the stratum of each example: its class and the pools it is in.
        seed: What the halves were drawn with.
    """

    keep: BoolArray = field(repr=False)
    strata: IntArray = field(repr=False)
    seed: int

    @property
    def n_models(self) -> int:
        """Number of shadow models, twice the number of pairs."""
        return len(self.keep)

    def forget_ids(self, model: int, pool: npt.ArrayLike) -> IntArray:
        """Members of a pool that a model was trained on: its forget set."""
        ids = pool_ids(pool, self.keep.shape[1])
        forgotten: IntArray = ids[self.keep[model, ids]]
        return forgotten

    def control_ids(self, model: int, pool: npt.ArrayLike) -> IntArray:
        """Members of a pool that a model never saw; no method may see them either."""
        ids = pool_ids(pool, self.keep.shape[1])
        controls: IntArray = ids[~self.keep[model, ids]]
        return controls


def pair_design(
    labels: npt.ArrayLike,
    n_pairs: int,
    pools: Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike] = (),
    seed: int = 0,
) -> PairDesign:
    """Draw complementary halves, stratified by class and by every pool.

    Either model of a pair gets floor(n/2) or ceil(n/2) of the n examples of a class, of those that
    are in the same pools, and of those that are both; and of each pool, where of any two pools one
    contains the other. A pair depends on the seed and its own number alone: drawing more pairs
    leaves the first ones as they are.

    Args:
        labels: `(D,)` integer classes.
        n_pairs: P, the number of pairs, at least 1.
        pools: Ids (integers in [0, D)) or `(D,)` bool masks; names serve the caller only.
        seed: A non-negative integer.

    Returns:
        The halves, with `keep` of shape `(2P, D)`.

    Raises:
        PairError: If labels are not a vector of integers, there are no pairs, or a pool is bad.

    Example:
        >>> design = pair_design([0, 0, 0, 0, 1, 1], n_pairs=2, pools=[[0, 1]], seed=3)
        >>> design.keep.shape, design.keep[:, :2].sum(1).tolist()
        ((4, 6), [1, 1, 1, 1])
    """
    y = np.asarray(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y):
        raise PairError(f"`labels` must be `(D,)` integers; got {y.dtype} of shape {y.shape}.")
    if n_pairs < 1:
        raise PairError(f"`n_pairs` must be at least 1; got {n_pairs}.")
    if seed < 0:
        raise PairError(f"`seed` must not be negative; got {seed}.")
    listed = pools.values() if isinstance(pools, Mapping) else pools
    masks = np.zeros((len(y), len(list(listed))), dtype=np.int64)
    for column, pool in enumerate(listed):
        masks[pool_ids(pool, len(y)), column] = 1
    strata = _numbered(np.column_stack([masks, y.astype(np.int64)]))
    classes, groups = _numbered(y.astype(np.int64)[:, None]), _numbered(masks)
    keep = np.empty((2 * n_pairs, len(y)), dtype=np.bool_)
    for pair in range(n_pairs):
        rng = np.random.default_rng((seed, pair, STREAM))
        keep[2 * pair] = _half(strata, classes, groups, rng)
    keep[1::2] = ~keep[0::2]
    return PairDesign(keep, strata, seed)


def pool_ids(pool: npt.ArrayLike | None, n_examples: int) -> IntArray:
    """Give a pool as distinct ids in the order given; None is everything.

    Args:
        pool: `(E,)` ids, or a `(D,)` bool mask.
        n_examples: D.

    Raises:
        PairError: If ids repeat, are out of range or not integers, or a mask has another length.
    """
    if pool is None:
        return np.arange(n_examples, dtype=np.int64)
    ids = np.asarray(pool)
    if ids.dtype == np.bool_ and ids.shape == (n_examples,):
        return np.flatnonzero(ids).astype(np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
        raise PairError(
            f"a pool must be ids or a mask of {n_examples} examples; "
            f"got {ids.dtype} of shape {ids.shape}."
        )
    if ids.min() < 0 or ids.max() >= n_examples:
        raise PairError(
            f"ids of a pool must be in [0, {n_examples}); got {ids.min()} to {ids.max()}."
        )
    if len(np.unique(ids)) < len(ids):
        raise PairError(f"ids of a pool must differ; got {len(ids)}, {len(np.unique(ids))} unique.")
    return ids.astype(np.int64)


def check_pairs(keep: npt.ArrayLike, least: int = 1) -> BoolArray:
    """Make sure that rows 2p and 2p+1 of a keep matrix are complements.

    Args:
        keep: `(2P, E)` bool.
        least: The smallest P allowed.

    Returns:
        The matrix as an array.

    Raises:
        PairError: If it is not bool, has an odd number of rows or too few, or two rows of a pair
            are not complements.
    """
    matrix = np.asarray(keep)
    if matrix.dtype != np.bool_ or matrix.ndim != 2:
        raise PairError(
            f"`keep` must be a bool matrix of models by examples; "
            f"got {matrix.dtype} of shape {matrix.shape}."
        )
    if len(matrix) % 2:
        raise PairError(f"`keep` must have an even number of models; got {len(matrix)}.")
    if len(matrix) < 2 * least:
        raise PairError(f"`keep` must have at least {2 * least} models; got {len(matrix)}.")
    wrong = (matrix[0::2] == matrix[1::2]).sum(1)
    if wrong.any():
        pair = int(np.argmax(wrong > 0))
        raise PairError(
            f"models {2 * pair} and {2 * pair + 1} are not complementary: "
            f"{int(wrong[pair])} of {matrix.shape[1]} examples are in both or in neither; "
            "every example must be in exactly one of each pair."
        )
    return matrix


def check_seeds(*seeds: Sequence[int] | npt.NDArray[np.integer]) -> None:
    """Make sure that no two models were trained with the same seed.

    Args:
        seeds: The seeds of one or several sets of models.

    Raises:
        PairError: If a seed occurs twice; models that share one are not independent.
    """
    counts = Counter(int(seed) for group in seeds for seed in group)
    twice = [seed for seed, count in counts.items() if count > 1]
    if twice:
        raise PairError(
            f"seeds of shadow models must all differ; got {twice[0]} "
            f"{counts[twice[0]]} times ({len(twice)} seeds repeat)."
        )


def _numbered(rows: IntArray) -> IntArray:
    """Number distinct rows."""
    if not rows.shape[1]:
        return np.zeros(len(rows), dtype=np.int64)
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _half(
    strata: IntArray, classes: IntArray, groups: IntArray, rng: np.random.Generator
) -> BoolArray:
    """Draw a half: couple at random within strata and take one of each couple."""
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    _, start, size = np.unique(strata[order], return_index=True, return_counts=True)
    left = (start + size - 1)[size % 2 == 1]
    coupled = np.delete(order, left).reshape(-1, 2)
    coins = rng.random(len(coupled)) < 0.5
    half = np.empty(len(order), dtype=np.bool_)
    half[coupled[:, 0]], half[coupled[:, 1]] = coins, ~coins
    _part(rng.permutation(order[left]), classes, groups, half, rng)
    return half


def _part(
    single: IntArray,
    classes: IntArray,
    groups: IntArray,
    half: BoolArray,
    rng: np.random.Generator,
) -> None:
    """Part those left over, one a stratum, so that classes and groups stay balanced too.

    Each is an edge between its class and its group. Made even at all nodes by further edges, the
    graph is one of closed walks, of even length since it is bipartite: taking every other edge of
    a walk takes half of the edges at every node.
    """
    graph = nx.MultiGraph()
    for example in single.tolist():
        graph.add_edge(("class", int(classes[example])), ("group", int(groups[example])), example)
    odd = {
        side: sorted(node for node, degree in graph.degree() if node[0] == side and degree % 2)
        for side in ("class", "group")
    }
    extra = -1
    for side, nodes in odd.items():
        other = "group" if side == "class" else "class"
        # neighbours err in opposite directions, so that a union of consecutive groups hardly does
        for first, second in zip(nodes[0::2], nodes[1::2], strict=False):
            for place, node in enumerate((first, second)):
                graph.add_edge(node, (other, extra), extra - place)
            extra -= 2
    if len(odd["class"]) % 2:  # then so is the number of odd groups
        graph.add_edge(odd["class"][-1], odd["group"][-1], extra)
    for nodes in list(nx.connected_components(graph)):
        taken = rng.random() < 0.5
        for *_, example in nx.eulerian_circuit(graph.subgraph(nodes), keys=True):
            if example >= 0:
                half[example] = taken
            taken = not taken
