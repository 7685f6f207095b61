"""The datasets that this folder learns, by the name of the flag."""

from CNN_Torch.dataset import grey_images, shapes
from common.data import Split

DATASETS = {
    "mnist": grey_images,
    "mnist-sample": grey_images,
    "fashion-mnist": grey_images,
    "shapes": shapes,
}


def load_training(name: str, data_dir: str | None = None) -> tuple[Split, Split]:
    """The training and validation splits: images (N, 1, H, W) float32, labels (N,) int64."""
    return DATASETS[name].load_training(name, data_dir)


def load_test(name: str, data_dir: str | None = None) -> Split:
    """The test split, for test.py alone."""
    return DATASETS[name].load_test(name, data_dir)
