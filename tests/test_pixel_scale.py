"""Images as pixels between 0 and 1, and back."""

from __future__ import annotations

import numpy as np
import torch

from unlearnbench.bench import Unlearner
from unlearnbench.bench.pixel_scale import PixelScale

from .toys import toy_images, toy_task


class Open(Unlearner):
    """Declares the forget set."""

    name = "open"
    reference = "test"
    needs = frozenset({"forget"})

    def unlearn(self, model, task):
        return model


def test_pixels_of_a_set_are_the_bytes_of_the_dataset():
    task = toy_task(Open())
    batch = next(task.forget.batches(50))
    pixels = task.forget.pixel_scale.to_pixels(batch.images)
    bytes_ = toy_images().train_images[batch.ids.numpy()]
    assert np.array_equal((pixels * 255).round().numpy(), bytes_)
    assert torch.allclose(task.forget.pixel_scale.normalised(pixels), batch.images, atol=1e-5)


def test_every_channel_has_its_own_scale():
    mean, std = torch.tensor([0.5, 0.25, 0.0]), torch.tensor([0.5, 0.25, 2.0])
    scale = PixelScale(mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1))
    images = torch.ones(2, 3, 1, 1)
    assert scale.to_pixels(images)[1, :, 0, 0].tolist() == [1.0, 0.5, 2.0]
    assert scale.normalised(images)[0, :, 0, 0].tolist() == [1.0, 3.0, 0.5]
