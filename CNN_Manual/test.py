"""Evaluate a run of the hand-written CNN on the test split, and draw what it learned."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from CNN_Manual.dataset import load_test, load_training
from CNN_Manual.train import build_model, make_parser, predict
from CNN_Manual.utils.layers import ReLU
from CNN_Manual.utils.plots import draw_feature_maps, draw_filters
from common import cli
from common.console import print_metrics
from common.device import select_device
from common.evaluation import find_trained, load_best
from common.metrics import confusion_matrix, metrics_of
from common.plots import draw_confusion_matrix, draw_worst_mistakes
from common.results.records import write_record

FOLDER = Path(__file__).resolve().parent


def main(argv=None):
    args = cli.test_parser(__doc__).parse_args(argv)
    args.device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, make_parser())
    test = load_test(config.dataset, config.data_dir).to(args.device)
    model = build_model(config, test).to(device=args.device)
    load_best(model, run_dir, classes=test.classes, checksums=test.checksums)

    logits = predict(model, test, config.flip_test, config.shift_test)
    metrics = metrics_of(logits, test.labels)
    print(f"{run_dir}: test split of {config.dataset}, {len(test):,} examples")
    print_metrics(metrics)

    counts = confusion_matrix(logits.argmax(1), test.labels, len(test.classes)).cpu()
    title = f"{config.dataset}: test split"
    draw_confusion_matrix(run_dir / "confusion.png", counts, test.classes, title)
    draw_worst_mistakes(
        run_dir / "mistakes.png", lambda rows: test.inputs[rows, 0], test, logits, title
    )
    draw_filters(run_dir / "filters.png", model.parameters()["features.0.weight"], config.dataset)
    model.forward(test.inputs[:1])  # leaves each ReLU's output in `y`
    stages = [layer.y[0] for layer in model.features.layers if isinstance(layer, ReLU)]
    draw_feature_maps(run_dir / "feature_maps.png", test.inputs[0, 0], stages, title)
    print(f"pictures in {run_dir}")

    if args.record:
        train, validation = load_training(config.dataset, config.data_dir)
        splits = {"train": train.subset(config.subset), "validation": validation, "test": test}
        write_record(FOLDER, args, run_dir, config, model, splits, metrics)


if __name__ == "__main__":
    cli.entry(main)
