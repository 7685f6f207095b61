"""What a trained network makes of your pictures: `python MLP_Manual/predict.py photo.jpg`."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.device import select_device
from common.errors import printable
from common.evaluation import find_trained, load_best
from MLP_Manual.dataset import load_pictures, mnist
from MLP_Manual.train import build_model
from MLP_Manual.train import make_parser as train_parser
from MLP_Manual.utils.answers import answer_parser, existing, known_classes, print_best
from MLP_Manual.utils.plots import draw_sensitivity
from MLP_Manual.utils.sensitivity import sensitivity

FOLDER = Path(__file__).resolve().parent
TAKES = "about two minutes on 2 cores; fifteen seconds without network and data"


@torch.no_grad()
def main(argv=None):
    args = answer_parser(__doc__, "each picture and which pixels move its answer").parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(
        FOLDER, args, train_parser(), takes=TAKES, dataset=list(mnist.CLASSES)
    )
    files = existing(args.pictures, args.output)
    data = load_pictures(files, config.dataset, known_classes(run_dir)).to(device)
    model = build_model(config, data).to(device=device)
    load_best(model, run_dir)

    logits = torch.cat([model(inputs) for inputs, _ in data.in_order()])
    captions = print_best(files, logits, data.classes, args.top)
    if args.output:
        maps = sensitivity(model, data.inputs, logits.argmax(1)).view(-1, 28, 28)
        pictures, title = data.inputs.view(-1, 28, 28), "bright below: pixels that move the answer"
        draw_sensitivity(args.output, pictures, maps, captions, title)
        print(f"picture in {printable(args.output)}")


if __name__ == "__main__":
    cli.entry(main)
