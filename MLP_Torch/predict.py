"""What a trained network makes of your pictures: `python MLP_Torch/predict.py photo.jpg`."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.device import select_device
from common.evaluation import find_trained, load_best
from common.plots import draw_images
from MLP_Torch.dataset import load_pictures, mnist
from MLP_Torch.train import build_model
from MLP_Torch.train import make_parser as train_parser
from MLP_Torch.utils.answers import answer_parser, existing, known_classes, print_best

FOLDER = Path(__file__).resolve().parent
TAKES = "about two minutes on 2 cores; some seconds without network and data"


@torch.no_grad()
def main(argv=None):
    args = answer_parser(__doc__, "the pictures as the network gets them").parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(
        FOLDER, args, train_parser(), takes=TAKES, dataset=list(mnist.CLASSES)
    )
    files = existing(args.pictures)
    data = load_pictures(files, config.dataset, known_classes(run_dir)).to(device)
    model = build_model(config, data).to(device=device)
    load_best(model, run_dir)

    logits = torch.cat([model(inputs) for inputs, _ in data.in_order()])
    captions = print_best(files, logits, data.classes, args.top)
    if args.output:
        pictures, title = data.inputs.view(-1, 28, 28), f"as {config.dataset} shows them"
        draw_images(Path(args.output), pictures, captions, title, columns=4)
        print(f"picture in {args.output}")


if __name__ == "__main__":
    cli.entry(main)
