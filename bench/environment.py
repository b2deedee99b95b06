"""Where a result was computed: versions, device, hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn")


def resolve_device(wish: str) -> str:
    """Turn `auto` into `cuda`, `mps` or `cpu`; check that any other wish can be had.

    Raises:
        InputError: If the device does not exist here.
    """
    import torch

    from .errors import InputError

    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    if wish == "auto":
        return found[0]
    kind, colon, index = wish.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    known = kind in found and (not colon or (index.isdecimal() and int(index) < count))
    if not known:
        raise InputError(
            f"device `{wish}` is not available here; allowed: auto, {', '.join(found)}."
        )
    return wish


def describe_environment(device: str, threads: int | None = None) -> dict[str, Any]:
    """Versions, device, hardware and threads, as JSON values.

    Args:
        device: Torch's name of the device.
        threads: Threads of a worker; None for those of this process.
    """
    import torch

    if threads is None:
        threads = torch.get_num_threads()

    return {
        "unlearnbench": _version("unlearnbench"),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": device,
        "threads": threads,
        "hardware": hardware(device, threads),
        "git_commit": git_commit(),
    }


def hardware(device: str, threads: int) -> str:
    """One line that names what the time was spent on; times of different lines do not compare."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(torch.device(device)))
    return f"{_cpu_name()}, {threads} thread{'s' if threads != 1 else ''}" + (
        ", MPS" if device == "mps" else ""
    )


@cache
def git_commit() -> str | None:
    """Commit of the repository that the code runs from, with `+` if it is changed; else None."""
    here = Path(__file__).resolve().parent
    if "site-packages" in here.parts:
        return None
    try:
        run = subprocess.run(
            [
                "git",
                "-C",
                str(here),
                "describe",
                "--always",
                "--abbrev=12",
                "--dirty=+",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None


@cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class PeakMemory:
    """Highest memory between `start` and `stop`.

    On CUDA: bytes allocated on the device. Else: resident bytes of the process, which includes
    the interpreter and its libraries; on Linux the mark is reset at `start`, elsewhere it is the
    highest since the process began.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._device = device

    def start(self) -> None:
        """Reset the mark."""
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
            return
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def stop(self) -> int | None:
        """Return the mark in bytes, or None where it cannot be told."""
        if self._cuda:
            import torch

            return int(torch.cuda.max_memory_allocated(self._device))
        try:
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        if sys.platform == "win32":
            return None
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def threads() -> int:
    """Threads of a worker on the CPU: `OMP_NUM_THREADS`, else one.

    Results depend on it in their last bits, and times all the more; so it does not depend on
    the number of workers, and small networks are fastest with one.
    """
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return int(wish) if wish.isdigit() and int(wish) > 0 else 1


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
