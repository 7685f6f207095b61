"""Short trainings of twins, for the study twins.py: both by one recipe, from the same weights, on
the same batches, by the protocol of all studies here (protocol.py).

The images are MNIST, the pairs of the Transformer dates that it writes in another way, all other
networks read tiny-shakespeare. The twin of RNN_Manual's network is made of nn's layers (text.py).
"""

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import count

import torch

from common.data import ROOT, Split
from common.device import seed_everything
from common.metrics import metrics_of
from common.results.compare_steps import LAYERS, PAIRS
from MLP_Manual.dataset import mnist
from RNN_Manual.dataset import load_training as load_text
from RNN_Manual.dataset.texts import or_help_topics
from RNN_Manual.train import RECIPES as TEXT_RECIPES
from studies import protocol, text
from studies.protocol import Learner
from Transformer_Manual.model import Transformer as ManualTransformer
from Transformer_Torch.dataset import lm, translation
from Transformer_Torch.model import Transformer as TorchTransformer

FOLDERS = {"manual": "Manual", "torch": "Torch"}
IMAGES = {"MLP": {"hidden_sizes": (16,)}, "CNN": {"channels": (4, 4)}}  # small, for --quick
METRIC = {name: "accuracy" if name in IMAGES else "loss" for name in PAIRS}
MARKS = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]  # when they are measured, as shares of their seconds


def batches(module, train: Split, recipe: Namespace, seed: int) -> Iterator:
    """Training batches of images as train.py makes them, without an end."""
    background = train.inputs[:, :, 0].median().item() if train.inputs.dim() == 4 else None
    for epoch in count():
        for images, labels in train.batches(recipe.batch_size, seed, epoch):
            if background is not None:
                images = module.augment(images, recipe, background)
            yield (images,), labels


def images(name: str, twin: str, seed: int, train: Split, validation: Split, recipe) -> Learner:
    """The MLP or the CNN."""
    folder = f"{name}_{FOLDERS[twin]}"
    module, epoch = import_module(f"{folder}.train"), train.num_batches(recipe.batch_size)
    seed_everything(seed)
    model = module.build_model(recipe, train).to(device=train.labels.device)
    rate, some = protocol.rate(recipe.lr, epoch), batches(module, train, recipe, seed)
    smoothing, decay = recipe.label_smoothing, recipe.weight_decay
    if twin == "manual":
        criterion = module.CrossEntropy(smoothing)
        optimizer = module.OPTIMIZERS[recipe.optimizer](model, recipe.lr, weight_decay=decay)
        steps = text.fit_by_hand(model, criterion, optimizer, some, rate, recipe.clip)
    else:
        if name == "CNN":  # as in train.py
            model.to(memory_format=torch.channels_last)
        criterion = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
        optimizer = module.make_optimizer(recipe.optimizer, model, recipe.lr, decay)
        steps = protocol.fit(model, criterion, optimizer, some, rate, recipe.clip)

    def evaluate(model) -> float:
        if hasattr(module, "evaluate"):
            return module.evaluate(model, validation)["accuracy"]
        return metrics_of(module.predict(model, validation), validation.labels)["accuracy"]

    return Learner(model, steps, evaluate, epoch)


def texts(name: str, twin: str, seed: int, train, validation, recipe) -> Learner:
    """A Transformer, or a language model of recurrent layers."""
    suffix = "-torch" if twin == "torch" else ""
    if name in LAYERS:
        learner = text.recurrent(name.lower() + suffix, seed, train, validation, recipe)
        return learner._replace(evaluate=torch.no_grad()(learner.evaluate))
    networks = {"networks": (ManualTransformer, TorchTransformer)} if name == "Transformer" else {}
    return text.transformer(f"transformer{suffix}", seed, train, validation, recipe, **networks)


def recipe_of(name: str, args: Namespace) -> Namespace:
    """The recipe of both twins: their folder's (of digits, the sample's), smaller with --quick."""
    dataset = dataset_of(name, args)
    if name in IMAGES:
        recipes, small = import_module(f"{name}_Manual.train").RECIPES, IMAGES[name]
        recipe = recipes["mnist-sample"]  # of MNIST, too: the CNN's own is for two epochs
    elif name in LAYERS:
        recipe, small = TEXT_RECIPES[dataset], text.QUICK
    else:
        recipe, small = text.GPT_RECIPES[dataset], {**text.QUICK, "max_length": 64}
    recipe = {**recipe, **(small if args.quick else {})}
    return Namespace(**recipe, dataset=dataset, data_dir=args.data_dir)


def dataset_of(name: str, args: Namespace) -> str:
    return "dates" if name == "Transformer" else args.datasets[name not in IMAGES]


def load(name: str, args: Namespace) -> tuple:
    """Training and validation split of a pair, and the recipe."""
    recipe = recipe_of(name, args)
    if name in IMAGES:
        module = import_module(f"{name}_Manual.dataset")
        splits = module.load_training(recipe.dataset, args.data_dir)
    elif name in LAYERS:
        splits = load_text(recipe.dataset, args.data_dir)
    else:
        splits = (translation if name == "Transformer" else lm).load_training(recipe)
    train, validation = (split.to(args.device) for split in splits)
    if args.quick:
        validation = validation.subset(min(4_000, len(validation)))
    return train, validation, recipe


def train_both(name: str, twin: str, seed: int, args: Namespace) -> dict:
    """What one twin reaches after each of the marks."""
    build = partial(images if name in IMAGES else texts, name, twin, seed, *load(name, args))
    minutes = [share * args.seconds / 60 for share in MARKS]
    return protocol.learn(build(), minutes, METRIC[name])


def datasets(args: Namespace) -> list[str]:
    """What images and texts are of: small stand-ins with --quick, and where there is no data."""
    if args.quick:
        return ["mnist-sample", "help-topics"]
    digits = mnist.or_sample("mnist", False, ROOT / "MLP_Manual", args.data_dir)
    return [digits, or_help_topics("tiny-shakespeare", False, args.data_dir)]
