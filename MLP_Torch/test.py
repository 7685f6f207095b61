"""Evaluate a run of the PyTorch MLP on the test split, and draw what it learned."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.console import print_metrics
from common.device import select_device
from common.evaluation import find_trained, load_best
from common.metrics import confusion_matrix
from common.plots import draw_confusion_matrix, draw_worst_mistakes
from common.results.records import write_record
from MLP_Torch.dataset import load_test, load_training
from MLP_Torch.train import build_model, evaluate, make_parser
from MLP_Torch.utils.plots import draw_decision_boundary, draw_first_layer

FOLDER = Path(__file__).resolve().parent


@torch.no_grad()
def main(argv=None):
    args = cli.test_parser(__doc__).parse_args(argv)
    args.device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, make_parser())
    test = load_test(config.dataset, config.data_dir).to(args.device)
    model = build_model(config, test).to(device=args.device)
    load_best(model, run_dir, classes=test.classes, checksums=test.checksums)

    metrics = evaluate(model, test)
    print(f"{run_dir}: test split of {config.dataset}, {len(test):,} examples")
    print_metrics(metrics)

    logits = torch.cat([model(inputs) for inputs, _ in test.in_order()])
    counts = confusion_matrix(logits.argmax(1), test.labels, len(test.classes)).cpu()
    title = f"{config.dataset}: test split"
    draw_confusion_matrix(run_dir / "confusion.png", counts, test.classes, title)
    if test.inputs.shape[1] == 2:
        draw_decision_boundary(run_dir / "boundary.png", model, test, title)
    else:

        def pictures(rows):
            return test.inputs[rows].view(-1, 28, 28)

        draw_worst_mistakes(run_dir / "mistakes.png", pictures, test, logits, title)
        weight = next(model.parameters())
        draw_first_layer(run_dir / "first_layer.png", weight, config.dataset)
    print(f"pictures in {run_dir}")

    if args.record:
        train, validation = load_training(config.dataset, config.data_dir)
        splits = {"train": train.subset(config.subset), "validation": validation, "test": test}
        write_record(FOLDER, args, run_dir, config, model, splits, metrics)


if __name__ == "__main__":
    cli.entry(main)
