"""Draw the diagrams of all networks: python -m docs.diagrams [folder …]

Each goes into its folder's results/: GAN is network.png there, RNN_Manual/cells is cells.png. The
twelve folders with one idea each go into docs/.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from common.errors import entry
from docs.drawing import Diagram
from docs.networks import cnn, gan, lstm, mlp, resnet, rnn, transformer, twelve, vae, vit

ROOT = Path(__file__).resolve().parent.parent
DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    "MLP_Manual": mlp.mlp_manual, "MLP_Torch": mlp.mlp_torch,
    "CNN_Manual": cnn.cnn_manual, "CNN_Torch": cnn.cnn_torch,
    "ResNet": resnet.resnet, "ViT": vit.vit,
    "RNN_Manual": rnn.rnn_manual, "LSTM": lstm.lstm,
    "Transformer_Manual": transformer.transformer_manual,
    "Transformer_Torch": transformer.transformer_torch,
    "VAE": vae.vae, "GAN": gan.gan,
    "RNN_Manual/cells": rnn.cells,
    "Transformer_Manual/language_model": transformer.language_model,
    "Transformer_Manual/modern_block": transformer.modern_block,
    "docs": twelve.twelve,  # twelve folders, one idea each
}  # fmt: skip


def path_of(name: str) -> Path:
    folder, _, picture = name.partition("/")
    if folder == "docs":
        return ROOT / "docs/folders.png"
    return ROOT / folder / "results" / f"{picture or 'network'}.png"


def main(names: list[str]) -> None:
    asked = {name.rstrip("/") for name in names}  # which completion appends
    found = [name for name in DIAGRAMS if not asked or asked & {name, name.partition("/")[0]}]
    unknown = asked - {*found} - {name.partition("/")[0] for name in found}
    if unknown:
        known = ", ".join(DIAGRAMS)
        raise SystemExit(f"error: no diagram {', '.join(sorted(unknown))}; there are {known}")
    for name in found:
        DIAGRAMS[name]().save(path_of(name))
        print(path_of(name).relative_to(ROOT))


if __name__ == "__main__":
    entry(lambda: main(sys.argv[1:]))
