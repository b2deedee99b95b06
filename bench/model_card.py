"""An unlearned model as two files that anybody can load: `model.safetensors` and `model.json`.

The weights are safetensors, nothing is pickled. `model.json`, the card, has the architecture with
its keyword arguments, the classes, the size and normalisation of the images, and the signature in
MLflow's form. `load_model` makes a timm network of both:

    from unlearnbench.bench import load_model
    model = load_model("model")  # the folder, downloaded from a run
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError, InputError
from .keys import digest_file
from .modelspec import ModelSpec
from .record import Record
from .spec_string import parse_spec

if TYPE_CHECKING:
    from torch import nn

SCHEMA = "unlearnbench.model/1"
WEIGHTS, CARD = "model.safetensors", "model.json"


def model_card(record: Record, images: Mapping[str, Any], weights_digest: str) -> dict[str, Any]:
    """Describe the unlearned model of a cell, as JSON values.

    Args:
        record: The cell, which is ok.
        images: `class_names`, `mean` and `std` of its dataset.
        weights_digest: SHA-256 of the file of weights.
    """
    name, kwargs = parse_spec(record.model, "model")
    stem = kwargs.pop("stem", "auto")
    if kwargs.pop("weights", None) is not None:
        stem = record.model_info["stem"]  # the weights decided
    shape, classes = record.model_info["input_size"], list(images["class_names"])
    return {
        "schema": SCHEMA,
        "architecture": {"name": name, "kwargs": kwargs, "stem": stem},
        "classes": classes,
        "input": {
            "size": shape,
            "mean": list(images["mean"]),
            "std": list(images["std"]),
            "form": "float32 (N, C, H, W); pixels in [0, 1], less the mean, by the spread",
        },
        "output": "float32 (N, classes); logits",
        "signature": {
            "inputs": _tensor([-1, *shape]),
            "outputs": _tensor([-1, len(classes)]),
        },
        "weights_sha256": weights_digest,
        "unlearned": {
            "cell": record.key,
            "dataset": record.dataset,
            "data_digest": record.data_digest,
            "scenario": record.scenario,
            "forget_request": record.forget_request,
            "method": record.method,
            "hyperparameters": record.hyperparameters,
            "recipe": record.recipe,
            "seed": record.seed,
        },
    }


def load_model(folder: str | Path) -> nn.Module:
    """Make the timm network of a card and its weights.

    Args:
        folder: Holds `model.json` and `model.safetensors`.

    Returns:
        The model on the CPU in eval mode: normalised images `(N, C, H, W)` to `(N, classes)`
        logits.

    Raises:
        DataError: If a file is missing.
        InputError: If the card is not one, or the weights are not those that it names.
    """
    card_path, weights_path = Path(folder, CARD), Path(folder, WEIGHTS)
    for path in (card_path, weights_path):
        if not path.is_file():
            raise DataError(f"`{folder}` holds no unlearned model: `{path.name}` is missing.")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        about, size = card["architecture"], tuple(card["input"]["size"])
        spec = ModelSpec(about["name"], about["kwargs"], about["stem"])
        classes, digest = len(card["classes"]), card["weights_sha256"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"`{card_path}` does not describe an unlearned model.") from None
    if digest_file(weights_path) != digest:
        raise InputError(f"`{weights_path}` is damaged: it is not the file that `{CARD}` names.")
    from safetensors.torch import load_file

    from .models import build_model

    model = build_model(spec, classes, size, 0)
    try:
        model.load_state_dict(load_file(weights_path))
    except RuntimeError:
        raise InputError(
            f"`{weights_path}` does not fit `{about['name']}`: the method has changed the network "
            "itself, which its name and arguments do not tell."
        ) from None
    return model.eval()


def _tensor(shape: list[int]) -> str:
    """A tensor without a name in the notation of MLflow's signatures."""
    return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": shape}}])
