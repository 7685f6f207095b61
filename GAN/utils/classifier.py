"""The classifier in whose features generated images are compared with real ones.

It is trained here, once per dataset, on the training split that the GAN learns from too, and kept
beside the data. Distances depend on it: its fingerprint stands in every record.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from common import checkpoint
from common.data import Split
from common.errors import UserError, printable, reading
from common.files import kept_at, sha256
from common.metrics import RunningMean, correct
from common.schedules import make_schedule
from GAN.dataset import FOLDER, mnist, scaled

VERSION, SEED = 1, 0  # VERSION: of all that is written below
IMAGES_SEEN, MOST_EPOCHS, BATCH_SIZE, LR, WEIGHT_DECAY = 275_000, 20, 128, 3e-3, 0.01
NUM_FEATURES, SURE = 128, 0.9
TIMED = 20  # steps, after which it says how long the others will take


class Classifier(nn.Module):
    """uint8 images (N, C, H, W) -> features (N, 128) -> logits (N, K)."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int):
        super().__init__()
        C, H, W = shape
        layers, width = [], 16
        while min(H, W) > 7 or width == 16:
            width = min(2 * width, 128)
            H, W = -(-H // 2), -(-W // 2)
            layers += [
                nn.Conv2d(C, width, kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            C = width
        layers += [
            nn.Conv2d(C, C, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(C),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(C * H * W, NUM_FEATURES),
            nn.ReLU(),
        ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(NUM_FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.layers(scaled(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def task(images: Tensor, labels: Tensor, classes: list[str]) -> tuple[Tensor, Tensor]:
    """The images and their labels; where all are of one class, the images in four quarter turns and
    which turn it was (Gidaris et al., 2018, arXiv:1803.07728), so that there is something to tell.
    """
    if len(classes) > 1:
        return images, labels
    turned = torch.cat([images.rot90(k, (2, 3)) for k in range(4)])
    return turned, torch.arange(4, device=labels.device).repeat_interleave(len(labels))


def train_classifier(train: Split) -> Classifier:
    """A few epochs of AdamW; the same weights every time on the same machine."""
    epochs = max(1, min(MOST_EPOCHS, IMAGES_SEEN // len(train)))
    device, total = train.labels.device, epochs * train.num_batches(BATCH_SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # the CPU's alone: a GPU's is the run's
        model = Classifier(train.shape, max(4, len(train.classes)))
    model.to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule, criterion = make_schedule("one-cycle", optimizer, LR, total), nn.CrossEntropyLoss()
    started, step = time.monotonic(), 0
    for epoch in range(epochs):
        for batch in train.batches(BATCH_SIZE, SEED, epoch):
            images, labels = task(*batch, train.classes)
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step == min(TIMED, total):  # before that, a first batch alone has to warm up
                minutes = (time.monotonic() - started) / step * (total - step) / 60
                print(f"… about {minutes:.1f} more minutes", flush=True)
    return model.eval()


@torch.no_grad()
def accuracy_on(model: Classifier, data: Split) -> float:
    """The share of a split's images that are classified rightly."""
    right = RunningMean()
    for batch in data.in_order():
        images, labels = task(*batch, data.classes)
        right.add(correct(model(images), labels).float().mean().item(), len(labels))
    return right.value


def fingerprint(model: nn.Module) -> str:
    """Twelve digits that stand for the weights."""
    weights = [value.cpu().contiguous().numpy().tobytes() for value in model.state_dict().values()]
    return sha256(b"".join(weights))[:12]


def checksum(data: Split) -> str:
    """What stands for a split's examples and their labels; of a folder's labels, its own checksums
    say nothing."""
    labels = sha256(data.labels.cpu().numpy().tobytes())
    return sha256(repr((sorted(data.checksums.items()), labels)).encode())


def kept_where(args: argparse.Namespace, train: Split) -> Path:
    """The classifier's file: beside the data, or in dataset/ where nothing may be put there."""
    beside = otherwise = FOLDER / "dataset"
    facts = (VERSION, sorted(train.checksums.items()), train.shape, len(train), train.classes)
    if args.dataset == "folder":
        beside, facts = Path(args.data_dir), (*facts, checksum(train))
    elif args.dataset in mnist.FOLDERS:
        beside = mnist.find_files(args.dataset, FOLDER, args.data_dir)
    key = sha256(repr(facts).encode())[:16]
    return kept_at(beside, otherwise, f"gan-classifier-{key}.safetensors")


def keep(path: Path, state: dict) -> None:
    """Write the classifier's file; where that cannot be, say so and go on without one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(path, state)
    except (UserError, OSError) as error:
        why = f"the classifier is not kept ({printable(error)}): the next run trains it again"
        print(why, file=sys.stderr, flush=True)


def find_classifier(args: argparse.Namespace, train: Split, validation: Split) -> Classifier:
    """The dataset's classifier, from its file or trained now; its `accuracy` on the validation
    split and its `fingerprint` are attributes."""
    path, held_out = kept_where(args, train), checksum(validation)
    model = Classifier(train.shape, max(4, len(train.classes)))
    try:
        state = checkpoint.load(path, "model")
        checkpoint.restore(model, state["model"], path, "classifier")
        with reading(path):
            reached = float(state["accuracy"])
    except UserError:  # there is none yet, or half of one
        print(
            f"training the classifier that will judge the images, once, on all {len(train):,} of "
            f"them (--subset does not shorten it);\nit will be kept as {printable(path)}",
            flush=True,
        )
        model = train_classifier(train)
        reached = accuracy_on(model, validation)
        state = {"model": model.state_dict(), "accuracy": reached, "validation": held_out}
        keep(path, state)
        print(f"it classifies {100 * reached:.2f} % of the validation split rightly\n", flush=True)
    model.to(device=train.labels.device, memory_format=torch.channels_last).eval()
    if state.get("validation", held_out) != held_out:  # older files do not say
        reached = accuracy_on(model, validation)
    model.accuracy, model.fingerprint = reached, fingerprint(model)
    return model
