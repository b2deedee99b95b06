"""What a forget request costs with orthogonal soft pruning, once the statistics are stored.

    python tests/benchmarks/osp_request.py
    python tests/benchmarks/osp_request.py --images 400 --repeat 20 --threads 2

A ResNet-18 of full width with a 3x3 stem, 10 classes, random images of 32x32x3. Statistics, a
request (select and edit), the same with fresh statistics read from a file, a search, and retraining
are timed in one run. Times do not depend on what the images show, and retraining is linear in
images and epochs, so that it is timed on few and also given for CIFAR-10's own numbers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch

from unlearnbench.bench import METHODS, ClassStatistics, ImageData
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.recipe import Recipe, TrainingSettings
from unlearnbench.bench.task import UnlearningTask
from unlearnbench.bench.taskinfo import TaskInfo
from unlearnbench.bench.training import train_recipe

CLASSES = 10
CIFAR_IMAGES, CIFAR_EPOCHS = 45_000, 200


def random_images(count: int) -> ImageData:
    """Random images with labels in turn."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = (np.arange(count) % CLASSES).astype(np.int64)
    names = tuple(map(str, range(CLASSES)))
    return ImageData(images, labels, images[:10], labels[:10], names, (0.5,) * 3, (0.25,) * 3)


def seconds_of(call: Callable[[], object], repeat: int = 1) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)


@click.command()
@click.option("--images", type=click.IntRange(100), default=400, help="Images; one epoch of them.")
@click.option("--repeat", type=click.IntRange(1), default=50, help="Requests.")
@click.option("--threads", type=click.IntRange(1), default=1, help="Threads of torch.")
@click.option("--samples", type=click.IntRange(1), default=32, help="Images a class, statistics.")
def main(images: int, repeat: int, threads: int, samples: int) -> None:
    """Time statistics, requests, a search and retraining of a ResNet-18."""
    torch.set_num_threads(threads)
    spec = create_model_spec("resnet18")
    data = random_images(images)
    model = build_model(spec, CLASSES, data.image_shape, 0).eval()
    settings = TrainingSettings(epochs=1, batch_size=100)
    device = torch.device("cpu")
    pixels = Pixels(data, "train", device)

    def examples(role: str, ids: np.ndarray) -> ExampleSet:
        return ExampleSet(role, pixels, ids, 100, torch.Generator().manual_seed(0), {})

    everything = np.arange(images)
    info = TaskInfo(
        model_spec=spec,
        recipe=Recipe("plain", settings),
        forget_classes=(3,),
        forget_size=images // CLASSES,
        retain_size=images - images // CLASSES,
        validation_size=100,
        num_classes=CLASSES,
        image_shape=data.image_shape,
    )
    task = UnlearningTask(
        info,
        method="osp",
        sets={
            "training": examples("training", everything),
            "validation": examples("validation", everything[:100]),
        },
        device=device,
        rng=torch.Generator().manual_seed(0),
        served={},
    )
    osp = METHODS.create(f"osp[samples_per_class={samples}]")
    statistics_s = seconds_of(lambda: setattr(task, "prepared", osp.prepare(model, task)))
    statistics = ClassStatistics.from_tensors(task.prepared)
    copies = [deepcopy(model) for _ in range(repeat + 1)]
    with torch.no_grad():
        osp.unlearn(copies.pop(), task)  # the first call is not typical
        request_s = seconds_of(lambda: osp.unlearn(copies.pop(), task), repeat)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "statistics.safetensors"
            statistics.save(path)
            copies = [deepcopy(model) for _ in range(repeat)]
            file_s = seconds_of(
                lambda: osp.edit(copies.pop(), ClassStatistics.load(path), (3,)), repeat
            )
            size = path.stat().st_size
        searching = METHODS.create("osp[search=best]")
        search_s = seconds_of(lambda: searching.unlearn(deepcopy(model), task))
    retain = everything[data.train_labels != 3]
    fresh = build_model(spec, CLASSES, data.image_shape, 1)
    retrain_s = seconds_of(
        lambda: train_recipe(fresh, examples("retain", retain), Recipe("plain", settings))
    )
    per_image_s = retrain_s / len(retain)
    cifar_s = per_image_s * 0.9 * CIFAR_IMAGES * CIFAR_EPOCHS
    click.echo(f"ResNet-18, {threads} thread(s), {len(statistics.units)} units.\n")
    click.echo("| what | seconds |\n| --- | ---: |")
    click.echo(f"| statistics, {samples} images a class, once | {statistics_s:.3f} |")
    click.echo(f"| request: select and edit, median of {repeat} | {request_s:.5f} |")
    click.echo(f"| the same with the statistics read from a file ({size:,} B) | {file_s:.5f} |")
    click.echo(f"| search: 16 candidates on 100 images | {search_s:.3f} |")
    click.echo(f"| retrain: {len(retain)} images, 1 epoch | {retrain_s:.3f} |")
    click.echo(f"| retrain at that pace on CIFAR-10, {CIFAR_EPOCHS} epochs | {cifar_s:.0f} |")
    click.echo(f"\nA request is {retrain_s / request_s:,.0f} times faster than that one epoch,")
    click.echo(f"and {cifar_s / request_s:,.0f} times faster than retraining for {CIFAR_EPOCHS}.")


if __name__ == "__main__":
    main()
