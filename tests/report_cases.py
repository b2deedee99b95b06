"""Records of one small task, made by hand, for tests of reports."""

from __future__ import annotations

import numpy as np

from unlearnbench.bench.attack_record import AttackRecord
from unlearnbench.bench.bank_record import BankRecord
from unlearnbench.bench.keys import content_key
from unlearnbench.bench.record import Record
from unlearnbench.bench.sweep_records import SweepRecords

BAND = {"null_mean": 0.5, "null_sd": 0.015, "null_lo": 0.469, "null_hi": 0.526}
ACCURACIES = {  # forget, retain, test of each seed
    "identity": ((0.9, 0.99, 0.95), (0.92, 0.99, 0.95)),
    "retrain": ((0.1, 0.98, 0.94), (0.14, 0.98, 0.93)),
    "scrub": ((0.125, 0.97, 0.92), (0.11, 0.97, 0.93)),
}
SECONDS = {"identity": 1e-6, "retrain": 60.0, "scrub": 1.5}
MACHINE = {"hardware": "one machine", "device": "cpu", "unlearnbench": "0.1.0", "torch": "2.15.0"}


def figures(acc=0.537, **changes):
    """Figures of U-LIRA; names without a room are those of `ulira.privacy`."""
    named = {"acc": acc, "se": 0.01, "auc": acc + 0.02, "auc_se": 0.01, "p": 0.2} | BAND | changes
    return {n if "/" in n else f"ulira.privacy/{n}": v for n, v in named.items() if v is not None}


def cell(method, seed=0, *, figure=None, attack=None, metrics=None, **changes):
    """One record; `figure` are the figures of an attack, None for no attack at all."""
    forget, retain, test = ACCURACIES.get(method, ACCURACIES["scrub"])[seed % 2]
    reference = ACCURACIES["retrain"][seed % 2]
    gaps = zip(("forget", "retain", "test"), (forget, retain, test), reference, strict=True)
    found = {"forget_acc": forget, "retain_acc": retain, "test_acc": test, "tow": 0.9}
    found |= {f"gap_{name}_acc": abs(own - other) for name, own, other in gaps}
    seconds = SECONDS.get(method, 1.5)
    about = {} if figure is None else {
        "shadows": 16, "examples": 4, "views": 1, "variance": "eb_t", "bank": "b0",
        "scores": f"scores of {method}",
    }  # fmt: skip
    fields = {
        "sweep": "by hand", "dataset": "digits", "model": "resnet18", "recipe": "plain",
        "scenario": "class[classes=[cat,dog]]", "forget_request": "f0f0", "forget_size": 40,
        "retain_size": 360, "method": method, "seed": seed, "status": "ok",
        "metrics": found | (figure or {}) | (metrics or {}), "attack": about | (attack or {}),
        "hyperparameters": {} if method in SECONDS and method != "scrub" else {"lr": 0.01},
        "training": {"epochs": 4, "validation_fraction": 0.2},
        "times": {"unlearn_s": seconds, "retrain_s": 60.0, "speedup": 60 / seconds,
                  "original_s": 70.0},
        "peak_memory_bytes": 600 * 2**20, "samples": {"forget": 80}, "environment": MACHINE,
        "data_digest": "d1d1",
    } | changes  # fmt: skip
    if fields["status"] != "ok":
        fields |= {"metrics": {}, "times": {}, "samples": {}, "environment": {}, "attack": {}}
        fields["peak_memory_bytes"] = None
    what = ("dataset", "model", "scenario", "recipe", "method", "hyperparameters", "seed")
    fields.setdefault("key", content_key("cell", **{k: fields[k] for k in what}))
    return Record(**fields)


def attack_of(method, right):
    """Two pairs, four examples of the ids 11 to 14; `right` calls of 4 on each example."""
    inside, outside = np.full((2, 4), -1.0), np.full((2, 4), 1.0)
    for example, number in enumerate(right):
        for call in range(number):
            side, pair = (inside, outside)[call % 2], call // 2
            side[pair, example] *= -1
    arrays = {"ids": np.arange(11, 15), "privacy.in_scores": inside, "privacy.out_scores": outside}
    return AttackRecord.of(f"scores of {method}", "b0", arrays)


def task(scrub=0.537, identity=0.66, retrain=0.503, *, seeds=2, **changes):
    """Original, retrained and scrub, each attacked; None for a figure that is not there."""
    told = {"identity": identity, "retrain": retrain, "scrub": scrub}
    records = [
        cell(
            method,
            seed,
            figure=None if acc is None else figures(acc),
            **(changes if method == "scrub" else {}),
        )
        for method, acc in told.items()
        for seed in range(seeds)
    ]
    bank = BankRecord(bank="b0", dataset="digits", model="resnet18", recipe="plain", shadows=16,
                      metrics={"time/training_s": 800.0})  # fmt: skip
    right = {"identity": (4, 4, 3, 3), "retrain": (2, 2, 2, 3), "scrub": (4, 2, 2, 1)}
    attacks = [attack_of(m, right[m]) for m, acc in told.items() if acc is not None]
    return SweepRecords(records, [bank], attacks)


def of(found, method="scrub", seed=0):
    """The first record of that method and seed."""
    return next(r for r in found.records if (r.method, r.seed) == (method, seed))
