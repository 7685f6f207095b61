"""Pairs of sentences, for --task translate: finding them, and the tokenizer that is learned from
the training split and kept beside the data."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from common import cli
from common.data import or_stand_in
from common.errors import UserError
from common.files import kept_at

from . import dates, multi30k, pair_files, strings
from .batches import batch_sizes
from .pairs import Pairs, Sentences, encode_sources
from .subwords import Subwords, learn_once
from .tokenizers import Characters, Tokenizer, Words

FOLDER = Path(__file__).resolve().parent.parent
size = cli.number(int, 5)  # of a vocabulary, with its special tokens
TOKENIZERS = {kind.kind: kind for kind in (Subwords, Words, Characters)}


def add_flags(parser: cli.Parser) -> None:
    """What the data depends on, beside --dataset, --data-dir and --subset."""
    add = parser.add_argument
    add("--tokenizer", choices=TOKENIZERS, help="what sentences are cut into")
    add("--vocabulary-size", type=size, help="different tokens, at most")
    add("--subword-dropout", type=cli.fraction, help="share of merges that training leaves out")
    add("--max-length", type=cli.positive_int, help="tokens of a window, or of the longest pair")
    room = "tokens of a translation beyond twice its source's; more where a training pair has more"
    add("--extra-length", type=cli.natural, help=room)
    pair_files.add_flags(parser)


def check_flags(args: Namespace) -> None:
    """Raises UserError for a flag that was given, but that this task or dataset does not look at:
    a record would claim it."""
    unused = [] if args.dataset == "files" else list(pair_files.FLAGS)
    if args.task == "lm":
        unused += ["tokenizer", "vocabulary_size", "subword_dropout", "extra_length"]
    else:
        unused.append("sample_length")
    for name in unused:
        if name in args.given and getattr(args, name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} has no part in --task {args.task} --dataset {args.dataset}")


def or_offline(dataset: str, named: bool, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "dates", said loudly."""
    if dataset != "multi30k":
        return dataset
    notice = (
        "So this run learns MADE-UP PAIRS instead: written-out dates.\n"
        "Its results are not comparable with those of multi30k."
    )
    return or_stand_in(dataset, named, lambda: multi30k.find(FOLDER, data_dir), "dates", notice)


def load(args: Namespace, split: str) -> Sentences:
    """The "train", "validation" or "test" split as it was read."""
    if args.dataset == "multi30k":
        return multi30k.load(split, FOLDER, args.data_dir)
    if args.dataset == "files":
        return pair_files.load(args, split)
    return dates.load(split) if args.dataset == "dates" else strings.load(args.dataset, split)


def load_training(args: Namespace) -> tuple[Pairs, Pairs]:
    """The training and validation splits, each without the pairs that --max-length is too short
    for. `args.extra_length` becomes what the training pairs need, so that translations can be as
    long as theirs. Raises UserError where there are no subwords to drop."""
    if args.subword_dropout and args.tokenizer != Subwords.kind:
        raise UserError(f"--subword-dropout needs --tokenizer subword, not {args.tokenizer}")
    if args.refit:
        raise UserError("--refit is for --task lm: pairs to learn and pairs to check lie apart")
    train, validation = (load(args, split) for split in ("train", "validation"))
    tokenizer = learn(args, train)
    train, validation = (Pairs.encode(split, tokenizer) for split in (train, validation))
    train.dropout = args.subword_dropout
    train, validation = (split.up_to(args.max_length) for split in (train, validation))
    if train.extra_length > args.extra_length:
        args.extra_length, args.given = train.extra_length, sorted({*args.given, "extra_length"})
    return train, validation


def load_test(args: Namespace, tokenizer: Tokenizer) -> Pairs:
    """The test split in the tokens of a trained network; for test.py alone."""
    return Pairs.encode(load(args, "test"), tokenizer)


def learn(args: Namespace, sentences: Sentences) -> Tokenizer:
    """A tokenizer of both languages; subwords are kept beside the data."""
    texts, size = sentences.source + sentences.target, args.vocabulary_size
    if args.tokenizer != Subwords.kind:
        return TOKENIZERS[args.tokenizer].learn(texts, size)
    beside = FOLDER / "dataset"
    if args.dataset == "multi30k":
        beside = multi30k.find(FOLDER, args.data_dir)
    elif args.dataset == "files":
        beside = Path(args.src).parent
    return learn_once(texts, size, kept_at(beside, FOLDER / "dataset", "subwords-{}.safetensors"))


def restore(state: dict) -> Tokenizer:
    """The tokenizer that a checkpoint holds."""
    return TOKENIZERS[state["kind"]].of(state)


def source_batches(
    tokenizer, sentences: list[str], batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every sentence once, the longest first, at most `batch_size` tokens a batch (a sentence that
    has more comes alone): rows (N,), source (N, S) filled up with PAD."""
    sources = encode_sources(tokenizer, sentences)
    order = sources.lengths.argsort(descending=True, stable=True)
    for rows in order.split(batch_sizes(sources.lengths[order], batch_size)):
        yield rows, sources[rows][0].to(device)
