"""What a trained network makes of a text: `python LSTM/predict.py "what a film"`, or `… < FILE`."""

import sys
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import checkpoint, cli
from common.device import select_device
from common.errors import UserError, printable, reading
from common.evaluation import find_trained, load_best
from common.files import picture_name
from common.history import counted
from LSTM.dataset.encodings import readable
from LSTM.dataset.texts import Encoding
from LSTM.dataset.words import basic_english
from LSTM.train import build_model
from LSTM.train import make_parser as train_parser
from LSTM.utils.evaluation import word_weights
from LSTM.utils.plots import coloured, draw_texts

FOLDER = Path(__file__).resolve().parent
TAKES = "about two minutes on 2 cores; some seconds without network and data"


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("text", nargs="*", help="the text; without one, standard input is read")
    add("--run-dir", help="the run whose network answers (default: the latest)")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--picture", type=picture_name, metavar="FILE",
        help="draw the words, coloured by their weight, as a PNG file")  # fmt: skip
    return parser


def read(words: list[str]) -> str:
    """The text of the command line, or else of standard input; bytes that are no UTF-8 as �."""
    if words:
        return readable(" ".join(words).encode("utf-8", "surrogateescape"))
    if sys.stdin.isatty():
        print("Type a text, then Ctrl-D:", file=sys.stderr)
    if hasattr(sys.stdin, "buffer"):
        return readable(sys.stdin.buffer.read())
    return sys.stdin.read()


def main(argv=None):
    args = make_parser().parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, train_parser(), takes=TAKES)
    path = run_dir / "best.safetensors"
    with reading(path):
        encoding = Encoding.of(checkpoint.load(path, "encoding")["encoding"])
    model = build_model(config, encoding).to(device)
    load_best(model, run_dir)

    words = basic_english(read(args.text))
    if not words:
        raise UserError("there is no word in the text: name one, or pipe it in")
    tokens = torch.tensor(encoding.vocabulary.lookup_indices(words), device=device).long()
    with torch.no_grad():
        logits = model(tokens[None], torch.tensor([len(tokens)], device=device))
    probabilities = logits.float().softmax(1)[0]
    best = int(probabilities.argmax())
    for label, name in enumerate(encoding.classes):
        percent, star = 100 * probabilities[label], "  * the likeliest" if label == best else ""
        print(f"{printable(name):>12}  {percent:6.2f} %{star}")
    known = sum(word in encoding.vocabulary for word in words)
    if known < len(words):
        print(f"({known:,} of {counted(len(words), 'word')} known: the others are all read alike)")

    weights = word_weights(model, tokens, best)
    if sys.stdout.isatty():
        print(f"\n{coloured(words, weights)}")
    if args.picture:
        caption = f"{encoding.classes[best]} ({probabilities[best]:.0%})"
        what = f"green words speak for {encoding.classes[best]!r}, red ones against it"
        try:
            draw_texts(args.picture, [(caption, words, weights)], what, most=1_000)
        except ValueError as error:  # no name of a file
            raise UserError(f"--picture {args.picture}: {error}") from None
        print(f"picture in {printable(args.picture)}")


if __name__ == "__main__":
    cli.entry(main)
