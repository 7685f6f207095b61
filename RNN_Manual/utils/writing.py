"""What networks that write text share: the flags of generate.py, and the loss above a sample."""

from common import cli


def make_parser(description: str) -> cli.Parser:
    """Which run, what it goes on from, and how the next token is drawn."""
    parser = cli.Parser(description)
    add = parser.add_argument
    add("--run-dir", help="the run whose network writes (default: the latest)")
    add("--prompt", help="what it goes on from (default: the beginning of a line)")
    add("--length", type=cli.natural, default=500, help="characters to write")
    add("--temperature", type=cli.non_negative, default=0.8,
        help="below 1 more cautious, above bolder; 0: always the likeliest")  # fmt: skip
    add("--top-k", type=cli.natural, default=0, help="draw from the k likeliest alone; 0: all")
    add("--top-p", type=cli.number(float, 0, 1.0001), default=1.0,
        help="draw from the likeliest that have this probability together")  # fmt: skip
    add("--seed", type=cli.number(int, 0, 2**32), default=0, help="the same seed, the same text")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def shown_loss(metrics: dict[str, float], train_loss: float) -> tuple[str, float]:
    """The epoch's loss and whose it is: validation's, or training's of a run without that split."""
    if metrics:
        return "validation", metrics["loss"]
    return "training", train_loss
