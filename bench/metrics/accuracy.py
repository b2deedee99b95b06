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

from ..evaluate import Outputs

VERSION = 1


def accuracy_splits(
    outputs: Mapping[str, Outputs], forget_classes: tuple[int, ...]
) -> dict[str, float]:
    """Accuracies of a model on all sets.

    Args:
        outputs: Under `retain`, `forget`, `test` and, where there is such a set, `validation`.
        forget_classes: The forgotten classes, or empty if the forget set is not whole classes.

    Returns:
        Fractions in [0, 1] by metric name.
    """
    metrics = {
        name: float(outputs[role].hits.mean())
        for name, role in (
            ("retain_acc", "retain"),
            ("forget_acc", "forget"),
            ("val_acc", "validation"),
            ("test_acc", "test"),
        )
        if role in outputs
    }
    if forget_classes:
        test = outputs["test"]
        forgotten = torch.isin(test.labels, torch.tensor(forget_classes, device=test.labels.device))
        for name, part in (("test_forget_acc", forgotten), ("test_retain_acc", ~forgotten)):
            if bool(part.any()):
                metrics[name] = float(test.hits[part].mean())
    return metrics
