"""Where a result was computed: devices, hardware, memory, commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from unlearnbench.bench import InputError
from unlearnbench.bench import environment as env
from unlearnbench.bench.environment import (
    PeakMemory,
    cpu_count,
    describe_environment,
    git_commit,
    hardware,
    resolve_device,
)

MEGABYTE = 2**20


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be on a machine with so many CUDA devices, or with MPS."""

    def pretend(cuda=0, *, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


# --- devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(0, False, "cpu"), (2, False, "cuda"), (0, True, "mps"),
                                  (1, True, "cuda")]
)  # fmt: skip
def test_auto_is_the_fastest_that_there_is(machine, cuda, mps, expected):
    machine(cuda, mps=mps)
    assert resolve_device("auto") == expected


@pytest.mark.parametrize("wish", ["cpu", "cpu:0", "cuda", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_there_is_is_taken_as_wished(machine, wish):
    machine(2, mps=True)
    assert resolve_device(wish) == wish
    assert torch.device(wish).type == wish.partition(":")[0]


@pytest.mark.parametrize("wish", ["cuda", "cuda:0", "mps", "gpu", "", "cpu:1", "cpu:", "CPU", "²"])
def test_a_device_that_there_is_not_is_one_sentence(machine, wish):
    machine()
    with pytest.raises(InputError) as caught:
        resolve_device(wish)
    assert str(caught.value) == f"device `{wish}` is not available here; allowed: auto, cpu."


@pytest.mark.parametrize("wish", ["cuda:2", "cuda:-1", "cuda:", "cuda:x", "cuda:²", "cuda:0:0"])
def test_a_device_number_that_there_is_not_is_one_sentence(machine, wish):
    machine(2)
    with pytest.raises(InputError, match=r"is not available here; allowed: auto, cuda, cpu\.$"):
        resolve_device(wish)


# --- hardware -------------------------------------------------------------------------------------


def test_hardware_is_one_line_that_tells_threads_and_accelerator_apart():
    lines = [hardware("cpu", 1), hardware("cpu", 2), hardware("mps", 2)]
    assert len(set(lines)) == 3
    assert all(line and "\n" not in line for line in lines)
    assert lines[0].endswith(", 1 thread")
    assert lines[1].endswith(", 2 threads")
    assert lines[2].endswith(", 2 threads, MPS")
    assert lines[0].partition(", ")[0]


def test_hardware_of_a_cuda_device_is_its_name_whatever_the_threads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Chip {device.index}")
    assert hardware("cuda:1", 3) == hardware("cuda:1", 4) == "Chip 1"


def test_the_description_names_versions_device_and_threads():
    described = describe_environment("cpu")
    assert json.loads(json.dumps(described)) == described
    assert described["python"] == platform.python_version()
    for name in ("torch", "timm", "numpy", "scikit-learn", "torchvision", "unlearnbench"):
        assert described[name] == version(name)
    assert described["device"] == "cpu"
    assert described["threads"] == torch.get_num_threads()
    assert described["hardware"] == hardware("cpu", torch.get_num_threads())
    assert "git_commit" in described


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= cpu_count() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert cpu_count() == 1
        finally:
            os.sched_setaffinity(0, allowed)


# --- commit ---------------------------------------------------------------------------------------


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True,
                          capture_output=True, text=True)  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def code_at(monkeypatch):
    """Pretend that the package lies elsewhere."""

    def pretend(folder):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(env, "__file__", str(folder / "environment.py"))
        git_commit.cache_clear()

    yield pretend
    git_commit.cache_clear()


def test_the_commit_is_named_and_marked_when_the_code_is_changed(tmp_path, code_at):
    (tmp_path / "bench").mkdir()
    file = tmp_path / "bench" / "code.py"
    file.write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "v1")  # a tag does not hide the commit
    head = git(tmp_path, "rev-parse", "HEAD")
    code_at(tmp_path / "bench")
    assert git_commit() == head[:12]
    file.write_text("2")
    code_at(tmp_path / "bench")
    assert git_commit() == f"{head[:12]}+"


def test_an_installed_package_has_no_commit_even_inside_a_repository(tmp_path, code_at):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "somebody else's")
    code_at(tmp_path / "venv" / "site-packages" / "unlearnbench" / "bench")
    assert git_commit() is None


def test_code_outside_a_repository_and_a_machine_without_git_have_no_commit(
    tmp_path, code_at, monkeypatch
):
    code_at(tmp_path / "bench")
    assert git_commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    code_at(tmp_path / "bench")
    assert git_commit() is None


# --- memory ---------------------------------------------------------------------------------------

can_reset = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the mark cannot be reset here"
)


def peak_of(work):
    memory = PeakMemory("cpu")
    memory.start()
    work()
    return memory.stop()


@can_reset
def test_the_peak_sees_what_was_freed_before_it_is_read():
    idle = peak_of(lambda: None)
    used = peak_of(lambda: np.ones(200 * MEGABYTE, dtype=np.uint8).sum())
    assert 190 * MEGABYTE < used - idle < 260 * MEGABYTE


@can_reset
def test_the_peak_forgets_what_was_used_before_it_started():
    used = peak_of(lambda: np.ones(200 * MEGABYTE, dtype=np.uint8).sum())
    assert peak_of(lambda: None) < used - 150 * MEGABYTE


def test_the_peak_is_bytes_of_the_whole_process():
    peak = peak_of(lambda: None)
    assert 10 * MEGABYTE < peak < 2**40


def test_the_peak_of_a_cuda_device_is_what_was_allocated_on_it(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", calls.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * len(device))
    memory = PeakMemory("cuda:1")
    memory.start()
    assert memory.stop() == 30
    assert calls == ["cuda:1"]


def test_where_there_is_no_proc_the_highest_since_the_start_is_given(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    before = peak_of(lambda: None)
    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(Path, "write_text", absent)
    assert peak_of(lambda: None) >= before / 2
