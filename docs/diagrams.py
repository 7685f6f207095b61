"""Draw the diagrams of all networks: python -m docs.diagrams [folder …]

Each goes into its folder's results/; "twelve folders, one idea each" goes into docs/.
"""

import sys
from collections.abc import Callable
from pathlib import Path

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
    "docs": twelve.twelve,  # twelve folders, one idea each
}  # fmt: skip


def path_of(folder: str) -> Path:
    return ROOT / "docs/folders.png" if folder == "docs" else ROOT / folder / "results/network.png"


def main(folders: list[str]) -> None:
    for folder in folders or DIAGRAMS:
        DIAGRAMS[folder]().save(path_of(folder))
        print(path_of(folder).relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
