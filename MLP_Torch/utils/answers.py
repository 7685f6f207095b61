"""predict.py's flags, the classes that a run knows, and a network's answers as a table."""

import os
from pathlib import Path

from torch import Tensor

from common import checkpoint, cli
from common.errors import UserError, printable, reading
from common.files import picture_name

LONGEST = 20  # characters of a file's name that there is room for above its picture


def answer_parser(description: str, drawn: str) -> cli.Parser:
    parser = cli.Parser(description)
    add = parser.add_argument
    add("pictures", nargs="+", metavar="FILE", help="pictures: PNG, JPEG, GIF, WebP, TIFF …")
    add("--run-dir", help="the run whose network answers (default: the latest)")
    add("--top", type=cli.positive_int, default=3, help="so many classes, the likeliest first")
    add("--output", type=picture_name, metavar="FILE", help=f"draw {drawn}, as a PNG file")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def existing(names: list[str], output: Path | None = None) -> list[Path]:
    """The files of these names. Raises UserError for one that is not there, or that `output` would
    take the place of."""
    for name in names:
        try:
            if os.path.exists(name) and not os.path.isfile(name):  # a pipe never ends
                raise ValueError("no regular file")
            with open(name, "rb"):
                pass
            if output and os.path.exists(output) and os.path.samefile(name, output):
                raise UserError(f"--output {output}: that is a picture to look at; name another")
        except (OSError, ValueError) as error:
            raise UserError(f"{name}: {getattr(error, 'strerror', error)}") from None
    return [Path(name) for name in names]


def known_classes(run_dir: Path) -> list[str]:
    """What the network of a run tells apart."""
    path = run_dir / "best.safetensors"
    with reading(path):
        classes = checkpoint.load(path, "data")["data"]["classes"]
        if not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError("it has no names of classes")
        return classes


def print_best(names: list[Path], logits: Tensor, classes: list[str], most: int) -> list[str]:
    """The likeliest classes of each picture, by its logits (N, K). Gives a caption for each."""
    captions, width = [], max(12, *(len(printable(name)) for name in classes)) + 2
    for name, row in zip(names, logits.float().cpu(), strict=True):
        probabilities, labels = (row - row.logsumexp(0)).exp().topk(min(most, len(classes)))
        print(printable(name))
        for place, (probability, label) in enumerate(zip(probabilities, labels, strict=True)):
            star = "" if place else "  * the likeliest"
            print(f"{printable(classes[label]):>{width}}  {100 * probability:6.2f} %{star}")
        short = name.name if len(name.name) <= LONGEST else f"{name.name[: LONGEST - 1]}…"
        captions.append(f"{short}\n{classes[labels[0]]} ({probabilities[0]:.0%})")
    return captions
