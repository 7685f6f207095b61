"""What a trained network makes of your pictures: `python CNN_Torch/predict.py photo.jpg`."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from CNN_Torch.dataset import load_pictures
from CNN_Torch.train import build_model, predict
from CNN_Torch.train import make_parser as train_parser
from CNN_Torch.utils.answers import answer_parser, existing, known_classes, print_best
from CNN_Torch.utils.plots import draw_feature_maps
from common import cli
from common.device import select_device
from common.errors import printable
from common.evaluation import find_trained, load_best

FOLDER = Path(__file__).resolve().parent
TAKES = "about half a minute on 2 cores; half a minute without network and data"


@torch.no_grad()
def main(argv=None):
    args = answer_parser(__doc__, "each picture and what the filters see in it").parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, train_parser(), takes=TAKES)
    files = existing(args.pictures, args.output)
    data = load_pictures(files, config.dataset, known_classes(run_dir)).to(device)
    model = build_model(config, data).to(device=device)
    load_best(model, run_dir)

    logits = predict(model, data, config.flip_test, config.shift_test)
    captions = print_best(files, logits, data.classes, args.top)
    for n, caption in enumerate(captions if args.output else []):
        path = args.output
        if len(files) > 1:  # one for each: maps-1.png, maps-2.png …
            path = path.with_name(f"{path.stem}-{n + 1}{path.suffix}")
        x, stages = data.inputs[n : n + 1], []
        for layer in model.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                stages.append(x[0])
        draw_feature_maps(path, data.inputs[n, 0], stages, caption)
        print(f"picture in {printable(path)}")


if __name__ == "__main__":
    cli.entry(main)
