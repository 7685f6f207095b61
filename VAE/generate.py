"""Images from a trained model: `python VAE/generate.py`, or with `interpolation` or `walk`."""

from argparse import Namespace
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import Tensor
from torch.nn import functional as F

from common import cli
from common.data import Split
from common.errors import UserError, printable
from common.history import counted
from VAE.dataset import load_validation, no_images
from VAE.model import VAE, Autoencoder
from VAE.utils.mosaic import check_folder, mosaic, save_png, unused
from VAE.utils.pictures import COLUMNS, column_labels, columns_of, encode_all, sample_codes
from VAE.utils.trained import load_trained

FOLDER = Path(__file__).resolve().parent
KINDS = {
    "samples": "new images", "interpolation": "from one image to another",
    "walk": "an attribute changes, --from a class (or a word of classes' names) --to another",
}  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    kinds = "; ".join(f"{name}: {text}" for name, text in KINDS.items())
    add("kind", nargs="?", choices=KINDS, default="samples", help=kinds)
    add("--run-dir", help="the run whose network draws (default: the latest)")
    add("--count", type=cli.positive_int, help="of samples (default: 80), or of rows (8)")
    add("--label", help="cvae: the class of all samples (default: one in each column)")
    add("--from", dest="source", help="walk: what the images are")
    add("--to", dest="target", help="walk: what they become")
    add("--seed", type=cli.number(int, 0, 2**32), default=0, help="the same seed, the same images")
    add("--output", help="folder for the file (default: generated/ in the run's folder)")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def matching(classes: list[str], name: str | None, flag: str) -> list[int]:
    """The class of this name, or all that have this word in their name."""
    if name in classes:
        return [classes.index(name)]
    found = [n for n, words in enumerate(classes) if name in words.split()]
    if not found:
        raise UserError(f"{flag} {name}: the classes are {', '.join(classes)}")
    return found


def images_of(data: Split, classes: list[int], flag: str, name: str) -> Tensor:
    """The rows (n,) of all images of these classes. Raises UserError where there is none."""
    rows = torch.isin(data.labels.cpu(), torch.tensor(classes)).nonzero().squeeze(1)
    if not len(rows):
        names = ", ".join(data.classes[label] for label in classes)
        raise UserError(f"{flag} {name}: the validation split has no image of {names}")
    return rows.to(data.labels.device)


def mixtures(first: Tensor, last: Tensor, steps: int = COLUMNS) -> Tensor:
    """(n, F), (n, F) -> (n·steps, F): in each row from the first to the last, in equal steps"""
    t = torch.linspace(0, 1, steps, device=first.device)[None, :, None]
    return ((1 - t) * first[:, None] + t * last[:, None]).flatten(0, 1)


def draw(model: Autoencoder, data: Split, args: Namespace, generator) -> Tensor:
    """New images; of a conditional model a class in each column, or --label alone."""
    seen = None if isinstance(model, VAE) else encode_all(model, data)[0]
    z = sample_codes(model, args.count, generator, seen)
    labels = column_labels(model, args.count, columns_of(model))
    if args.label is not None:
        found = matching(data.classes, args.label, "--label")
        if len(found) > 1:
            raise UserError(f"--label {args.label}: {len(found)} classes have it, name one")
        labels = torch.full_like(labels, found[0])
    return model.pictures(z, labels)


def interpolate(model: Autoencoder, data: Split, args: Namespace, generator) -> Tensor:
    """Between two validation images' codes, and of a conditional model, between the classes."""
    rows = torch.randint(len(data), (2 * args.count,), generator=generator)
    some = data.take(rows.to(data.labels.device))
    mu, _ = encode_all(model, some)
    one_hot = F.one_hot(some.labels, len(data.classes)).float()
    ends = [(codes[: args.count], codes[args.count :]) for codes in (mu, one_hot)]
    return model.pictures(*(mixtures(*end) for end in ends))


def walk(model: Autoencoder, data: Split, args: Namespace, generator) -> Tensor:
    """From validation images along mean code of --to − mean code of --from (Larsen et al., 2015);
    of a conditional model, the code stays and the class changes."""
    if args.source is None or args.target is None:
        raise UserError("walk needs --from and --to: classes, or words of classes' names")
    source = matching(data.classes, args.source, "--from")
    target = matching(data.classes, args.target, "--to")
    if model.num_classes and len(source) != len(target):
        raise UserError(
            f"--from {args.source} is {len(source)} classes and --to {args.target} {len(target)}: "
            "a conditional model needs as many"
        )
    there, goal = images_of(data, source, "--from", args.source), None
    if not model.num_classes:
        goal = images_of(data, target, "--to", args.target)
    mu, _ = encode_all(model, data)
    some = torch.randperm(len(there), generator=generator)[: args.count]
    rows = there[some.to(there.device)]
    before, labels = mu[rows], data.labels[rows]
    after = before if goal is None else before + mu[goal].mean(0) - mu[there].mean(0)
    become = torch.tensor([target[source.index(n) % len(target)] for n in labels.tolist()])
    become = become.to(labels.device)
    one_hot = [F.one_hot(n, len(data.classes)).float() for n in (labels, become)]
    return model.pictures(mixtures(before, after), mixtures(*one_hot))


@torch.no_grad()
def main(argv=None):
    args = make_parser().parse_args(argv)
    if args.label is not None and args.kind != "samples":
        raise UserError(f"--label is of samples, not of {args.kind}")
    if (args.source or args.target) and args.kind != "walk":
        raise UserError(f"--from and --to are of walk, not of {args.kind}")
    args.count = args.count or (80 if args.kind == "samples" else 8)
    wanted = {} if args.label is None else {"model": ["cvae"]}
    run_dir, config, model = load_trained(FOLDER, args, **wanted)
    folder = Path(args.output or run_dir / "generated")
    check_folder(folder)
    generator = torch.Generator().manual_seed(args.seed)
    data = no_images(config)
    if args.kind != "samples" or not isinstance(model, VAE):
        data = load_validation(config).to(config.device)
    make = {"samples": draw, "interpolation": interpolate, "walk": walk}[args.kind]
    pictures = make(model, data, args, generator)
    by_class = args.kind == "samples" and args.label is None
    columns = columns_of(model) if by_class else COLUMNS
    path = unused(folder, args.kind)
    save_png(path, mosaic(pictures, columns))
    print(f"{config.model} of {run_dir}: {counted(len(pictures), 'image')} in {printable(path)}")


if __name__ == "__main__":
    cli.entry(main)
