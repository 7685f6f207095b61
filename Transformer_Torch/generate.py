"""Write text with a trained network: `python Transformer_Torch/generate.py --prompt "ROMEO:"`."""

from pathlib import Path

from common import checkpoint, cli
from common.device import select_device
from common.errors import UserError
from common.evaluation import find_trained, load_best
from Transformer_Torch.dataset import restore_tokenizer
from Transformer_Torch.train import RECIPES, build_model
from Transformer_Torch.utils.sampling import beginning, generate

FOLDER = Path(__file__).resolve().parent


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--run-dir", help="the run whose network writes (default: the latest)")
    add("--prompt", help="what it goes on from (default: the beginning of a line)")
    add("--length", type=cli.natural, default=500, help="characters to write")
    add("--temperature", type=cli.non_negative, default=0.8, help="below 1 bolder; 0: no chance")
    add("--top-k", type=cli.natural, default=0, help="draw from the k likeliest alone; 0: all")
    add("--top-p", type=cli.number(float, 0, 1.0001), default=1.0,
        help="draw from the likeliest that have this probability together")  # fmt: skip
    add("--seed", type=cli.number(int, 0, 2**32), default=0, help="the same seed, the same text")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def main(argv=None):
    args = make_parser().parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, RECIPES)
    if config.task != "lm":
        raise UserError(f"{run_dir} has learned to translate, not to write: name another --run-dir")
    state = checkpoint.load(run_dir / "best.safetensors")
    vocabulary = restore_tokenizer(config, state["tokenizer"])
    model = build_model(config, vocabulary).to(device)
    load_best(model, run_dir)

    prompt = beginning(vocabulary) if args.prompt is None else args.prompt
    try:
        tokens = vocabulary.encode(prompt).to(device)
    except ValueError as error:
        raise UserError(f"--prompt: {error}") from None
    print(prompt.lstrip("\n"), end="")
    for token in generate(
        model, tokens, args.length, args.temperature, args.top_k, args.top_p, args.seed
    ):
        print(vocabulary.characters[token], end="", flush=True)
    print()


if __name__ == "__main__":
    cli.entry(main)
