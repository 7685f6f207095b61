"""CIFAR-10's official archive as a folder of JPEG files, made at the PLACE that is named.

The archive (cifar-10-python.tar.gz) is looked up or downloaded as `--dataset cifar10` does. Images
become PLACE/train/<class>/NNNN.jpg and PLACE/test/<class>/NNNN.jpg, numbered within their class in
the archive's order: what `--dataset folder --data-dir PLACE` learns. JPEG loses a little (quality
75, half the colour resolution), so a result on them is not one on CIFAR-10.
"""

import os
import shutil
from collections import Counter
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from PIL import Image

from common import cli
from common.errors import UserError, printable
from ViT.dataset import cifar

FOLDER = Path(__file__).resolve().parent
SPLITS = ("train", "test")


def write_split(place: Path, train: bool, data_dir: str | None) -> int:
    """Write one of the two official splits below `place`. Gives the number of its images."""
    split = cifar.load("cifar10", train, FOLDER, data_dir)
    for name in split.classes:
        (place / name).mkdir(parents=True)
    written = Counter()
    for image, label in zip(split.inputs.permute(0, 2, 3, 1).numpy(), split.labels, strict=True):
        name = split.classes[label]
        path = place / name / f"{written[name]:04d}.jpg"
        Image.fromarray(image).save(path, quality=75, subsampling="4:2:0")
        written[name] += 1
    return len(split)


def main(argv=None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("place", metavar="PLACE", help="the folder to make; its name is the dataset's in results")
    add("--data-dir", type=cli.place, help="where the archive lies; before $PLAYGROUND_DATA")
    args = parser.parse_args(argv)
    place = Path(args.place)
    if place.exists():
        raise UserError(f"{place} is there already: name another folder, or remove it")
    unfinished = place.with_name(f".{place.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    try:
        train, test = (write_split(unfinished / n, n == "train", args.data_dir) for n in SPLITS)
        os.replace(unfinished, place)
    except OSError as error:
        raise UserError(f"{place} cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"{train:,} images to train on and {test:,} to test on in {printable(place)}")


if __name__ == "__main__":
    cli.entry(main)
