"""Write text with a trained network: `python RNN_Manual/generate.py --prompt "ROMEO:"`."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import checkpoint, cli
from common.device import select_device
from common.errors import UserError, reading
from common.evaluation import find_trained, load_best
from RNN_Manual.dataset.characters import Vocabulary
from RNN_Manual.train import build_model, make_parser
from RNN_Manual.utils import writing
from RNN_Manual.utils.sampling import generate

FOLDER = Path(__file__).resolve().parent
TAKES = "about two minutes on 2 cores; half a minute without network and data"


def main(argv=None):
    args = writing.make_parser(__doc__).parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, make_parser(), takes=TAKES)
    path = run_dir / "best.safetensors"
    with reading(path):
        vocabulary = Vocabulary.of(checkpoint.load(path, "vocabulary")["vocabulary"])
    model = build_model(config, vocabulary.characters).to(device=device)
    load_best(model, run_dir)

    prompt = args.prompt
    if prompt is None:
        prompt = "\n" if "\n" in vocabulary.tokens else vocabulary.characters[0]
    try:
        vocabulary.encode(prompt)
    except ValueError as error:
        raise UserError(f"--prompt: {error}") from None
    print(prompt.lstrip("\n"), end="")
    for character in generate(
        model, vocabulary, prompt, args.length, args.temperature, args.top_k, args.top_p, args.seed
    ):
        print(character, end="", flush=True)
    print()


if __name__ == "__main__":
    cli.entry(main)
