"""Train a recurrent network: `python LSTM/train.py` learns to tell good film reviews from bad."""

from argparse import BooleanOptionalAction, Namespace
from functools import partial
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from common import cli, distributed
from common.device import autocast, grad_scaler, seed_everything, select_device
from common.metrics import metrics_of
from common.run import Run
from common.schedules import SCHEDULES, make_schedule, moving_average
from LSTM.dataset import load_training, or_templates
from LSTM.dataset.texts import Encoding, Texts
from LSTM.model import CELLS, POOLINGS, RecurrentClassifier
from LSTM.utils import adversarial
from LSTM.utils.evaluation import predict_all
from LSTM.utils.optim import OPTIMIZERS, make_optimizer

FOLDER = Path(__file__).resolve().parent

IMDB = dict(
    epochs=3, batch_size=32, lr=4e-3, optimizer="adamw", weight_decay=0.01, schedule="one-cycle",
    warmup=0, clip=1.0, patience=0, label_smoothing=0.0, ema=0.0, cell="lstm", embed_dim=64,
    hidden_size=64, num_layers=1, bidirectional=True, pooling="max", dropout=0.5,
    word_dropout=0.0, embedding_dropout=0.0, adversarial=0.0, vocabulary_size=30_000, min_freq=2,
    ngrams=0, max_length=200,
)  # fmt: skip
RECIPES = {  # the defaults of each dataset
    "imdb": IMDB,
    "csv": {**IMDB, "epochs": 10},
    "templates": {
        **IMDB, "epochs": 4, "batch_size": 64, "lr": 2e-2, "hidden_size": 32, "embed_dim": 32,
        "dropout": 0.0, "word_dropout": 0.1, "min_freq": 1,
    },
}  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.train_parser(__doc__, RECIPES)
    add = parser.add_argument
    add("--cell", choices=CELLS, help="what remembers: nn.LSTM, nn.GRU or nn.RNN")
    add("--embed-dim", type=cli.positive_int, help="numbers that stand for a word")
    add("--hidden-size", type=cli.positive_int, help="units of a cell, in each direction")
    add("--num-layers", type=cli.positive_int, help="layers of cells")
    add("--bidirectional", action=BooleanOptionalAction, help="read backwards, too")
    add("--pooling", choices=POOLINGS, help="how the words' states become one vector")
    add("--dropout", type=cli.fraction, help="of features: embeddings, layers, pooled vector")
    add("--word-dropout", type=cli.fraction, help="share of words that become <unk>")
    add("--embedding-dropout", type=cli.fraction, help="share of the words that a batch lacks")
    add("--adversarial", type=cli.fraction, help="adversarial move: share of vectors' length")
    add("--vocabulary-size", type=cli.number(int, 3), help="most frequent words that are known")
    add("--min-freq", type=cli.positive_int, help="a known word occurs so often in training")
    add("--ngrams", type=cli.natural, help="read log ratios of n-grams of up to so many words")
    add("--max-length", type=cli.positive_int, help="words of a text that training sees: its ends")
    add("--optimizer", choices=OPTIMIZERS, help="nesterov: SGD with a momentum of 0.9")
    add("--weight-decay", type=cli.non_negative, help="λ, of all but embeddings and biases")
    add("--schedule", choices=SCHEDULES, help="how the learning rate moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--clip", type=cli.non_negative, help="largest norm of all gradients together; 0: no limit")
    add("--patience", type=cli.natural, help="stop after so many epochs without progress; 0: never")
    add("--label-smoothing", type=cli.fraction, help="share of the target spread over all classes")
    add("--ema", type=cli.fraction, help="decay of a moving average of the weights; 0: none")
    add("--precision", choices=cli.PRECISIONS, default="float32", help="of the forward pass (AMP)")
    return parser


def build_model(args: Namespace, encoding: Encoding) -> RecurrentClassifier:
    """The network that the flags describe, for these words and classes."""
    return RecurrentClassifier(
        len(encoding.vocabulary), len(encoding.classes), cell=args.cell, embed_dim=args.embed_dim,
        hidden_size=args.hidden_size, num_layers=args.num_layers,
        bidirectional=args.bidirectional, pooling=args.pooling, dropout=args.dropout,
        word_dropout=args.word_dropout, embedding_dropout=args.embedding_dropout,
        ratios=encoding.ratios,
    )  # fmt: skip


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    with distributed.processes(select_device(args.device)) as device:
        train_on(device, args)


def train_on(device: torch.device, args: Namespace) -> None:
    named = args.resume or "dataset" in args.given
    cli.switch_dataset(args, RECIPES, or_templates(args.dataset, named, args.data_dir))
    splits: tuple[Texts, Texts] = load_training(args)
    train, validation = (split.to(device) for split in splits)
    distributed.check_batch(min(args.batch_size, len(train)))
    num_batches = train.num_batches(args.batch_size)
    total_steps = cli.total_steps(args, num_batches)

    seed_everything(args.seed)
    model = build_model(args, train.encoding).to(device)
    fast_model = distributed.parallel(model)
    average = moving_average(model, args.ema)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    optimizer = make_optimizer(args.optimizer, model, args.lr, args.weight_decay)
    scaler = grad_scaler(device, args.precision)

    def loss_of(tokens, lengths, folds, labels, shift=None):  # folds: with --ngrams [(N,)], or []
        with autocast(device, args.precision):
            return criterion(fast_model(tokens, lengths, shift, *folds), labels)

    parts = dict(encoding=train.encoding, scaler=scaler, average=average)
    with Run(FOLDER, args, model, optimizer, train, **parts) as run:
        schedule = make_schedule(
            args.schedule, optimizer, args.lr, total_steps, args.warmup, start=run.step
        )
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            if run.should_stop(args.patience):
                break
            model.train()
            batches = train.batches(args.batch_size, args.seed, run.epoch, skip=run.batch)
            for (tokens, lengths, *folds), labels in run.progress(batches, num_batches):
                lr = schedule.get_last_lr()[0]
                optimizer.zero_grad()
                if args.adversarial:
                    shifted_loss = partial(loss_of, tokens, lengths, folds, labels)
                    vectors = model.embedding(tokens).detach()
                    loss = adversarial.backward(shifted_loss, vectors, args.adversarial, scaler)
                else:
                    loss = loss_of(tokens, lengths, folds, labels)
                    scaler.scale(loss).backward()
                if args.clip:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), args.clip)
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                if average is not None:
                    average.update_parameters(model)
                run.log_step(loss, len(labels), lr=lr)
            best = average.module if average else model
            run.log_epoch(**metrics_of(*predict_all(best, validation, args.precision)))
        run.finish()


if __name__ == "__main__":
    cli.entry(main)
