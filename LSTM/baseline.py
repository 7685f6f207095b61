"""What a bag of n-grams reaches: `python LSTM/baseline.py`, beside which the LSTM has to stand."""

import re
import time
from argparse import Namespace
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.device import environment, git_commit, seed_everything
from common.errors import UserError
from common.folders import dataset_name
from common.history import describe
from common.metrics import metrics_of
from common.results import records
from LSTM.dataset import load_corpora, load_test_corpus, or_templates
from LSTM.utils.ngrams import NBSVM, NGramLogistic, NGrams

FOLDER = Path(__file__).resolve().parent
MODELS = {"logistic": NGramLogistic, "nb-svm": NBSVM}
GRIDS = {"logistic": (1, 3, 10, 30, 100, 300, 1000), "nb-svm": (0.01, 0.03, 0.1, 0.3, 1)}  # of C
COMMON = dict(model="nb-svm", ngrams=2, min_freq=2, C=None, subset=None, epochs=1)
RECIPES = {"imdb": COMMON, "csv": COMMON, "templates": COMMON}


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, RECIPES)
    add, names = parser.add_argument, list(RECIPES)
    add("--dataset", choices=names, default=names[0], help="what to learn")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--model", choices=MODELS, help="logistic regression on tf-idf, or NB-SVM")
    add("--ngrams", type=cli.positive_int, help="most words of an n-gram")
    add("--min-freq", type=cli.positive_int, help="a known n-gram is in so many training texts")
    add("--C", type=cli.positive, help="the inverse of the regularisation "
        "(default: the best on the validation split)")  # fmt: skip
    add("--subset", type=cli.positive_int, help="train on this many examples only")
    add("--seed", type=cli.number(int, 0, 2**32), default=0, help="of the solver's order")
    add("--record", action="store_true", help="write the result into results/")
    add("--config", help="the record's name (default: the dataset's and the model's)")
    # what every run has and this one has not: one pass, from the beginning, in a folder of its own
    parser.set_defaults(**COMMON, resume=False, run_dir=None)
    return parser


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    if not re.fullmatch(r"(?!compare)\w[\w. -]*", args.config or "a"):
        raise UserError(f"--config {args.config}: letters, digits, . - _, and not compare first")
    dataset = or_templates(args.dataset, "dataset" in args.given, args.data_dir)
    cli.switch_dataset(args, RECIPES, dataset)
    seed_everything(args.seed)
    train, validation = load_corpora(args)
    train = train.subset(args.subset)
    if train.labels.bincount(minlength=len(train.classes)).min() == 0:
        raise UserError("--subset leaves a class without a text: name more")
    name = dataset_name(vars(args))
    print(f"{name}: {len(train):,} to train on, {len(validation):,} held out")

    started = time.monotonic()
    ngrams = NGrams(args.ngrams, args.min_freq, train)
    counts, held_out = ngrams(train), ngrams(validation)
    print(f"{counts.shape[1]:,} n-grams of up to {args.ngrams} words")
    tried = []
    for C in [args.C] if args.C else GRIDS[args.model]:
        model = MODELS[args.model](C, args.seed).fit(counts, train.labels)
        if isinstance(model, NBSVM):
            model.calibrate(held_out, validation.labels)
        reached = metrics_of(model.logits(held_out), validation.labels)
        seconds = time.monotonic() - started
        print(f"C {C:<5g} val {describe(reached)}  {seconds:6.1f} s", flush=True)
        tried.append((reached, C, model))
    validation_metrics, args.C, model = max(tried, key=lambda t: (t[0]["accuracy"], -t[0]["loss"]))
    seconds = time.monotonic() - started
    print(f"the best: C {args.C:g}")

    test = load_test_corpus(args)
    test_metrics = metrics_of(model.logits(ngrams(test)), test.labels)
    print(f"test split of {name}: {describe(test_metrics)}")
    if not args.record:
        return
    splits = {"train": train, "validation": validation, "test": test}
    write_record(args, model, splits, validation_metrics, test_metrics, seconds)


def write_record(
    args: Namespace, model, splits: dict, validation: dict, test: dict, seconds: float
) -> None:
    """As if it were a run of one epoch, so that it stands in the tables beside the networks."""
    config = {k: v for k, v in vars(args).items() if k not in ("record", "config")}
    given = {*args.given, "dataset", "model", "C"} - {"record", "config", "epochs"}
    config["given"] = sorted(given)
    config["commit"] = git_commit()
    config["environment"] = environment(torch.device("cpu"))
    row = {"epoch": 1, "seconds": seconds, **{f"validation_{k}": v for k, v in validation.items()}}
    name = args.config or f"{dataset_name(config)}-{args.model}"
    path, _ = records.write(
        FOLDER, name, config, {"epoch": 1, "history": [row]},
        model=model, parameters=model.parameters, splits=splits, test=test, script="baseline.py",
    )  # fmt: skip
    print(f"recorded in {path}")


if __name__ == "__main__":
    cli.entry(main)
