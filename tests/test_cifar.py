"""dataset/cifar.py on small files of the real layout: reading, looking up, unpacking, downloads."""

import errno
import hashlib
import io
import os
import pickle
import shutil
import socket
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision import datasets

from common import data
from common.data import DataMissing, stratified_split
from ResNet.dataset import cifar
from tests.conftest import user_error
from tests.running import assert_one_line, call, script

EACH = 20  # images of a file
CLASSES = {
    "cifar10": [f"thing {k}" for k in range(10)],
    "cifar100": [f"fine {k:02d}" for k in range(100)],
}
COARSE = [f"coarse {k:02d}" for k in range(20)]
KEYS = {"cifar10": "labels", "cifar100": "fine_labels"}


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def make_batch(dataset, seed):
    """What one of the pickled files holds."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(EACH) % len(CLASSES[dataset])).tolist()
    batch = {
        "data": random.integers(0, 256, (EACH, 3072), dtype=np.uint8),
        KEYS[dataset]: labels,
        "batch_label": f"batch {seed}",
        "filenames": [f"{n}.png" for n in range(EACH)],
    }
    return batch | ({"coarse_labels": [label % 20 for label in labels]} if "00" in dataset else {})


def make_files(place, dataset, first=0):
    """The dataset's folder below `place`, made to pass for the real one: name -> content."""
    official = cifar.official_set(dataset)
    folder, contents = place / official.base_folder, {}
    folder.mkdir(parents=True)
    names = [name for name, _ in official.train_list + official.test_list]
    for seed, name in enumerate(names, start=first):
        contents[name] = pickle.dumps(make_batch(dataset, seed), protocol=2)
    meta = {official.meta["key"]: CLASSES[dataset]}
    if dataset == "cifar100":
        meta["coarse_label_names"] = COARSE
    contents[official.meta["filename"]] = pickle.dumps(meta, protocol=2)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


def pack(place, dataset):
    """The archive of the dataset's folder, in that folder's place."""
    official = cifar.official_set(dataset)
    with tarfile.open(place / official.filename, "w:gz") as archive:
        archive.add(place / official.base_folder, official.base_folder)
    shutil.rmtree(place / official.base_folder)
    return place / official.filename


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model's folder, in a repository that has one other and no data."""
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    for name in ("ResNet", "ViT"):
        (tmp_path / "repository" / name).mkdir(parents=True)
    return tmp_path / "repository" / "ResNet"


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A function: the checksums that torchvision knows are those of these files from now on."""

    def make_known(dataset, contents, archive=None):
        official = cifar.official_set(dataset)
        for name in ("train_list", "test_list"):
            files = [[n, md5(contents[n])] for n, _ in getattr(official, name)]
            monkeypatch.setattr(official, name, files)
        meta = {**official.meta, "md5": md5(contents[official.meta["filename"]])}
        monkeypatch.setattr(official, "meta", meta)
        if archive:
            monkeypatch.setattr(official, "tgz_md5", md5(archive.read_bytes()))

    return make_known


@pytest.fixture
def no_network(monkeypatch):
    """Nothing can be downloaded: the address is a port of this machine on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/archive.tar.gz"
        for official in (datasets.CIFAR10, datasets.CIFAR100):
            monkeypatch.setattr(official, "url", url)
        yield url


@pytest.fixture(params=["cifar10", "cifar100"])
def dataset(request):
    return request.param


@pytest.fixture
def files(dataset, folder, known, no_network):
    """Small files of the dataset in the model's own dataset folder."""
    contents = make_files(folder / "dataset", dataset)
    known(dataset, contents)
    return folder / "dataset" / cifar.official_set(dataset).base_folder


def expected(dataset, seeds):
    """Pixels (N, 3, 32, 32) and labels of the files made from these seeds, in their order."""
    batches = [make_batch(dataset, seed) for seed in seeds]
    pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return torch.tensor(pixels), torch.tensor(sum((b[KEYS[dataset]] for b in batches), []))


# reading


@pytest.mark.smoke
def test_pixels_and_labels_are_those_of_the_files_in_order(files, dataset, folder):
    """Each row holds 1,024 red, then green, then blue values, row by row of the image."""
    last = len(cifar.official_set(dataset).train_list)
    for train, seeds in ((True, range(last)), (False, [last])):
        split = cifar.load(dataset, train, folder, None)
        images, labels = expected(dataset, seeds)
        assert torch.equal(split.inputs, images) and torch.equal(split.labels, labels)
        assert (split.inputs.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert split.inputs.is_contiguous() and split.classes == CLASSES[dataset]


def test_images_are_torchvisions(files, dataset, folder):
    split = cifar.load(dataset, True, folder, None)
    theirs = cifar.official_set(dataset)(files.parent, train=True)
    for n in (0, 7, len(theirs) - 1):
        image, label = theirs[n]
        assert np.array_equal(split.inputs[n].permute(1, 2, 0).numpy(), np.asarray(image))
        assert split.labels[n] == label


def test_the_validation_split_is_stratified_and_out_of_the_training_files(
    files, dataset, folder, monkeypatch
):
    if dataset == "cifar100":  # of 20 images, of as many classes, none can be spared
        monkeypatch.setattr(cifar, "VALIDATION_SIZE", 10)
        with user_error("cannot hold 10 of 20 examples", "20 classes"):
            cifar.load_training(dataset, folder, None)
        return
    monkeypatch.setattr(cifar, "VALIDATION_SIZE", 10)
    train, validation = cifar.load_training(dataset, folder, None)
    images, labels = expected(dataset, range(len(cifar.official_set(dataset).train_list)))
    rows, held_out = stratified_split(labels, 10)
    for part, chosen in ((train, rows), (validation, held_out)):
        assert torch.equal(part.inputs, images[chosen])
        assert torch.equal(part.labels, labels[chosen])
    assert validation.labels.bincount().tolist() == [1] * 10


def test_of_the_real_50000_images_5000_are_held_out():
    labels = torch.arange(50_000) % 10
    train, validation = stratified_split(labels, cifar.VALIDATION_SIZE)
    assert (len(train), labels[validation].bincount().tolist()) == (45_000, [500] * 10)


def test_checksums_are_those_of_the_files_read(files, dataset, folder):
    official = cifar.official_set(dataset)
    for train, listed in ((True, official.train_list), (False, official.test_list)):
        names = [name for name, _ in listed]
        sums = {name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in names}
        assert cifar.load(dataset, train, folder, None).checksums == sums


# where to look


@pytest.mark.parametrize("first", range(4))
def test_data_dir_then_environment_then_own_folder_then_sibling(
    folder, tmp_path, monkeypatch, known, no_network, first
):
    named, environment = tmp_path / "named", tmp_path / "environment"
    places = [named, environment, folder / "dataset", folder.parent / "ViT" / "dataset"]
    for number, place in enumerate(places):
        place.mkdir()
        if number >= first:
            contents = make_files(place, "cifar10", first=10 * number)
            if number == first:
                known("cifar10", contents)
    monkeypatch.setenv("PLAYGROUND_DATA", str(environment))
    test = cifar.load("cifar10", False, folder, str(named))
    assert torch.equal(test.inputs, expected("cifar10", [10 * first + 5])[0])


def test_cifar10_is_not_taken_for_cifar100(folder, no_network):
    make_files(folder / "dataset", "cifar10")
    with user_error("cifar100 is not in", "cifar-100-python", kind=DataMissing):
        cifar.load("cifar100", True, folder, None)


@pytest.mark.parametrize("place", ["absent", "file"])
def test_a_data_dir_that_is_no_folder_is_refused(files, dataset, folder, tmp_path, place):
    (tmp_path / "file").write_text("")
    with user_error("--data-dir", tmp_path / place):
        cifar.load(dataset, True, folder, str(tmp_path / place))


def test_missing_data_without_a_network_says_where_it_looked(dataset, folder, no_network):
    official = cifar.official_set(dataset)
    parts = [dataset, folder / "dataset", no_network, official.base_folder, "--data-dir"]
    with user_error(*parts, kind=DataMissing):
        cifar.load_training(dataset, folder, None)
    assert os.listdir(folder) == []


# the archive


def test_an_archive_in_the_folder_is_unpacked(files, dataset, folder, known):
    official = cifar.official_set(dataset)
    contents = {path.name: path.read_bytes() for path in files.iterdir()}
    archive = pack(files.parent, dataset)
    known(dataset, contents, archive)
    images, labels = expected(dataset, range(len(official.train_list)))
    for _ in range(2):  # unpacked, and found unpacked
        split = cifar.load(dataset, True, folder, None)
        assert torch.equal(split.inputs, images) and torch.equal(split.labels, labels)
    assert {path.name: path.read_bytes() for path in files.iterdir()} == contents


def test_what_an_interrupted_unpacking_left_is_mended(files, dataset, folder, known):
    contents = {path.name: path.read_bytes() for path in files.iterdir()}
    archive = pack(files.parent, dataset)
    known(dataset, contents, archive)
    files.mkdir()
    name = cifar.official_set(dataset).train_list[0][0]
    (files / name).write_bytes(contents[name][:100])
    cifar.load(dataset, True, folder, None)
    assert {path.name: path.read_bytes() for path in files.iterdir()} == contents
    assert sorted(os.listdir(files.parent)) == sorted([files.name, archive.name])


def test_two_processes_may_unpack_at_the_same_time(files, dataset, folder, known, monkeypatch):
    """The second finds the first one's folder in its place, and leaves it there."""
    contents = {path.name: path.read_bytes() for path in files.iterdir()}
    archive = pack(files.parent, dataset)
    known(dataset, contents, archive)
    extract, depth = torchvision.datasets.utils.extract_archive, []

    def slow(*args):
        extract(*args)
        if not depth:
            depth.append(1)
            cifar.unpack(cifar.official_set(dataset), archive, files)
            depth.append(files.stat().st_ino)

    monkeypatch.setattr("torchvision.datasets.utils.extract_archive", slow)
    cifar.load(dataset, True, folder, None)
    assert files.stat().st_ino == depth[1]
    assert sorted(os.listdir(files.parent)) == sorted([files.name, archive.name])


@pytest.mark.parametrize("length", [0, 1, 2], ids=["empty", "half", "a byte less"])
def test_an_archive_that_is_damaged_is_named_in_one_line(files, dataset, folder, known, length):
    contents = {path.name: path.read_bytes() for path in files.iterdir()}
    archive = pack(files.parent, dataset)
    known(dataset, contents, archive)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: [0, len(whole) // 2, len(whole) - 1][length]])
    with user_error(archive, "delete it"):
        cifar.load(dataset, True, folder, None)


# damage


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a byte changed": lambda content: content[:50] + bytes([content[50] ^ 1]) + content[51:],
    "a web page": lambda content: b"<!DOCTYPE html>" * 100,
    "absent": None,
}


@pytest.mark.smoke
@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("which", ["train", "test", "meta"])
def test_a_damaged_file_is_named_in_one_line(files, dataset, folder, which, change):
    official = cifar.official_set(dataset)
    name = {
        "train": official.train_list[-1][0],
        "test": official.test_list[0][0],
        "meta": official.meta["filename"],
    }[which]
    content = (files / name).read_bytes()
    if change is None:
        (files / name).unlink()
    else:
        (files / name).write_bytes(change(content))
    with user_error(files / name, f"delete {files} and download again"):
        cifar.load(dataset, which != "test", folder, None)


@pytest.mark.parametrize("which", ["train", "test", "meta"])
def test_a_pickle_with_code_is_refused_unread(which, files, dataset, folder, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    official = cifar.official_set(dataset)
    names = {"train": official.train_list[0][0], "test": official.test_list[0][0]}
    name = names.get(which, official.meta["filename"])
    (files / name).write_bytes(pickle.dumps(Code()))
    with user_error(files / name):
        cifar.load(dataset, which == "train", folder, None)
    assert not (tmp_path / "it ran").exists()


# downloads, from a server on this machine


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch, known):
    """The archive of small CIFAR-10 files, on a server; gives its path."""
    place = tmp_path / "served"
    contents = make_files(place, "cifar10")
    archive = pack(place, "cifar10")
    known("cifar10", contents, archive)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
    monkeypatch.setattr(datasets.CIFAR10, "url", url)
    yield archive
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("named", [True, False])
def test_absent_data_is_downloaded_and_unpacked(served, folder, tmp_path, named):
    place = tmp_path / "place" if named else folder / "dataset"
    (tmp_path / "place").mkdir()
    test = cifar.load("cifar10", False, folder, str(place) if named else None)
    assert torch.equal(test.inputs, expected("cifar10", [5])[0])
    assert sorted(os.listdir(place)) == ["cifar-10-batches-py", served.name]
    assert cifar.find_root("cifar10", folder, str(tmp_path / "place")) == place


@pytest.mark.parametrize("how", ["cut", "other", "gone"])
def test_a_download_that_is_not_the_archive_leaves_nothing(served, folder, how):
    content = served.read_bytes()
    if how == "gone":
        served.unlink()
    else:
        served.write_bytes(content[:-1] if how == "cut" else content[::-1])
    with user_error("cifar10 is not in", "could not be downloaded", kind=DataMissing):
        cifar.load("cifar10", True, folder, None)
    assert os.listdir(folder) == []


def test_other_folders_find_what_one_has_downloaded(served, folder):
    cifar.load("cifar10", True, folder, None)
    served.unlink()
    other = folder.parent / "ViT"
    assert cifar.find_root("cifar10", other, None) == folder / "dataset"


# JPEG files


@pytest.mark.parametrize("name", ["ResNet", "ViT"])
def test_the_archive_becomes_a_folder_of_jpegs_that_is_learned(
    name, tmp_path, folder, known, no_network, capsys
):
    """Each image is where its class says, and as Pillow compresses it."""
    contents = make_files(tmp_path / "archives", "cifar10")
    known("cifar10", contents, pack(tmp_path / "archives", "cifar10"))
    make, place = script(name, "make_jpegs"), tmp_path / "cifar10-jpeg"
    result = call(capsys, make.main, place, "--data-dir", tmp_path / "archives")
    assert (result.code, result.err) == (0, "")
    assert "100 images to train on and 20 to test on" in result.out
    splits = script(name, "dataset.image_folder").find_splits(str(place))
    for split, seeds in (("train", range(5)), ("test", [5])):
        assert splits[split].classes == CLASSES["cifar10"]
        images, labels = expected("cifar10", seeds)
        assert splits[split].labels.tolist() == labels.sort().values.tolist()
        order = labels.argsort(stable=True)
        for path, pixels in zip(splits[split].paths, images[order], strict=True):
            original = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            content = io.BytesIO()
            original.save(content, "JPEG")  # quality 75, 4:2:0
            assert path.read_bytes() == content.getvalue()
    assert_one_line(call(capsys, make.main, place), place, "is there already")


def test_half_a_folder_of_jpegs_is_none(tmp_path, folder, known, no_network, capsys, monkeypatch):
    contents = make_files(tmp_path / "archives", "cifar10")
    known("cifar10", contents)
    make, place = script("ResNet", "make_jpegs"), tmp_path / "jpegs"
    flags = [place, "--data-dir", tmp_path / "archives"]
    (tmp_path / ".jpegs.part" / "train").mkdir(parents=True)  # of a run that was killed
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full_disk)
        assert_one_line(call(capsys, make.main, *flags), place, "No space left")
    assert not place.exists() and not (tmp_path / ".jpegs.part").exists()
    assert call(capsys, make.main, *flags).code == 0
    empty = [tmp_path / "other", "--data-dir", tmp_path / "absent"]
    assert_one_line(call(capsys, make.main, *empty), tmp_path / "absent")


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")
