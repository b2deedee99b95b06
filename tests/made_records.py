"""Made-up records of sweeps for tests of leaderboards: any number, and always the same."""

from __future__ import annotations

import numpy as np

from unlearnbench.bench.attack_record import AttackRecord
from unlearnbench.bench.bank_record import BankRecord
from unlearnbench.bench.keys import content_key
from unlearnbench.bench.record import Record
from unlearnbench.bench.sweep_records import SweepRecords

MACHINE = "a machine of two cores"
PAIRS, EXAMPLES = 8, 60
RETRAINED = {
    "forget_acc": 0.02,
    "retain_acc": 0.99,
    "test_acc": 0.93,
    "test_forget_acc": 0.02,
    "test_retain_acc": 0.93,
}
CURVE = {"loss": [0.9, 0.5, 0.3], "forget_acc": [0.9, 0.7, 0.6]}


def made_records(
    methods: int = 3,
    seeds: int = 2,
    tasks: int = 1,
    *,
    attacked: bool = True,
    recipes: tuple[str, ...] = ("plain",),
    models: tuple[str, ...] = ("resnet18", "vgg11"),
) -> SweepRecords:
    """Records of `methods` methods and the references, worse and slower with their number.

    Tasks are the single classes of digits, ten of each model in turn.
    """
    rng = np.random.default_rng(0)
    names = ["identity", "retrain", *(f"method-{number:02}" for number in range(methods))]
    found = SweepRecords([], [], [])
    for number in range(tasks):
        model = models[number // 10 % len(models)]
        scenario = f"class[classes=[{number % 10}]]"
        dataset = "digits" if number < 10 * len(models) else f"digits[label_noise=0.{number // 10}]"
        for recipe in recipes:
            bank = f"bank {dataset} {model} {recipe}"
            ids = np.arange(EXAMPLES) + 1000 * (number % 10)
            truth = rng.normal(size=(PAIRS, EXAMPLES))
            for place, name in enumerate(names):
                key = f"{dataset} {model} {scenario} {recipe} {name}"
                leak = 1.5 if name == "identity" else 0.0 if name == "retrain" else place / 10 - 0.2
                scores = [
                    truth * 0.5 + rng.normal(size=truth.shape) + s * leak for s in (0.5, -0.5)
                ]
                arrays = {
                    "ids": ids,
                    "privacy.in_scores": scores[0],
                    "privacy.out_scores": scores[1],
                }
                attack = AttackRecord.of(f"scores of {key}", bank, arrays)
                if attacked:
                    found.attacks.append(attack)
                for seed in range(seeds):
                    cell = _cell(name, place, seed, rng, attack if attacked else None)
                    found.records.append(
                        Record(
                            sweep="made",
                            key=content_key("cell", name=key, seed=seed),
                            dataset=dataset,
                            model=model,
                            recipe=recipe,
                            scenario=scenario,
                            forget_request=f"request {number % 10}",
                            forget_size=EXAMPLES,
                            retain_size=9 * EXAMPLES,
                            method=name,
                            hyperparameters={} if place < 2 else {"lr": 0.01, "epochs": place},
                            seed=seed,
                            environment={
                                "hardware": MACHINE,
                                "torch": "2.15",
                                "unlearnbench": "0.1",
                            },
                            **cell,
                        )
                    )
            if attacked and not any(b.bank == bank for b in found.banks):
                found.banks.append(
                    BankRecord(bank=bank, dataset=dataset, model=model, recipe=recipe, shadows=16)
                )
    return found


def _cell(
    name: str, place: int, seed: int, rng: np.random.Generator, attack: AttackRecord | None
) -> dict[str, object]:
    forget = {"identity": 0.97, "retrain": 0.02}.get(name, 0.02 + 0.01 * place)
    test = {"identity": 0.95, "retrain": 0.93}.get(name, 0.94 - 0.005 * place)
    noise = rng.normal(0, 0.002, 3)
    accuracies = {
        "forget_acc": forget + abs(noise[0]),
        "retain_acc": 0.99 - abs(noise[1]),
        "test_acc": test + noise[2],
        "test_forget_acc": forget,
        "test_retain_acc": test,
    }
    gaps = {f"gap_{key}": abs(value - RETRAINED[key]) for key, value in accuracies.items()}
    if name == "retrain":
        gaps = dict.fromkeys(gaps, 0.0)
    seconds = {"identity": 1e-5, "retrain": 10.0}.get(name, 0.5 + 0.1 * place)
    metrics = {**accuracies, **gaps, "tow": 0.9}
    about: dict[str, object] = {}
    if attack is not None:
        hits = attack.hit_matrix()
        acc = float(hits.mean())
        metrics |= {f"ulira.privacy/{key}": value for key, value in {
            "acc": acc, "se": 0.02, "auc": acc, "auc_se": 0.02, "p": 0.4 if acc < 0.54 else 0.005,
            "null_mean": 0.5, "null_sd": 0.02, "null_lo": 0.46, "null_hi": 0.54,
            "tpr_0.01": 0.02, "fpr_0.01": 0.01}.items()}  # fmt: skip
        metrics |= {"ulira/per_example_p95": 0.8, "ulira/power_d0.5": 0.56}
        about = {"variant": "half_split", "shadows": 16, "examples": EXAMPLES, "views": 1,
                 "variance": "eb_t", "bank": attack.bank, "scores": attack.key}  # fmt: skip
    return {
        "status": "ok",
        "metrics": metrics,
        "times": {"unlearn_s": seconds, "prepare_s": 0.0, "evaluate_s": 0.1, "original_s": 12.0,
                  "retrain_s": 10.0, "speedup": 10.0 / seconds},
        "peak_memory_bytes": 600 * 2**20,
        "attack": about,
        "course": CURVE if place >= 2 else {},
    }  # fmt: skip
