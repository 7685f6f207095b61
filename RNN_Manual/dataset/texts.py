"""tiny-shakespeare, Python's help topics, and a text of your own, split by characters."""

from pathlib import Path

from . import characters
from .text import Text

FOLDER = Path(__file__).resolve().parent.parent


def or_help_topics(dataset: str, named: bool, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "help-topics", said loudly."""
    return characters.or_help_topics(dataset, named, FOLDER, data_dir)


def load_training(dataset: str, data_dir: str | None, refit: bool) -> tuple[Text, Text | None]:
    train, validation = characters.load_training(dataset, FOLDER, data_dir, refit)
    return Text(*train), validation and Text(*validation)


def load_test(dataset: str, data_dir: str | None) -> Text:
    (test,) = characters.load(dataset, FOLDER, data_dir, ("test",))
    return Text(*test)
