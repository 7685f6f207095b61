"""Evaluate a run of a recurrent network on the test split, and draw what it goes by."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import checkpoint, cli
from common.console import print_metrics
from common.device import select_device
from common.errors import reading
from common.evaluation import find_trained, load_best
from common.folders import dataset_name
from common.metrics import confusion_matrix, metrics_of
from common.plots import draw_confusion_matrix
from common.results.records import write_record
from LSTM.dataset import load_test, load_training
from LSTM.dataset.texts import Encoding
from LSTM.train import build_model, make_parser
from LSTM.utils.evaluation import predict_all, word_weights
from LSTM.utils.plots import draw_texts

FOLDER = Path(__file__).resolve().parent
EXAMPLES, MISTAKES = 8, 8  # texts in the pictures


def main(argv=None):
    args = cli.test_parser(__doc__).parse_args(argv)
    device = select_device(args.device)
    run_dir, config = find_trained(FOLDER, args, make_parser())
    name = dataset_name(vars(config))
    path = run_dir / "best.safetensors"
    with reading(path):
        encoding = Encoding.of(checkpoint.load(path, "encoding")["encoding"])
    test = load_test(config, encoding).to(device)
    model = build_model(config, encoding).to(device)
    load_best(model, run_dir, checksums=test.checksums)

    logits, labels = predict_all(model, test, config.precision)
    metrics = metrics_of(logits, labels)
    print(f"{run_dir}: test split of {name}, {len(test):,} examples")
    print_metrics(metrics)

    title = f"{name}: test split"
    if len(test.classes) <= 20:
        counts = confusion_matrix(logits.argmax(1), labels, len(test.classes)).cpu()
        draw_confusion_matrix(run_dir / "confusion.png", counts, test.classes, title)

    confidence, predicted = logits.softmax(1).max(1)

    def explained(rows):
        for row in rows.tolist():
            guess, label = predicted[row].item(), labels[row].item()
            caption = f"{test.classes[guess]} ({confidence[row]:.0%})"
            if guess != label:
                caption = f"{test.classes[label]}, taken for {caption}"
            weights = word_weights(model, test.inputs.sequence(row).long(), guess)
            yield caption, test.corpus.text(row), weights

    what = "green words speak for the predicted class, red ones against it"
    rows = torch.linspace(0, len(test) - 1, min(EXAMPLES, len(test))).long()
    draw_texts(run_dir / "words.png", list(explained(rows)), f"{title}: {what}")
    wrong = (predicted != labels).nonzero().squeeze(1)
    worst = wrong[confidence[wrong].argsort(descending=True)][:MISTAKES]
    heading = f"{title}: {len(wrong):,} mistakes, the surest first; {what}"
    draw_texts(run_dir / "mistakes.png", list(explained(worst)), heading)
    print(f"pictures in {run_dir}")

    if args.record:
        train, validation = load_training(config)
        splits = {"train": train, "validation": validation, "test": test}
        write_record(FOLDER, args, run_dir, config, model, splits, metrics)


if __name__ == "__main__":
    cli.entry(main)
