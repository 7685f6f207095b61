"""What a trained network makes of your pictures: `python ResNet/predict.py photo.jpg`."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import cli
from common.device import select_device
from common.errors import printable
from common.evaluation import find_trained, load_best
from ResNet.dataset import load_pictures
from ResNet.dataset.normalize import Normalize, to_float
from ResNet.train import build_model
from ResNet.train import make_parser as train_parser
from ResNet.utils.answers import answer_parser, existing, known_classes, print_best
from ResNet.utils.gradcam import grad_cam
from ResNet.utils.overlays import draw_overlays
from ResNet.utils.predict import predict_all

FOLDER = Path(__file__).resolve().parent
TAKES = "about twelve minutes on 2 cores; half a minute without network and data"


def main(argv=None):
    parser = answer_parser(__doc__, "what spoke for each answer (Grad-CAM)")
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
        maps = grad_cam(model, images, logits.argmax(1))
        what = "what speaks for the predicted class (Grad-CAM)"
        draw_overlays(args.output, pictures, maps, captions, what, "jet")
        print(f"picture in {printable(args.output)}")


if __name__ == "__main__":
    cli.entry(main)
