"""Write text with a trained network: `python Transformer_Torch/generate.py --prompt "ROMEO:"`."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import checkpoint, cli
from common.device import select_device
from common.errors import UserError, reading
from common.evaluation import find_trained, load_best
from Transformer_Torch.dataset import restore_tokenizer
from Transformer_Torch.train import build_model, make_parser
from Transformer_Torch.utils import writing
from Transformer_Torch.utils.sampling import beginning, generate

FOLDER = Path(__file__).resolve().parent


def main(argv=None):
    args = writing.make_parser(__doc__).parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, make_parser(), task=["lm"])
    path = run_dir / "best.safetensors"
    with reading(path):
        state = checkpoint.load(path, "tokenizer")
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
