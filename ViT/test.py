"""Evaluate a run of a Vision Transformer on the test split, and draw what it learned."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.console import print_metrics
from common.device import select_device
from common.evaluation import find_trained, load_best
from common.folders import dataset_name
from common.metrics import confusion_matrix, metrics_of
from common.plots import draw_confusion_matrix, draw_worst_mistakes
from common.results.records import write_record
from ViT.dataset import load_test, load_training
from ViT.dataset.normalize import Normalize, to_float
from ViT.train import make_parser
from ViT.utils.build import build_model
from ViT.utils.overlays import draw_overlays
from ViT.utils.plots import draw_filters, draw_positions
from ViT.utils.predict import predict_all
from ViT.utils.rollout import relevance

FOLDER = Path(__file__).resolve().parent
SHOWN = 16  # images of the rollout


def main(argv=None):
    args = cli.test_parser(__doc__).parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, make_parser())
    name = dataset_name(vars(config))
    test = load_test(config).to(device)
    model = build_model(config, test).to(device=device, memory_format=torch.channels_last)
    load_best(model, run_dir, classes=test.classes, checksums=test.checksums)

    logits, labels = predict_all(model, test, config)
    metrics = metrics_of(logits, labels)
    print(f"{run_dir}: test split of {name}, {len(test):,} examples")
    print_metrics(metrics)

    title = f"{name}: test split"
    if len(test.classes) <= 20:
        counts = confusion_matrix(logits.argmax(1), labels, len(test.classes)).cpu()
        draw_confusion_matrix(run_dir / "confusion.png", counts, test.classes, title)

    def pictures(rows):
        return to_float(test.images(rows)).permute(0, 2, 3, 1).squeeze(3)

    draw_worst_mistakes(run_dir / "mistakes.png", pictures, test, logits, title)
    draw_filters(run_dir / "filters.png", model.first_weight, name)
    places = model.position_embedding[0, -(model.side**2) :]
    draw_positions(run_dir / "positions.png", places, model.side, name)
    rows = torch.linspace(0, len(test) - 1, SHOWN).long()  # spread over the classes of a folder
    predicted = logits[rows].argmax(1)
    images = Normalize(config.dataset, device)(test.images(rows).to(device))
    captions = [
        f"{test.classes[guess]}{'' if guess == label else f' (is {test.classes[label]})'}"
        for guess, label in zip(predicted, labels[rows], strict=True)
    ]
    maps = relevance(model, images)
    what = f"{title}: what went into the answer (attention rollout, bright: most)"
    draw_overlays(run_dir / "rollout.png", pictures(rows), maps, captions, what, "inferno")
    print(f"pictures in {run_dir}")

    if args.record:
        train, validation = load_training(config)
        splits = {"train": train.subset(config.subset), "validation": validation, "test": test}
        if "image_size" not in config.given:  # a record holds the flags as they were typed
            config.image_size = None
        write_record(FOLDER, args, run_dir, config, model, splits, metrics)


if __name__ == "__main__":
    cli.entry(main)
