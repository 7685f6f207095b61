"""The datasets that this folder learns, by task and the name of the flag."""

from argparse import Namespace

from common.errors import UserError

from . import lm, translation
from .translation import check_flags

DATASETS = {
    "translate": {
        "multi30k": translation,
        "files": translation,
        "dates": translation,
        "reverse": translation,
        "copy": translation,
    },
    "lm": {
        "tiny-shakespeare": lm,
        "help-topics": lm,
        "text": lm,
    },
}


def module(args: Namespace):
    """What loads the dataset. Raises UserError for one of the other task."""
    if args.dataset not in DATASETS[args.task]:
        names = ", ".join(DATASETS[args.task])
        raise UserError(f"--task {args.task} learns {names}, not {args.dataset}")
    return DATASETS[args.task][args.dataset]


def or_offline(args: Namespace) -> str:
    """The dataset if it can be had; else, unless the user named it, one that needs no download."""
    named = args.resume or "dataset" in args.given
    return module(args).or_offline(args.dataset, named, args.data_dir)


def load_training(args: Namespace):
    """The training and validation splits, with the tokenizer that the training split taught."""
    check_flags(args)
    return module(args).load_training(args)


def load_test(args: Namespace, tokenizer):
    """The test split in the tokens of a trained network; for test.py alone."""
    return module(args).load_test(args, tokenizer)


def restore_tokenizer(args: Namespace, state: dict):
    """The tokenizer as a checkpoint holds it."""
    return module(args).restore(state)
