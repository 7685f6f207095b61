"""The flags that describe the network, and the network that they describe."""

from argparse import Namespace

from common import cli
from common.data import Split
from common.errors import UserError
from ViT.model import PRESETS, ViT

MOST_TOKENS = 1_024  # more only when --patch-size says so: attention takes the square of their time


def add_flags(parser: cli.Parser) -> None:
    add = parser.add_argument
    add("--model", choices=PRESETS, metavar="NAME", help=f"network: {', '.join(PRESETS)}")
    add(
        "--patch-size", type=cli.positive_int, help="pixels of a token (default: the network's own)"
    )
    add("--stem", choices=("patch", "convolution"), help="pixels to tokens (default: its own)")
    add("--pooling", choices=("token", "mean"), help="tokens to one vector (default: its own)")
    add("--positions", choices=("learned", "sincos"), help="their embedding (default: its own)")
    add("--attention", choices=("fused", "written-out"), help="the same by two programs")
    add("--dropout", type=cli.fraction, help="of attention weights and after every layer")
    add("--drop-path", type=cli.fraction, help="stochastic depth: rate of the last block")
    add("--layer-scale", type=cli.non_negative, help="first factor of every branch; 0: none")


def build_model(args: Namespace, data: Split) -> ViT:
    """The network that the flags describe, for images like those of `data`."""
    changes = ("patch_size", "stem", "pooling", "positions")
    changed = {name: getattr(args, name) for name in changes if getattr(args, name) is not None}
    try:
        model = PRESETS[args.model](
            image_size=data.shape[1], in_channels=data.shape[0], num_classes=len(data.classes),
            dropout=args.dropout, drop_path=args.drop_path, layer_scale=args.layer_scale,
            fused=args.attention == "fused", **changed,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"--model {args.model}: {error}") from None
    if model.side**2 > MOST_TOKENS and args.patch_size is None:
        raise UserError(
            f"--model {args.model} makes {model.side**2:,} tokens of {data.shape[1]} x "
            f"{data.shape[1]} pixels: take a 16, as ti16, or name a --patch-size"
        )
    return model
