"""Small real things for tests: images, a trained network, tasks and a way to run one cell."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn

from unlearnbench.bench import DATASETS, METHODS, ImageData, Unlearner
from unlearnbench.bench.batches import ExampleSet, Pixels
from unlearnbench.bench.models import build_model
from unlearnbench.bench.modelspec import create_model_spec
from unlearnbench.bench.plan import LoadedData, Plan, make_plan
from unlearnbench.bench.recipe import Recipe, TrainingSettings, recipe_of
from unlearnbench.bench.runner import RunOptions
from unlearnbench.bench.scenario import create_scenario, split_validation
from unlearnbench.bench.sweep import SweepSpec, resolve
from unlearnbench.bench.task import UnlearningTask
from unlearnbench.bench.taskinfo import TaskInfo
from unlearnbench.bench.training import train_recipe

NARROW = "resnet18[layers=[1,1,1,1],channels=[8,8,16,16],stem_type=deep,stem_width=8]"
SETTINGS = TrainingSettings(epochs=15, batch_size=32, lr=0.05)
CPU = torch.device("cpu")


@cache
def toy_images() -> ImageData:
    """Four classes of 8x8 images, 30 for training and 15 for testing each."""
    made = DATASETS.create(
        "synthetic[classes=4,size=8,channels=1,train_per_class=30,test_per_class=15,seed=1]"
    )
    return made.load(Path("unused"))


def toy_data() -> LoadedData:
    """The images with a tenth of each class held out."""
    dataset = DATASETS.create("synthetic")
    return LoadedData(dataset, toy_images(), split_validation(toy_images(), 0.1))


@cache
def _trained(model: str, penalty: str | None) -> dict[str, torch.Tensor]:
    data = toy_data()
    recipe = toy_recipe(penalty)
    net = fresh(model)
    rng = torch.Generator().manual_seed(7)
    examples = ExampleSet(
        "training",
        Pixels(data.images, "train", CPU),
        data.split.training,
        SETTINGS.batch_size,
        rng,
        {},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        train_recipe(net, examples, recipe)
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def fresh(model: str = NARROW) -> nn.Module:
    """An untrained network for the toy images."""
    images = toy_images()
    return build_model(create_model_spec(model), images.num_classes, images.image_shape, seed=3)


def trained(model: str = NARROW, penalty: str | None = None) -> nn.Module:
    """A network trained on the toy images; made once a session."""
    net = fresh(model)
    net.load_state_dict(_trained(model, penalty))
    return net.eval()


def toy_recipe(penalty: str | None = None, settings: TrainingSettings = SETTINGS) -> Recipe:
    """The plain recipe, or that of a method with a penalty."""
    if penalty is None:
        return Recipe("plain", settings)
    return recipe_of(METHODS.create(penalty), settings)


def toy_task(
    method: Unlearner,
    scenario: str = "class[classes=[0]]",
    *,
    model: str = NARROW,
    settings: TrainingSettings = SETTINGS,
    seed: int = 0,
    preparing: bool = False,
    prepared: dict[str, torch.Tensor] | None = None,
    needs: frozenset[str] | None = None,
) -> UnlearningTask:
    """A task on the toy images with the sets that the method declared."""
    data = toy_data()
    images = data.images
    request = create_scenario(scenario).request(images, data.split)
    rng = torch.Generator().manual_seed(seed)
    served: dict[str, int] = {}
    members = {"validation": data.split.validation}
    if preparing:
        members["training"] = data.split.training
    else:
        members |= {"forget": request.forget, "retain": request.retain}
    pixels = Pixels(images, "train", CPU)
    open_ = method.needs if needs is None else needs
    sets = {
        role: ExampleSet(
            role, pixels, ids, settings.batch_size, rng, served, augment=settings.augment
        )
        for role, ids in members.items()
        if role in open_
    }
    info = TaskInfo(
        model_spec=create_model_spec(model),
        recipe=toy_recipe(None, settings),
        forget_classes=() if preparing else request.classes,
        forget_size=0 if preparing else len(request.forget),
        retain_size=len(request.retain),
        validation_size=len(data.split.validation),
        num_classes=images.num_classes,
        image_shape=images.image_shape,
    )
    return UnlearningTask(
        info, method=method.name, sets=sets, device=CPU, rng=rng, served=served, prepared=prepared
    )


TOY_SWEEP = {
    "name": "toy",
    "datasets": ["synthetic[classes=4,size=8,channels=1,train_per_class=30,test_per_class=15]"],
    "models": [NARROW],
    "scenarios": ["class[classes=[0]]"],
    "methods": ["identity"],
    "training": {"epochs": 2, "batch_size": 32, "lr": 0.05},
}


def toy_spec(**changes: object) -> SweepSpec:
    """A sweep of one cell that takes a second; fields can be replaced."""
    return SweepSpec.model_validate(TOY_SWEEP | changes)


def toy_options(folder: Path, **changes: object) -> RunOptions:
    """Everything under one folder, in this process, on the CPU."""
    options = RunOptions(
        store=folder / "store",
        out=folder / "out",
        data_root=folder / "data",
        workers=0,
        device="cpu",
    )
    return replace(options, **changes)  # type: ignore[arg-type]


def toy_images_of(spec: SweepSpec) -> ImageData:
    """The images of the only dataset of a sweep, which is synthetic."""
    (dataset,) = resolve(spec).datasets
    return dataset.load(Path("unused"))


def toy_plan(spec: SweepSpec) -> Plan:
    """The plan of a sweep whose only dataset is synthetic."""
    sweep = resolve(spec)
    data = [
        LoadedData(d, images, split_validation(images, spec.validation_fraction))
        for d in sweep.datasets
        for images in [d.load(Path("unused"))]
    ]
    return make_plan(sweep, data, "cpu")


def same_tensors(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models have bit-identical state."""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
