"""Codes to look at, images as PNG files, and the film of a training."""

import io
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from common import checkpoint
from common.checkpoint import write_atomically
from common.data import Split
from common.mosaic import mosaic, save_gif, to_picture
from VAE.model import VAE, Autoencoder
from VAE.utils.likelihoods import normal

COLUMNS, ROWS = 10, 8
FRAMES = "frames.safetensors"


def sheet_of(images: Tensor, columns: int = COLUMNS) -> Tensor:
    """Pictures (n, C, H, W), grey or in three colours, as one: (H', W') or (H', W', 3)."""
    images = images.permute(0, 2, 3, 1).cpu()
    return mosaic(images.squeeze(3) if images.shape[3] == 1 else images, columns)


def draw_sheet(path: Path, images: Tensor, columns: int = COLUMNS, scale: int = 2) -> None:
    """Pictures (n, C, H, W) as one PNG."""
    buffer = io.BytesIO()
    to_picture(sheet_of(images, columns), scale).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


@torch.no_grad()
def encode_all(model: Autoencoder, data: Split) -> tuple[Tensor, Tensor | None]:
    """mu and logvar of every image of a split, its pixels drawn with one seed: (N, L)"""
    generator = torch.Generator().manual_seed(0)
    batches = data.in_order()
    parts = [model.encode(model.likelihood.observe(x, generator), y) for x, y in batches]
    mu, logvar = zip(*parts, strict=True)
    return torch.cat(mu), None if logvar[0] is None else torch.cat(logvar)


def sample_codes(model: Autoencoder, count: int, generator, seen: Tensor | None = None) -> Tensor:
    """(count, L) from the prior N(0, 1). The plain autoencoder has none: its codes are drawn from
    the normal distribution that has the mean and covariance of the codes `seen` (N, L)."""
    device = next(model.parameters()).device
    noise = normal((count, model.latent_dim), device, generator)
    if isinstance(model, VAE):
        return noise
    seen = seen.cpu().double()
    spread = seen.T.cov().view(model.latent_dim, model.latent_dim)
    spread += 1e-6 * spread.diagonal().mean() * torch.eye(len(spread))
    fitted = MultivariateNormal(seen.mean(0), spread)
    return (fitted.loc + noise.cpu().double() @ fitted.scale_tril.T).float().to(device)


def column_labels(model: Autoencoder, count: int, columns: int) -> Tensor | None:
    """Of a conditional model: a class in each column."""
    if not model.num_classes:
        return None
    return torch.arange(count, device=next(model.parameters()).device) % columns % model.num_classes


def draw_reconstructions(path: Path, model: Autoencoder, data: Split, count: int = 36) -> None:
    """Three rows at a time: images, what the model saw of them, and what it makes of that."""
    images = data.take(torch.linspace(0, len(data) - 1, min(count, len(data))).long())
    x = model.likelihood.observe(images.inputs, torch.Generator().manual_seed(0))
    mu, _ = model.encode(x, images.labels)
    kinds = [
        images.inputs.float() / 255,
        x.view(-1, *model.shape),
        model.pictures(mu, images.labels),
    ]
    columns = min(12, len(x))
    rows = [part for parts in zip(*(kind.split(columns) for kind in kinds), strict=True)
            for part in parts]  # fmt: skip
    whole = [part for part in rows if len(part) == columns]
    draw_sheet(path, torch.cat(whole), columns)


def is_filmed(epoch: int) -> bool:
    """Each of the first epochs (1, 2, …), later one for every fifth more: 38 of 2,000."""
    return epoch == 1 or math.floor(math.log(epoch, 1.2)) > math.floor(math.log(epoch - 1, 1.2))


@torch.no_grad()
def film(run_dir: Path, epoch: int, model: Autoencoder, validation: Split) -> None:
    """Keep what the same codes look like after this epoch, in the run's frames.safetensors.

    Of the plain autoencoder: the same images, reconstructed.
    """
    if not is_filmed(epoch):
        return
    model.eval()
    generator = torch.Generator().manual_seed(0)
    columns = model.num_classes or COLUMNS
    if isinstance(model, VAE):
        z = sample_codes(model, ROWS * columns, generator)
    else:
        some = validation.take(torch.arange(min(ROWS * columns, len(validation))))
        z, _ = encode_all(model, some)
    sheet = sheet_of(model.pictures(z, column_labels(model, len(z), columns)), columns)
    path = run_dir / FRAMES
    frames = checkpoint.load(path)["frames"] if path.is_file() else {}
    frames[epoch] = (sheet * 255).round().byte()
    checkpoint.save(path, {"frames": frames})


def draw_film(path: Path, run_dir: Path) -> None:
    """The frames that training kept, as a GIF; in 16 levels, which makes it a quarter as large."""
    if (run_dir / FRAMES).is_file():
        frames = checkpoint.load(run_dir / FRAMES)["frames"]
        levels = [(frames[epoch] / 255 * 15).round() / 15 for epoch in sorted(frames)]
        save_gif(path, levels, milliseconds=150, scale=1)
