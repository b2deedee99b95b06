"""Folders of images: what is read, in which order, what is done to it, and what is refused."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from unlearnbench.bench import DATASETS, DataError, InputError
from unlearnbench.bench.runner import run_sweep

from .toys import toy_options, toy_spec

RED, GREEN, BLUE, GREY = (250, 20, 10), (10, 230, 30), (20, 40, 220), (128, 128, 128)
SMALL = "size=8,resize=8"


def paint(path, colour=GREY, size=(16, 16), mode="RGB", **options):
    """Save an image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    # `convert` to a palette would be the web's, with other colours mixed in
    (image.quantize(2) if mode == "P" else image.convert(mode)).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    """Two training folders that share a class, and a test folder with one class."""
    paint(tmp_path / "set" / "one" / "b" / "2.png", RED)
    paint(tmp_path / "set" / "one" / "b" / "1.png", GREEN)
    paint(tmp_path / "set" / "one" / "a" / "9.png", BLUE)
    paint(tmp_path / "set" / "two" / "b" / "0.png", GREY)
    paint(tmp_path / "set" / "two" / "c" / "0.png", RED)
    paint(tmp_path / "set" / "val" / "b" / "0.png", BLUE)
    return tmp_path


BOTH = f"path=set,train=[one,two],{SMALL}"


def load(root, params=BOTH):
    return DATASETS.create(f"image-folder[{params}]").load(root)


def colours(images):
    """The one colour of every image, which must have no other."""
    flat = images.reshape(*images.shape[:2], -1)
    assert (flat == flat[:, :, :1]).all()
    return [tuple(map(int, colour)) for colour in flat[:, :, 0]]


def refused(root, params=BOTH, error=DataError):
    with pytest.raises(error) as caught:
        load(root, params)
    (sentence,) = caught.value.sentences
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


# --- what is read, and in which order -------------------------------------------------------------


def test_classes_are_the_sorted_union_and_images_come_by_class_then_folder_then_name(root):
    data = load(root)
    assert data.class_names == ("a", "b", "c")
    assert data.train_labels.tolist() == [0, 1, 1, 1, 2]
    assert colours(data.train_images) == [BLUE, GREEN, RED, GREY, RED]
    assert data.test_labels.tolist() == [1]
    assert data.image_shape == (3, 8, 8)
    assert data.train_images.dtype == np.uint8
    assert (data.flip, data.crop_pad) == (True, 0)


def test_ids_do_not_depend_on_the_order_in_which_files_were_made(root):
    paint(root / "other" / "one" / "a" / "9.png", BLUE)
    paint(root / "other" / "two" / "c" / "0.png", RED)
    for name, colour in (("1.png", GREEN), ("2.png", RED)):
        paint(root / "other" / "one" / "b" / name, colour)
    paint(root / "other" / "two" / "b" / "0.png", GREY)
    paint(root / "other" / "val" / "b" / "0.png", BLUE)
    assert load(root).digest == load(root, BOTH.replace("set", "other")).digest


def test_what_is_no_image_or_hidden_is_left_alone_and_folders_below_a_class_are_read(root):
    (root / "set" / "one" / "a" / "notes.txt").write_text("not an image")
    (root / "set" / "one" / "a" / "._9.png").write_bytes(b"a resource fork")
    (root / "set" / "one" / ".cache").mkdir()
    (root / "set" / "one" / "list.csv").write_text("a,b")
    paint(root / "set" / "one" / "c" / "images" / "1.png", GREEN)
    data = load(root)
    assert data.class_names == ("a", "b", "c")
    assert data.train_labels.tolist() == [0, 1, 1, 1, 2, 2]


def test_what_lies_in_a_hidden_folder_is_left_alone(root):
    before = load(root)
    paint(root / "set" / "one" / "a" / ".thumbnails" / "copy.png")
    assert load(root).digest == before.digest


def test_one_folder_needs_no_list_and_an_absolute_path_needs_no_root(root):
    paint(root / "set" / "other" / "a" / "1.png", RED)
    data = load(root / "elsewhere", f"path={root / 'set'},train=one,test=other,{SMALL}")
    assert data.class_names == ("a", "b")
    assert len(data.train_images) == 3


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("x.png", "RGB", {}), ("x.PNG", "RGB", {}), ("x.bmp", "RGB", {}), ("x.tiff", "RGB", {}),
        ("x.webp", "RGB", {"lossless": True}), ("x.ppm", "RGB", {}), ("x.gif", "P", {}),
        ("x.png", "P", {}), ("x.png", "RGBA", {}),
    ],
)  # fmt: skip
def test_lossless_formats_and_modes_give_the_colour_itself(root, name, mode, options):
    paint(root / "set" / "one" / "a" / name, RED, mode=mode, **options)
    (root / "set" / "one" / "a" / "9.png").unlink()
    assert colours(load(root).train_images)[0] == RED


def test_jpeg_gives_nearly_the_colour(root):
    paint(root / "set" / "one" / "a" / "0.JPEG", RED, quality=95)
    (found, *_) = colours(load(root).train_images)
    assert np.abs(np.subtract(found, RED)).max() <= 3


def test_grey_files_become_colour_and_colour_files_become_grey(root):
    paint(root / "set" / "one" / "a" / "0.png", (77, 77, 77), mode="L")
    assert colours(load(root).train_images)[0] == (77, 77, 77)
    data = load(root, f"{BOTH},grey=true")
    assert data.image_shape == (1, 8, 8)
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    luma = [round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in ((77,) * 3, BLUE)]
    assert [c for (c,) in colours(data.train_images)][:2] == luma
    assert len(data.mean) == len(data.std) == 1


def test_transparency_is_dropped_without_a_warning(root):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, *RED])
    image.save(root / "set" / "one" / "a" / "0.png", transparency=bytes([0, 128]))
    image = Image.new("RGBA", (16, 16), (*GREEN, 0))
    image.save(root / "set" / "one" / "a" / "1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert colours(load(root).train_images)[:2] == [RED, GREEN]


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (3, (1, 1)), (6, (0, 1)), (8, (1, 0))]
)
def test_images_are_turned_upright(root, orientation, corner):
    # a white quarter at the upper left of the file; 6 is shown turned to the right by a quarter
    image = Image.new("RGB", (16, 16))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(root / "set" / "one" / "a" / "0.png", exif=exif)
    grey = load(root).train_images[0].mean(axis=0)
    quarters = grey.reshape(2, 4, 2, 4).mean(axis=(1, 3))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == corner


# --- geometry -------------------------------------------------------------------------------------


def test_the_shorter_side_is_resized_and_the_centre_cut_out(root):
    # 64 x 16, left to right: red, green, blue, grey; at 8 pixels height the centre is green, blue
    image = Image.new("RGB", (64, 16))
    for place, colour in enumerate((RED, GREEN, BLUE, GREY)):
        image.paste(colour, (16 * place, 0, 16 * place + 16, 16))
    image.save(root / "set" / "one" / "a" / "0.png")
    found = load(root).train_images[0]
    assert tuple(found[:, 4, 1]) == GREEN
    assert tuple(found[:, 4, 6]) == BLUE


def test_resize_is_bicubic_and_an_eighth_is_cut_off_by_default(root):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "set" / "one" / "a" / "0.png")
    found = load(root, "path=set,train=[one,two],size=14").train_images[0]
    resized = Image.fromarray(noise).resize((20, 16), Image.Resampling.BICUBIC)  # 16 = 14 * 8 / 7
    expected = np.asarray(resized)[1:15, 3:17].transpose(2, 0, 1)
    assert np.array_equal(found, expected)


def test_an_image_of_exactly_the_size_is_not_changed(root):
    noise = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "set" / "one" / "a" / "0.png")
    assert np.array_equal(load(root).train_images[0], noise.transpose(2, 0, 1))


# --- parameters -----------------------------------------------------------------------------------


def test_means_are_imagenets_unless_they_are_given(root):
    assert load(root).mean == (0.485, 0.456, 0.406)
    assert load(root).std == (0.229, 0.224, 0.225)
    given = load(root, f"{BOTH},mean=[0.5,0.5,0.5],std=[0.5,0.5,0.5],flip=false,crop_pad=1")
    assert given.mean == given.std == (0.5, 0.5, 0.5)
    assert (given.flip, given.crop_pad) == (False, 1)
    assert given.digest != load(root).digest


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ("mean=[0.5]", "`mean` needs 3 numbers"),
        ("grey=true,std=[1,1,1]", "`std` needs 1 numbers"),
        ("size=16,resize=8", "`resize` must be at least `size`, 16"),
        ("test=[train]", "the folder `train` is listed twice"),
        ("train=[]", "`train`"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(params, words):
    with pytest.raises(InputError) as caught:
        DATASETS.create(f"image-folder[path=set,{params}]")
    (sentence,) = caught.value.sentences
    assert words in sentence


# --- the decoded arrays ---------------------------------------------------------------------------


def test_images_are_decoded_once_and_again_when_a_file_changes(root):
    first = load(root)
    kept = sorted((root / ".decoded-images").iterdir())
    assert len(kept) == 2
    assert isinstance(first.train_images, np.memmap)
    target = root / "set" / "one" / "a" / "9.png"
    before = target.stat()
    target.write_bytes(b"x" * before.st_size)  # not looked at while size and time are the same
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load(root).digest == first.digest
    paint(target, GREEN)
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert colours(load(root).train_images)[0] == GREEN
    assert len(list((root / ".decoded-images").iterdir())) == 3


def test_a_root_that_cannot_be_written_is_read_all_the_same(root):
    (root / ".decoded-images").write_text("a file where a folder would be")
    assert colours(load(root).train_images) == [BLUE, GREEN, RED, GREY, RED]


def test_nothing_is_left_of_a_decoding_that_failed(root):
    (root / "set" / "two" / "c" / "1.png").write_bytes(b"junk")
    refused(root)
    assert list((root / ".decoded-images").iterdir()) == []


# --- what is refused ------------------------------------------------------------------------------


def test_a_missing_folder_is_named(root):
    assert f"folder `{root / 'none'}` does not exist" in refused(root, "path=none")
    assert f"folder `{root / 'set' / 'train'}` does not exist" in refused(root, "path=set")
    assert "--data-root" in refused(root, "path=none")


def test_a_folder_without_classes_is_named(root):
    (root / "set" / "empty").mkdir()
    assert "has no folders in it" in refused(root, "path=set,train=empty,test=val")


def test_an_empty_class_is_named(root):
    (root / "set" / "two" / "b" / "0.png").rename(root / "set" / "two" / "b" / "0.txt")
    assert f"class folder `{root / 'set' / 'two' / 'b'}` holds no image" in refused(root)


def test_a_class_that_only_the_test_folder_has_is_named(root):
    for name in "vwxyz":
        paint(root / "set" / "val" / name / "0.png")
    sentence = refused(root)
    assert "`val` has classes that no training folder has: `v`, `w`, `x` and 2 more" in sentence


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_an_image_that_cannot_be_read_is_named(root, content):
    path = root / "set" / "one" / "b" / "1.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    assert f"image `{path}` cannot be read" in refused(root)


def test_more_than_8_bits_a_channel_are_refused_instead_of_cut_off(root):
    path = root / "set" / "one" / "a" / "0.png"
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path)
    sentence = refused(root)
    assert str(path) in sentence
    assert "more than 8 bits" in sentence


def test_images_that_would_not_fit_are_refused_before_they_are_decoded(root):
    (root / "set" / "one" / "b" / "1.png").write_bytes(b"junk")
    sentence = refused(root, f"{BOTH},max_bytes=1000")
    assert "6 images of 3x8x8 take 1152 bytes" in sentence
    assert "`max_bytes` allows 1000" in sentence


# --- in a sweep -----------------------------------------------------------------------------------


def test_a_sweep_forgets_a_class_by_the_name_of_its_folder(tmp_path):
    rng = np.random.default_rng(0)
    for folder, count in (("train", 24), ("val", 6)):
        for name, colour in (("apple", RED), ("leaf", GREEN), ("sky", BLUE)):
            for number in range(count):
                image = np.clip(rng.normal(colour, 60, (20, 20, 3)), 0, 255).astype(np.uint8)
                path = tmp_path / "data" / "fruit" / folder / name / f"{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    spec = toy_spec(
        datasets=["image-folder[path=fruit,size=16]"],
        scenarios=["class[classes=[leaf]]"],
        methods=["head-mask"],
        training={"epochs": 4, "batch_size": 16, "lr": 0.05},
    )
    result = run_sweep(spec, toy_options(tmp_path))
    found = {record.method: record.metrics for record in result.records}
    assert found["identity"]["test_acc"] > 0.8
    assert found["retrain"]["test_forget_acc"] == 0
    assert found["head-mask"]["test_forget_acc"] == 0
    assert found["head-mask"]["forget_acc"] == 0
