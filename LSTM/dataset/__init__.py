"""The datasets that this folder learns; what is downloaded or tokenised lies here too."""

from argparse import Namespace
from pathlib import Path

from common.data import or_stand_in
from common.errors import UserError

from . import csv_files, imdb, templates
from .log_ratios import count_log_ratios
from .texts import Corpus, Encoding, Texts, split_off

FOLDER = Path(__file__).resolve().parent.parent


def or_templates(dataset: str, named: bool, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "templates", said loudly."""
    if dataset != "imdb":
        return dataset
    notice = (
        "So this run learns MADE-UP sentences instead.\n"
        f"Its results are not comparable with those of {dataset}."
    )
    return or_stand_in(dataset, named, lambda: imdb.find(FOLDER, data_dir), "templates", notice)


def load_corpora(args: Namespace) -> tuple[Corpus, Corpus]:
    """The texts to train on and those held out. What is split off here has no copy on the other
    side; a csv dataset's own val.csv is taken as it is."""
    if args.dataset == "imdb":
        return split_off(imdb.load("train", FOLDER, args.data_dir), imdb.VALIDATION_SIZE)
    if args.dataset == "csv":
        return csv_files.load_training(args.data_dir)
    return templates.load("train"), templates.load("validation")


def load_training(args: Namespace) -> tuple[Texts, Texts]:
    """The training split, its long texts cut to --max-length, and the validation split, uncut.

    The words are those of the training split, after --subset. So are the n-grams, which are counted
    in whole texts.
    """
    corpus, validation = load_corpora(args)
    corpus = corpus.subset(args.subset)
    encoding = Encoding.learn(corpus, args)
    train = Texts.encode(corpus, encoding)
    if args.ngrams:
        train.folds = corpus.folds()
        encoding.ratios = count_log_ratios(
            train.inputs, train.labels, train.folds, len(corpus.classes), args.ngrams
        )
    train.inputs = train.inputs.ends_of(args.max_length)
    return train, Texts.encode(validation, encoding)


def load_test_corpus(args: Namespace) -> Corpus:
    """The test split, for test.py and baseline.py alone."""
    if args.dataset == "imdb":
        return imdb.load("test", FOLDER, args.data_dir)
    return csv_files.load_test(args.data_dir) if args.dataset == "csv" else templates.load("test")


def load_test(args: Namespace, encoding: Encoding) -> Texts:
    """The test split in the words of a trained network, uncut; for test.py alone.

    Raises UserError where the classes are not those that the network has learned.
    """
    corpus = load_test_corpus(args)
    if corpus.classes != encoding.classes:
        raise UserError(
            f"the run has learned the classes {', '.join(encoding.classes)}; the data's are "
            + ", ".join(corpus.classes)
        )
    return Texts.encode(corpus, encoding)
