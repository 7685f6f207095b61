"""This folder's own pictures."""

from pathlib import Path

import torch
from matplotlib.patches import Circle
from matplotlib.ticker import LogFormatter, MaxNLocator
from torch import Tensor

from common.plots import new_figure, save
from GAN.dataset import ring
from GAN.utils.diary import PLAYERS, Diary

POINTS_DRAWN = 400  # of a curve


def thinned(rows: Tensor) -> Tensor:
    """Means over stretches of steps: (n, 3) -> at most (400, 3)."""
    stretch = -(-len(rows) // POINTS_DRAWN)
    return torch.stack([part.mean(0) for part in rows.split(stretch)])


def draw_players(path: Path, diary: Diary, title: str) -> None:
    """The losses of both players, and how large their gradients were."""
    figure, axes = new_figure(1, 2, (11, 3.6))
    losses, norms = axes[0]
    for player in PLAYERS:
        if len(diary.entries[player]):
            step, loss, norm = thinned(diary.rows(player)).T
            losses.plot(step, loss, lw=1, label=player)
            norms.plot(step, norm, lw=1, label=player)
    losses.set(xlabel="step", ylabel="loss", title=f"{title}: losses of both players")
    norms.set(xlabel="step", ylabel="norm of the gradient", title="gradient norms", yscale="log")
    norms.yaxis.set_major_formatter(LogFormatter())  # 1e-3: no formula in a text
    norms.yaxis.set_minor_formatter(LogFormatter())
    for axis in axes[0]:
        axis.grid(alpha=0.3)
        axis.legend()
        axis.xaxis.set_major_locator(MaxNLocator(5))
    save(figure, path)


def draw_ring(path: Path, real: Tensor, fake: Tensor, title: str) -> None:
    """Real points and generated ones (N, 2), side by side, with what counts as near a mode."""
    figure, axes = new_figure(1, 2, (9, 4.6), sharex=True, sharey=True)
    for axis, points, name in zip(axes[0], (real, fake), ("real", title), strict=True):
        axis.scatter(*points.cpu().T, s=2, alpha=0.4, lw=0)
        for x, y in ring.centres().tolist():
            axis.add_patch(Circle((x, y), ring.NEAR, fill=False, color="C1", label="near a mode"))
        axis.set(title=name, aspect="equal")
        axis.legend(handles=axis.patches[:1], loc="upper right", fontsize=8)
        axis.grid(alpha=0.3)
    save(figure, path)
