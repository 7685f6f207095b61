"""The datasets that this folder learns, by the name of the flag."""

from common.data import Split
from MLP_Torch.dataset import grey_images, spirals

DATASETS = {
    "mnist": grey_images,
    "mnist-sample": grey_images,
    "fashion-mnist": grey_images,
    "spirals": spirals,
}


def load_training(name: str, data_dir: str | None = None) -> tuple[Split, Split]:
    """The training and validation splits: inputs (N, D) float32, labels (N,) int64."""
    return DATASETS[name].load_training(name, data_dir)


def load_test(name: str, data_dir: str | None = None) -> Split:
    """The test split, for test.py alone."""
    return DATASETS[name].load_test(name, data_dir)
