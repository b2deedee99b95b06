"""Images in the store: the same bytes, mapped, without pickle."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from unlearnbench.bench import DATASETS, StoreError
from unlearnbench.bench.cell import run_cell
from unlearnbench.bench.datastore import get_images, put_images
from unlearnbench.bench.jobs import WorkerSettings
from unlearnbench.bench.original import run_original
from unlearnbench.bench.scenario import split_validation
from unlearnbench.bench.store import Store

from .toys import toy_images, toy_plan, toy_spec


@pytest.mark.parametrize("coarse", [False, True])
def test_images_come_back_as_they_were_put(tmp_path, coarse):
    labels = toy_images().train_labels // 2 if coarse else None
    images = replace(toy_images(), flip=True, crop_pad=3, coarse_labels=labels)
    store = Store(tmp_path)
    put_images(store, images)
    again = get_images(store, images.digest)
    for name in ("train_images", "train_labels", "test_images", "test_labels", "coarse_labels"):
        old, new = getattr(images, name), getattr(again, name)
        assert (old is None and new is None) or (
            np.array_equal(old, new) and old.dtype == new.dtype
        )
    assert again.digest == images.digest
    for name in ("class_names", "mean", "std", "flip", "crop_pad"):
        assert getattr(again, name) == getattr(images, name)
    ours, theirs = split_validation(images, 0.1), split_validation(again, 0.1)
    assert np.array_equal(ours.validation, theirs.validation)


def test_images_are_mapped_and_cannot_be_written(tmp_path):
    store = Store(tmp_path)
    put_images(store, toy_images())
    images = get_images(store, toy_images().digest).train_images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_putting_images_twice_writes_them_once(tmp_path):
    store = Store(tmp_path)
    put_images(store, toy_images())
    file = store.get("data", toy_images().digest).path / "train_images.npy"
    before = file.stat().st_mtime_ns, file.stat().st_ino
    put_images(store, toy_images())
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before


def test_images_that_are_not_there_are_named(tmp_path):
    with pytest.raises(StoreError, match="the images `0123` are not in the store"):
        get_images(Store(tmp_path), "0123")


def test_damaged_images_are_detected(tmp_path):
    store = Store(tmp_path)
    put_images(store, toy_images())
    file = store.path("data", toy_images().digest) / "test_labels.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"`test_labels.npy` in .* is damaged"):
        get_images(store, toy_images().digest)


class Bomb:
    def __reduce__(self):
        return os.abort, ()


def test_an_array_of_pickles_is_never_loaded(tmp_path):
    """Even where somebody wrote it with all digests right."""
    store = Store(tmp_path)
    bomb = np.array([Bomb()], dtype=object)
    store.put("data", "evil", {},
              write=lambda folder: np.save(folder / "train_images.npy", bomb))  # fmt: skip
    with pytest.raises(ValueError, match="Python objects"):
        get_images(store, "evil")


def test_a_whole_run_leaves_no_pickle_in_the_store(tmp_path):
    store = Store(tmp_path)
    settings = WorkerSettings(store=str(tmp_path), plugins=(), threads=1, device="cpu")
    plan = toy_plan(toy_spec(methods=["osp"], training={"epochs": 1, "batch_size": 32}))
    cell = next(c for c in plan.cells if c.method.name == "osp")
    put_images(store, DATASETS.create(cell.dataset).load(tmp_path))
    run_original(cell.job.original, settings)
    run_cell(cell.job, settings)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".npy", ".lock"}
    kinds = {path.relative_to(tmp_path / "artifacts").parts[0]
             for path in files if path.suffix == ".json"}  # fmt: skip
    assert kinds == {"data", "original", "prepared", "cell"}
    for path in files:
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)
        elif path.suffix == ".safetensors":
            load_file(path)
