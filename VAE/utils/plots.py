"""This folder's diagrams: where codes lie, and which latent numbers say something."""

from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from common.plots import new_figure, save
from VAE.model import VAE, Autoencoder
from VAE.utils.pictures import draw_sheet

MOST_POINTS = 5_000


def plane(mu: Tensor) -> tuple[Tensor, str]:
    """Codes (N, J) as points (N, 2): themselves, or their two first principal components. What is
    not there, as of one number or of one image, is 0."""
    points, what = mu, "latent number"
    if mu.shape[1] > 2:
        _, _, directions = torch.linalg.svd(mu - mu.mean(0), full_matrices=False)
        points, what = (mu - mu.mean(0)) @ directions[:2].T, "principal component"
    return torch.nn.functional.pad(points, (0, 2 - points.shape[1])), what


def draw_scatter(path: Path, mu: Tensor, labels: Tensor, classes: list[str], title: str) -> None:
    """The codes (N, J), coloured by their class (N,)."""
    points, what = plane(mu.cpu().float())
    points, labels = points[:MOST_POINTS], labels[:MOST_POINTS].cpu()
    figure, ((axis,),) = new_figure(size=(6.5, 5.5))
    colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"].colors
    for label, name in enumerate(classes):
        own = points[labels == label].numpy()
        axis.scatter(own[:, 0], own[:, 1], s=4, label=name, alpha=0.7,
                     color=colours[label % len(colours)])  # fmt: skip
    if len(classes) <= len(colours):  # of more, colours mean nothing
        axis.legend(bbox_to_anchor=(1.01, 1), loc="upper left", markerscale=3, fontsize=8)
    axis.set(title=title, xlabel=f"{what} 1", ylabel=f"{what} 2", aspect="equal")
    save(figure, path)


def draw_latent_grid(
    path: Path, model: Autoencoder, mu: Tensor, title: str, side: int = 20
) -> None:
    """What a latent plane looks like: steps of equal probability under the prior, as in figure 4 of
    Kingma & Welling (2013). The plain autoencoder has no prior: over its own codes (N, 2)."""
    shares = torch.linspace(0.5 / side, 1 - 0.5 / side, side)  # on the CPU: MPS has no ndtri
    steps = [torch.quantile(mu[:, n].cpu().float(), shares) for n in (0, 1)]
    if isinstance(model, VAE):
        steps = [torch.special.ndtri(shares)] * 2
    y, x = torch.meshgrid(steps[1].flip(0), steps[0], indexing="ij")
    z = torch.stack([x, y], dim=2).view(-1, 2).to(mu.device)
    labels = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    what = f"{title}: what each place of the latent plane looks like"
    draw_sheet(path, model.pictures(z, labels), what, side, scale=1)


def draw_traversals(
    path: Path, model: Autoencoder, z: Tensor, label: Tensor, kl: Tensor, title: str, most: int = 10
) -> None:
    """One image's code z (1, J) and label (1,), with one latent number changed in each row: those
    with the largest KL (J,), from -2.5 to 2.5."""
    units = kl.argsort(descending=True)[:most]
    values = torch.linspace(-2.5, 2.5, 11, device=z.device)
    figure, axes = new_figure(len(units), 1, (6.5, 0.62 * len(units) + 0.5))
    for axis, unit in zip(axes[:, 0], units, strict=True):
        row = z.repeat(len(values), 1)
        row[:, unit] = values
        pictures = (
            model.pictures(row, label.expand(len(row)))
            .permute(2, 0, 3, 1)
            .flatten(1, 2)
            .squeeze(2)
            .cpu()
        )
        axis.imshow(pictures.numpy(), cmap="gray", vmin=0, vmax=1)
        axis.set_xticks([])
        axis.set_yticks([])
        name = f"{int(unit) + 1}: {kl[unit]:.1f} nats"
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(f"{title}: one latent number changed in each row, -2.5 to 2.5", fontsize=10)
    save(figure, path)


def draw_units(path: Path, kl: Tensor, active: Tensor, title: str) -> None:
    """The mean KL of every latent number (J,), largest first, and which are active (J,)."""
    order = kl.argsort(descending=True).cpu()
    kl, active = kl.cpu()[order], active.cpu()[order]
    figure, ((axis,),) = new_figure(size=(7, 3.2))
    colours = ["C0" if used else "0.7" for used in active]
    axis.bar(range(1, len(kl) + 1), kl.numpy(), color=colours)
    axis.set(xlabel="latent number, sorted", ylabel="KL, nats",
             title=f"{title}: {int(active.sum())} of {len(kl)} are active (blue)")  # fmt: skip
    axis.grid(alpha=0.3, axis="y")
    save(figure, path)


def draw_factors(path: Path, shares: Tensor, names: list[str], title: str) -> None:
    """What share of each factor's entropy each latent number knows: (J, F)"""
    figure, ((axis,),) = new_figure(size=(1.5 + 0.75 * len(names), 1.4 + 0.3 * len(shares)))
    J, F = shares.shape
    edges = (-0.5, F - 0.5, J + 0.5, 0.5)  # the first latent number is 1
    picture = axis.imshow(shares.numpy(), "viridis", vmin=0, vmax=1, aspect="auto", extent=edges)
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="latent number", title=title)
    figure.colorbar(picture, ax=axis, label="mutual information / entropy")
    save(figure, path)
