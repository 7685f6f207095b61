"""This folder's pictures: words coloured by their weight, for a file and for a terminal."""

import textwrap
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from common.plots import new_figure, save

LINE = 96  # characters
FULL = 0.9  # quantile of the weights that is painted in full colour
MOST_WORDS = 160  # of a text that stands among others


def strengths(weights: Tensor) -> Tensor:
    """Weights (T,) scaled to [-1, 1]; single giants do not make all others pale."""
    if not len(weights):
        return weights
    return (weights / weights.abs().quantile(FULL).clamp(min=1e-6)).clamp(-1, 1)


def lines_of(words: list[str]) -> list[list[int]]:
    """Which words stand in which line."""
    lines, width = [[]], 0
    for n, word in enumerate(words):
        if width + len(word) > LINE and lines[-1]:
            lines.append([])
            width = 0
        lines[-1].append(n)
        width += len(word) + 1
    return lines


def shortened(words: list[str], weights: Tensor, most: int) -> tuple[list[str], Tensor]:
    """The words of a long text's two ends."""
    if len(words) <= most:
        return words, weights
    half = most // 2
    ends = torch.cat([weights[:half], weights.new_zeros(1), weights[-half:]])
    return [*words[:half], "[…]", *words[-half:]], ends


def draw_texts(
    path: Path, texts: list[tuple[str, list[str], Tensor]], title: str, most: int = MOST_WORDS
) -> None:
    """Texts, each (caption, its words, their weights (T,)): green speaks for, red against."""
    rows = []  # of the picture: a caption, or words with their colours
    for caption, words, weights in texts:
        words = [textwrap.shorten(printable(word), LINE, placeholder="…") or "·" for word in words]
        words, weights = shortened(words, weights, most)
        shades = strengths(weights).tolist()
        rows.append(caption)
        rows += [[(words[n], shades[n]) for n in line] for line in lines_of(words) if line]
        rows.append("")
    figure, ((axis,),) = new_figure(size=(9.5, 0.6 + 0.22 * max(4, len(rows))))
    axis.set(xlim=(0, LINE + 12), ylim=(len(rows), -1))
    axis.axis("off")
    axis.set_title(printable(title), loc="left", fontsize=10)
    colours = matplotlib.colormaps["PiYG"]
    style = dict(family="monospace", fontsize=7.5, va="center")
    for y, row in enumerate(rows):
        if isinstance(row, str):
            axis.text(0, y, printable(row), weight="bold", **style)
            continue
        x = 0
        for word, shade in row:
            box = dict(facecolor=colours(0.5 + 0.34 * shade), edgecolor="none", pad=1.2)
            axis.text(x, y, word, bbox=box, **style)
            x += len(word) + 1
    save(figure, path)


def printable(text: str) -> str:
    """Without characters that would move the cursor, or that no font has."""
    return "".join(c if c.isprintable() and ord(c) < 0x2E80 else "?" for c in text)


def coloured(words: list[str], weights: Tensor) -> str:
    """For a terminal: words on green where they speak for the class, on red where against."""
    shown = []
    for word, shade in zip(words, strengths(weights).tolist(), strict=True):
        word = "".join(c if c.isprintable() else "?" for c in word)
        strong, weak = (42, 32) if shade > 0 else (41, 31)
        code = f"30;{strong}" if abs(shade) > 0.6 else str(weak) if abs(shade) > 0.2 else ""
        shown.append(f"\x1b[{code}m{word}\x1b[0m" if code else word)
    return " ".join(shown)
