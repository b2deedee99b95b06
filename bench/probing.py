"""What a worker does with a probe: look inside an unlearned model that is in the store.

A figure that is not defined (a forget set of three examples has no CKA) is left out, and a
sentence says why. What compares the model with the retrained one is stored apart from what it is
by itself, so that a retrained model that failed costs the comparison only.

Source: each metric in `metrics/` names its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from math import isnan, nan
from statistics import fmean
from typing import Any

import numpy as np
from torch import nn

from .channel_units import GATE
from .errors import DivergedError, InputError, StoreError, describe
from .evaluate import Outputs, logits
from .features import FeatureError, block_features, penultimate
from .jobs import CellJob, ProbeJob, WorkerSettings
from .keys import derive_seed
from .metrics.cka import LEAST, cka
from .metrics.divergence import js_divergence, zero_retrain_forgetting
from .metrics.lrt import FloatArray
from .metrics.probe import Sample, centre_hits, ridge_hits
from .metrics.relearn import relearn_time
from .models import build_model
from .probes import (
    CENTRES_FRACTION,
    CKA_EXAMPLES,
    FRACTIONS,
    MOST_UNTRAINED,
    ORDERINGS,
    RELEARN_BATCH,
    RELEARN_EXAMPLES,
    RELEARN_MOMENTUM,
    RELEARN_STEPS,
)
from .relearning import orderings, relearn_steps, relearning_rate
from .scenario import Ids
from .workbench import Workbench, begin

KIND = "probe"


def run_probe(job: ProbeJob, settings: WorkerSettings) -> float:
    """Probe one unlearned model, and put the figures into the store, unless they are there.

    Returns:
        Seconds spent.

    Raises:
        StoreError: If the model is missing, damaged, or does not fit its architecture.
    """
    store = begin(settings)
    reference = job.reference is not None and store.has("cell", job.reference.key)
    wanted = [(job.own_key, "own")] + ([(job.key, "compared")] if reference else [])
    began = time.perf_counter()
    with store.lock(KIND, job.own_key):
        wanted = [(key, part) for key, part in wanted if not store.has(KIND, key)]
        if not wanted:
            return 0.0
        bench = Workbench(store, job.cell, settings)
        probing = Probing(bench, job)
        for key, part in wanted:
            start = time.perf_counter()
            metrics = probing.own() if part == "own" else probing.compared()
            seconds = time.perf_counter() - start
            meta = {"metrics": metrics, "about": probing.about(), "probe_s": seconds}
            store.put(KIND, key, meta)
    return time.perf_counter() - began


class Probing:
    """An unlearned model with all that it is looked at on.

    Args:
        bench: The cell laid out, with its original.
        job: What to look at.
    """

    def __init__(self, bench: Workbench, job: ProbeJob) -> None:
        self.bench, self.job = bench, job
        self.notes: dict[str, None] = {}
        digest = bench.data.digest
        self.examples = {
            "forget": _some(bench.request.forget, CKA_EXAMPLES, digest, "forget"),
            "retain": _some(bench.request.retain, CKA_EXAMPLES, digest, "retain"),
        }

    def own(self) -> dict[str, float]:
        """Every figure that needs no retrained model."""
        found: dict[str, float] = {}
        if {"recovery", "centres"} & set(self.job.probes):
            found |= self._noting("recovery", self._recovery)
        if "cka" in self.job.probes:
            found |= self._cka(self.bench.original, "original")
        if "divergence" in self.job.probes:
            found["zrf"] = zero_retrain_forgetting(
                self._predictions(self.model), self._predictions(self._untrained())
            )
        if "relearn" in self.job.probes:
            found |= self._noting("relearn", self._relearn)
        return found

    def compared(self) -> dict[str, float]:
        """Every figure of the distance to the retrained model."""
        assert self.job.reference is not None
        self.notes = {}
        found: dict[str, float] = {}
        retrained = self._unlearned(self.job.reference)
        if "cka" in self.job.probes:
            found |= self._cka(retrained, "retrained")
        if "divergence" in self.job.probes:
            found["js/retrained"] = js_divergence(
                self._predictions(self.model), self._predictions(retrained)
            )
        return found

    def about(self) -> dict[str, Any]:
        """How the figures were made, and why some are not there."""
        settings = self.bench.recipe.settings
        about: dict[str, Any] = {"probes": list(self.job.probes)}
        if "relearn" in self.job.probes:
            about["relearn"] = {
                "lr": relearning_rate(settings),
                "momentum": RELEARN_MOMENTUM,
                "batch_size": RELEARN_BATCH,
                "orderings": ORDERINGS,
                "max_steps": RELEARN_STEPS,
            }
        return about | {"notes": list(self.notes)}

    # --- models -----------------------------------------------------------------------------

    @cached_property
    def model(self) -> nn.Module:
        """The unlearned model."""
        return self._unlearned(self.job.cell)

    def _untrained(self, number: int = 0) -> nn.Module:
        """Randomly initialised models, the same for all cells of an architecture and dataset."""
        spec = self.job.cell.original.model.as_built(self.bench.model_info["stem"])
        return self._build(derive_seed("untrained", self.bench.data.digest, str(spec), number))

    def _unlearned(self, cell: CellJob) -> nn.Module:
        found = self.bench.store.get("cell", cell.key)
        if found is None or not self.bench.store.has_tensors("cell", cell.key):
            raise StoreError(
                f"the unlearned model of cell `{cell.key[:12]}` is not in the store; "
                "run the sweep again with `save_models = true`."
            )
        model, tensors = self._build(0), found.tensors()
        if any(name.endswith(f".{GATE}") for name in tensors):
            raise StoreError(
                f"the unlearned model of method `{cell.method.name}` has gates on its activations "
                "(`target=gate`), and such models are not probed; use another target."
            )
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise StoreError(
                f"the unlearned model of method `{cell.method.name}` is no "
                f"`{cell.original.model}` any more, and so cannot be probed."
            ) from error
        return model.eval()

    def _build(self, seed: int) -> nn.Module:
        data = self.bench.data
        # never from weights that the original started from: what is wanted is untrained, or filled
        spec = self.job.cell.original.model.as_built(self.bench.model_info["stem"])
        model = build_model(spec, data.num_classes, data.image_shape, seed)
        return model.to(self.bench.device).eval()

    def _noting(self, probe: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Measure; what is not defined is left out, with a note."""
        try:
            return measure()
        except (InputError, FeatureError, DivergedError) as error:
            self.notes[f"{probe}: {describe(error)}"] = None
            return {}

    # --- features ---------------------------------------------------------------------------

    def _recovery(self) -> dict[str, float]:
        """What a new head and class centres find on frozen features."""
        bench, classes = self.bench, self.bench.request.classes
        test = bench.test_set()
        features = penultimate(self.model, test)
        labels = test.labels.cpu().numpy()
        forgotten = np.isin(labels, classes)
        drawn = probe_samples(bench.data.train_labels, bench.split.training, bench.data.digest)
        most = bench.train_set("probe", drawn[CENTRES_FRACTION])
        fitted, truth = penultimate(self.model, most), most.labels.cpu().numpy()
        found: dict[str, float] = {}

        def note(name: str, overall: str, hits: FloatArray) -> None:
            if forgotten.any():
                found[f"probe/{name}"] = float(hits[forgotten].mean())
            found[f"probe/{overall}"] = float(hits.mean())

        for name, ids in drawn.items():
            if "recovery" in self.job.probes:
                rows = np.isin(drawn[CENTRES_FRACTION], ids)
                hits = ridge_hits(Sample(fitted[rows], truth[rows]), features, labels)
                note(f"recovery_{name}", f"accuracy_{name}", hits)
        if "centres" in self.job.probes:
            hits = centre_hits(Sample(fitted, truth), features, labels)
            note("centres", "centres_accuracy", hits)
        return found

    def _cka(self, other: nn.Module, name: str) -> dict[str, float]:
        """CKA of every block, of the last one, and the mean; the mean only if all are defined."""
        found: dict[str, float] = {}
        for role in self.examples:
            values = self._noting("cka", partial(self._alike, other, role))
            defined = {block: value for block, value in values.items() if not isnan(value)}
            found |= {f"cka_{name}/{role}/{block}": value for block, value in defined.items()}
            if values and defined == values:
                found[f"cka_{name}/{role}_mean"] = fmean(values.values())
            if values and (last := list(values)[-1]) in defined:
                found[f"cka_{name}/{role}_last"] = values[last]
        return found

    def _alike(self, other: nn.Module, role: str) -> dict[str, float]:
        """CKA by block, from input to output; NaN, with a note, where it is not defined."""
        ids = self.examples[role]
        if len(ids) < LEAST:
            raise InputError(
                f"the {role} set has {len(ids)} examples, and CKA needs at least {LEAST}"
            )
        examples = self.bench.train_set(role, ids)
        mine, theirs = block_features(self.model, examples), block_features(other, examples)
        values = {}
        for block, features in mine.items():
            try:
                values[block] = cka(features, theirs[block])
            except InputError as error:
                self.notes[f"cka, {role} set, `{block}`: {describe(error)}"] = None
                values[block] = nan
        return values

    # --- behaviour --------------------------------------------------------------------------

    def _predictions(self, model: nn.Module) -> FloatArray:
        """`(F, C)` probabilities on the forget set."""
        forget = self.bench.train_set("forget", self.bench.request.forget)
        out = logits(model, forget)
        probabilities: FloatArray = out.cpu().double().softmax(1).numpy()
        return probabilities

    def _relearn(self) -> dict[str, float]:
        """Steps until the forget set is known again; of untrained models too, in one cell.

        An untrained model names one class for nearly all images. Those that name the forgotten
        one by chance are passed over, and there is another one for every ordering.
        """
        bench = self.bench
        digest = bench.data.digest
        forget = bench.train_set("forget", bench.request.forget)
        ids = _some(bench.request.forget, RELEARN_EXAMPLES, digest, "relearn")
        judged = bench.train_set("forget", ids)
        original = Outputs(logits(bench.original, judged), judged.labels)
        accuracy = float(original.hits.mean())
        if accuracy == 0:
            raise InputError("the original knows none of the forget set, so nothing is relearned")

        def measure(model: nn.Module, which: Sequence[int]) -> list[int | None]:
            generators = orderings(derive_seed("relearn", digest))
            return relearn_steps(
                model,
                forget,
                judged,
                original_acc=accuracy,
                lr=relearning_rate(bench.recipe.settings),
                generators=[generators[k] for k in which],
            )

        time_ = relearn_time(measure(self.model, range(ORDERINGS)), RELEARN_STEPS)
        found = {"relearn/steps": time_.steps, "relearn/censored": time_.censored}
        steps: list[int | None] = []
        for number in range(MOST_UNTRAINED if self.job.anchor else 0):
            taken = measure(self._untrained(number), [len(steps)])
            steps += [count for count in taken if count != 0]
            if len(steps) == ORDERINGS:
                time_ = relearn_time(steps, RELEARN_STEPS)
                return found | {
                    "relearn/untrained_steps": time_.steps,
                    "relearn/untrained_censored": time_.censored,
                }
        if self.job.anchor:
            self.notes["relearn: too few untrained models do not name the forget set"] = None
        return found


def probe_samples(labels: Ids, training: Ids, digest: str) -> dict[str, Ids]:
    """Ids on which probes are fitted, by their share of the training set in %.

    The same share of every class, rounded, and at least one example; the draw depends on the data
    alone, and a larger sample contains a smaller one.

    Args:
        labels: `(D,)` labels of the official training images.
        training: Sorted ids of the training set, the forget set included.
        digest: Content hash of the images.
    """
    rng = np.random.default_rng(derive_seed("probe", digest))
    present = np.unique(labels[training])
    orders = [rng.permutation(training[labels[training] == label]) for label in present]
    return {
        name: np.sort(np.concatenate([o[: max(1, round(share * len(o)))] for o in orders]))
        for name, share in FRACTIONS.items()
    }


def _some(ids: Ids, most: int, *seed: str) -> Ids:
    """At most so many ids, drawn from data and name alone, so that all models share them."""
    if len(ids) <= most:
        return ids
    rng = np.random.default_rng(derive_seed("examples", *seed))
    chosen: Ids = np.sort(rng.permutation(ids)[:most])
    return chosen
