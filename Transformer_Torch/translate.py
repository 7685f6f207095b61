"""Translate with a trained network: `python Transformer_Torch/translate.py "Ein Hund schläft."`,
or line by line from standard input (or a file, --input) to standard output."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import checkpoint, cli
from common.device import select_device
from common.errors import UserError, reading
from common.evaluation import find_trained, load_best
from common.history import counted
from Transformer_Torch.dataset import restore_tokenizer
from Transformer_Torch.dataset.encodings import lines_of, readable
from Transformer_Torch.dataset.tokenizers import UNKNOWN
from Transformer_Torch.train import build_model
from Transformer_Torch.train import make_parser as train_parser
from Transformer_Torch.utils.evaluation import ONE_ANSWER, translate

FOLDER = Path(__file__).resolve().parent
TAKES = "about six minutes on 2 cores; three minutes to learn dates, without network and data"


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("text", nargs="*", help="the sentence; without one, lines of --input or standard input")
    add("--input", metavar="FILE", help="translate the lines of this file")
    add("--run-dir", help="the run whose network translates (default: the latest)")
    add("--beam", type=cli.positive_int, default=5, help="translations that compete; 1: greedy")
    penalty = cli.number(float, 0, 10)  # beyond it, scores vanish in float32
    add("--length-penalty", type=penalty, default=1.0, help="α, in favour of longer ones")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def warn_of_unknown(line: str, tokens: list[int]) -> None:
    """Say on stderr that a network never saw most of what a line is made of."""
    unknown = sum(token == UNKNOWN for token in tokens)
    if 2 * unknown > len(tokens):
        share = f"{unknown} of {counted(len(tokens), 'token')}"
        print(f"({share} unknown to this network: {line[:60]!r})", file=sys.stderr)


def main(argv=None):
    args = make_parser().parse_args(argv)
    if args.text and args.input is not None:
        raise UserError("translate a sentence or the lines of --input, not both: leave one out")
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, train_parser(), takes=TAKES, task=["translate"])
    path = run_dir / "best.safetensors"
    with reading(path):
        state = checkpoint.load(path, "tokenizer")
        tokenizer = restore_tokenizer(config, state["tokenizer"])
    model = build_model(config, tokenizer).to(device)
    load_best(model, run_dir)

    if config.dataset in ONE_ANSWER:
        print(f"({run_dir} has learned {config.dataset} alone, no language)", file=sys.stderr)
    with ExitStack() as stack:
        if args.text:
            blocks = [[readable(os.fsencode(" ".join(args.text))).strip()]]
        elif args.input is not None:
            try:
                blocks = lines_of(stack.enter_context(open(args.input, "rb")))
            except OSError as error:
                raise UserError(f"--input {args.input}: {error.strerror}") from None
        else:
            if sys.stdin.isatty():
                print("Type sentences, then Ctrl-D:", file=sys.stderr)
            blocks = lines_of(sys.stdin.buffer)
        for lines in blocks:
            full = [line for line in lines if line]  # an empty line stays one
            for line in full:
                warn_of_unknown(line, tokenizer.encode(line))
            found = iter(translate(model, tokenizer, full, args.beam, args.length_penalty))
            for line in lines:
                print(next(found) if line else "")
            sys.stdout.flush()


if __name__ == "__main__":
    cli.entry(main)
