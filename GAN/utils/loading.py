"""A trained generator, out of a run's best checkpoint."""

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from common import checkpoint, cli
from common.checkpoint import check_classes
from common.data import Split
from common.device import select_device
from common.errors import UserError, reading
from common.evaluation import best_weights, find_trained
from GAN.model import GAN, Generator
from GAN.utils.build import build_model
from GAN.utils.judge import draw_labels, latents
from GAN.utils.kind import Kind


def load_trained(folder: Path, args: Namespace, parser: cli.Parser, **wanted):
    """The run that `args` name (default: the latest with the flags `wanted`), its flags, its kind
    of data, and its players; the generator with its best weights (their moving average where the
    run kept one), in evaluation mode. `parser` is train.py's.
    """
    device = select_device(args.device)
    run_dir, config = find_trained(folder, args, parser, **wanted)
    path = run_dir / "best.safetensors"
    state = checkpoint.load(path, "kind")
    with reading(path):
        kind = Kind(**state["kind"])
        model = build_model(config, kind)
        restore(model, state, path)
        if "data" in state:  # older runs do not say
            check_classes(path, state["data"]["classes"], kind.classes)
    model.eval().to(device=device, memory_format=torch.channels_last)
    return run_dir, config, kind, model


def load_best(model: GAN, run_dir: Path) -> None:
    """Put the best checkpoint of the run into `model`, in evaluation mode. A moving average of the
    weights is the generator's alone."""
    path = run_dir / "best.safetensors"
    state = checkpoint.load(path, "model")
    with reading(path):
        restore(model, state, path)
    model.eval()


def restore(model: GAN, state: dict, path: Path) -> None:
    checkpoint.restore(model, state["model"], path, "network")
    if state.get("average"):
        checkpoint.restore(model.generator, best_weights(state), path, "generator")


def check_data(path: Path, kind: Kind, data: Split, conditional: bool) -> None:
    """Raises UserError for data that a run's generator cannot be compared with: of another shape,
    or, where it knows classes, of others."""
    if kind.shape != data.shape:
        raise UserError(f"{path} draws data of shape {kind.shape}; this is of {data.shape}")
    if conditional:
        check_classes(path, kind.classes, data.classes)


def interpolations(
    generator: Generator, lines: int, steps: int, seed: int, label: int | None = None
) -> tuple[Tensor, Tensor]:
    """Latents (lines · steps, Z) on the way from one random z to another, and their labels: each
    line keeps its class.

    On the great circle, sin((1 - t)ω) z₀ + sin(tω) z₁ over sin ω, with ω the angle between them
    (White, 2016, arXiv:1609.04468): on the straight line the middle would be shorter than any z
    that the generator has seen.
    """
    ends = latents(2 * lines, generator, seed)
    start, end = ends[:lines, None], ends[lines:, None]  # (lines, 1, Z)
    t = torch.linspace(0, 1, steps)[:, None]
    cosine = torch.cosine_similarity(start, end, dim=2)[..., None].clamp(-0.9999, 0.9999)
    angle = cosine.acos()
    z = (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
    numbers = draw_labels(lines, generator, seed) if label is None else torch.full((lines,), label)
    return z.flatten(0, 1), numbers.repeat_interleave(steps)
