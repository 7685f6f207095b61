"""What a trained network makes of your pictures: `python ViT/predict.py photo.jpg`."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import cli
from common.device import select_device
from common.errors import printable
from common.evaluation import find_trained, load_best
from ViT.dataset import load_pictures
from ViT.dataset.normalize import Normalize, to_float
from ViT.train import make_parser as train_parser
from ViT.utils.answers import answer_parser, existing, known_classes, print_best
from ViT.utils.build import build_model
from ViT.utils.overlays import draw_overlays
from ViT.utils.predict import predict_all
from ViT.utils.rollout import relevance

FOLDER = Path(__file__).resolve().parent
TAKES = "about twelve minutes on 2 cores; two minutes without network and data"


def main(argv=None):
    parser = answer_parser(__doc__, "what went into each answer (attention rollout)")
    parser.add_argument(
        "--data-dir", type=cli.place, help="where a run's own folder of images lies"
    )
    args = parser.parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, train_parser(), takes=TAKES)
    files = existing(args.pictures, args.output)
    data = load_pictures(files, config, known_classes(run_dir)).to(device)
    model = build_model(config, data).to(device)
    load_best(model, run_dir)

    logits, _ = predict_all(model, data, config)
    captions = print_best(files, logits, data.classes, args.top)
    if args.output:
        pictures = to_float(data.inputs).permute(0, 2, 3, 1).squeeze(3)
        images = Normalize(config.dataset, device)(data.inputs)
        maps = relevance(model, images)
        what = "what went into the answer (attention rollout, bright: most)"
        draw_overlays(args.output, pictures, maps, captions, what, "inferno")
        print(f"picture in {printable(args.output)}")


if __name__ == "__main__":
    cli.entry(main)
