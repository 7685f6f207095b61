"""Draw with a trained generator: `python GAN/generate.py --count 100`, or `--interpolate 6`."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.errors import UserError, printable
from common.history import counted
from GAN.dataset import to_float
from GAN.train import make_parser as train_parser
from GAN.utils.judge import draw_labels, latents, sample
from GAN.utils.loading import interpolations, load_trained
from GAN.utils.mosaic import check_folder, mosaic, save_png, unused
from GAN.utils.sheets import scatter

FOLDER = Path(__file__).resolve().parent


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--run-dir", help="the run whose generator draws (default: the latest)")
    add("--count", type=cli.positive_int, default=100, help="samples, in one grid")
    add("--columns", type=cli.positive_int, default=10, help="of the grid, or steps of a way")
    add("--interpolate", type=cli.positive_int, metavar="LINES", help="ways between two samples")
    add("--label", help="draw this class alone, by name or number (--model cgan)")
    add("--single", action="store_true", help="a file for each image as well")
    add("--scale", type=cli.positive_int, default=2, help="pixels of the file for one of the image")
    add("--output", help="folder for the files (default: generated/ in the run's folder)")
    add("--seed", type=cli.number(int, 0, 2**32), default=0, help="the same seed, the same images")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def number_of(label: str | None, classes: list[str]) -> int | None:
    """The class that --label means. Raises UserError where there is none such."""
    if label is None:
        return None
    if label in classes:
        return classes.index(label)
    if label.isdecimal() and int(label) < len(classes):
        return int(label)
    raise UserError(f"--label {label}: choose from {', '.join(classes)}")


def main(argv=None):
    args = make_parser().parse_args(argv)
    wanted = {} if args.label is None else {"model": ["cgan"]}
    run_dir, _, kind, model = load_trained(FOLDER, args, train_parser(), **wanted)
    generator = model.generator
    label = number_of(args.label, kind.classes)
    if args.single and len(kind.shape) == 1:
        raise UserError("--single is of images: this run's data are points")

    folder = Path(args.output or run_dir / "generated")
    check_folder(folder)
    if args.interpolate:
        z, labels = interpolations(generator, args.interpolate, args.columns, args.seed, label)
    else:
        z = latents(args.count, generator, args.seed)
        labels = draw_labels(args.count, generator, args.seed)
        if label is not None:
            labels = torch.full((args.count,), label)
    samples = sample(generator, z, labels)

    kind_of_picture = "interpolation" if args.interpolate else "samples"
    path = unused(folder, kind_of_picture)
    points = len(kind.shape) == 1
    grid = scatter(samples) if points else mosaic(to_float(samples), args.columns)
    save_png(path, grid, args.scale)
    print(printable(path))
    if args.single:
        singles = path.with_suffix("")
        singles.mkdir()
        for number, image in enumerate(to_float(samples)):
            save_png(singles / f"{number:05d}.png", mosaic(image[None], 1), args.scale)
        print(f"{counted(len(samples), 'single image')} in {printable(singles)}")


if __name__ == "__main__":
    cli.entry(main)
