"""Checkpoints: a training that was interrupted goes on where it was, bit for bit on the CPU."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

EVERY_S = 60.0
FORMAT = "unlearnbench.checkpoint/1"


class Checkpoint:
    """A file that holds a training between two epochs.

    It holds weights, buffers, the optimiser's state and the state of torch's random generators.
    NumPy's and Python's are not held: the training loop does not draw from them.

    Args:
        path: The file; it need not exist.
        rng: CPU generator that shuffles and augments; several where models are trained together.
        every_s: Least seconds between two writings; 0 for every epoch.

    Attributes:
        before_s: Seconds that the epochs restored by `resume` took.
        losses: Mean loss of every epoch, as far as the training loop notes it here; those of
            the epochs restored come first.
    """

    def __init__(
        self,
        path: Path,
        rng: torch.Generator | Sequence[torch.Generator],
        every_s: float = EVERY_S,
    ) -> None:
        self.path, self._every_s = path, every_s
        self._rngs = [rng] if isinstance(rng, torch.Generator) else list(rng)
        self._began = self._written = time.monotonic()
        self.before_s = 0.0
        self.losses: list[float] = []

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Restore what the file holds, if there is one that fits.

        Returns:
            Number of epochs that are done; 0 if there is nothing to restore.
        """
        found = self._read(model)
        if found is None:
            return 0
        about, held = found
        weights, states = _part(held, "model."), _part(held, "rng.examples.")
        model.load_state_dict(weights)
        state = optimizer.state_dict()
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(held, "optimizer.").items():
            parameter, _, slot = name.partition(".")
            slots.setdefault(int(parameter), {})[slot] = tensor
        optimizer.load_state_dict({**state, "state": slots})
        for number, rng in enumerate(self._rngs):
            rng.set_state(states[str(number)])
        torch.set_rng_state(held["rng.torch"])
        if "rng.cuda" in held:
            torch.cuda.set_rng_state(held["rng.cuda"])
        self.before_s = float(about["seconds"])
        self.losses = json.loads(about.get("losses", "[]"))
        self._began = time.monotonic()
        return int(about["epochs"])

    def fits(self, model: nn.Module) -> bool:
        """Whether there is a file from which `resume` would go on."""
        return self._read(model) is not None

    def _read(self, model: nn.Module) -> tuple[dict[str, str], dict[str, Tensor]] | None:
        """What the file says of itself, and its tensors; None if there is none that fits."""
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata() or {}
                held: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):  # none, or cut short by a full disk
            return None
        weights, states = _part(held, "model."), _part(held, "rng.examples.")
        fits = weights.keys() == model.state_dict().keys() and len(states) == len(self._rngs)
        return (about, held) if about.get("format") == FORMAT and fits else None

    def epoch_done(self, epochs: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the file if it is time to.

        Args:
            epochs: Number of epochs that are done.
            model: As it is.
            optimizer: As it is.
        """
        now = time.monotonic()
        if now - self._written < self._every_s:
            return
        held = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for parameter, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                if isinstance(value, Tensor):
                    held[f"optimizer.{parameter}.{slot}"] = value
        for place, rng in enumerate(self._rngs):
            held[f"rng.examples.{place}"] = rng.get_state()
        held["rng.torch"] = torch.get_rng_state()
        if any(tensor.is_cuda for tensor in held.values()):
            held["rng.cuda"] = torch.cuda.get_rng_state()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{uuid4().hex}")
        try:
            cpu = {name: t.detach().cpu().contiguous().clone() for name, t in held.items()}
            seconds = self.before_s + now - self._began
            about = {"format": FORMAT, "epochs": str(epochs), "seconds": str(seconds)}
            about["losses"] = json.dumps(self.losses)
            save_file(cpu, temporary, about)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._written = time.monotonic()

    def before(self) -> Checkpoint:
        """The checkpoint of a training that comes before this one, for the same generators."""
        path = self.path.with_suffix(f".first{self.path.suffix}")
        return Checkpoint(path, self._rngs, self._every_s)

    def clear(self) -> None:
        """Remove the file: the training has ended."""
        self.path.unlink(missing_ok=True)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
