"""Evaluate a run of a GAN beside the test split, and draw what it makes."""

from argparse import Namespace
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import cli
from common.console import print_metrics
from common.data import Split
from common.folders import dataset_name
from common.results.records import write_record
from GAN.dataset import load_test, load_training, to_float
from GAN.model import Generator
from GAN.train import make_parser
from GAN.utils.judge import draw_labels, latents, make_judge, sample
from GAN.utils.loading import check_data, interpolations, load_trained
from GAN.utils.mosaic import draw_titled, mosaic
from GAN.utils.plots import draw_ring
from GAN.utils.sheets import sheet

FOLDER = Path(__file__).resolve().parent
STEPS, LINES = 10, 6  # of interpolation.png


def draw_samples(run_dir: Path, generator: Generator, config: Namespace, test: Split) -> None:
    """samples.png and, of images, interpolation.png; of points, ring.png."""
    model = config.model + (f", {config.clusters} clusters" if config.clusters else "")
    if config.dataset == "ring":
        labels = draw_labels(len(test) // 4, generator, config.seed)
        points = sample(generator, latents(len(labels), generator, config.seed), labels)
        draw_ring(run_dir / "ring.png", test.inputs[: len(labels)], points, model)
        return
    name = f"{dataset_name(vars(config))}, {model}"
    columns = ", a class in each column" if generator.labelled else ""
    draw_titled(
        run_dir / "samples.png", sheet(generator, rows=10), f"{name}: generated images{columns}"
    )
    z, labels = interpolations(generator, LINES, STEPS, config.seed)
    lines = mosaic(to_float(sample(generator, z, labels)), STEPS)
    what = f"{name}: each line leads from one generated image to another"
    draw_titled(run_dir / "interpolation.png", lines, what)


def main(argv=None):
    args = cli.test_parser(__doc__).parse_args(argv)
    run_dir, config, kind, model = load_trained(FOLDER, args, make_parser())
    device = next(model.parameters()).device
    train, validation, test = (s.to(device) for s in (*load_training(config), load_test(config)))
    for split in (train, test):
        check_data(run_dir, kind, split, conditional=model.generator.labelled)
    judge = make_judge(config, train, validation, real=test)
    metrics = judge.test(model.generator)
    name = dataset_name(vars(config))
    print(f"{run_dir}: test split of {name}, {len(test):,} examples")
    print_metrics(metrics)
    print(f"Fréchet distance: {judge.signature}")
    draw_samples(run_dir, model.generator, config, test)
    print(f"pictures in {run_dir}")

    if args.record:
        splits = {"train": train.subset(config.subset), "validation": validation, "test": test}
        signatures = {"frechet_distance": judge.signature}
        write_record(FOLDER, args, run_dir, config, model, splits, metrics, signatures)


if __name__ == "__main__":
    cli.entry(main)
