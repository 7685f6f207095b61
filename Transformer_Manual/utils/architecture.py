"""The flags of the network, and the parts that --block stands for."""

from argparse import BooleanOptionalAction, Namespace

from common import cli
from common.errors import UserError
from Transformer_Manual.model import POSITIONS
from Transformer_Manual.utils.modern import ACTIVATIONS, NORMS

# --block NAME: the parts that have no flag of their own on the command line
BLOCKS = {
    "original": {},
    "modern": {
        "norm": "rms", "positions": "rotary", "activation": "swiglu", "kv_heads": 2, "bias": False,
    },
}  # fmt: skip
# what nn.Transformer's layers are, and translation's stay
ORIGINAL = {"block": "original", "norm": "layer", "kv_heads": None, "bias": True, "qk_norm": False}


def add_flags(parser: cli.Parser) -> None:
    add = parser.add_argument
    add("--embed-dim", type=cli.positive_int, help="width of a token's vector")
    add("--num-heads", type=cli.positive_int, help="attentions side by side")
    add("--num-layers", type=cli.positive_int, help="layers of the encoder, and of the decoder")
    add("--feedforward-dim", type=cli.positive_int, help="hidden units between attentions")
    add("--dropout", type=cli.fraction, help="share of features and of attention dropped")
    add("--activation", choices=ACTIVATIONS, help="of the hidden units; lm: swiglu, with a gate")
    add("--norm-first", action=BooleanOptionalAction, help="normalise before each part, not after")
    add("--positions", choices=POSITIONS, help="how a token knows where it stands; lm: rotary")
    add("--block", choices=BLOCKS, help="lm: modern is rms, rotary, swiglu, 2 kv-heads, no bias")
    add("--norm", choices=NORMS, help="lm: LayerNorm or RMSNorm")
    add("--kv-heads", type=cli.positive_int, help="lm: heads of keys and values (default: all)")
    add("--bias", action=BooleanOptionalAction, help="lm: of products and norms")
    add("--qk-norm", action=BooleanOptionalAction, help="lm: normalise queries and keys")
    parser.set_defaults(**ORIGINAL)


def resolve(args: Namespace) -> None:
    """Put the parts of --block into `args`. Raises UserError where parts do not fit."""
    parts = BLOCKS[args.block].items()
    vars(args).update({name: part for name, part in parts if name not in args.given})
    check(args)


def check(args: Namespace) -> None:
    """Raises UserError where the network cannot be built."""
    heads, shared = args.num_heads, args.kv_heads or args.num_heads
    if args.embed_dim % heads:
        raise UserError(f"--num-heads {heads} does not divide the width, {args.embed_dim}")
    if args.task == "translate":
        known = {name: {value} for name, value in ORIGINAL.items()}
        known |= {"activation": {"relu", "gelu"}, "positions": {"sinusoidal", "learned"}}
        for name in [name for name, values in known.items() if getattr(args, name) not in values]:
            flag, value = "--" + name.replace("_", "-"), getattr(args, name)
            flag = flag.replace("--", "--no-") if value is False else flag
            wish = flag if isinstance(value, bool) else f"{flag} {value}"
            raise UserError(f"{wish} is for --task lm: translation has nn.Transformer's layers")
    if heads % shared:
        raise UserError(f"--kv-heads {shared} cannot be shared equally by --num-heads {heads}")
    if args.positions == "rotary" and args.embed_dim // heads % 2:
        width = args.embed_dim // heads
        raise UserError(f"--positions rotary turns pairs of channels: a head has {width}")
