"""dataset/image_folder.py and streamed.py: layouts, sizes, damage, and images from disk."""

import hashlib
import importlib
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import unicodedata
import warnings
import zlib
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from common.data import stratified_split
from common.errors import UserError
from GAN.utils.clusters import with_clusters
from ResNet import depth
from ResNet.dataset import image_folder, pictures, streamed
from tests.conftest import user_error
from tests.running import assert_one_line, call, script

TRAIN = {"cat": 6, "ant": 4, "dog": 10}
OTHER = {"ant": 2, "cat": 1, "dog": 3}

not_as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read every file"
)


def noise(seed, width=8, height=8):
    """An image of which no two are alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_split(folder, counts, first=0, size=(8, 8)):
    """`folder`/<class>/<number>.png; returns the images and labels in the order of their names."""
    images, labels = [], []
    for label, name in enumerate(sorted(counts)):
        (folder / name).mkdir(parents=True)
        for number in range(counts[name]):
            image = noise(first + 100 * label + number, *size)
            image.save(folder / name / f"{number:02d}.png")
            images.append(pil_to_tensor(image))
            labels.append(label)
    return torch.stack(images), torch.tensor(labels)


@pytest.fixture
def root(tmp_path):
    """A folder of 20 images to train on and 6 to test on."""
    make_split(tmp_path / "train", TRAIN)
    make_split(tmp_path / "test", OTHER, first=1000)
    return tmp_path


def load(root, size=None):
    """Training, validation and test split."""
    return *image_folder.load_training(str(root), size), image_folder.load_test(str(root), size)


# layouts


@pytest.mark.smoke
@pytest.mark.parametrize("other", ["test", "val"])
def test_what_is_no_train_is_the_test_split_and_validation_is_held_out(tmp_path, other):
    images, labels = make_split(tmp_path / "train", TRAIN)
    others = make_split(tmp_path / other, OTHER, first=1000)
    train, validation, test = load(tmp_path)
    rows, held_out = stratified_split(labels, 3)
    for part, expected in (
        (train, (images[rows], labels[rows])),
        (validation, (images[held_out], labels[held_out])),
        (test, others),
    ):
        assert torch.equal(part.inputs, expected[0]) and torch.equal(part.labels, expected[1])
        assert part.classes == ["ant", "cat", "dog"]
        assert (part.inputs.dtype, part.labels.dtype) == (torch.uint8, torch.int64)


def test_val_beside_test_is_the_validation_split(tmp_path):
    splits = [
        make_split(tmp_path / name, counts, first)
        for name, counts, first in (("train", TRAIN, 0), ("val", OTHER, 500), ("test", OTHER, 1000))
    ]
    for part, (images, labels) in zip(load(tmp_path), splits, strict=True):
        assert torch.equal(part.inputs, images) and torch.equal(part.labels, labels)


def test_a_tenth_is_held_out_class_by_class(tmp_path):
    make_split(tmp_path / "train", {"a": 60, "b": 20, "c": 10}, size=(1, 1))
    make_split(tmp_path / "test", {"a": 1, "b": 1, "c": 1}, size=(1, 1))
    train, validation, _ = load(tmp_path)
    assert validation.labels.bincount().tolist() == [6, 2, 1]
    assert train.labels.bincount().tolist() == [54, 18, 9]


def test_hidden_files_and_folders_are_no_images_and_no_classes(root):
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "cat" / ".DS_Store").write_bytes(b"no image")
    (root / "train" / "README.txt").write_text("beside the classes")
    train, validation, _ = load(root)
    assert len(train) + len(validation) == 20 and train.classes == ["ant", "cat", "dog"]


def test_training_never_reads_the_test_split(root):
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"not to be read")
    assert len(image_folder.load_training(str(root), None)[0]) == 17


# reading and scaling


MODES = {"L": ".jpg", "RGBA": ".png", "P": ".png", "CMYK": ".jpg", "1": ".png", "LA": ".png"}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb_as_pillow_converts_it(tmp_path, mode):
    path = tmp_path / f"image{MODES[mode]}"
    noise(0).convert(mode).save(path)
    with Image.open(path) as image:
        expected = pil_to_tensor(image.convert("RGB"))
        assert image.mode == mode
    assert torch.equal(image_folder.fit(path, 8), expected)


def test_16_bits_are_scaled_to_8_and_not_cut_off(tmp_path):
    values = np.array([[0, 257], [257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "image.png")
    image = image_folder.fit(tmp_path / "image.png", 2)
    assert image.tolist() == [[[0, 1], [100, 255]]] * 3


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".bmp", ".gif", ".webp", ".TIF"])
def test_every_format_of_the_list_is_read(root, suffix):
    for name in TRAIN:
        noise(7).save(root / "train" / name / f"another{suffix}")
    train, validation, _ = load(root)
    assert len(train) + len(validation) == 23


@pytest.mark.parametrize("side", [1, 32, 63, 64])
def test_small_images_keep_their_size(tmp_path, side):
    make_split(tmp_path / "train", {"a": 2, "b": 2}, size=(side, side))
    make_split(tmp_path / "test", {"a": 1, "b": 1}, size=(side, side))
    assert {part.shape for part in load(tmp_path)} == {(3, side, side)}


@pytest.mark.parametrize("size", [(65, 65), (65, 20), (20, 300)])
def test_larger_images_are_used_with_224_pixels(tmp_path, size):
    make_split(tmp_path / "train", {"a": 2, "b": 2}, size=size)
    make_split(tmp_path / "test", {"a": 1, "b": 1}, size=(32, 32))  # the training images decide
    assert {part.shape for part in load(tmp_path)} == {(3, 224, 224)}


def test_the_size_that_is_asked_for_is_used(root):
    assert {part.shape for part in load(root, 12)} == {(3, 12, 12)}


SIZES = [  # width, height, size: scaled by a whole number of pixels, an even rest cut away
    (32, 32, 32), (48, 32, 32), (32, 40, 32), (126, 96, 32), (64, 100, 32), (8, 12, 16), (8, 8, 24),
]  # fmt: skip


@pytest.mark.parametrize("width, height, size", SIZES)
def test_fit_is_torchvisions_resize_and_center_crop(tmp_path, width, height, size):
    image = noise(3, width, height)
    image.save(tmp_path / "image.png")
    expected = pil_to_tensor(center_crop(resize(image, size), size))
    assert torch.equal(image_folder.fit(tmp_path / "image.png", size), expected)


@pytest.mark.parametrize("width, height", [(33, 47), (301, 200), (7, 1000), (1000, 3), (1, 1)])
@pytest.mark.parametrize("size", [1, 32, 45])
def test_fit_cuts_the_middle_of_every_shape(tmp_path, width, height, size):
    """A horizontal and a vertical gradient: the middle of the image stays in the middle."""
    y, x = np.mgrid[:height, :width]
    red, green = (255 * (n + 0.5) / n.shape[a] for a, n in ((1, x), (0, y)))
    pixels = np.stack([red, green, np.full_like(red, 40)], 2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    image = image_folder.fit(tmp_path / "image.png", size)
    assert image.shape == (3, size, size) and image.dtype == torch.uint8
    middle = image.double().mean(dim=(1, 2))
    step = 255 / min(width, height, size)  # as far as a pixel more on one side moves the middle
    assert (middle - torch.tensor([127.0, 127.0, 40.0])).abs().max() <= 1 + step


def test_random_crop_is_a_part_of_the_image_drawn_from_torchs_generator(tmp_path):
    noise(5, 40, 30).save(tmp_path / "image.png")
    crops = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        crops.append(image_folder.random_crop(tmp_path / "image.png", 16))
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])
    assert {(crop.shape, crop.dtype) for crop in crops} == {((3, 16, 16), torch.uint8)}


# what files say about their pixels


def saved(image, path, **options):
    image.save(path, **options)
    return path


@pytest.mark.smoke
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_images_are_turned_as_exif_says(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(noise(1, 70, 40), tmp_path / f"image.{suffix}", exif=exif)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert expected.size == ((70, 40) if orientation < 5 else (40, 70))
    image = image_folder.read_image(path)
    assert image.size == expected.size and image.tobytes() == expected.tobytes()


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "I;16"])
def test_images_of_every_kind_are_turned(tmp_path, mode, orientation):
    if mode == "I;16":
        image = Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6) * 2000)
    else:
        image = noise(2, 6, 4).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    plain = image_folder.read_image(saved(image, tmp_path / "plain.png"))
    turned = image_folder.read_image(saved(image, tmp_path / "turned.png", exif=exif))
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}[orientation]
    assert turned.size == plain.transpose(turn).size
    assert turned.tobytes() == plain.transpose(turn).tobytes()


def test_the_size_of_a_turned_image_is_that_of_what_is_seen(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.zeros((48, 96, 3), np.uint8)
    pixels[:, :24] = 250  # on the left in the file: at the top when turned, and cut off
    path = saved(Image.fromarray(pixels), tmp_path / "image.png", exif=exif)
    files = image_folder.Files([path], torch.tensor([0]), ["a"])
    assert image_folder.natural_size(files) == 224
    assert image_folder.fit(path, 48).max() == 0


def test_damaged_exif_is_no_reason_to_refuse_an_image(tmp_path):
    image = noise(1, 6, 4)
    path = saved(image, tmp_path / "image.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff no such thing")
    assert image_folder.read_image(path).tobytes() == image.tobytes()


WHITE, HALF, BLACK = [255] * 3, [127] * 3, [0] * 3  # clear, half clear, opaque: all are black


@pytest.mark.smoke
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_white(tmp_path, mode, suffix):
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (0, 0, 0, alpha))
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = saved(image.convert(mode), tmp_path / f"image.{suffix}", **options)
    assert np.asarray(image_folder.read_image(path)).tolist() == [[WHITE, HALF, BLACK]]


def two_pixels(mode):
    """The first is the one that becomes transparent, the second is 9 (of 255) bright."""
    if mode == "I;16":
        return Image.fromarray(np.array([[0, 9 * 257]], np.uint16))
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    image.putpixel((1, 0), {"P": 1, "L": 9, "RGB": (9, 9, 9)}[mode])
    return image


@pytest.mark.parametrize(
    "mode, suffix, transparency, first",
    [
        ("P", "png", 0, WHITE), ("P", "png", b"\x80\xff", HALF), ("P", "gif", 0, WHITE),
        ("L", "png", 0, WHITE), ("RGB", "png", (0, 0, 0), WHITE), ("I;16", "png", 0, WHITE),
    ],
)  # fmt: skip
def test_a_transparent_colour_is_white(tmp_path, mode, suffix, transparency, first):
    path = tmp_path / f"image.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = image_folder.read_image(saved(two_pixels(mode), path, transparency=transparency))
    assert np.asarray(image).tolist() == [[first, [9] * 3]]
    image = image_folder.read_image(saved(two_pixels(mode), path))
    assert np.asarray(image).tolist() == [[BLACK, [9] * 3]]


@pytest.mark.parametrize("error", [TypeError("a float"), RuntimeError(""), NotImplementedError()])
def test_whatever_pillow_says_of_a_damaged_image_is_one_line(error, tmp_path, monkeypatch):
    """Its readers of TIFF, AVIF, ICNS, BLP and DDS raise these and more."""

    def fail(content):
        raise error

    path = saved(two_pixels("RGB"), tmp_path / "image.png")
    monkeypatch.setattr(pictures.Image, "open", fail)
    with user_error(
        path, "cannot be read as an image", type(error).__name__ if not str(error) else str(error)
    ):
        image_folder.read_image(path)


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_pixels_of_an_unknown_range_are_one_line(tmp_path, kind):
    pixels = np.array([[0, 1], [70_000, 3]], kind)
    path = saved(Image.fromarray(pixels), tmp_path / "image.tif")
    with user_error(path, "32 bits", "8 or 16"):
        image_folder.read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    pixels = np.array([[0, 257, 65_535]], np.uint16)
    path = saved(Image.fromarray(pixels), tmp_path / f"image.{suffix}")
    assert np.asarray(image_folder.read_image(path))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("width, height", [(1, 20_000), (20_000, 1), (3, 9_000)])
def test_long_images_are_cut_before_they_are_scaled(tmp_path, monkeypatch, width, height):
    """Scaled to 224 pixels, 1 x 20,000 would be four million rows."""
    sizes, resize_image = [], Image.Image.resize

    def keep(self, size, *args, **options):
        sizes.append(size)
        return resize_image(self, size, *args, **options)

    y, x = np.mgrid[:height, :width]
    pixels = (255 * (x + y) / (width + height - 2)).astype(np.uint8)
    path = saved(Image.fromarray(pixels), tmp_path / "image.png")
    monkeypatch.setattr(Image.Image, "resize", keep)
    image = image_folder.fit(path, 224)
    assert image.shape == (3, 224, 224) and abs(image.double().mean() - 127) < 2
    assert len(sizes) == 1 and max(sizes[0]) <= 4 * 224


def png(pixels, width, height, interlaced=0):
    """A grey PNG of these compressed rows, written chunk by chunk."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def rows_of(grey):
    return b"".join(b"\0" + row.tobytes() for row in grey if row.size)


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("width, height", [(1, 1), (3, 2), (5, 9), (16, 16), (2, 30)])
def test_a_png_without_its_last_rows_is_named_in_one_line(tmp_path, width, height, interlaced):
    grey = np.random.default_rng(0).integers(1, 256, (height, width), dtype=np.uint8)
    parts = [grey[y::b, x::a] for x, y, a, b in pictures.PASSES] if interlaced else [grey]
    whole = b"".join(map(rows_of, parts))
    path = tmp_path / "image.png"
    path.write_bytes(png(whole, width, height, interlaced))
    assert np.array_equal(np.asarray(image_folder.read_image(path))[:, :, 0], grey)
    for missing in (1, len(whole) // 2, len(whole)):
        path.write_bytes(png(whole[: len(whole) - missing], width, height, interlaced))
        with user_error(path, "cannot be read as an image"):
            image_folder.read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("width, height", [(1, 1), (9, 1), (1, 9), (7, 8)])
def test_whole_pngs_of_every_kind_are_read(tmp_path, mode, width, height):
    path = saved(noise(4, width, height).convert(mode), tmp_path / "image.png")
    assert image_folder.read_image(path).size == (width, height)


# classes


@pytest.mark.parametrize("there", ["train", "test"])
def test_accents_of_class_names_may_be_written_in_two_ways(tmp_path, there):
    names = {"\u00e9t\u00e9": 3, "hiver": 3, "\u00c5r": 3}
    decomposed = {unicodedata.normalize("NFD", name): n for name, n in names.items()}
    for split in ("train", "test"):
        make_split(tmp_path / split, decomposed if split == there else names)
    train, validation, test = load(tmp_path)
    assert train.classes == validation.classes == test.classes == sorted(names)
    assert test.labels.bincount().tolist() == [3, 3, 3]
    first = Image.open(tmp_path / "test" / "hiver" / "00.png")
    row = int((test.labels == test.classes.index("hiver")).nonzero()[0])
    assert torch.equal(test.inputs[row], pil_to_tensor(first))


def test_a_class_that_is_there_in_both_ways_is_one_line(tmp_path):
    make_split(tmp_path / "train", {"e\u0301t\u00e9": 3, "\u00e9t\u00e9": 3})
    if len(list((tmp_path / "train").iterdir())) < 2:
        pytest.skip("this file system takes them for one name")
    make_split(tmp_path / "test", {"\u00e9t\u00e9": 3})
    with user_error(tmp_path / "train", "twice", "NFC", "NFD"):
        load(tmp_path)


@pytest.mark.smoke
@pytest.mark.parametrize("counts", [{"a": 12, "b": 1, "c": 12}, {"a": 1, "b": 1, "c": 4}])
def test_every_class_keeps_an_image_to_learn_from(tmp_path, counts):
    make_split(tmp_path / "train", counts)
    make_split(tmp_path / "test", dict.fromkeys(counts, 1))
    train, validation, _ = load(tmp_path)
    assert train.labels.unique().tolist() == [0, 1, 2]
    assert len(train) + len(validation) == sum(counts.values()) and len(validation) == 3


# checksums


def test_checksums_are_of_the_files_in_order(root):
    train, validation, test = load(root)
    content = b"".join(path.read_bytes() for path in sorted((root / "test").rglob("*.png")))
    assert test.checksums == {"test": hashlib.sha256(content).hexdigest()}
    assert len({**train.checksums, **validation.checksums, **test.checksums}) == 3


@pytest.mark.parametrize("in_memory", [True, False])
def test_checksums_change_with_a_file_and_are_named_by_split(root, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    before = [part.checksums for part in load(root)]
    assert [part.checksums for part in load(root)] == before
    with open(root / "test" / "dog" / "00.png", "ab") as file:
        file.write(b"a byte more")
    train, validation, test = (part.checksums for part in load(root))
    assert [train, validation] == before[:2] and test != before[2]
    assert len(train | validation | test) == len(train) + len(validation) + len(test)


# what is wrong with a folder


DAMAGED = {
    "empty": lambda content: b"",
    "cut to a half": lambda content: content[: len(content) // 2],
    "cut in the header": lambda content: content[:20],
    "text": lambda content: b"404: not found",
    "a web page": lambda content: b"<!DOCTYPE html>" * 100,
}


@pytest.mark.smoke
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif"])
@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_image_is_named_in_one_line(root, change, suffix):
    path = root / "train" / "cat" / f"03{suffix}"
    noise(3, 30, 30).save(path)
    path.write_bytes(change(path.read_bytes()))
    with user_error(path, "cannot be read as an image", "remove it"):
        image_folder.load_training(str(root), None)


def test_the_line_about_a_damaged_image_is_for_people(root):
    path = root / "train" / "cat" / "03.png"
    path.write_bytes(b"404: not found")
    with user_error(path) as caught:
        image_folder.load_training(str(root), None)
    assert " object at 0x" not in str(caught.value)


def test_a_first_image_that_is_damaged_is_named_in_one_line(root):
    path = root / "train" / "ant" / "00.png"
    path.write_bytes(b"")
    with user_error(path):
        image_folder.load_test(str(root), None)


@pytest.mark.parametrize("name", ["notes.txt", "Thumbs.db", "image", "image.jpg.part"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_that_is_no_image_is_named_in_one_line(root, split, name):
    (root / split / "cat" / name).write_text("no image")
    with user_error(root / split / "cat" / name, "is no image", ".png", "remove it"):
        image_folder.load_training(str(root), None)


def test_a_folder_inside_a_class_is_named_in_one_line(root):
    (root / "train" / "cat" / "more.jpg").mkdir()
    with user_error(root / "train" / "cat" / "more.jpg", "is no image"):
        image_folder.load_training(str(root), None)


def test_an_empty_class_is_named_in_one_line(root):
    (root / "test" / "cat" / "00.png").unlink()
    with user_error(root / "test" / "cat", "empty"):
        image_folder.load_test(str(root), None)


def test_images_without_class_folders_are_refused(tmp_path):
    make_split(tmp_path / "train", TRAIN)
    (tmp_path / "test").mkdir()
    noise(0).save(tmp_path / "test" / "00.png")
    with user_error(tmp_path / "test", "no folders", "test/<class>/"):
        image_folder.load_test(str(tmp_path), None)


@pytest.mark.parametrize("counts", [{"ant": 1, "cat": 1}, {**OTHER, "emu": 1}])
@pytest.mark.parametrize("split", ["test", "val"])
def test_splits_with_different_classes_are_refused(tmp_path, split, counts):
    make_split(tmp_path / "train", TRAIN)
    make_split(tmp_path / split, counts)
    (differing,) = counts.keys() ^ TRAIN.keys()
    with user_error(tmp_path, "train/", f"{split}/", "same classes", differing):
        image_folder.load_training(str(tmp_path), None)


@pytest.mark.parametrize("there", [[], ["train"], ["test"], ["val", "test"], ["Train", "Test"]])
def test_a_folder_without_train_or_without_another_split_is_refused(tmp_path, there):
    for name in there:
        make_split(tmp_path / name, OTHER)
    with user_error(tmp_path, "train/<class>/", "test/<class>/"):
        image_folder.load_training(str(tmp_path), None)


@pytest.mark.parametrize("place", [None, "", "absent", "file"])
def test_a_data_dir_that_is_no_folder_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("")
    data_dir = str(tmp_path / place) if place else place
    with user_error("--data-dir", data_dir):
        image_folder.load_training(data_dir, None)


def test_too_few_images_to_hold_some_out_are_refused(tmp_path):
    make_split(tmp_path / "train", {"a": 1, "b": 1})
    make_split(tmp_path / "test", {"a": 1, "b": 1})
    with user_error(tmp_path, "no val/", "class a has one"):
        image_folder.load_training(str(tmp_path), None)


@not_as_root
@pytest.mark.parametrize("name", ["train/cat/00.png", "train/cat", "train"])
def test_what_is_locked_is_named_in_one_line(root, name):
    (root / name).chmod(0)
    try:
        with user_error(root / name):
            image_folder.load_training(str(root), None)
    finally:
        (root / name).chmod(0o700)


# streamed from the disk


@pytest.fixture(params=[0, 2], ids=["alone", "workers"])
def workers(request, monkeypatch):
    """Read by this process, or by others as always."""
    monkeypatch.setattr(streamed, "MOST_WORKERS", request.param)
    many_processors(monkeypatch)


def many_processors(monkeypatch):
    """Three of them, whatever this machine has."""
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)


def both(root, monkeypatch, size=None):
    """The three splits in memory, and the same streamed."""
    in_memory = load(root, size)
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    from_disk = load(root, size)
    assert all(isinstance(part, streamed.Streamed) for part in from_disk)
    return in_memory, from_disk


def assert_same_batches(actual, expected):
    actual, expected = list(actual), list(expected)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_streamed_splits_hold_the_same_in_the_same_order(root, monkeypatch, workers):
    for ours, theirs in zip(*both(root, monkeypatch), strict=True):
        assert (len(ours), ours.shape, ours.classes) == (len(theirs), theirs.shape, theirs.classes)
        assert torch.equal(ours.labels, theirs.labels)
        assert_same_batches(ours.in_order(2), theirs.in_order(2))


def test_workers_leave_ctrl_c_to_the_main_process():
    before = signal.getsignal(signal.SIGINT)
    try:
        streamed.ignore_ctrl_c(0)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_streamed_validation_batches_are_those_in_memory(root, monkeypatch, workers):
    (_, _, theirs), (_, _, ours) = both(root, monkeypatch)
    for skip in (0, 1):
        expected = theirs.batches(2, seed=3, epoch=4, skip=skip)
        assert_same_batches(ours.batches(2, seed=3, epoch=4, skip=skip), expected)


def test_streamed_training_batches_have_the_labels_in_the_same_order(root, monkeypatch, workers):
    (theirs, *_), (ours, *_) = both(root, monkeypatch)
    assert ours.num_batches(4) == theirs.num_batches(4) == 4
    pairs = list(zip(ours.batches(4, 1, 2), theirs.batches(4, 1, 2), strict=True))
    assert len(pairs) == 4
    for (images, labels), (_, expected) in pairs:
        assert torch.equal(labels, expected)
        assert images.shape == (4, 3, 8, 8) and images.dtype == torch.uint8


@pytest.mark.parametrize(
    "change",
    [lambda split: split.subset(7), lambda split: split.take(torch.tensor([5, 0, 5])),
     lambda split: split.to(torch.device("cpu")), lambda split: split.subset(9).subset(None)],
    ids=["subset", "take", "to", "twice"],
)  # fmt: skip
def test_parts_of_streamed_splits_are_those_in_memory(root, monkeypatch, change):
    monkeypatch.setattr(streamed, "MOST_WORKERS", 0)
    (theirs, *_), (ours, *_) = both(root, monkeypatch)
    ours, theirs = change(ours), change(theirs)
    assert isinstance(ours, streamed.Streamed)
    rows = torch.tensor([2, 0])
    assert torch.equal(ours.images(rows), theirs.images(rows))
    assert_same_batches(ours.in_order(), theirs.in_order())


def test_images_lie_where_the_split_was_moved_to(root, monkeypatch):
    """As in memory: a network's first look at the training images is on its own device."""
    for parts in both(root, monkeypatch):
        moved = parts[0].to(torch.device("meta"))
        assert moved.images(torch.arange(3)).device.type == moved.labels.device.type == "meta"


def test_streamed_images_are_fitted_to_the_size(root, monkeypatch):
    (theirs, *_), (ours, *_) = both(root, monkeypatch, size=5)
    rows = torch.arange(len(ours))
    assert torch.equal(ours.images(rows), theirs.images(rows)) and ours.shape == (3, 5, 5)


@pytest.mark.smoke
def test_random_crops_repeat_for_a_seed_and_epoch(root, monkeypatch, workers):
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    train = load(root, 16)[0]
    torch.manual_seed(1)
    first = list(train.batches(4, seed=1, epoch=0))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert_same_batches(train.batches(4, seed=1, epoch=0), first)
    assert torch.equal(torch.get_rng_state(), before), "the run's generator is not the split's"


def test_random_crops_differ_between_examples_epochs_and_seeds(tmp_path, monkeypatch):
    """Ten times the same image, for training in five orders: no crop comes twice."""
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(streamed, "MOST_WORKERS", 0)
    noise(0, 60, 50).save(tmp_path / "image.png")
    files = image_folder.Files([tmp_path / "image.png"] * 10, torch.arange(10), ["a"])
    train = image_folder.load(files, "train", 16, image_folder.random_crop)
    orders = [(0, 0), (0, 1), (1, 0), (0, 2**8), (2**22, 0)]
    crops = [x for seed, epoch in orders for x, _ in train.batches(10, seed, epoch)]
    assert len(torch.cat(crops).flatten(1).unique(dim=0)) == 50


@pytest.mark.parametrize("skip", [1, 3, 4])
def test_a_resumed_epoch_has_the_same_remaining_batches(root, monkeypatch, workers, skip):
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    train = load(root, 16)[0]
    whole = list(train.batches(4, seed=2, epoch=5))
    assert_same_batches(train.batches(4, seed=2, epoch=5, skip=skip), whole[skip:])


def test_crops_do_not_depend_on_the_number_of_workers(root, monkeypatch):
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    many_processors(monkeypatch)
    train, batches = load(root, 16)[0], []
    for number in (0, 3):
        monkeypatch.setattr(streamed, "MOST_WORKERS", number)
        batches.append(list(train.batches(4, seed=2)))
    assert_same_batches(*batches)


def test_streaming_leaves_the_generators_of_the_run_alone(root, monkeypatch, workers):
    """Those of GPUs, too, which torch.manual_seed would seed."""
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    train, seeds = load(root)[0], []
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    list(train.in_order(4)), list(train.batches(4)), train.images(torch.arange(3))
    assert torch.equal(torch.get_rng_state(), before) and seeds == []


def test_no_images_are_none(root, monkeypatch):
    """Of a network without a mistake, say."""
    nobody = torch.empty(0, dtype=torch.int64)
    for theirs, ours in zip(*both(root, monkeypatch), strict=True):
        expected, found = theirs.images(nobody), ours.images(nobody)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


def try_to_name(path, name: bytes):
    """Give a file another name, which only some systems take where it is no text."""
    other = path.with_name(os.fsdecode(name))
    try:
        path.rename(other)
    except (OSError, UnicodeError):
        pytest.skip("names are text here")
    return other


@pytest.mark.parametrize("folder", ["GAN", "ResNet", "VAE", "ViT"])
def test_names_in_latin_1_are_streamed(root, monkeypatch, folder):
    """And what stands for names in UTF-8 in the runs that know it stays as it is."""
    module = importlib.import_module(f"{folder}.dataset.image_folder")
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    key, image = "train, names and sizes", root / "train" / "dog" / "00.png"
    image = try_to_name(image, "Fr\u00e9d\u00e9ric.png".encode())
    files = module.find_files(root, "train")
    listed = [f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in files.paths]
    known = hashlib.sha256("\n".join(listed).encode()).hexdigest()
    assert module.load(files, "train", 8).checksums == {key: known}

    try_to_name(image, "Fr\u00e9d\u00e9ric.png".encode("latin-1"))
    split = module.load(module.find_files(root, "train"), "train", 8)
    assert len(split) == len(files.paths) and split.checksums[key] != known


@pytest.mark.parametrize("folder", ["GAN", "VAE"])
def test_what_is_drawn_and_judged_whole_is_learned_whole(root, monkeypatch, folder):
    """Where images are generated, those that are streamed are not cropped for training."""
    dataset, splits = importlib.import_module(f"{folder}.dataset"), []
    args = Namespace(dataset="folder", data_dir=str(root), image_size=8, refit=False)
    for limit in (dataset.image_folder.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(dataset.image_folder, "IN_MEMORY_BYTES", limit)
        splits.append(dataset.load_training(args)[0])
    assert [type(split).__name__ for split in splits] == ["Split", "Streamed"]
    assert_same_batches(splits[1].batches(4, seed=1), splits[0].batches(4, seed=1))


def test_streamed_images_are_clustered_as_those_in_memory(root, monkeypatch):
    dataset = importlib.import_module("GAN.dataset")
    args, found = Namespace(dataset="folder", data_dir=str(root), image_size=8), []
    for limit in (dataset.image_folder.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(dataset.image_folder, "IN_MEMORY_BYTES", limit)
        found.append(with_clusters(dataset.load_training(args)[0], 2))
    in_memory, from_disk = found
    assert torch.equal(from_disk.labels, in_memory.labels) and from_disk.classes == ["0", "1"]
    assert_same_batches(from_disk.batches(4), in_memory.batches(4))


def test_streamed_images_are_shrunk_as_those_in_memory(root, monkeypatch):
    (theirs, *_), (ours, *_) = both(root, monkeypatch, 16)
    expected, found = (depth.shrunk(split, 8) for split in (theirs, ours))
    assert torch.equal(found.inputs, expected.inputs) and len(found.inputs) == len(ours)


@pytest.mark.smoke
@pytest.mark.parametrize("content", [b"", b"404: not found", None], ids=["empty", "text", "gone"])
@pytest.mark.parametrize("way", ["batches", "in_order"])
def test_an_unreadable_file_met_while_streaming_is_named_in_one_line(
    root, monkeypatch, workers, way, content
):
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    test = load(root)[2]
    path = root / "test" / "dog" / "01.png"
    path.unlink() if content is None else path.write_bytes(content)
    before = set(multiprocessing.active_children())
    with user_error(path, "cannot be read"):
        list(getattr(test, way)(2))
    after = set(multiprocessing.active_children())
    assert after <= before, "workers wait for work that never comes"


@pytest.mark.parametrize("free, expected", [(64, 2), (40, 1), (35, 0), (1, 0), (10_000, 3)])
def test_no_more_workers_than_shared_memory_has_room_for(
    tmp_path, monkeypatch, capsys, free, expected
):
    """Docker's /dev/shm has 64 MiB; two batches lie ready for each worker, and two are in use."""
    many_processors(monkeypatch)
    monkeypatch.setattr(streamed, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free * 2**20))
    streamed.say_that_memory_is_short.cache_clear()
    for _ in range(2):
        assert streamed.workers_for(10 * 2**20) == expected
    err = capsys.readouterr().err
    assert len(err.splitlines()) == (expected < 3), err
    assert ("--shm-size" in err) == (expected < 3)


def test_without_shared_memory_the_batches_are_the_same(root, monkeypatch, tmp_path):
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    many_processors(monkeypatch)
    train = load(root, 16)[0]
    expected = list(train.batches(4, seed=2))
    monkeypatch.setattr(streamed, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert_same_batches(train.batches(4, seed=2), expected)


@pytest.mark.parametrize(
    "fault, kind",
    [("DataLoader worker (pid 1) is killed", UserError), ("another one", RuntimeError)],
)
def test_a_killed_worker_is_one_line(root, monkeypatch, fault, kind):
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)

    def broken(*args, **options):
        raise RuntimeError(f"{fault} by signal: Bus error.")
        yield

    monkeypatch.setattr(streamed, "DataLoader", broken)
    with pytest.raises(kind, match="Bus error"):
        list(load(root)[0].in_order())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors are not limited")
def test_no_more_workers_than_processors_that_may_be_used(root, monkeypatch):
    """Two of the machine's, one for this process (as under taskset or Slurm): torch would warn."""
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1})
    test = load(root)[2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(test.in_order(4))) == 2


def test_what_the_workers_need_can_be_sent_to_a_new_process(root, monkeypatch):
    """Where processes are not forked (macOS, Windows; Linux from Python 3.14 on), it is pickled."""
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    sent, loader = [], streamed.DataLoader

    def keep(dataset, **options):
        sent.append(dataset)
        return loader(dataset, **(options | {"num_workers": 0}))

    monkeypatch.setattr(streamed, "DataLoader", keep)
    train = load(root)[0]
    list(train.batches(4, seed=1)), list(train.in_order(4))
    for dataset in sent:
        assert torch.equal(pickle.loads(pickle.dumps(dataset))[3], dataset[3])


@pytest.mark.parametrize("folder", ["ResNet", "ViT"])
def test_one_class_is_nothing_to_tell_apart(folder, tmp_path, capsys):
    """A folder that lies one level off would be learned at once, and to 100 %."""
    for split in ("train", "test"):
        (tmp_path / split / "photos").mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(
                tmp_path / split / "photos" / f"{number}.png"
            )
    argv = ["--dataset", "folder", "--data-dir", tmp_path, "--run-dir", tmp_path / "run"]
    assert_one_line(call(capsys, script(folder).main, *argv), "one class, photos")
    assert not (tmp_path / "run").exists()
