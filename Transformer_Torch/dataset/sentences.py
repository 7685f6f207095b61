"""Pairs of sentences, for --task translate: Multi30k, your own files, dates, strings of letters."""

from argparse import Namespace
from pathlib import Path

from common import translation
from common.pairs import Pairs
from common.tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent.parent


def or_offline(dataset: str, named: bool, data_dir: str | None) -> str:
    return translation.or_dates(dataset, named, FOLDER, data_dir)


def load_training(args: Namespace) -> tuple[Pairs, Pairs]:
    return translation.load_training(args, FOLDER)


def load_test(args: Namespace, tokenizer: Tokenizer) -> Pairs:
    return translation.load_test(args, tokenizer, FOLDER)


def restore(state: dict) -> Tokenizer:
    return translation.restore(state)
