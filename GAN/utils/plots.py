"""This folder's own pictures."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from common.plots import save
from GAN.dataset import ring
from GAN.utils.diary import PLAYERS, Diary

POINTS_DRAWN = 400  # of a curve


def thinned(rows: Tensor) -> Tensor:
    """Means over stretches of steps: (n, 3) -> at most (400, 3)."""
    stretch = -(-len(rows) // POINTS_DRAWN)
    return torch.stack([part.mean(0) for part in rows.split(stretch)])


def draw_players(path: Path, diary: Diary, title: str) -> None:
    """The losses of both players, and how large their gradients were."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for player in PLAYERS:
        if len(diary.entries[player]):
            step, loss, norm = thinned(diary.rows(player)).T
            axes[0].plot(step, loss, lw=1, label=player)
            axes[1].plot(step, norm, lw=1, label=player)
    axes[0].set(xlabel="step", ylabel="loss", title=f"{title}: losses of both players")
    axes[1].set(xlabel="step", ylabel="norm", title="gradient norms", yscale="log")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
        axis.xaxis.set_major_locator(MaxNLocator(5))
    save(figure, path)


def draw_ring(path: Path, real: Tensor, fake: Tensor, title: str) -> None:
    """Real points and generated ones (N, 2), side by side, with what counts as near a mode."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), sharex=True, sharey=True)
    for axis, points, name in zip(axes, (real, fake), ("real", title), strict=True):
        axis.scatter(*points.cpu().T, s=2, alpha=0.4, lw=0)
        for x, y in ring.centres().tolist():
            axis.add_patch(plt.Circle((x, y), ring.NEAR, fill=False, color="C1"))
        axis.set(title=name, aspect="equal")
        axis.grid(alpha=0.3)
    save(figure, path)
