"""Fills a network with weights from a file.

Files are safetensors, or torch files that hold nothing but tensors; a pickle that would run code
is refused. timm reads both, and the usual wrappings (`state_dict`, `model`, averaged weights,
`module.` in front of the names).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor, nn

from .errors import InputError
from .keys import digest_file
from .layers import heads_of

COUNTER = "num_batches_tracked"
SHOWN = 3  # names in a message; a checkpoint of another network has hundreds that are wrong


class MisfitError(InputError):
    """Weights that belong to another network."""


def load_weights(model: nn.Module, file: Path, label: str) -> bool:
    """Fill a network; a classifier of another width stays as it was initialised.

    Args:
        model: Changed in place; as it was if an error is raised.
        file: The weights.
        label: Name of the model, for messages.

    Returns:
        Whether the classifier was filled too.

    Raises:
        MisfitError: If a tensor is missing, unknown or of another shape.
        InputError: If the file cannot be read as weights.
    """
    found, own = read_weights(file), model.state_dict()
    fresh = _other_head(model, found)
    # old checkpoints do not count their batches, which torch itself lets pass
    missing = sorted(n for n in own.keys() - found.keys() if not n.endswith(COUNTER))
    found = {**{n: t for n, t in own.items() if n.endswith(COUNTER)}, **found}
    strange = sorted(found.keys() - own.keys())
    wrong = [
        name
        for name in own
        if name in found and name not in fresh and found[name].shape != own[name].shape
    ]
    complaints = [
        f"{problem} {_listed(names)}"
        for problem, names in (
            ("they lack", missing),
            ("they have", strange),
            ("of another shape are", wrong),
        )
        if names
    ]
    if complaints:
        raise MisfitError(
            f"the weights `{file.name}` do not fit the model `{label}`: {'; '.join(complaints)}."
        )
    model.load_state_dict({**found, **{name: own[name] for name in fresh}})
    return not fresh


def check_unchanged(file: Path, digest: str) -> None:
    """Make sure that a file still is what keys were made of.

    Raises:
        InputError: If it has been written since, or is gone.
    """
    try:
        same = digest_file(file) == digest
    except OSError as error:
        raise _unreadable(file, error) from None
    if not same:
        raise InputError(
            f"the weights file `{file}` has changed since the sweep was planned; run it again."
        )


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a file of weights.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        InputError: If the file is damaged, is no file of weights, or would have to run code.
    """
    logging.getLogger("timm").setLevel(logging.WARNING)  # it would announce every file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders at files that it then refuses
            found = load_state_dict(str(file), weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        # of both, torch makes a sentence of many lines that invites to run the code
        if not isinstance(error, UnpicklingError) and "weights_only" not in str(error):
            raise _unreadable(file, error) from None
        raise InputError(
            f"the weights file `{file}` is refused: it is no torch file, or holds more than "
            "tensors and would have to run code; save the model's `state_dict()` alone."
        ) from None
    except (SafetensorError, OSError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(file, error) from None
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise InputError(
            f"the weights file `{file}` does not hold tensors by name; "
            "save the model's `state_dict()`."
        )
    return dict(found)


def _unreadable(file: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return InputError(f"the weights file `{file}` cannot be read: {reason}.")


def _other_head(model: nn.Module, found: Mapping[str, Tensor]) -> set[str]:
    """Tensors of the classifier, if it has another number of classes in the file."""
    own = model.state_dict()
    modules = {module: name for name, module in model.named_modules()}
    head = {
        f"{modules[part]}.{name}"
        for part in heads_of(model)
        for name, _ in part.named_parameters(recurse=False)
    } & found.keys()
    same = all(found[name].shape == own[name].shape for name in head)
    same_inside = all(found[name].shape[1:] == own[name].shape[1:] for name in head)
    return set() if same or not same_inside else head


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(f"`{name}`" for name in listed[:SHOWN]) + more
