"""Accuracy splits of a model: retain, forget, validation and test.

Definitions: forget and retain accuracy are on training images with the evaluation transform,
test accuracy on the official test images. For whole classes the test images are parted too:
`test_retain_acc` on the kept classes, `test_forget_acc` on the forgotten ones.

Changes:
    1: first version.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..batches import ExampleSet
from ..evaluate import accuracy, logits

VERSION = 1


def accuracy_splits(
    model: nn.Module, sets: Mapping[str, ExampleSet], forget_classes: tuple[int, ...]
) -> dict[str, float]:
    """Measure all accuracies of a model.

    Args:
        model: The model to measure.
        sets: Example sets under `retain`, `forget`, `test` and, unless empty, `validation`.
        forget_classes: The forgotten classes, or empty if the forget set is not whole classes.

    Returns:
        Fractions in [0, 1] by metric name.
    """
    metrics = {
        "retain_acc": accuracy(model, sets["retain"]),
        "forget_acc": accuracy(model, sets["forget"]),
    }
    if len(sets["validation"]):
        metrics["val_acc"] = accuracy(model, sets["validation"])
    test = sets["test"]
    labels = test.labels
    hits = (logits(model, test).argmax(1) == labels).double()
    metrics["test_acc"] = float(hits.mean())
    if forget_classes:
        forgotten = torch.isin(labels, torch.tensor(forget_classes, device=labels.device))
        for name, part in (("test_forget_acc", forgotten), ("test_retain_acc", ~forgotten)):
            if bool(part.any()):
                metrics[name] = float(hits[part].mean())
    return metrics
