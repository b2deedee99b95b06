"""The record of one cell, and the file `records.jsonl` that holds one a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from .errors import DataError
from .jsonlines import json_line, read_lines, write_lines
from .record_values import PARTS, check_finite, check_parts

SCHEMA: Final = "unlearnbench.record/1"
DECORRELATION = ("filter_cosine", "feature_correlation")  # entries of `model_info`
REQUIRED_METRICS = ("retain_acc", "forget_acc", "test_acc")

Status = Literal["ok", "failed", "skipped"]
Finite = Annotated[float, Field(allow_inf_nan=False)]

# Differences, standard errors, ratios of spreads and KLoM are no fractions.
_FRACTION = re.compile(
    r"acc/\w+ | forgetting_score/\w+ | probe/\w+ | relearn/(\w+_)?censored | zrf"
    r"| mia_(svc_efficacy|entropy_member_rate|challenge_accuracy)"
    r"| (.*[/_])? (acc|auc) | (.*/)? ((auc_)? (p|null_(mean|lo|hi)) | (tpr|fpr)_.+"
    r"| per_example_p\d+ | power_d.+ | low_share | share_above_identity)",
    re.VERBOSE,
)


class Record(BaseModel):
    """What one cell was, what it gave and what it cost.

    Attributes:
        schema_: Version of this layout; written as `schema`.
        sweep: Name of the sweep.
        key: Content key of the cell.
        dataset: Dataset as `name[key=value,…]`.
        model: timm architecture as `name[key=value,…]`.
        model_info: `stem`, `parameters` (count) and `input_size` of the model as built; of the
            original also `filter_cosine` and `feature_correlation`, see `decorrelation`, or why
            not (`decorrelation_failed`); `weights` (`name` and `digest`) where all models start
            from weights, which may have been made with the forget set.
        recipe: `plain`, or the recipe of a method with a training penalty.
        training: Settings with which original and retrained model were trained, and the share
            of the training images that was held out for validation.
        scenario: Scenario as `name[key=value,…]`.
        data_digest: Content hash of the images; empty in records of before it was noted.
        forget_request: Content hash of the forget set.
        forget_size: Examples in the forget set.
        retain_size: Examples in the retain set.
        method: Registered name of the method.
        hyperparameters: All hyper-parameters, defaults included.
        tuning: How the hyper-parameters were found and what that cost, as in `Tuning`; empty if
            they were written by hand.
        seed: Seed of the cell; cells of one seed share original and retrained model.
        status: `ok`, `failed` or `skipped`.
        reason: Why it failed or was skipped; None when ok.
        metrics: Empty unless ok. Fractions in [0, 1] of the cell's own model: `retain_acc`,
            `forget_acc` (training images), `val_acc`, `test_acc`; for whole classes also
            `test_retain_acc` and `test_forget_acc`; each also as `gap_*`, the absolute difference
            to the retrained model of the same seed; `tow`; `mia_svc_efficacy`,
            `mia_entropy_member_rate`, `mia_challenge_accuracy`.
            Figures of the attack are of the method over the shadow models, so that all seeds
            carry the same ones. `ulira.privacy/*` and `ulira.efficacy/*`: `acc`, `se`, `auc`,
            `auc_se`, `tpr_0.05` and so on with the realised `fpr_0.05`, the null law
            (`null_mean`, `null_sd`, `null_lo`, `null_hi`, `p`, and `auc_null_mean` and so on),
            `low_share`, `spread_ratio`; privacy alone has `acc_vs_identity` and `acc_vs_retrain`,
            paired differences with `*_se`. `ulira/*`: `per_example_p5`, `per_example_p50`,
            `per_example_p95`, `power_d0.5`, `share_above_identity`, and `control_rise`, how much
            the accuracy on examples that the method must not see rose, with `control_rise_se`.
            `ulira.retain/*`: `auc_change`, `acc_change`, unlearned less original, with `*_se`.
            `mia.population/*`: `auc` (of the margin), `confidence_auc`, `loss_auc`,
            `entropy_auc`, `mod_entropy_songmittal_auc`, `threshold_acc`. `rmia/auc` and
            `rmia/auc_se` stand in for all of U-LIRA where there are fewer than 6 shadow models.
            `klom/*` and `klom_gauss/*` (nats) with `floor_*`, what exact unlearning gets;
            `forgetting_score/f` with `forgetting_score/null`, likewise.
            Figures of the probes are of the cell's own model. Fractions, on test images:
            `probe/recovery_2`, `probe/recovery_10` (a linear head refitted on 2 % and 10 % of the
            training set, forgotten classes included) and `probe/centres` (nearest class centre of
            the 10 %) of the forgotten classes, for whole classes only; `probe/accuracy_2`,
            `probe/accuracy_10`, `probe/centres_accuracy` of all classes.
            `cka_original/forget/<block>` and so on for `cka_retrained` and `retain`, unbiased and
            so at most 1 or little more, perhaps negative; `cka_original/forget_mean` over blocks
            and `cka_original/forget_last`. `relearn/steps` (median over orderings; the limit where
            at least half were not enough), `relearn/censored` (their share, a fraction),
            `relearn/ain` (over the retrained model's steps); in records of `identity` also
            `relearn/untrained_steps` and `relearn/untrained_censored`. `js/retrained`, nats in
            [0, ln 2], and `zrf`, a fraction, on the forget set. What is compared with the retrained
            model is so with that of the same seed, of retrained models with that of another.
        times: Seconds. `unlearn_s`, of which `statistics_s` and `search_s` where the method times
            them apart; `prepare_s`, `evaluate_s`, `original_s`, `retrain_s`; and `speedup`,
            retrain_s / unlearn_s, given only where both ran on the same hardware.
        peak_memory_bytes: Highest memory while unlearning: on the accelerator where there is
            one, else resident memory of the process; None where it cannot be told.
        samples: Examples served to the method by role, repeats counted, `prepare` included.
        method_info: What the method reports of itself, e.g. the values that it searched.
        environment: Versions, device, hardware, threads, git commit.
        attack: How the attack was made; empty if the sweep asked for none. `variant`, `shadows`,
            `examples`, `views`, `variance`, `redraws`, `tuning_track`, `bank` (its hash), `scores`
            (key of the scores in the store). `suspicion`, a sentence, if the figures do not
            count; `reason`, a sentence, if there are none.
        probe: How the probes were made; empty if the sweep asked for none. `probes` (names),
            `relearn` (step size, batch size, orderings, limit), `probe_s` (seconds), `notes`
            (sentences, on figures that are not defined here); `reason`, a sentence, if
            figures could not be had.
        course: Curves, one value an epoch of the harness's training loop, in the order in which
            the method went through them: `loss`, its mean over the epoch; `forget_acc`, a
            fraction, after the epoch, of at most 1000 forget examples. Empty where a method has
            a loop of its own. `identity` has the `loss` of training the original. Of a recipe
            that fine-tunes an original, only those epochs.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["unlearnbench.record/1"] = Field(SCHEMA, alias="schema")
    sweep: str
    key: str
    dataset: str
    model: str
    model_info: dict[str, Any] = {}
    recipe: str
    training: dict[str, Any] = {}
    scenario: str
    data_digest: str = ""
    forget_request: str
    forget_size: Annotated[int, Field(ge=0)]
    retain_size: Annotated[int, Field(ge=0)]
    method: str
    hyperparameters: dict[str, Any] = {}
    tuning: dict[str, Any] = {}
    seed: int
    status: Status
    reason: str | None = None
    metrics: dict[str, Finite] = {}
    times: dict[str, Finite] = {}
    peak_memory_bytes: int | None = None
    samples: dict[str, int] = {}
    method_info: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    attack: dict[str, Any] = {}
    probe: dict[str, Any] = {}
    course: dict[str, list[Finite]] = {}

    @model_validator(mode="after")
    def _status_and_content_agree(self, info: ValidationInfo) -> Self:
        if self.status == "ok":
            missing = [name for name in REQUIRED_METRICS if name not in self.metrics]
            if missing:
                raise ValueError(f"an ok record needs the metrics {', '.join(missing)}")
            if self.reason is not None:
                raise ValueError("an ok record has no reason")
        elif not self.reason:
            raise ValueError(f"a {self.status} record needs a reason")
        elif self.metrics:
            raise ValueError(f"a {self.status} record has no metrics")
        check_fractions(self.metrics)
        parts = {name: getattr(self, name) for name in PARTS}
        check_parts(parts)
        if info.mode == "json":  # what a method reports may have them; they are written as null
            check_finite(parts)
        return self

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json_line(self)


def check_fractions(metrics: Mapping[str, float]) -> None:
    """Make sure that accuracies, rates, shares and p-values are fractions.

    Raises:
        ValueError: If one is outside [0, 1].
    """
    outside = {k: v for k, v in metrics.items() if _FRACTION.fullmatch(k) and not 0 <= v <= 1}
    if outside:
        raise ValueError(f"accuracies, rates and shares are fractions in [0, 1]; got {outside}")


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write `records.jsonl` in one step; a reader never sees half of it."""
    write_lines(path, records)


def read_records(path: Path) -> list[Record]:
    """Read and validate `records.jsonl`.

    Raises:
        DataError: If the file is missing.
        InputError: For every line that is not a valid record.
    """
    if path.is_dir():
        path = path / "records.jsonl"
    if not path.is_file():
        raise DataError(f"there are no records at `{path}`; run a sweep first.")
    return read_lines(path, Record, "record")


def latest_by_key(records: Sequence[Record]) -> list[Record]:
    """Keep the last record of every cell, in the order of first appearance.

    Sweeps may name one cell in two ways (a class, and the ids of its examples): both stay.
    """
    named = {(r.key, r.dataset, r.model, r.scenario): r for r in records}
    return list(named.values())
