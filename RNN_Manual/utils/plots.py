"""This folder's pictures: single units along a text, gates, and how far the gradient reaches."""

from pathlib import Path

import torch
from matplotlib.ticker import LogFormatter
from torch import Tensor

from common.plots import new_figure, save

SHOWN = {"\n": "↵", " ": "·"}  # characters that nobody would see


def draw_neurons(path: Path, text: str, hidden: Tensor, title: str, units: int = 6) -> None:
    """The text, coloured by single units: hidden (T, H), h after each character, in [-1, 1].

    Shown are units that move much and slowly: those that keep something (Karpathy et al., 2015,
    Figure 2, chose theirs by eye).
    """
    hidden = hidden.cpu().float()
    centred = hidden - hidden.mean(0)
    deviation = (centred**2).mean(0).sqrt()
    slowness = (centred[1:] * centred[:-1]).mean(0) / (deviation**2).clamp(min=1e-12)
    chosen = (deviation * slowness).argsort(descending=True)[:units].tolist()
    columns = min(72, len(text))
    rows = -(-len(text) // columns)
    figure, axes = new_figure(len(chosen), 1, (12, len(chosen) * (0.25 * rows + 0.35)))
    for axis, unit in zip(axes[:, 0], chosen, strict=True):
        values = torch.full((rows * columns,), float("nan"))
        values[: len(text)] = hidden[:, unit]
        image = axis.imshow(
            values.view(rows, columns).numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto"
        )
        for place, character in enumerate(text):
            color = "white" if abs(hidden[place, unit]) > 0.7 else "black"
            axis.text(
                place % columns, place // columns, SHOWN.get(character, character), ha="center",
                va="center", fontsize=7, family="monospace", color=color,
            )  # fmt: skip
        axis.set_title(f"unit {unit + 1}", fontsize=8, loc="left", pad=2)
        axis.axis("off")
    figure.colorbar(image, ax=axes, label="h of the unit", shrink=0.5, pad=0.01)
    figure.suptitle(title)
    save(figure, path)


def draw_gates(path: Path, gates: list[dict[str, Tensor]], title: str) -> None:
    """Each unit of each gate as a point: how often it is nearly shut, how often nearly open.

    `gates` holds a dict per layer, name -> values (T, N, H), in [0, 1] or (n and h) in [-1, 1].
    (Karpathy et al., 2015, Figure 3)
    """
    names = list(gates[0])
    figure, axes = new_figure(1, len(names), (3.4 * len(names), 3.4), sharex=True, sharey=True)
    for axis, name in zip(axes[0], names, strict=True):
        for layer, values in enumerate(gates):
            y = values[name].cpu().float()
            low = -1 if name[-1] in "nh" else 0
            edge = 0.1 * (1 - low)
            axis.scatter(
                (y < low + edge).float().mean((0, 1)).numpy(),
                (y > 1 - edge).float().mean((0, 1)).numpy(),
                s=8, alpha=0.6, label=f"layer {layer + 1}",
            )  # fmt: skip
        axis.plot([0, 1], [1, 0], color="gray", lw=0.8, ls=":")
        axis.set(title=name, xlabel=f"share of the time near {low}", xlim=(-0.03, 1.03))
        axis.set(ylim=(-0.03, 1.03))
    axes[0, 0].set_ylabel("share of the time near 1")
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(title)
    save(figure, path)


def draw_gradients(path: Path, norms: dict[str, Tensor], title: str) -> None:
    """The gradient's norm over the distance in time: name of the network -> (T,)."""
    figure, ((axis,),) = new_figure(size=(5.5, 3.6))
    plot_gradients(axis, norms)
    axis.set_title(title)
    save(figure, path)


def plot_gradients(axis, norms: dict[str, Tensor]) -> None:
    for name, values in norms.items():
        axis.semilogy(range(len(values)), values.cpu().numpy(), label=name)
    axis.yaxis.set_major_formatter(LogFormatter())  # 1e-3: no formula in a text
    axis.yaxis.set_minor_formatter(LogFormatter())
    axis.set_ylim(bottom=max(axis.get_ylim()[0], 1e-12))
    axis.set(xlabel="k, steps back in time", ylabel="‖∂L_T/∂x_(T−k)‖ over that of k = 0")
    axis.legend()
    axis.grid(alpha=0.3)


def draw_memory(
    path: Path, accuracy: dict[str, dict[int, list[float]]], norms: dict[str, Tensor], title: str
) -> None:
    """Left, over the delay of the echo, the share of echoes that are right: name of the cell ->
    {delay: one share of each seed}, a dot each and a line through the means. Right, each one's
    gradient at the longest delay."""
    figure, ((left, right),) = new_figure(1, 2, (11, 3.8))
    for name, shares in accuracy.items():
        percent = {delay: [100 * share for share in values] for delay, values in shares.items()}
        (line,) = left.plot(
            list(percent), [sum(values) / len(values) for values in percent.values()], label=name
        )
        for delay, values in percent.items():
            left.plot([delay] * len(values), values, "o", color=line.get_color(), alpha=0.5)
    left.axhline(25, color="gray", ls=":", label="guessing")
    left.set(xlabel="delay, characters", ylabel="echoes that are right, %", ylim=(0, 103))
    left.legend()
    left.grid(alpha=0.3)
    plot_gradients(right, norms)
    figure.suptitle(title)
    save(figure, path)
