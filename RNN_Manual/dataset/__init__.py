"""The texts that this folder learns, by the name of the flag."""

from . import strings, texts
from .text import Text

DATASETS = {
    "tiny-shakespeare": texts,
    "help-topics": texts,
    "text": texts,
    "anbn": strings,
    "echo": strings,
}


def load_training(
    name: str, data_dir: str | None = None, refit: bool = False
) -> tuple[Text, Text | None]:
    """The training and validation splits: tokens (n,) int64, and the token after each (n,).

    With `refit` the training split is both together, and there is none to validate on.
    """
    return DATASETS[name].load_training(name, data_dir, refit)


def load_test(name: str, data_dir: str | None = None) -> Text:
    """The test split, for test.py alone."""
    return DATASETS[name].load_test(name, data_dir)
