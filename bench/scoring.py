"""Scores a method on a forget request: every attack that reads the margins of shadow models.

Names of metrics are those of the records and of MLflow. `ulira.privacy` is the leaderboard's:
forgotten against never-trained examples, both read on unlearned models; `ulira.efficacy` is
unlearned against retrained models.

Source: evaluation specification, sections 2.6 (steps 7 to 12), 3 and 4; each attack names its own.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .datastore import get_images
from .jobs import ScoreJob, WorkerSettings
from .margins import MarginStack, get_margins
from .metrics.forgetting_score import forgetting_null, forgetting_score
from .metrics.klom import KlomSummary, klom, klom_floor, klom_gauss
from .metrics.population import margin_auc, threshold_accuracy
from .metrics.rmia import rmia
from .metrics.ulira import Difference, UliraResult, compare, efficacy, retain_privacy, ulira
from .ulira_settings import UliraSettings
from .workbench import begin

KIND = "ulira"
LEAST_ULIRA = 6
VARIANT = "half_split"
PER_ROW = ("per_example_p5", "per_example_p50", "per_example_p95", "power_d0.5")
# a method that saw the controls: their accuracy rises more than that of test images, by this
# many standard errors and at least by this much
RISE_SE = 5.0
RISE_LEAST = 0.03
FLOOR_EXAMPLES = 2000

FloatArray = npt.NDArray[np.float64]


def run_score(job: ScoreJob, settings: WorkerSettings) -> float:
    """Score the margins of all shadow models, and put the figures into the store.

    Returns:
        Seconds spent.

    Raises:
        InputError: If the margins cannot be scored.
        StoreError: If margins are missing or damaged.
    """
    store = begin(settings)
    with store.lock(KIND, job.key):
        if store.has(KIND, job.key):
            return 0.0
        began = time.perf_counter()
        data = get_images(store, job.data)
        scorer = _Scorer(
            job,
            labels=np.array(data.train_labels),
            test_labels=np.array(data.test_labels),
            before=get_margins(store, job.shadows),
            after=get_margins(store, job.unlearned),
            retrained=get_margins(store, job.retrained) if job.retrained else None,
        )
        metrics = scorer.metrics()
        seconds = time.perf_counter() - began
        attack = scorer.about() | {"score_s": seconds, "scores": job.key}
        tensors = {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in scorer.arrays.items()}
        store.put(KIND, job.key, {"metrics": metrics, "attack": attack}, tensors)
        return seconds


class _Scorer:
    """All margins of one row, and the attacks on them."""

    def __init__(
        self,
        job: ScoreJob,
        labels: npt.NDArray[np.int64],
        test_labels: npt.NDArray[np.int64],
        before: MarginStack,
        after: MarginStack,
        retrained: MarginStack | None,
    ) -> None:
        self.job, self.labels, self.test_labels = job, labels, test_labels
        self.settings = UliraSettings.model_validate(job.options)
        self.before, self.after, self.retrained = before, after, retrained
        self.suspicion: str | None = None
        self.arrays: dict[str, npt.NDArray[Any]] = {"ids": job.pool}

    def about(self) -> dict[str, Any]:
        """What the figures are of; `attack` of a record."""
        about: dict[str, Any] = {
            "variant": VARIANT,
            "shadows": len(self.job.unlearned),
            "examples": len(self.job.pool),
            "views": self.after.margins.shape[1],
            "variance": self.settings.variance,
            "redraws": self.settings.redraws,
            "tuning_track": "none",
            "unlearn_s": float(np.sum([meta["unlearn_s"] for meta in self.after.meta])),
        }
        return about if self.suspicion is None else about | {"suspicion": self.suspicion}

    def metrics(self) -> dict[str, float]:
        """Every figure by its name."""
        found = self._population() | self._control_rise()
        if len(self.job.unlearned) < LEAST_ULIRA:
            return found | self._rmia()
        found |= self._ulira() | self._retain()
        if self.retrained is not None and self.settings.klom:
            found |= self._klom(self.retrained)
        if self.retrained is not None and self.settings.forgetting_score:
            found |= self._forgetting(self.retrained)
        return found

    def _train(self, stack: MarginStack) -> npt.NDArray[np.float32]:
        """Margins of the training images, `(N, V, D)`."""
        return stack.margins[..., : len(self.labels)]

    def _privacy(self, stack: MarginStack, redraws: int) -> UliraResult:
        return ulira(
            self._train(stack),
            self.job.keep,
            self.job.pool,
            variance=self.settings.variance,
            strata=self.labels,
            seeds=self.job.seeds,
            redraws=redraws,
        )

    def _ulira(self) -> dict[str, float]:
        privacy = self._privacy(self.after, self.settings.redraws)
        identity = self._privacy(self.before, 0)
        named = privacy.metrics()
        found = {f"ulira/{name}": named.pop(name) for name in PER_ROW}
        found |= {f"ulira.privacy/{name}": value for name, value in named.items()}
        found["ulira/share_above_identity"] = privacy.share_above(identity)
        found |= _difference("identity", compare(privacy, identity))
        self._keep("privacy", privacy)
        if self.retrained is not None:
            found |= _difference("retrain", compare(privacy, self._privacy(self.retrained, 0)))
            result = efficacy(
                self._train(self.after),
                self._train(self.retrained),
                self.job.keep,
                self.job.pool,
                variance=self.settings.variance,
                redraws=self.settings.redraws,
            )
            named = result.metrics()
            found |= {f"ulira.efficacy/{k}": v for k, v in named.items() if k not in PER_ROW}
            self._keep("efficacy", result)
        return found

    def _keep(self, name: str, result: UliraResult) -> None:
        self.arrays |= {
            f"{name}.in_scores": result.in_scores.astype(np.float32),
            f"{name}.out_scores": result.out_scores.astype(np.float32),
            f"{name}.per_example": result.per_example.astype(np.float32),
        }

    def _retain(self) -> dict[str, float]:
        """What unlearning does to the exposure of examples that were to be retained."""
        if len(self.job.others) < 2:
            return {}
        change = retain_privacy(
            self._train(self.after),
            self._train(self.before),
            self.job.keep,
            self.job.others,
            variance=self.settings.variance,
        )
        return {
            "ulira.retain/auc_change": change.auc,
            "ulira.retain/auc_change_se": change.auc_se,
            "ulira.retain/acc_change": change.acc,
            "ulira.retain/acc_change_se": change.acc_se,
        }

    def _population(self) -> dict[str, float]:
        """One attacker for all examples of a model, averaged over models."""
        size = len(self.labels)
        margins = self._train(self.after)
        plain = margins[:, 0]
        # loss and confidence are monotone in the margin of the plain view
        ordered = margin_auc(plain, self.job.keep, self.job.pool)
        found = {
            "mia.population/auc": margin_auc(margins, self.job.keep, self.job.pool),
            "mia.population/confidence_auc": ordered,
            "mia.population/loss_auc": ordered,
        }
        for name, values in (
            ("entropy", self.after.entropy),
            ("mod_entropy_songmittal", self.after.mod_entropy),
        ):
            signal = -values[:, :size]
            found[f"mia.population/{name}_auc"] = margin_auc(signal, self.job.keep, self.job.pool)
        found["mia.population/threshold_acc"] = threshold_accuracy(
            plain, self.job.keep, self.job.pool, classes=self.labels
        )
        return found

    def _rmia(self) -> dict[str, float]:
        """The fallback for few shadow models.

        The population are the images held out for validation; test images if there are none.
        """
        plain = self.after.margins[:, 0]
        never = np.ones(plain.shape[1], dtype=np.bool_)
        never[np.concatenate([self.job.pool, self.job.others])] = False
        if never[: len(self.labels)].any():
            never[len(self.labels) :] = False  # validation images will do
        result = rmia(self._train(self.after), self.job.keep, plain[:, never], self.job.pool)
        return {"rmia/auc": result.auc, "rmia/auc_se": result.auc_se}

    def _forgotten(self, stack: MarginStack) -> FloatArray:
        """Margins of each target in the models that were trained on it, view 0, `(N/2, E)`."""
        rows = self._train(stack)[:, 0, self.job.pool].astype(np.float64)
        first = self.job.keep[0::2, self.job.pool]
        chosen: FloatArray = np.where(first, rows[0::2], rows[1::2])
        return chosen

    def _klom(self, retrained: MarginStack) -> dict[str, float]:
        """KLoM of the forgotten examples, with what exact unlearning would score."""
        after, reference = self._forgotten(self.after), self._forgotten(retrained)
        value = KlomSummary.of(klom(after, reference))
        floor = klom_floor(len(after))
        found = {f"klom/{name}": number for name, number in asdict(value).items()}
        found |= {f"klom/floor_{name}": number for name, number in asdict(floor).items()}
        found["klom_gauss/mean"] = float(klom_gauss(after, reference).mean())
        # spreads differ between examples, and their estimates are drawn together
        spread = np.tile(reference.std(0, ddof=1), -(-FLOOR_EXAMPLES // reference.shape[1]))
        draws = np.random.default_rng(0).normal(size=(2, len(after), len(spread))) * spread
        return found | {"klom_gauss/floor_mean": float(klom_gauss(*draws).mean())}

    def _forgetting(self, retrained: MarginStack) -> dict[str, float]:
        """The challenge's F, over shadow models instead of runs of one original."""
        after, reference = self._forgotten(self.after), self._forgotten(retrained)
        return {
            "forgetting_score/f": forgetting_score(after, reference),
            "forgetting_score/null": forgetting_null(len(after)),
        }

    def _control_rise(self) -> dict[str, float]:
        """How much better than before the controls are recognised, beyond what test images are.

        A method cannot reach the controls by what it is given. One that fetches them elsewhere
        and trains on them makes their accuracy jump, and its figures mean nothing. A fall is no
        sign of that: where a class is forgotten, all examples of it fall.
        """
        size = len(self.labels)
        classes = np.unique(self.labels[self.job.pool])
        test = np.flatnonzero(np.isin(self.test_labels, classes)) + size
        if not len(test):
            return {}
        rises = []
        for kept, before, after in zip(
            self.job.keep, self.before.correct, self.after.correct, strict=True
        ):
            controls = self.job.pool[~kept[self.job.pool]]
            gain, of_test = (after[ids].mean() - before[ids].mean() for ids in (controls, test))
            rises.append(min(gain, gain - of_test))
        rise = float(np.mean(rises))
        se = float(np.std(rises, ddof=1) / np.sqrt(len(rises)))
        if rise > max(RISE_LEAST, RISE_SE * se):
            self.suspicion = (
                f"accuracy on the controls rose by {100 * rise:.1f} points, and by more than on "
                "test images: the method seems to have been trained on them"
            )
        return {"ulira/control_rise": rise, "ulira/control_rise_se": se}


def _difference(other: str, difference: Difference) -> dict[str, float]:
    return {
        f"ulira.privacy/acc_vs_{other}": difference.acc,
        f"ulira.privacy/acc_vs_{other}_se": difference.acc_se,
    }
