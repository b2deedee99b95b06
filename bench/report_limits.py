"""What a report cannot say: the limits of its numbers, and what the records do not hold."""

from __future__ import annotations

from collections.abc import Iterator

from .attack_rows import figure
from .cell_evidence import Evidence
from .recipe import is_plain
from .tablecell import known
from .verdict import Verdict


def limits(evidence: Evidence, verdict: Verdict) -> list[str]:
    """What the numbers do not say, and what is not known."""
    return list(_limits(evidence, verdict))


def _limits(evidence: Evidence, verdict: Verdict) -> Iterator[str]:
    record = evidence.record
    if known(evidence.acc):
        yield (
            "The attack's figure is of the method over shadow models that were trained on half of "
            "the images, and an average over requests of this kind. It is not a statement about "
            "this one model as it is deployed, nor about one person's example."
        )
        yield (
            "The attack sees the outputs of a model only (black box). Somebody who holds the "
            "weights may find more."
        )
        yield "A stronger attack, or more shadow models, may find what this one did not."
    if verdict.kind == "leak":
        yield (
            "That something can be told on average does not mean that it can be told of every "
            "example, nor of which ones for certain."
        )
    ok = sum(cell.status == "ok" for cell in evidence.cells)
    if record.status == "ok":
        yield (
            f"Accuracies and times are of this one model (seed {record.seed}). "
            + ("There is no other seed, so that nobody knows how far they vary." if ok < 2 else
               f"The records hold {ok} seeds of it; the leaderboard shows how far they vary.")
        )  # fmt: skip
    if not is_plain(record.recipe):
        yield (
            f"The original was trained with the recipe `{record.recipe}`, which this method asks "
            "for. For a model that was trained in another way nothing is shown here."
        )
    if record.tuning.get("reason"):
        yield f"Tuning found nothing: {' '.join(str(record.tuning['reason']).split())}"
    yield from evidence.table.origins
    unknown = list(_unknown(evidence))
    if unknown:
        yield f"Not in the records: {'; '.join(unknown)}."


def _unknown(evidence: Evidence) -> Iterator[str]:
    record = evidence.record
    if record.status != "ok":
        yield "every figure of this model, which is not ok"
        return
    if evidence.original is None:
        yield "the original model of this seed"
    if evidence.retrained is None:
        yield "the retrained model of this seed, and with it all distances"
    if not known(figure(evidence.floor, "gap_forget_acc")):
        yield "how far two retrained models lie apart"
    if record.method not in ("identity", "retrain") and "speedup" not in record.times:
        yield "the speed-up over retraining on the same machine"
    if not record.probe:
        yield "what is left inside the model (no probes were asked for)"
    yield from (" ".join(str(record.probe[k]).split()) for k in ("reason",) if k in record.probe)
    yield "the date"
