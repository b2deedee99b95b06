"""What SVD forgetting costs, against a straightforward implementation of its paper.

    python tests/benchmarks/svd_projection.py --samples 100 --width 16
    python tests/benchmarks/svd_projection.py --data-root data

The straightforward side does what the paper says, layer by layer: it keeps every patch of every
image as a column of R, takes `torch.linalg.svd(R, full_matrices=False)` for the retain and the
forget samples, builds both projections and multiplies the weight. Ours is method `svd`. Both get
the same ResNet-18 (3x3 stem, no pooling), the same samples and the same alphas, each in a fresh
process, so that its peak of memory is its own; `libraries` is what a process holds, model and
images included, before it begins. Seconds of the processor, those of all threads, tell the same
where others share the machine. Then the search over the grid of alphas is run on its own, to
compare the linear algebra of the grid with the evaluations that it is for. With `--layer` the
straightforward side does the named layers alone, for its memory and weights at sizes where all
layers take hours; its seconds then do not compare.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from unlearnbench.bench import DATASETS, METHODS, ImageData, TaskInfo, UnlearningTask
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.environment import hardware
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.recipe import Recipe, TrainingSettings

CPU = torch.device("cpu")
ALPHAS = (100.0, 3.0)


@dataclass(frozen=True)
class Case:
    """Everything that both sides share."""

    data_root: str | None
    samples: int
    width: int
    validation: int
    batch: int
    layers: tuple[str, ...] = ()  # that the straightforward side does; all if none is named

    def data(self) -> ImageData:
        """CIFAR-10, or noise that differs from class to class."""
        if self.data_root is not None:
            return DATASETS.create("cifar10").load(Path(self.data_root))
        each = max(self.samples, self.validation // 10 + self.samples // 9 + 1)
        made = f"synthetic[classes=10,size=32,channels=3,train_per_class={each},test_per_class=1]"
        return DATASETS.create(made).load(Path("unused"))

    def spec(self) -> str:
        narrow = [self.width * 2**i for i in range(4)]
        return "resnet18" if self.width == 64 else f"resnet18[channels={narrow}]"

    def task(self, **options: object) -> tuple[nn.Module, UnlearningTask]:
        """The model, with statistics of norms from a few batches, and a task on class 0."""
        data, rng = self.data(), torch.Generator().manual_seed(0)
        method = METHODS.get("svd")(
            retain_samples=self.samples, forget_samples=self.samples, **options
        )
        order = np.random.default_rng(0).permutation(len(data.train_labels))
        held, rest = order[: self.validation], np.sort(order[self.validation :])
        forgotten = data.train_labels[rest] == 0
        members = {"validation": held, "forget": rest[forgotten], "retain": rest[~forgotten]}
        served: dict[str, int] = {}
        sets = {
            role: ExampleSet(role, Pixels(data, "train", CPU, ids), ids, self.batch, rng, served)
            for role, ids in members.items()
        }
        info = TaskInfo(
            model_spec=create_model_spec(self.spec()),
            recipe=Recipe("plain", TrainingSettings(batch_size=self.batch)),
            forget_classes=(0,),
            forget_size=len(members["forget"]),
            retain_size=len(members["retain"]),
            validation_size=self.validation,
            num_classes=data.num_classes,
            image_shape=data.image_shape,
        )
        task = UnlearningTask(
            info, method=method.name, sets=sets, device=CPU, rng=rng, served=served
        )
        model = build_model(info.model_spec, data.num_classes, data.image_shape, seed=0)
        settle(model.train(), ExampleSet("retain", sets["retain"]._pixels, members["retain"][:500],
                                         100, torch.Generator().manual_seed(1), {}))  # fmt: skip
        return model.eval(), task


@torch.no_grad()
def settle(model: nn.Module, examples: ExampleSet) -> None:
    """Let the norms see some images; training would change what is measured, not what it costs."""
    for batch in examples.batches():
        model(batch.images)


# --- the two sides --------------------------------------------------------------------------------


@torch.no_grad()
def straightforward(
    model: nn.Module, retain: ExampleSet, forget: ExampleSet, layers: tuple[str, ...]
) -> None:
    """Algorithm 1 of the paper; the representations of one layer at a time are in memory."""
    original = {n: p.clone() for n, p in model.state_dict().items()}
    edited: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)) or (layers and name not in layers):
            continue
        projections = []
        for examples, alpha in ((retain, ALPHAS[0]), (forget, ALPHAS[1])):
            R = representations(model, module, examples)
            U, S, _ = torch.linalg.svd(R, full_matrices=False)
            energy = S.square() / S.square().sum()
            importance = alpha * energy / ((alpha - 1) * energy + 1)
            projections.append(U @ importance.diag() @ U.T)
            del R, U, S, _
        P_r, P_f = projections
        W = module.weight.flatten(1)
        edited[f"{name}.weight"] = (W @ (torch.eye(len(P_f)) - P_f @ (torch.eye(len(P_r)) - P_r)).T
                                    ).reshape(module.weight.shape)  # fmt: skip
        click.echo(f"straightforward: {name} {tuple(W.shape)}", err=True)
    model.load_state_dict(original | edited)


def representations(model: nn.Module, module: nn.Module, examples: ExampleSet) -> Tensor:
    """All patches, or tokens, of one layer side by side: `(d, n)`."""
    found: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if isinstance(module, nn.Conv2d):
            x = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
            found.append(x.transpose(0, 1).flatten(1))
        else:
            found.append(x.flatten(0, -2).T)

    handle = module.register_forward_pre_hook(keep)
    for batch in examples.batches():
        model(batch.images)
    handle.remove()
    return torch.cat(found, 1)


def measure(
    case: Case, side: str, threads: int
) -> tuple[float, float, float, float, dict[str, Tensor]]:
    """Seconds by the clock and of the processor, MiB before and at the peak, edited weights."""
    torch.set_num_threads(threads)
    model, task = case.task()
    method = METHODS.get("svd")(
        alpha_retain=ALPHAS[0], alpha_forget=ALPHAS[1],
        retain_samples=case.samples, forget_samples=case.samples,
    )  # fmt: skip
    before = peak_mib()
    began, busy = time.perf_counter(), time.process_time()
    with torch.no_grad():
        if side == "ours":
            model = method.unlearn(model, task)
        else:
            retain = task.retain.sample(case.samples, balanced=True)
            straightforward(model, retain, task.forget.sample(case.samples), case.layers)
    took, worked = time.perf_counter() - began, time.process_time() - busy
    weights = {n: t.numpy() for n, t in model.state_dict().items() if n.endswith("weight")}
    return took, worked, before, peak_mib(), weights


def time_search(case: Case, threads: int) -> tuple[float, float, int, dict[str, float]]:
    """Seconds of the whole search and of its evaluations alone, and how many there were."""
    torch.set_num_threads(threads)
    model, task = case.task()
    spent: list[float] = []
    evaluate = task.accuracy

    def timed(*args: object) -> float:
        began = time.perf_counter()
        result = evaluate(*args)
        spent.append(time.perf_counter() - began)
        return result

    task.accuracy = timed
    method = METHODS.get("svd")(retain_samples=case.samples, forget_samples=case.samples)
    with torch.no_grad():
        method.unlearn(model, task)
    return task.phases["search_s"], sum(spent), len(spent) // 2, task.phases


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def fresh(function, *args):
    """Call in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


@click.command()
@click.option("--data-root", help="Folder with CIFAR-10; without it, made images.")
@click.option("--samples", type=click.IntRange(10), default=900, help="Retain, and forget, images.")
@click.option("--width", type=click.IntRange(1), default=64, help="Channels of the first stage.")
@click.option("--validation", type=click.IntRange(0), default=1000, help="Images of the search.")
@click.option("--batch", type=click.IntRange(1), default=128, help="Images a batch.")
@click.option("--threads", type=click.IntRange(1), default=2, help="Of each process.")
@click.option("--search/--no-search", default=True, help="Whether to time the grid of alphas.")
@click.option("--layer", "layers", multiple=True, help="For the straightforward side; default all.")
@click.option("--only", type=click.Choice(["ours", "straightforward"]), help="One side alone.")
def main(
    data_root: str | None, samples: int, width: int, validation: int, batch: int, threads: int,
    search: bool, layers: tuple[str, ...], only: str | None,
) -> None:  # fmt: skip
    """Compare `svd` with a straightforward implementation of its paper."""
    case = Case(data_root, samples, width, validation, batch, layers)
    click.echo(
        f"`{case.spec()}` on 32x32 images ({'CIFAR-10' if data_root else 'made'}), "
        f"{samples} + {samples} samples, alphas {ALPHAS}.\n{hardware('cpu', threads)}, "
        f"torch {torch.__version__}; load average {os.getloadavg()[0]:.1f}.\n"
    )
    click.echo("| side | seconds | CPU seconds | libraries, MiB | peak, MiB | own, MiB |")
    click.echo("| --- " + "| ---: " * 5 + "|")
    rows = {}
    for side in [only] if only else ["ours", "straightforward"]:
        took, worked, before, peak, _ = rows[side] = fresh(measure, case, side, threads)
        memory = f"{before:.0f} | {peak:.0f} | {peak - before:.0f}"
        click.echo(f"| {side} | {took:.1f} | {worked:.1f} | {memory} |")
    if len(rows) == 2:
        (ours, work, _, peak, weights), (theirs, their_work, _, other, reference) = rows.values()
        own, its = (row[3] - row[2] for row in rows.values())
        differences = {
            name: float(np.linalg.norm(weights[name] - w) / max(np.linalg.norm(w), 1e-30))
            for name, w in reference.items()
            if not layers or name.removesuffix(".weight") in layers
        }
        worst = max(differences, key=differences.get)
        click.echo(
            f"\n{theirs / ours:.1f} times faster by the clock, {their_work / work:.1f} in seconds "
            f"of the processor; peak {other / peak:.1f} times less memory "
            f"({its / own:.1f} times less beside libraries); largest relative difference of a "
            f"weight {differences[worst]:.1e} ({worst})."
        )
    if search:
        whole, evaluating, pairs, phases = fresh(time_search, case, threads)
        click.echo(
            f"\nGrid of {pairs} pairs on {validation} validation images: evaluations "
            f"{evaluating:.1f} s, linear algebra {whole - evaluating:.1f} s; statistics before it "
            f"{phases['statistics_s']:.1f} s."
        )


if __name__ == "__main__":
    main()
