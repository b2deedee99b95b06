"""The store, its keys and its files: whole or not at all, checked, safe for several processes."""

from __future__ import annotations

import json
import os
import stat
import string
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.bench import StoreError
from unlearnbench.bench.files import write_bytes_atomically, write_text_atomically
from unlearnbench.bench.keys import (
    canonical_json,
    content_key,
    derive_seed,
    digest_bytes,
    digest_file,
)
from unlearnbench.bench.store import Store

KEY = "ab12"


def everything(root):
    """All files and folders of a store, but for its locks."""
    artifacts = root / "artifacts"
    return sorted(str(path.relative_to(artifacts)) for path in artifacts.rglob("*"))


# --- putting and getting --------------------------------------------------------------------------


def test_what_is_put_is_what_is_got(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "c": torch.zeros(0, 2)}
    meta = {"x": [1, 2.5, None, "ü"], "y": {"z": True}}
    store = Store(tmp_path)
    store.put("thing", KEY, meta, tensors, write=lambda folder: (folder / "n").write_text("hi"))
    again = Store(tmp_path).get("thing", KEY)
    assert again.meta == meta
    loaded = again.tensors()
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype
    assert again.file("n").read_text() == "hi"
    assert set(again.files) == {"n", "tensors.safetensors"}


def test_what_was_never_put_is_not_there(tmp_path):
    store = Store(tmp_path)
    assert store.get("thing", KEY) is None
    assert not store.has("thing", KEY)
    assert not store.holds("thing")
    store.put("thing", KEY, {})
    assert store.has("thing", KEY)
    assert store.holds("thing")
    assert not store.has("other", KEY)
    assert store.get("thing", "ab13") is None


def test_the_layout_on_disk_is_as_documented(tmp_path):
    Store(tmp_path).put("thing", "ab12", {}, {"w": torch.zeros(1)})
    assert everything(tmp_path) == [
        "thing", "thing/ab", "thing/ab/ab12", "thing/ab/ab12/meta.json",
        "thing/ab/ab12/tensors.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).view(3, 4).t(),
        torch.arange(12.0)[::2],
        torch.ones(1).expand(5),
        torch.nn.Parameter(torch.ones(2, 2)),
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor([True, False]),
    ],
    ids=["transposed", "strided", "expanded", "parameter", "bfloat16", "bool"],
)
def test_tensors_of_any_layout_are_stored(tmp_path, tensor):
    stored = Store(tmp_path).put("thing", KEY, {}, {"t": tensor}).tensors()["t"]
    assert torch.equal(stored, tensor)
    assert stored.is_contiguous()
    assert not stored.requires_grad


def test_tensors_that_share_memory_are_stored_apart(tmp_path):
    base = torch.arange(4.0)
    stored = Store(tmp_path).put("thing", KEY, {}, {"a": base, "b": base, "c": base[:2]}).tensors()
    stored["a"][0] = 9
    assert stored["b"].tolist() == [0, 1, 2, 3]
    assert stored["c"].tolist() == [0, 1]


def test_the_first_writer_wins_and_the_second_is_handed_what_is_there(tmp_path):
    store = Store(tmp_path)
    store.put("thing", KEY, {"n": 1})
    assert store.put("thing", KEY, {"n": 2}, {"t": torch.ones(1)}).meta == {"n": 1}
    assert everything(tmp_path)[-1] == "thing/ab/ab12/meta.json"


# --- whole or not at all --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_writer_that_raises_leaves_nothing(tmp_path, error):
    def write(folder):
        (folder / "half").write_text("half")
        raise error

    store = Store(tmp_path)
    with pytest.raises(error):
        store.put("thing", KEY, {}, {"t": torch.ones(1)}, write)
    assert store.get("thing", KEY) is None
    assert everything(tmp_path) == ["thing", "thing/ab"]
    assert store.put("thing", KEY, {"n": 1}).meta == {"n": 1}


@pytest.mark.parametrize("meta", [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}])
def test_meta_that_is_no_json_leaves_nothing(tmp_path, meta):
    store = Store(tmp_path)
    with pytest.raises((ValueError, TypeError)):
        store.put("thing", KEY, meta)
    assert everything(tmp_path) == ["thing", "thing/ab"]


def test_what_a_kill_left_behind_harms_nothing(tmp_path):
    store = Store(tmp_path)
    half = tmp_path / "artifacts" / ".new-abc"
    half.mkdir()
    (half / "tensors.safetensors").write_bytes(b"half")
    assert store.get("thing", KEY) is None
    assert store.put("thing", KEY, {"n": 1}).meta == {"n": 1}


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def empty(path):
    path.write_bytes(b"")


def swap_values(path):
    content = json.loads(path.read_text())
    content["meta"]["n"] = 2
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("damage", [truncate, empty, swap_values])
def test_damaged_meta_is_detected_in_one_sentence(tmp_path, damage):
    store = Store(tmp_path)
    store.put("thing", KEY, {"n": 1})
    damage(store.path("thing", KEY) / "meta.json")
    with pytest.raises(
        StoreError, match=r"`meta.json` in `.*ab12` is damaged.*delete that folder"
    ) as e:
        store.get("thing", KEY)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", ["tensors.safetensors", "labels.npy"])
def test_a_damaged_file_is_detected_in_one_sentence(tmp_path, name, damage):
    store = Store(tmp_path)
    store.put("thing", KEY, {}, {"t": torch.ones(3)},
              lambda folder: np.save(folder / "labels.npy", np.arange(3)))  # fmt: skip
    damage(store.path("thing", KEY) / name)
    found = store.get("thing", KEY)
    with pytest.raises(StoreError, match=rf"`{name}` in `.*ab12` is damaged") as caught:
        found.tensors() if name.startswith("tensors") else found.file(name)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_not_stored_is_not_given_out(tmp_path):
    store = Store(tmp_path)
    found = store.put("thing", KEY, {})
    (found.path / "stranger").write_text("boo")
    with pytest.raises(StoreError, match="`stranger`"):
        found.file("stranger")


# --- several processes ----------------------------------------------------------------------------


PUT = """
import sys, time
from pathlib import Path
from unlearnbench.bench.store import Store

root, number = Path(sys.argv[1]), sys.argv[2]

def write(folder):
    (folder / "who").write_text(number)
    (root / f"ready-{number}").touch()
    while len(list(root.glob("ready-*"))) < 2:  # both are past the look whether the key is taken
        time.sleep(0.001)

print(Store(root).put("thing", "ab12", {"n": number}, write=write).meta["n"])
"""

COUNT = """
import sys, time
from pathlib import Path
from unlearnbench.bench.store import Store

store, file = Store(Path(sys.argv[1])), Path(sys.argv[2])
for _ in range(40):
    with store.lock("thing", "ab12"):
        number = int(file.read_text())
        time.sleep(0.001)
        file.write_text(str(number + 1))
"""


def run_two(script, first, second):
    """Run a script twice at once in processes of their own; return what each printed."""
    running = [
        subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)],
                         stdout=subprocess.PIPE, text=True)
        for arguments in (first, second)
    ]  # fmt: skip
    printed = [process.communicate(timeout=60)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return printed


def test_processes_that_put_one_key_at_once_agree_on_the_first(tmp_path):
    answers = run_two(PUT, (tmp_path, "1"), (tmp_path, "2"))
    stored = Store(tmp_path).get("thing", KEY)
    assert answers == [stored.meta["n"]] * 2
    assert stored.file("who").read_text() == stored.meta["n"]
    assert everything(tmp_path) == [
        "thing", "thing/ab", "thing/ab/ab12", "thing/ab/ab12/meta.json", "thing/ab/ab12/who",
    ]  # fmt: skip


def test_a_writer_who_is_overtaken_at_the_last_moment_takes_what_is_there(tmp_path, monkeypatch):
    store, rename = Store(tmp_path), Path.rename

    def overtaken(path, target):
        monkeypatch.undo()
        store.put("thing", KEY, {"n": "first"})
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    assert store.put("thing", KEY, {"n": "second"}).meta == {"n": "first"}
    assert everything(tmp_path)[-1] == "thing/ab/ab12/meta.json"


def test_a_lock_excludes_other_processes(tmp_path):
    file = tmp_path / "number"
    file.write_text("0")
    run_two(COUNT, (tmp_path, file), (tmp_path, file))
    assert file.read_text() == "80"


def test_a_lock_is_given_back_when_the_work_fails(tmp_path):
    store = Store(tmp_path)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), store.lock("thing", KEY):
            raise ZeroDivisionError


def test_two_keys_can_be_locked_at_once(tmp_path):
    store = Store(tmp_path)
    with store.lock("thing", "a"), store.lock("thing", "b"), store.lock("other", "a"):
        pass


# --- where nothing can be written -----------------------------------------------------------------


def test_a_store_that_cannot_be_made_is_one_sentence(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match=r"the store `.*` cannot be written: \w.*\.$") as caught:
        Store(file / "store")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_store_that_may_not_be_written_is_one_sentence(tmp_path):
    (tmp_path / "artifacts").mkdir()
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(StoreError, match="cannot be written: Permission denied"):
            Store(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(tmp_path):
    def write(folder):
        raise OSError(28, "No space left on device")

    store = Store(tmp_path)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        store.put("thing", KEY, {}, write=write)
    assert everything(tmp_path) == ["thing", "thing/ab"]


def test_a_store_can_be_looked_at_without_being_made(tmp_path):
    store = Store(tmp_path / "store", create=False)
    assert store.get("thing", KEY) is None
    assert not (tmp_path / "store").exists()


# --- keys -----------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | st.text() | finite
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=4)
)


def reordered(value):
    """The same value with every table in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_canonical_json_does_not_depend_on_the_order_of_tables(value):
    assert canonical_json(reordered(value)) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@given(values, values)
def test_different_values_have_different_keys(a, b):
    same = canonical_json(a) == canonical_json(b)
    assert (content_key("thing", v=a) == content_key("thing", v=b)) == same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_without_a_json_form_are_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        content_key("thing", x=[{"y": value}])


def test_a_key_is_thirty_two_digits_of_kind_and_content():
    key = content_key("thing", a=1, b=[2])
    assert len(key) == 32
    assert set(key) <= set(string.hexdigits.lower())
    assert key == content_key("thing", b=[2], a=1)
    others = [
        content_key("thong", a=1, b=[2]),
        content_key("thing", a=2, b=[2]),
        content_key("thing", a="1", b=[2]),
        content_key("thing", a=1, b=2),
        content_key("thing", a=1),
    ]
    assert len({key, *others}) == 6


def test_keys_never_change():
    """Pinned: stores that people have are read by these."""
    assert content_key("thing", a=1) == "1553822488ff9ab8c998a9c93a0c6dcb"
    assert derive_seed(0, "init") == 925402481798332886


def test_digests_are_sha256(tmp_path):
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_bytes(b"abc") == digest_bytes(b"a", memoryview(b"bc")) == abc
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_file(tmp_path / "abc") == abc


@given(st.lists(st.integers() | st.text(), max_size=4))
def test_a_derived_seed_is_a_seed_for_torch_and_numpy(parts):
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)
    np.random.default_rng(seed)


def test_derived_seeds_are_independent_and_evenly_spread():
    seeds = {derive_seed(seed, use) for seed in range(500) for use in ("init", "unlearn")}
    assert len(seeds) == 1000
    assert 440 < sum(seed >= 2**62 for seed in seeds) < 560
    assert 440 < sum(seed % 2 for seed in seeds) < 560
    assert derive_seed("ab", "c") != derive_seed("a", "bc")


# --- files ----------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_and_its_folder_is_made(tmp_path):
    path = tmp_path / "deep" / "er" / "file.txt"
    write_text_atomically(path, "one\n")
    write_text_atomically(path, "zwö\n")
    assert path.read_bytes() == "zwö\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text_atomically(path, "old")

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_bytes_atomically(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path):
    store = Store(tmp_path)
    old, young = (tmp_path / "artifacts" / name for name in (".new-old", ".new-young"))
    for folder in (old, young):
        folder.mkdir()
        (folder / "half").write_text("half")
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    os.utime(old, (two_days_ago, two_days_ago))
    store.tidy()
    assert not old.exists()
    assert young.exists()


def test_a_folder_in_the_store_can_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        artifact = Store(tmp_path).put("kind", "0" * 32, {})
    finally:
        os.umask(before)
    assert artifact.path.stat().st_mode & 0o777 == 0o755
