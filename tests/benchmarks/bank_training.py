"""What a bank of shadow models costs, strategy by strategy.

A U-LIRA attack needs many models, each trained on a half of its own with a seed of its own.
Every strategy below trains the same bank from the same seeds and reads every model's margins on
the training set; all of that is timed.

    python tests/benchmarks/bank_training.py
    python tests/benchmarks/bank_training.py --models 64 --device cuda
    python tests/benchmarks/bank_training.py --strategies resident,stacked-4,stacked-16-bf16

Strategies, with `-N` for stacks of N models and `-bf16` for autocast where that makes sense:

    sequential         the usual loop, one model after the other: float32, a DataLoader and
                       torchvision's transforms, image by image
    resident           one model after the other by `train_recipe`, images resident on the device
    nudged             as `resident`, but the first weights are changed in their last bit: a
                       control, of what training makes of rounding
    processes          as `resident`, in one process with one thread for every core
    stacked            `train_stacked`, one stack after the other
    processes+stacked  stacks, in one process with one thread for every core

All strategies take turns, `--repeats` times, and the median is given, because machines are
shared. Times of processes do not contain their start, which is given apart. What runs in this
process has `--threads` threads, all by default; where other programs keep a core busy, two
threads can be many times slower than one, and only `--threads 1` compares. `torch.func.vmap` is
not among the strategies: it has no running statistics of BatchNorm.

Margins are compared with those of `resident`; `sequential` draws other random numbers, so only
its accuracy compares. Training amplifies rounding, by other kernels or another number of
threads: read the differences of `stacked` beside those of `nudged`, and beside the spread from
seed to seed that is printed below the table. That stacked training computes the same is tested
in float64, where nothing is lost.
"""

from __future__ import annotations

import os
import re
import statistics
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms

from unlearnbench.bench import DATASETS, ImageData
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.environment import cpu_count, hardware, resolve_device
from unlearnbench.bench.evaluate import accuracy, logits
from unlearnbench.bench.keys import derive_seed
from unlearnbench.bench.metrics.margin import logit_margin
from unlearnbench.bench.metrics.pairs import pair_design
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.recipe import Recipe, TrainingSettings
from unlearnbench.bench.stacked import stackable, train_stacked
from unlearnbench.bench.training import make_optimizer, schedule_scale, train_recipe

DEFAULT = "sequential,resident,nudged,processes,stacked-4,stacked-8,stacked-16,"
DEFAULT += "processes+stacked-8,processes-bf16,processes+stacked-8-bf16"
PRELOAD = ["unlearnbench.bench.preload", "unlearnbench.bench.stacked", "torchvision.transforms"]
Measured = list[tuple[int, np.ndarray, float]]  # number of a model, its margins, its accuracy


@dataclass(frozen=True)
class Strategy:
    """How the bank is trained."""

    name: str
    loop: str
    processes: bool
    stack: int
    precision: str

    @classmethod
    def parse(cls, name: str, size: int) -> Strategy:
        """Read `processes+stacked-8-bf16` and the like."""
        found = re.fullmatch(
            r"(sequential|resident|nudged|processes|(?:processes\+)?stacked)(-\d+)?(-bf16)?", name
        )
        if found is None or (found[2] and "stacked" not in name):
            raise click.BadParameter(f"unknown strategy `{name}`; see the head of this file.")
        loop = "stacked" if "stacked" in name else name.removesuffix("-bf16")
        if loop == "processes":
            loop = "resident"
        stack = (int(found[2][1:]) if found[2] else size) if loop == "stacked" else 1
        precision = "bf16" if found[3] else "fp32"
        return cls(name, loop, name.startswith("processes"), stack, precision)


@dataclass
class Bank:
    """Everything that determines the bank, and the data once they are loaded."""

    dataset: str
    data_root: str
    model: str
    settings: dict
    models: int
    device: str
    seed: int = 0
    data: ImageData = field(init=False)

    def load(self) -> Bank:
        """Read the images, put them on the device and draw the halves."""
        self.data = DATASETS.create(self.dataset).load(Path(self.data_root))
        self.keep = pair_design(self.data.train_labels, self.models // 2, seed=self.seed).keep
        device = torch.device(self.device)
        self.train = Pixels(self.data, "train", device)
        self.test = Pixels(self.data, "test", device)
        return self

    def recipe(self, precision: str = "fp32") -> Recipe:
        return Recipe("plain", TrainingSettings(**self.settings | {"precision": precision}))

    def network(self, number: int) -> nn.Module:
        seed = derive_seed(self.seed, "init", number)
        spec = create_model_spec(self.model)
        shape = self.data.image_shape
        return build_model(spec, self.data.num_classes, shape, seed).to(self.device)

    def generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, "order", number))

    def examples(self, number: int) -> ExampleSet:
        ids, settings = np.flatnonzero(self.keep[number]), self.recipe().settings
        return ExampleSet(
            "training", self.train, ids, settings.batch_size, self.generator(number), {},
            augment=settings.augment,
        )  # fmt: skip

    def measure(self, number: int, model: nn.Module) -> tuple[int, np.ndarray, float]:
        """Margins on the training set, as an attack reads them, and test accuracy."""
        rng = torch.Generator()
        everything = ExampleSet("training", self.train, np.arange(len(self.keep[0])), 1, rng, {})
        test = ExampleSet("test", self.test, np.arange(len(self.test.labels)), 1, rng, {})
        margins = logit_margin(logits(model, everything), everything.labels)
        return number, margins, accuracy(model, test)


def train_some(bank: Bank, strategy: Strategy, numbers: list[int]) -> Measured:
    """Train and measure the models of one task: one model, or one stack."""
    models = [bank.network(number) for number in numbers]
    recipe = bank.recipe(strategy.precision)
    if strategy.loop == "sequential":
        for number, model in zip(numbers, models, strict=True):
            train_plainly(bank, number, model, recipe.settings)
    elif strategy.loop in ("resident", "nudged"):
        for number, model in zip(numbers, models, strict=True):
            if strategy.loop == "nudged":
                nudge(model)
            train_recipe(model, bank.examples(number), recipe)
    else:
        train_stacked(models, [bank.examples(number) for number in numbers], recipe)
    return [bank.measure(number, model) for number, model in zip(numbers, models, strict=True)]


def nudge(model: nn.Module) -> None:
    """Move every number of the first parameter to the next one that float32 has."""
    first = next(model.parameters())
    with torch.no_grad():
        first.copy_(torch.nextafter(first, first + 1))


class ImageFolderLike(torch.utils.data.Dataset):
    """Images one by one, through PIL, as most training scripts have them."""

    def __init__(self, data: ImageData, ids: np.ndarray, *, augment: bool) -> None:
        steps: list[Callable] = [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        if augment and data.flip:
            steps.insert(0, transforms.RandomHorizontalFlip())
        if augment and data.crop_pad:
            steps.insert(0, transforms.RandomCrop(data.image_shape[1:], padding=data.crop_pad))
        self.data, self.ids, self.transform = data, ids, transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        row = self.ids[position]
        pixels = self.data.train_images[row].transpose(1, 2, 0)
        image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        return self.transform(image), int(self.data.train_labels[row])


def train_plainly(bank: Bank, number: int, model: nn.Module, settings: TrainingSettings) -> None:
    """The loop that people write."""
    torch.manual_seed(derive_seed(bank.seed, "order", number))
    ids = np.flatnonzero(bank.keep[number])
    dataset = ImageFolderLike(bank.data, ids, augment=settings.augment)
    lone = len(dataset) % settings.batch_size == 1  # BatchNorm refuses it
    loader = DataLoader(
        dataset, settings.batch_size, shuffle=True, drop_last=lone, generator=bank.generator(number)
    )
    optimizer = make_optimizer(
        model, name=settings.optimizer, lr=settings.lr, momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )  # fmt: skip
    total = settings.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule_scale(settings.schedule, settings.warmup_frac, step, total)
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    model.train()
    for _ in range(settings.epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(images.to(bank.device)), labels.to(bank.device))
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


# --- worker processes -----------------------------------------------------------------------------

worker_bank: Bank | None = None


def begin_worker(bank: Bank) -> None:
    global worker_bank
    torch.set_num_threads(1)
    worker_bank = bank.load()


def warm_worker(barrier_s: float) -> None:
    """Train for one epoch; long enough that no worker takes the turn of another."""
    began = time.perf_counter()
    train_recipe(
        worker_bank.network(0),
        worker_bank.examples(0),
        Recipe("plain", worker_bank.recipe().settings.model_copy(update={"epochs": 1})),
    )
    time.sleep(max(0.0, barrier_s - (time.perf_counter() - began)))


def work(strategy: Strategy, numbers: list[int]) -> Measured:
    return train_some(worker_bank, strategy, numbers)


def start_pool(bank: Bank, workers: int) -> ProcessPoolExecutor:
    """Start all workers and wait until each has trained a model for an epoch."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    pool = ProcessPoolExecutor(workers, context, begin_worker, (bank,))
    list(pool.map(warm_worker, [1.0] * workers))
    return pool


# --- measuring ------------------------------------------------------------------------------------


def run(bank: Bank, strategy: Strategy, pool: ProcessPoolExecutor | None) -> Measured:
    """Train the whole bank."""
    numbers = list(range(bank.models))
    tasks = [numbers[i : i + strategy.stack] for i in range(0, bank.models, strategy.stack)]
    if strategy.processes:
        done = pool.map(work, [strategy] * len(tasks), tasks)
    else:
        done = (train_some(bank, strategy, task) for task in tasks)
    return [measured for task in done for measured in task]


def rows(
    strategies: list[Strategy],
    seconds: dict[str, list[float]],
    results: dict[str, Measured],
    models: int,
) -> Iterator[str]:
    """Lines of the Markdown table."""
    yield (
        "| strategy | seconds | models a minute | speed-up | test accuracy "
        "| max margin difference | median |"
    )
    yield "| --- " + "| ---: " * 6 + "|"
    reference = margins_of(results["resident"]) if "resident" in results else None
    for strategy in strategies:
        name, took = strategy.name, statistics.median(seconds[strategy.name])
        ratio = "—"
        if "sequential" in seconds:  # of the same turn, so that a busy spell hits both
            pairs = zip(seconds["sequential"], seconds[name], strict=True)
            ratio = f"{statistics.median(a / b for a, b in pairs):.2f}"
        accuracy_mean = np.mean([acc for _, _, acc in results[name]])
        largest = middle = "—"
        if reference is not None and strategy.loop != "sequential":
            difference = np.abs(margins_of(results[name]) - reference)
            largest, middle = f"{difference.max():.1e}", f"{np.median(difference):.1e}"
        yield (
            f"| {name} | {took:.2f} | {60 * models / took:.0f} | {ratio} | {accuracy_mean:.4f} "
            f"| {largest} | {middle} |"
        )


def margins_of(measured: Measured) -> np.ndarray:
    """Margins of all models, `(N, D)`."""
    return np.stack([margins for _, margins, _ in sorted(measured, key=lambda m: m[0])])


def seed_spread(margins: np.ndarray, keep: np.ndarray) -> float:
    """Standard deviation over models that agree on having seen an example, mean of examples."""
    sides = [np.where(side, margins, np.nan) for side in (keep, ~keep)]
    return float(np.mean([np.nanstd(side, axis=0, ddof=1) for side in sides]))


def load_average() -> str:
    return " ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "?"


@click.command()
@click.option("--models", type=click.IntRange(4), default=16, help="Models in the bank; even.")
@click.option("--epochs", type=click.IntRange(1), default=8, help="Passes over a half.")
@click.option("--size", type=click.IntRange(1), default=8, help="Models a stack, where not said.")
@click.option("--model", help="Architecture; default is the quickstart's.")
@click.option("--dataset", default="digits", help="Dataset spec.")
@click.option("--data-root", default="data", help="Folder of datasets that live in files.")
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default is one a core.")
@click.option("--threads", type=click.IntRange(1), help="Of this process; default is one a core.")
@click.option("--strategies", default=DEFAULT, help="Comma-separated; see the head of this file.")
@click.option("--repeats", type=click.IntRange(1), default=3, help="Turns; the median is given.")
def main(
    models: int, epochs: int, size: int, model: str | None, dataset: str, data_root: str,
    device: str, workers: int | None, threads: int | None, strategies: str, repeats: int,
) -> None:  # fmt: skip
    """Time strategies that train a bank of shadow models."""
    if models % 2:
        raise click.BadParameter("`--models` must be even: models come in pairs.")
    chosen = [Strategy.parse(name.strip(), size) for name in strategies.split(",")]
    sweep = tomllib.loads((files("unlearnbench.bench") / "quickstart.toml").read_text())
    settings = sweep["training"] | {"epochs": epochs}
    spec = model or sweep["models"][0]
    plan = Bank(dataset, data_root, spec, settings, models, resolve_device(device))
    workers = workers or cpu_count()
    pool, start_s = None, 0.0
    if any(strategy.processes for strategy in chosen):
        began = time.perf_counter()
        pool = start_pool(plan, workers)
        start_s = time.perf_counter() - began
    bank = plan.load()
    torch.set_num_threads(threads or cpu_count())
    stack = [bank.network(number) for number in range(2)]
    reasons = stackable(
        stack, [bank.examples(n) for n in range(2)], bank.recipe(), bank.data.image_shape
    )
    if reasons:
        click.echo(f"cannot be stacked: {'; '.join(reasons)}.", err=True)
        chosen = [strategy for strategy in chosen if strategy.loop != "stacked"]
    before = load_average()
    train_recipe(stack[0], bank.examples(0), bank.recipe())  # warms this process up
    seconds: dict[str, list[float]] = {strategy.name: [] for strategy in chosen}
    results: dict[str, Measured] = {}
    for turn in range(repeats):
        for strategy in chosen:
            began = time.perf_counter()
            results[strategy.name] = run(bank, strategy, pool)
            seconds[strategy.name].append(time.perf_counter() - began)
            took = seconds[strategy.name][-1]
            click.echo(f"turn {turn + 1}: {strategy.name} {took:.2f} s", err=True)
    half = int(bank.keep[0].sum())
    click.echo(
        f"{models} models `{spec}` of {half} `{dataset}` examples, {epochs} epochs, "
        f"batches of {settings['batch_size']}; median of {repeats}.\n"
        f"{hardware(plan.device, torch.get_num_threads())}, torch {torch.__version__}; "
        f"load average {before} before, {load_average()} after.\n"
    )
    click.echo("\n".join(rows(chosen, seconds, results, models)))
    if "resident" in results:
        spread = seed_spread(margins_of(results["resident"]), bank.keep)
        click.echo(f"\nSpread of a margin from seed to seed: standard deviation {spread:.2f}.")
    if pool is not None:
        click.echo(f"Start of {workers} processes, imports and warm-up included: {start_s:.1f} s.")
        pool.shutdown()


if __name__ == "__main__":
    main()
