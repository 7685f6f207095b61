"""A trained model, for test.py and generate.py."""

from argparse import Namespace
from pathlib import Path

from common import folders
from common.device import select_device
from common.errors import UserError
from common.evaluation import find_trained, load_best
from VAE.dataset import no_images
from VAE.model import Autoencoder
from VAE.train import RECIPES, build_model


def load_trained(folder: Path, args: Namespace) -> tuple[Path, Namespace, Autoencoder]:
    """The run that `args` name (default: the latest), its flags, and its network.

    `device` of the flags is that of `args`.
    """
    device = select_device(args.device)
    run_dir, config = find_trained(folder, args, RECIPES)
    if "likelihood" not in folders.read_config(run_dir):
        raise UserError(f"{run_dir} is a run of another folder's network, not of {folder.name}'s")
    config.device = device
    data = no_images(config.dataset)
    model = build_model(config, data).to(device=device)
    load_best(model, run_dir, data.classes)
    return run_dir, config, model
