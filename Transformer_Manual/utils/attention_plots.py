"""Pictures of Transformers: where every head looks, positions, and the learning rate."""

from pathlib import Path

from torch import Tensor

from common.plots import new_figure, save

SHOWN = {"\n": "↵", " ": "·"}  # characters that nobody would see


def draw_attention(
    path: Path, layers: list[Tensor], rows: list[str], columns: list[str], title: str
) -> None:
    """A square for each head of each layer, whose row t says where token t looks.

    `layers` are weights (h, T, S); the T `rows` are what looks, the S `columns` what is looked at.
    """
    heads, T, S = layers[0].shape
    step = 0.15 if max(S, T) < 20 else 0.1  # inches for each token
    width, height = max(1.6, step * S), max(1.6, step * T)
    figure, axes = new_figure(
        len(layers), heads, (1 + heads * width, 1 + len(layers) * height), sharex=True, sharey=True
    )
    for layer, weights in enumerate(layers):
        for head in range(heads):
            axis = axes[layer, head]
            image = axis.imshow(weights[head].cpu().float().numpy(), cmap="Blues", vmin=0, vmax=1)
            axis.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=7, pad=3)
    places = (axes[-1], "x", columns), (axes[:, 0], "y", rows)
    for edge, name, tokens in places:
        for axis in edge:
            getattr(axis, f"set_{name}ticks")(
                range(len(tokens)), [SHOWN.get(token, token) for token in tokens], fontsize=6,
                rotation=90 if name == "x" else 0,
            )  # fmt: skip
    figure.suptitle(title, fontsize=9)
    figure.supxlabel("is looked at", fontsize=8)
    figure.supylabel("looks", fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the attention", shrink=0.6)
    save(figure, path)


def draw_positions(path: Path, table: Tensor, title: str) -> None:
    """What is added to the tokens at each position, (T, D), and how alike any two of these are."""
    table = table.detach().cpu().float()
    figure, ((left, right),) = new_figure(1, 2, (11, 4.2))
    limit = table.abs().max().item()
    image = left.imshow(table.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    left.set(xlabel="channel", ylabel="position", title="what is added")
    figure.colorbar(image, ax=left)
    directions = table / table.norm(dim=1, keepdim=True).clamp(min=1e-12)
    alike = (directions @ directions.T).numpy()
    image = right.imshow(alike, cmap="RdBu_r", vmin=-1, vmax=1)
    right.set(xlabel="position", ylabel="position", title="cosine of the angle between two")
    figure.colorbar(image, ax=right)
    figure.suptitle(title)
    save(figure, path)


def draw_schedule(path: Path, rates: list[float], title: str) -> None:
    """The learning rate of every step."""
    figure, ((axis,),) = new_figure(size=(5.5, 3.4))
    axis.plot(range(1, len(rates) + 1), rates)
    axis.set(xlabel="step", ylabel="learning rate", title=title, ylim=(0, None))
    axis.grid(alpha=0.3)
    save(figure, path)
