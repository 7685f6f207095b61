"""Pairs of your own: two text files, and line n of the one means what line n of the other does.

--src F --tgt F     to learn from; a part of them is held out
--test-src, --test-tgt     to test on; without them another part is held out for that
"""

import os
import random
from argparse import Namespace
from pathlib import Path

from common import cli
from common.errors import UserError
from common.files import is_file, sha256

from .encodings import decode
from .pairs import Sentences

HELD_OUT_SHARE, MOST_HELD_OUT = 0.05, 1_000  # of the different source sentences, for each part
FLAGS = {
    "src": "a text, a sentence a line", "tgt": "what it means, line by line",
    "test_src": "to test on, likewise", "test_tgt": "what that means",
}  # fmt: skip


def add_flags(parser: cli.Parser) -> None:
    """Where the files lie; of train.py and, as they may have been moved since, of test.py."""
    for name, what in FLAGS.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=os.path.abspath, help=f"--dataset files: {what}")


def take_moved(config: Namespace, args: Namespace) -> None:
    """Put the places that test.py was given into the flags of the run that it tests."""
    for name in FLAGS:
        if path := getattr(args, name):
            if config.dataset != "files":
                raise UserError(f"the run learned {config.dataset}, not --dataset files: no {path}")
            setattr(config, name, path)


def read(path: Path) -> tuple[list[str], str]:
    """The lines of a file, without spaces around them, and its sha256.

    Raises UserError naming the file, and the line that is empty or in another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    text = decode(path, content)
    lines = [line.strip() for line in text.replace("\r\n", "\n").removesuffix("\n").split("\n")]
    if not text.strip():
        raise UserError(f"{path} has no lines")
    for number, line in enumerate(lines, start=1):
        if not line:
            raise UserError(f"{path}, line {number}: empty; leave it out of both files")
    return lines, sha256(content)


def read_pair(source: Path, target: Path, names: tuple[str, str]) -> Sentences:
    """Both files. Raises UserError when one has lines that the other lacks."""
    (sources, source_sum), (targets, target_sum) = read(source), read(target)
    if len(sources) != len(targets):
        shorter, longer = sorted([(len(sources), source), (len(targets), target)])
        raise UserError(
            f"{shorter[1]} has {shorter[0]:,} lines and {longer[1]} {longer[0]:,}: line "
            f"{shorter[0] + 1} of the longer one has no translation"
        )
    checksums = {f"{names[0]} {source.name}": source_sum, f"{names[1]} {target.name}": target_sum}
    return Sentences(sources, targets, checksums)


def path_of(args: Namespace, flag: str) -> Path:
    path = getattr(args, flag.lstrip("-").replace("-", "_"))
    if not path or not is_file(path):
        raise UserError(f"--dataset files needs {flag}, a text file, not {path}")
    return Path(path)


def load(args: Namespace, split: str) -> Sentences:
    """The training, validation or test split; no source sentence is in two of them.

    Held out are source sentences with all their translations, drawn by a seed of the split's own.
    A test split in files of its own is taken as it is.
    """
    if args.test_src or args.test_tgt:
        names = ("--test-src", "--test-tgt")
        places = [path_of(args, name) for name in names]  # before training, not after
        if split == "test":
            return read_pair(*places, names)
    sentences = read_pair(path_of(args, "--src"), path_of(args, "--tgt"), ("--src", "--tgt"))
    different = list(dict.fromkeys(sentences.source))
    random.Random(0).shuffle(different)
    size = min(max(1, round(HELD_OUT_SHARE * len(different))), MOST_HELD_OUT)
    if len(different) < 3:
        raise UserError(
            f"{args.src} has {len(different)} different lines: too few to hold some out"
        )
    tested = 0 if args.test_src or args.test_tgt else size
    parts = {
        "test": different[:tested],
        "validation": different[tested : tested + size],
        "train": different[tested + size :],
    }
    kept = set(parts[split])
    return sentences.take([row for row, line in enumerate(sentences.source) if line in kept])
