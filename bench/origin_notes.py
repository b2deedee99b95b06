"""Sentences on where the originals of a table come from, where that is not plain training."""

from __future__ import annotations

from collections.abc import Iterable

from .record import Record

SHOWN_DIGEST = 12


def origin_notes(records: Iterable[Record]) -> tuple[str, ...]:
    """What a reader must know of models that start from weights, each sentence once."""
    found: dict[str, None] = {}
    for record in records:
        weights = record.model_info.get("weights")
        if not weights:
            continue
        digest = weights["digest"]
        shown = digest if " " in digest else f"sha256 {digest[:SHOWN_DIGEST]}…"
        named = f"`{weights['name']}` ({shown})"
        tuned = record.training.get("penalty", {}).get("finetune_epochs")
        if record.training.get("epochs") == 0 and not tuned:
            note = (
                f"The original is the checkpoint {named} as it came: nothing was trained here, so "
                "there is no retrained model, no gap to it, and no speed-up."
            )
        else:
            note = (
                f"All models start from the weights {named}, the retrained and the shadow models "
                "too. What those were trained on is not known here: if it held the forget set, a "
                "retrained model has seen it as well."
            )
        found[note] = None
    return tuple(found)
