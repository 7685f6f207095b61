"""A trained model, for test.py and generate.py."""

from argparse import Namespace
from pathlib import Path

from common.device import select_device
from common.evaluation import find_trained, load_best
from VAE.dataset import no_images
from VAE.model import Autoencoder
from VAE.train import make_parser
from VAE.utils.build import build_model


def load_trained(folder: Path, args: Namespace, **wanted) -> tuple[Path, Namespace, Autoencoder]:
    """The run that `args` name (default: the latest with the flags `wanted`), its flags, and its
    network.

    `device` of the flags is that of `args`.
    """
    device = select_device(args.device)
    run_dir, config = find_trained(folder, args, make_parser(), **wanted)
    config.device = device
    data = no_images(config)
    model = build_model(config, data).to(device=device)
    load_best(model, run_dir, classes=data.classes)
    return run_dir, config, model
