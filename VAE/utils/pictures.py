"""Codes to look at, sheets of images, and the frames of a training's film."""

from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from common.data import Split
from VAE.model import VAE, Autoencoder
from VAE.utils.likelihoods import normal
from VAE.utils.mosaic import draw_titled, mosaic

COLUMNS, ROWS = 10, 8
MOST_COLUMNS = 20


def draw_sheet(path: Path, images: Tensor, title: str, columns: int = COLUMNS, scale: int = 2):
    """Pictures (n, C, H, W) as one, under a title."""
    draw_titled(path, mosaic(images, columns), title, scale)


@torch.no_grad()
def encode_all(model: Autoencoder, data: Split) -> tuple[Tensor, Tensor | None]:
    """mu and logvar of every image of a split, its pixels drawn with one seed: (N, J)"""
    generator = torch.Generator().manual_seed(0)
    batches = data.in_order()
    parts = [model.encode(model.likelihood.observe(x, generator), y) for x, y in batches]
    mu, logvar = zip(*parts, strict=True)
    return torch.cat(mu), None if logvar[0] is None else torch.cat(logvar)


def sample_codes(model: Autoencoder, count: int, generator, seen: Tensor | None = None) -> Tensor:
    """(count, J) from the prior N(0, 1). The plain autoencoder has none: its codes are drawn from
    the normal distribution that has the mean and covariance of the codes `seen` (N, J)."""
    device = next(model.parameters()).device
    noise = normal((count, model.latent_dim), device, generator)
    if isinstance(model, VAE):
        return noise
    seen = seen.cpu().double()
    spread = seen.T.cov(correction=int(len(seen) > 1)).view(model.latent_dim, model.latent_dim)
    ridge = 1e-6 * spread.diagonal().mean() + 1e-12  # codes may be all alike, or one alone
    spread += ridge * torch.eye(len(spread))
    fitted = MultivariateNormal(seen.mean(0), spread)
    return (fitted.loc + noise.cpu().double() @ fitted.scale_tril.T).to(noise)


def columns_of(model: Autoencoder) -> int:
    """Of a sheet of new images: of a conditional model one for each class, or the first of many."""
    return min(model.num_classes or COLUMNS, MOST_COLUMNS)


def column_labels(model: Autoencoder, count: int, columns: int) -> Tensor | None:
    """Of a conditional model: a class in each column."""
    if not model.num_classes:
        return None
    return torch.arange(count, device=next(model.parameters()).device) % columns % model.num_classes


def draw_reconstructions(
    path: Path, model: Autoencoder, data: Split, title: str, count: int = 36
) -> None:
    """Three rows at a time: images, what the model saw of them, and what it makes of that."""
    some = torch.linspace(0, len(data) - 1, min(count, len(data))).long()
    images, labels = data.images(some), data.labels[some]
    x = model.likelihood.observe(images, torch.Generator().manual_seed(0))
    mu, _ = model.encode(x, labels)
    kinds = [images.float() / 255, x.view(-1, *model.shape), model.pictures(mu, labels)]
    columns = min(12, len(x))
    rows = [part for parts in zip(*(kind.split(columns) for kind in kinds), strict=True)
            for part in parts]  # fmt: skip
    whole = [part for part in rows if len(part) == columns]
    what = f"{title}: an image, what the model sees of it, and its reconstruction, in turn"
    draw_sheet(path, torch.cat(whole), what, columns)


@torch.no_grad()
def frame(model: Autoencoder, validation: Split) -> Tensor:
    """What the same codes look like now, a sheet for the film; of the plain autoencoder, the same
    images, reconstructed."""
    model.eval()
    columns = columns_of(model)
    if isinstance(model, VAE):
        z = sample_codes(model, ROWS * columns, torch.Generator().manual_seed(0))
    else:
        some = validation.take(torch.arange(min(ROWS * columns, len(validation))))
        z, _ = encode_all(model, some)
    return mosaic(model.pictures(z, column_labels(model, len(z), columns)), columns)
