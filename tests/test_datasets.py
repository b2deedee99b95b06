"""The datasets: what they hold, that they never change, and what they say when data are amiss."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from functools import cache
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from unlearnbench.bench import DATASETS, DataError, InputError
from unlearnbench.datasets import cifar, fashion_mnist

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
NOWHERE = Path("/nonexistent")
OURS = ("cifar10", "cifar100", "digits", "fashion-mnist", "synthetic")
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"real images are not at {SHARED}, beside the repository"
)


def load(spec, data_root=NOWHERE):
    return DATASETS.create(spec).load(Path(data_root))


def one_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(caught.value.sentences) == 1
    return text


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def urlopen(request, **_):
        raise URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


@pytest.fixture
def server(monkeypatch):
    """Serve files by name; a name that is absent cannot be reached. Notes what was asked for."""

    class Response(io.BytesIO):
        url, length = None, None

    class Server(dict):
        pass

    served = Server()
    served.asked, served.timeouts = [], []

    def urlopen(request, **_):
        name = request.full_url.rpartition("/")[2]
        if name not in served:
            raise URLError(socket.gaierror(-2, "Name or service not known"))
        if name not in served.asked:
            served.asked.append(name)
        served.timeouts.append(socket.getdefaulttimeout())
        response = Response(served[name])
        response.length = len(served[name])
        return response

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return served


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# --- every dataset --------------------------------------------------------------------------------


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from unlearnbench.bench import DATASETS; "
        f"assert set({OURS}) <= set(DATASETS.names()); "
        "[c.summary() + c.about + c.reference for c in DATASETS.classes()]; "
        "print(sorted({'sklearn', 'torch', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("spec", ["digits", "synthetic", "synthetic[size=5,channels=2]"])
def test_images_are_contiguous_bytes_and_labels_int64(spec):
    data = load(spec)
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        assert images.dtype == np.uint8
        assert images.flags.c_contiguous
        assert images.shape[1:] == data.image_shape
        assert labels.dtype == np.int64
        assert labels.shape == (len(images),)


@pytest.mark.parametrize("spec", ["digits", "synthetic", "synthetic[size=5,channels=2]"])
def test_mean_and_std_are_those_of_the_training_images(spec):
    data = load(spec)
    scaled = data.train_images / 255
    assert data.mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), abs=5.1e-5)
    assert data.std == pytest.approx(scaled.std(axis=(0, 2, 3)), abs=5.1e-5)


# --- digits ---------------------------------------------------------------------------------------


def test_digits_split_every_class_four_to_one():
    data = load("digits")
    of_class = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    test = np.bincount(data.test_labels)
    assert test.tolist() == [round(n / 5) for n in of_class]
    assert (np.bincount(data.train_labels) + test).tolist() == of_class


def test_digits_hold_every_image_of_scikit_learn_once_and_in_its_order():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    source = [image.tobytes() for image in bunch.images.astype(np.uint8)]
    assert len(set(source)) == 1797  # so that an image says which row it is
    row_of = {image: row for row, image in enumerate(source)}
    data = load("digits")
    rows = {}
    for split in ("train", "test"):
        images = np.round(getattr(data, f"{split}_images") * (16 / 255)).astype(np.uint8)
        rows[split] = [row_of[image.tobytes()] for image in images]
        assert rows[split] == sorted(rows[split])
        assert bunch.target[rows[split]].tolist() == getattr(data, f"{split}_labels").tolist()
    assert sorted(rows["train"] + rows["test"]) == list(range(1797))


def test_digits_test_set_is_the_published_rule():
    from sklearn.datasets import load_digits

    labels = load_digits().target
    order = sorted(range(1797), key=lambda row: hashlib.sha256(b"digits %d" % row).digest())
    zeros = sorted([row for row in order if labels[row] == 0][:36])
    images = load_digits().images[zeros] * (255 / 16)
    data = load("digits")
    np.testing.assert_allclose(data.test_images[data.test_labels == 0][:, 0], images, atol=0.5)


def test_digits_use_the_whole_range_of_a_byte():
    data = load("digits")
    assert sorted(set(data.train_images.ravel().tolist())) == [
        round(v * 255 / 16) for v in range(17)
    ]
    assert (data.flip, data.crop_pad) == (False, 1)
    assert data.class_names == tuple("0123456789")


def test_digits_never_change():
    # A published forget set is a list of row numbers: this digest must stay what it is.
    assert load("digits").digest == "8cb0c19e7d698b6ff80dca161dcd12bc"


# --- synthetic ------------------------------------------------------------------------------------


def test_synthetic_has_the_shape_that_was_asked_for():
    data = load("synthetic[classes=3,size=12,channels=2,train_per_class=7,test_per_class=4]")
    assert data.train_images.shape == (21, 2, 12, 12)
    assert data.test_images.shape == (12, 2, 12, 12)
    assert np.bincount(data.train_labels).tolist() == [7, 7, 7]
    assert np.bincount(data.test_labels).tolist() == [4, 4, 4]
    assert data.class_names == ("class-0", "class-1", "class-2")


def test_synthetic_is_the_same_for_the_same_seed():
    assert load("synthetic[seed=3]").digest == load("synthetic[seed=3]").digest


@pytest.mark.parametrize(
    "change",
    [
        *("classes=9", "size=9", "channels=1", "train_per_class=51", "test_per_class=21"),
        *("noise=0.2", "seed=1", "label_noise=0.1"),
    ],
)
def test_synthetic_differs_when_a_parameter_differs(change):
    assert load(f"synthetic[{change}]").digest != load("synthetic").digest


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_synthetic_classes_can_be_told_apart_by_their_means(seed):
    data = load(f"synthetic[seed={seed}]")
    train = data.train_images.reshape(len(data.train_images), -1).astype(float)
    test = data.test_images.reshape(len(data.test_images), -1).astype(float)
    means = np.stack([train[data.train_labels == label].mean(axis=0) for label in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == data.test_labels).mean() > 0.9


def test_synthetic_examples_are_all_different():
    data = load("synthetic")
    images = np.concatenate([data.train_images, data.test_images])
    assert len({image.tobytes() for image in images}) == len(images)


def test_synthetic_label_noise_replaces_exactly_the_fraction_and_no_image():
    clean, noisy = load("synthetic"), load("synthetic[label_noise=0.3]")
    assert (clean.train_labels != noisy.train_labels).sum() == 150
    np.testing.assert_array_equal(clean.train_images, noisy.train_images)
    np.testing.assert_array_equal(clean.test_labels, noisy.test_labels)
    assert set(noisy.train_labels.tolist()) == set(range(10))


def test_synthetic_test_set_does_not_depend_on_the_size_of_the_training_set():
    np.testing.assert_array_equal(
        load("synthetic").test_images, load("synthetic[train_per_class=5]").test_images
    )


@pytest.mark.parametrize(
    "wrong",
    [
        *("classes=1", "size=3", "channels=0", "train_per_class=0", "test_per_class=0", "seed=-1"),
        *("noise=-0.1", "noise=2", "noise=nan", "label_noise=1.1"),
    ],
)
def test_synthetic_refuses_values_out_of_range(wrong):
    with pytest.raises(InputError, match=f"dataset `synthetic`: `{wrong.partition('=')[0]}`"):
        DATASETS.create(f"synthetic[{wrong}]")


# --- Fashion-MNIST --------------------------------------------------------------------------------

RAW = Path("FashionMNIST/raw")


@cache
def fashion_arrays():
    """Real images where they are at hand, generated ones elsewhere: 20 + 10 of each class."""
    packed = SHARED / "fashion_mnist_small.npz.xz"
    if packed.is_file():
        with lzma.open(packed) as file, np.load(io.BytesIO(file.read())) as arrays:
            found = {key: arrays[key] for key in arrays}
        names = ("x_train", "y_train", "x_test", "y_test")
        x_train, y_train, x_test, y_test = (found[name] for name in names)
    else:
        rng = np.random.default_rng(0)
        y_train, y_test = np.tile(np.arange(10), 30), np.tile(np.arange(10), 12)
        x_train = rng.integers(0, 256, (300, 28, 28))
        x_test = rng.integers(0, 256, (120, 28, 28))
    picked = []
    for x, y, n in ((x_train, y_train, 20), (x_test, y_test, 10)):
        rows = np.sort(np.concatenate([np.flatnonzero(y == label)[:n] for label in range(10)]))
        picked += [x[rows].reshape(-1, 28, 28).astype(np.uint8), y[rows].astype(np.uint8)]
    return picked


@pytest.fixture(scope="session")
def fashion_files():
    x_train, y_train, x_test, y_test = fashion_arrays()
    contents = {}
    for stem, images, labels in (("train", x_train, y_train), ("t10k", x_test, y_test)):
        sizes = np.array([2051, *images.shape], dtype=">i4").tobytes()
        contents[f"{stem}-images-idx3-ubyte"] = sizes + images.tobytes()
        sizes = np.array([2049, *labels.shape], dtype=">i4").tobytes()
        contents[f"{stem}-labels-idx1-ubyte"] = sizes + labels.tobytes()
    return contents


@pytest.fixture
def fashion(fashion_files, monkeypatch):
    """Contents by file name; ours and torchvision's checksums are set to theirs."""
    from torchvision.datasets import FashionMNIST

    packed = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in fashion_files.items()}
    raw_md5 = {name: md5(raw) for name, raw in fashion_files.items()}
    monkeypatch.setattr(fashion_mnist, "RAW_MD5", raw_md5)
    monkeypatch.setattr(FashionMNIST, "resources", [(n, md5(c)) for n, c in packed.items()])
    return fashion_files, packed


@pytest.fixture
def fashion_root(fashion, tmp_path):
    (tmp_path / RAW).mkdir(parents=True)
    for name, raw in fashion[0].items():
        (tmp_path / RAW / name).write_bytes(raw)
    return tmp_path


def test_fashion_mnist_is_read_as_it_is_in_the_files(fashion_root):
    data = load("fashion-mnist", fashion_root)
    x_train, y_train, x_test, y_test = fashion_arrays()
    np.testing.assert_array_equal(data.train_images[:, 0], x_train)
    np.testing.assert_array_equal(data.train_labels, y_train)
    np.testing.assert_array_equal(data.test_images[:, 0], x_test)
    np.testing.assert_array_equal(data.test_labels, y_test)
    assert data.train_images.flags.c_contiguous
    assert (data.mean, data.std) == ((0.2860,), (0.3530,))
    assert (data.flip, data.crop_pad) == (True, 2)
    assert data.class_names[0] == "T-shirt/top"
    assert data.class_names[9] == "Ankle boot"


@needs_shared
def test_fashion_mnist_images_have_about_the_published_mean(fashion_root):
    images = load("fashion-mnist", fashion_root).train_images / 255
    assert images.mean() == pytest.approx(0.2860, abs=0.03)
    assert images.std() == pytest.approx(0.3530, abs=0.03)


def test_per_class_takes_the_first_images_and_leaves_the_test_set_whole(fashion_root):
    whole = load("fashion-mnist", fashion_root)
    part = load("fashion-mnist[per_class=3]", fashion_root)
    assert np.bincount(part.train_labels).tolist() == [3] * 10
    for label in range(10):
        np.testing.assert_array_equal(
            part.train_images[part.train_labels == label],
            whole.train_images[whole.train_labels == label][:3],
        )
    np.testing.assert_array_equal(part.test_images, whole.test_images)
    assert part.digest != whole.digest
    assert part.digest == load("fashion-mnist[per_class=3]", fashion_root).digest


@pytest.mark.parametrize("spec", ["fashion-mnist", "cifar10", "cifar100"])
def test_per_class_must_be_possible(spec):
    with pytest.raises(InputError, match="`per_class` should be greater than or equal to 1"):
        DATASETS.create(f"{spec}[per_class=0]")
    with pytest.raises(InputError, match="`per_class` should be less than or equal to"):
        DATASETS.create(f"{spec}[per_class=6001]")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_damaged_file_is_one_sentence(fashion_root, damage):
    path = fashion_root / RAW / "train-images-idx3-ubyte"
    raw = path.read_bytes()
    changed = {"flipped": raw[:-1] + bytes([raw[-1] ^ 1]), "truncated": raw[:500], "empty": b""}
    path.write_bytes(changed[damage])
    with pytest.raises(DataError) as caught:
        load("fashion-mnist", fashion_root)
    text = one_sentence(caught)
    assert f"`{path}` is damaged" in text
    assert "delete it to have it downloaded again" in text
    assert path.read_bytes() == changed[damage]  # a person's file is never overwritten


def test_old_processed_files_are_not_preferred_to_the_verified_ones(fashion_root):
    (fashion_root / "FashionMNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        (fashion_root / "FashionMNIST" / "processed" / name).write_bytes(b"not a tensor")
    assert len(load("fashion-mnist", fashion_root).train_images) == 200


def test_published_checksums_of_fashion_mnist():
    assert fashion_mnist.RAW_MD5 == {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }


# --- download -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "folder", "file"),
    [
        ("fashion-mnist", "FashionMNIST/raw", "train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py", "data_batch_5"),
        ("cifar100", "cifar-100-python", "meta"),
    ],
)
def test_absent_data_without_network_is_one_sentence(spec, folder, file, tmp_path, capfd):
    root = tmp_path / "data"
    with pytest.raises(DataError) as caught:
        load(spec, root)
    text = one_sentence(caught)
    assert f"dataset `{spec}` is not in `{root / folder}`" in text
    assert "could not be downloaded (Name or service not known)" in text
    assert file in text
    assert "--data-root" in text
    assert capfd.readouterr().out == ""
    assert not root.exists()  # nothing is left behind
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("spec", ["fashion-mnist", "cifar10", "cifar100"])
def test_data_root_that_cannot_be_written_is_one_sentence(spec, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError) as caught:
        load(spec, tmp_path / "file" / "data")
    assert "not writable (Not a directory)" in one_sentence(caught)


def test_download_gives_the_data_and_is_not_repeated(fashion, server, tmp_path, capfd):
    raw, packed = fashion
    server.update(packed)
    data = load("fashion-mnist", tmp_path)
    assert len(data.train_images) == 200
    assert capfd.readouterr().out == ""
    assert sorted(p.name for p in (tmp_path / RAW).iterdir()) == sorted(raw)
    assert not list(tmp_path.glob(".*.download"))
    server.clear()
    server.asked.clear()
    assert load("fashion-mnist", tmp_path).digest == data.digest
    assert server.asked == []


def test_download_never_waits_for_ever(fashion, server, tmp_path):
    server.update(fashion[1])
    before = socket.getdefaulttimeout()
    load("fashion-mnist", tmp_path)
    assert server.timeouts
    assert all(0 < timeout <= 60 for timeout in server.timeouts)
    assert socket.getdefaulttimeout() == before


def test_interrupted_download_leaves_no_data_and_goes_on_later(fashion, server, tmp_path):
    packed = fashion[1]
    first, second, *rest = packed
    server.update({first: packed[first], second: packed[second][:-9]})
    with pytest.raises(DataError) as caught:
        load("fashion-mnist", tmp_path)
    assert "could not be downloaded" in one_sentence(caught)
    assert not (tmp_path / RAW).exists()
    server.update(packed)
    server.asked.clear()
    assert len(load("fashion-mnist", tmp_path).train_images) == 200
    assert server.asked == [second, *rest]


def test_files_that_an_interruption_left_half_unpacked_are_not_taken(fashion, server, tmp_path):
    raw, packed = fashion
    staging = tmp_path / ".fashion-mnist.download" / RAW
    staging.mkdir(parents=True)
    for name, content in raw.items():
        (staging / name).write_bytes(content[:30])
    server.update(packed)
    assert len(load("fashion-mnist", tmp_path).train_images) == 200


def test_download_of_the_wrong_bytes_is_refused(fashion, server, tmp_path):
    server.update({name: gzip.compress(b"something else") for name in fashion[1]})
    with pytest.raises(DataError) as caught:
        load("fashion-mnist", tmp_path)
    assert "could not be downloaded" in one_sentence(caught)
    assert not (tmp_path / RAW).exists()


def test_only_what_is_absent_is_put_in_place(fashion, fashion_root, server):
    server.update(fashion[1])
    kept = fashion_root / RAW / "train-images-idx3-ubyte"
    (fashion_root / RAW / "t10k-labels-idx1-ubyte").unlink()
    written = kept.stat().st_mtime_ns, kept.stat().st_ino
    assert len(load("fashion-mnist", fashion_root).test_images) == 100
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == written


# --- CIFAR ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory):
    if not SHARED.is_dir():
        pytest.skip(f"real images are not at {SHARED}, beside the repository")
    root = tmp_path_factory.mktemp("cifar10")
    command = [sys.executable, str(SHARED / "unpack"), "cifar10", str(root)]
    subprocess.run(command, check=True, capture_output=True)
    yield root
    shutil.rmtree(root)  # 180 MB, of which pytest would keep three copies


def test_cifar10_is_the_published_set(cifar10_root):
    data = load("cifar10", cifar10_root)
    assert data.train_images.shape == (50000, 3, 32, 32)
    assert data.test_images.shape == (10000, 3, 32, 32)
    assert data.train_images.flags.c_contiguous
    assert data.test_images.flags.c_contiguous
    assert np.bincount(data.train_labels).tolist() == [5000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert data.class_names == tuple(names.split())
    values = np.arange(256) / 255  # the mean of 50,000 images from how often each value occurs
    for channel in range(3):
        counts = np.bincount(data.train_images[:, channel].ravel(), minlength=256)
        mean = np.average(values, weights=counts)
        std = np.sqrt(np.average((values - mean) ** 2, weights=counts))
        assert data.mean[channel] == pytest.approx(mean, abs=5e-5)
        assert data.std[channel] == pytest.approx(std, abs=5e-5)
    assert (data.flip, data.crop_pad, data.coarse_labels) == (True, 4, None)


def test_cifar10_subset_keeps_the_official_order(cifar10_root):
    part = load("cifar10[per_class=2]", cifar10_root)
    assert part.train_images.shape == (20, 3, 32, 32)
    assert part.test_images.shape == (10000, 3, 32, 32)
    # the first labels of data_batch_1: frog, truck, truck, deer, automobile, automobile
    assert part.train_labels[:6].tolist() == [6, 9, 9, 4, 1, 1]


def cifar100_pickles(train, fine, coarse):
    """The three official files, with these training examples twice over: training and test."""
    entry = {"data": train.reshape(len(train), -1), "fine_labels": fine, "coarse_labels": coarse}
    meta = {"fine_label_names": [f"fine {i}" for i in range(100)]}
    contents = {"train": entry, "test": entry, "meta": meta}
    return {name: pickle.dumps(content, protocol=2) for name, content in contents.items()}


@pytest.fixture
def cifar100(monkeypatch):
    """Contents by file name and the archive of them; torchvision's checksums are set to theirs."""
    from torchvision.datasets import CIFAR100

    images = np.random.default_rng(0).integers(0, 256, (300, 3, 32, 32), dtype=np.uint8)
    fine = [(7 * row) % 100 for row in range(300)]
    contents = cifar100_pickles(images, fine, [cifar.FINE_TO_COARSE[label] for label in fine])
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(contents["train"])]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(contents["test"])]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(contents["meta"])})
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5(archive.getvalue()))
    return images, np.array(fine), contents, archive.getvalue()


def write_cifar100(root, contents):
    (root / "cifar-100-python").mkdir()
    for name, content in contents.items():
        (root / "cifar-100-python" / name).write_bytes(content)


def test_cifar100_has_fine_labels_and_their_superclasses(cifar100, tmp_path):
    images, fine, contents, _ = cifar100
    write_cifar100(tmp_path, contents)
    data = load("cifar100", tmp_path)
    np.testing.assert_array_equal(data.train_images, images)
    np.testing.assert_array_equal(data.train_labels, fine)
    np.testing.assert_array_equal(data.coarse_labels, [cifar.FINE_TO_COARSE[i] for i in fine])
    assert data.coarse_labels.dtype == np.int64
    assert data.class_names[42] == "fine 42"
    assert (data.mean, data.std) == ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def test_cifar100_subset_takes_coarse_labels_along(cifar100, tmp_path):
    write_cifar100(tmp_path, cifar100[2])
    data = load("cifar100[per_class=1]", tmp_path)
    assert sorted(data.train_labels.tolist()) == list(range(100))
    assert np.bincount(data.coarse_labels).tolist() == [5] * 20
    assert len(data.test_images) == 300


def test_every_superclass_has_five_classes():
    assert np.bincount(cifar.FINE_TO_COARSE).tolist() == [5] * 20


@needs_shared
@pytest.mark.parametrize("split", ["train", "test"])
def test_superclasses_are_those_of_the_real_data(split):
    with zipfile.ZipFile(SHARED / "cifar100_small.zip") as packed:
        fine = np.frombuffer(packed.read(f"{split}/fine.u8"), np.uint8)
        coarse = np.frombuffer(packed.read(f"{split}/coarse.u8"), np.uint8)
    assert set(fine.tolist()) == set(range(100))
    np.testing.assert_array_equal(np.array(cifar.FINE_TO_COARSE)[fine], coarse)


def test_damaged_cifar_is_one_sentence_and_never_unpickled(cifar100, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    write_cifar100(tmp_path, cifar100[2] | {"train": pickle.dumps(Trap())})
    with pytest.raises(DataError) as caught:
        load("cifar100", tmp_path)
    assert f"`{tmp_path / 'cifar-100-python' / 'train'}` is damaged" in one_sentence(caught)
    assert not (tmp_path / "sprung").exists()


def test_cifar_is_downloaded_and_unpacked(cifar100, server, tmp_path, capfd):
    server["cifar-100-python.tar.gz"] = cifar100[3]
    np.testing.assert_array_equal(load("cifar100", tmp_path).train_labels, cifar100[1])
    assert capfd.readouterr().out == ""
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock"))
    assert names == ["cifar-100-python"]


def test_archive_that_a_person_put_there_is_used_without_network(cifar100, tmp_path):
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(cifar100[3])
    np.testing.assert_array_equal(load("cifar100", tmp_path).train_labels, cifar100[1])
    assert (tmp_path / "cifar-100-python.tar.gz").read_bytes() == cifar100[3]


def test_truncated_archive_is_refused(cifar100, server, tmp_path):
    server["cifar-100-python.tar.gz"] = cifar100[3][:1000]
    with pytest.raises(DataError) as caught:
        load("cifar100", tmp_path)
    assert "could not be downloaded" in one_sentence(caught)
    assert not (tmp_path / "cifar-100-python").exists()
