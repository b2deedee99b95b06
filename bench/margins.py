"""Margins of all images under one model: what an attack keeps of a shadow model.

They are stored under the key of the shadow model, or of its unlearning, as the artefact
`margins`. Columns are the official training images in order of their ids, then the test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .batches import ExampleSet, Pixels
from .dataset import ImageData
from .errors import StoreError
from .evaluate import logits
from .metrics.margin import logit_margin
from .metrics.population import entropy, mod_entropy_songmittal
from .store import Store

KIND = "margins"
SIGNALS = ("entropy", "mod_entropy")


@dataclass(frozen=True, eq=False)
class MarginStack:
    """Margins of several models on the same images.

    Attributes:
        margins: `(N, V, D + T)` float32 logit margins, nats; D training and T test images. View 0
            is the image as it is, view 1 its mirror image where that keeps the label.
        entropy: `(N, D + T)` float32 entropy of the prediction in view 0, nats.
        mod_entropy: `(N, D + T)` float32 modified entropy in view 0, nats.
        correct: `(N, D + T)` bool, whether view 0 is classified correctly.
        meta: What was stored beside the margins of each model.
    """

    margins: npt.NDArray[np.float32]
    entropy: npt.NDArray[np.float32]
    mod_entropy: npt.NDArray[np.float32]
    correct: npt.NDArray[np.bool_]
    meta: tuple[dict[str, Any], ...]


def read_margins(model: nn.Module, data: ImageData, device: torch.device) -> dict[str, Tensor]:
    """Read the margins of all images of a dataset, in float32 and eval mode.

    Returns:
        `margins` `(V, D + T)`, `entropy` and `mod_entropy` `(D + T,)` float32, computed in
        float64, and `correct` `(D + T,)` bool.

    Raises:
        DivergedError: If an output is not finite.
    """
    sets = []
    for role in ("train", "test"):
        pixels = Pixels(data, role, device)
        sets.append(ExampleSet(role, pixels, pixels.ids, 1, torch.Generator(), {}))
    labels = np.concatenate([data.train_labels, data.test_labels])
    views = [
        torch.cat([logits(model, s, mirrored=mirrored).cpu() for s in sets]).numpy()
        for mirrored in ((False, True) if data.flip else (False,))
    ]
    plain = views[0]
    return {
        "margins": _float(np.stack([logit_margin(view, labels) for view in views])),
        "entropy": _float(entropy(plain)),
        "mod_entropy": _float(mod_entropy_songmittal(plain, labels)),
        "correct": torch.from_numpy(plain.argmax(1) == labels),
    }


def put_margins(
    store: Store, key: str, margins: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Store the margins of a model."""
    store.put(KIND, key, meta, margins)


def get_margins(store: Store, keys: tuple[str, ...]) -> MarginStack:
    """Load the margins of several models.

    Raises:
        StoreError: If margins are missing, damaged, or of other images than those of the first.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    meta = []
    for key in keys:
        found = store.get(KIND, key)
        if found is None:
            raise StoreError(f"the margins `{key}` are not in the store `{store.root}`.")
        meta.append(found.meta)
        for name, tensor in found.tensors().items():
            parts.setdefault(name, []).append(tensor.numpy())
    for name, arrays in parts.items():
        if len(arrays) != len(keys) or len({array.shape for array in arrays}) != 1:
            raise StoreError(f"the `{name}` of these shadow models are not of the same images.")
    return MarginStack(
        margins=np.stack(parts["margins"]),
        entropy=np.stack(parts["entropy"]),
        mod_entropy=np.stack(parts["mod_entropy"]),
        correct=np.stack(parts["correct"]),
        meta=tuple(meta),
    )


def _float(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
