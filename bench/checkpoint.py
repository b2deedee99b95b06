"""Checkpoints: a training that was interrupted goes on where it was, bit for bit on the CPU."""

from __future__ import annotations

import time
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
        rng: CPU generator that shuffles and augments.
        every_s: Least seconds between two writings; 0 for every epoch.

    Attributes:
        before_s: Seconds that the epochs restored by `resume` took.
    """

    def __init__(self, path: Path, rng: torch.Generator, every_s: float = EVERY_S) -> None:
        self.path, self._rng, self._every_s = path, rng, every_s
        self._began = self._written = time.monotonic()
        self.before_s = 0.0

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Restore what the file holds, if there is one that fits.

        Returns:
            Number of epochs that are done; 0 if there is nothing to restore.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata() or {}
                held: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):  # none, or cut short by a full disk
            return 0
        weights = _part(held, "model.")
        if about.get("format") != FORMAT or weights.keys() != model.state_dict().keys():
            return 0
        model.load_state_dict(weights)
        state = optimizer.state_dict()
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(held, "optimizer.").items():
            number, _, slot = name.partition(".")
            slots.setdefault(int(number), {})[slot] = tensor
        optimizer.load_state_dict({**state, "state": slots})
        self._rng.set_state(held["rng"])
        torch.set_rng_state(held["rng.torch"])
        if "rng.cuda" in held:
            torch.cuda.set_rng_state(held["rng.cuda"])
        self.before_s = float(about["seconds"])
        self._began = time.monotonic()
        return int(about["epochs"])

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
        for number, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                if isinstance(value, Tensor):
                    held[f"optimizer.{number}.{slot}"] = value
        held |= {"rng": self._rng.get_state(), "rng.torch": torch.get_rng_state()}
        if any(tensor.is_cuda for tensor in held.values()):
            held["rng.cuda"] = torch.cuda.get_rng_state()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{uuid4().hex}")
        try:
            cpu = {name: t.detach().cpu().contiguous().clone() for name, t in held.items()}
            seconds = self.before_s + now - self._began
            about = {"format": FORMAT, "epochs": str(epochs), "seconds": str(seconds)}
            save_file(cpu, temporary, about)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._written = time.monotonic()

    def clear(self) -> None:
        """Remove the file: the training has ended."""
        self.path.unlink(missing_ok=True)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
