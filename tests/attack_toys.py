"""Small shadow banks for tests: a sweep with an attack, carried out without records or MLflow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from unlearnbench.bench.datastore import put_images
from unlearnbench.bench.executor import execute
from unlearnbench.bench.jobs import CellJob, OriginalJob, WorkerSettings
from unlearnbench.bench.margins import get_margins
from unlearnbench.bench.plan import LoadedData, make_plan
from unlearnbench.bench.scenario import split_validation
from unlearnbench.bench.store import Store
from unlearnbench.bench.sweep import resolve
from unlearnbench.bench.work import find_work

from .toys import toy_spec

PLUGINS = Path(__file__).with_name("attack_methods.py")
TINY = "vit_tiny_patch16_224[depth=1,embed_dim=32,num_heads=2,patch_size=8]"
SIMPLE = "synthetic[channels=1,classes=4,test_per_class=15,train_per_class=30]"
# a dataset that a small network learns by heart
NOISY = "synthetic[channels=1,classes=4,label_noise=0.2,test_per_class=15,train_per_class=40]"
LEARNER = "vit_tiny_patch16_224[depth=1,embed_dim=64,num_heads=2,patch_size=8]"
BY_HEART = {
    "epochs": 15, "batch_size": 16, "optimizer": "adamw", "lr": 3e-3, "augment": False,
    "weight_decay": 1e-4, "warmup_frac": 0.0,
}  # fmt: skip


def attack_spec(shadows=6, *, ulira=None, **changes):
    """A sweep with an attack that takes a second, of which fields can be replaced."""
    fields = {
        "datasets": [SIMPLE],
        "models": [TINY],
        "scenarios": ["random[fraction=0.3]"],
        "methods": ["identity"],
        "plugins": [PLUGINS],
        "training": {"epochs": 2, "batch_size": 32, "optimizer": "adamw", "lr": 3e-3},
        "ulira": {"shadows": shadows, "redraws": 20, **(ulira or {})},
    }
    return toy_spec(**(fields | changes))


def lay_out(spec, device="cpu"):
    """Plan a sweep: its data and its plan."""
    sweep = resolve(spec)
    data = [
        LoadedData(d, images, split_validation(images, spec.validation_fraction))
        for d in sweep.datasets
        for images in [d.load(Path("unused"))]
    ]
    return data, make_plan(sweep, data, device)


def bank_of(plan):
    """The only bank of a plan."""
    (bank,) = {attack.bank.hash: attack.bank for attack in plan.attacks.values()}.values()
    return bank


def carry_out(spec, folder, *, cells=False, workers=0):
    """Train the banks of a sweep, unlearn and score; leave out its cells unless they are asked for.

    Returns what was done: `data`, `plan`, `store`, `jobs` and `outcomes` in order; and `failed`,
    the reasons by key of the job.
    """
    data, plan = lay_out(spec)
    store = Store(folder)
    for loaded in data:
        put_images(store, loaded.images)
    jobs = find_work(plan, store, workers).jobs
    if not cells:
        jobs = [job for job in jobs if not isinstance(job, (CellJob, OriginalJob))]
    settings = WorkerSettings(str(folder), tuple(map(str, spec.plugins)), 1, "cpu")
    outcomes = list(execute(jobs, settings, workers=workers, time_limit_s=lambda job: None))
    failed = {o.key: o.reason for o in outcomes if o.reason is not None}
    return SimpleNamespace(
        data=data[0], plan=plan, store=store, jobs=jobs, outcomes=outcomes, failed=failed
    )


def attack_on(done, method, scenario=None):
    """The attack on a method, by name or with its parameters."""
    (found,) = [
        a
        for a in done.plan.attacks.values()
        if method in (a.method.name, a.method.spec) and scenario in (None, a.scenario)
    ]
    return found


def figures(done, method, scenario=None):
    """Metrics of an attack, by name."""
    return done.store.get("ulira", attack_on(done, method, scenario).key).meta["metrics"]


def margins_after(done, method, scenario=None):
    """`(N, V, D)` margins of the training images after unlearning."""
    stack = get_margins(done.store, attack_on(done, method, scenario).score.unlearned)
    return stack.margins[..., : len(done.data.images.train_labels)]


def margins_before(done):
    """`(N, V, D)` margins of the training images under the shadow models."""
    stack = get_margins(done.store, tuple(s.key for s in bank_of(done.plan).shadows))
    return stack.margins[..., : len(done.data.images.train_labels)]


def tensors_of(store, kind, key):
    """Arrays of an artefact by name."""
    return {name: np.array(t) for name, t in store.get(kind, key).tensors().items()}
