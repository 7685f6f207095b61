"""Texts by characters, for --task lm: tiny-shakespeare, Python's help topics, one of your own."""

from argparse import Namespace
from pathlib import Path

from common.errors import UserError

from . import characters
from .characters import Vocabulary
from .windows import Windows

FOLDER = Path(__file__).resolve().parent.parent


def or_offline(dataset: str, named: bool, data_dir: str | None) -> str:
    return characters.or_help_topics(dataset, named, FOLDER, data_dir)


def load_training(args: Namespace) -> tuple[Windows, Windows | None]:
    train, validation = characters.load_training(args.dataset, FOLDER, args.data_dir, args.refit)
    return Windows(train, args.max_length), validation and Windows(validation, args.max_length)


def load_test(args: Namespace, tokenizer: Vocabulary) -> Windows:
    (test,) = characters.load(args.dataset, FOLDER, args.data_dir, ("test",))
    if test.classes != tokenizer.characters:
        raise UserError(f"{args.dataset} has other characters than the text that the run learned")
    return Windows(test, args.max_length)


def restore(state: dict) -> Vocabulary:
    return Vocabulary.of(state)
