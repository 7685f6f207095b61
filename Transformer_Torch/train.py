"""Train a Transformer: to translate German, or with `--task lm` to write like Shakespeare."""

from argparse import Namespace
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from common import cli, distributed
from common.device import autocast, compiled, grad_scaler, seed_everything, select_device
from common.run import Run
from common.schedules import moving_average
from Transformer_Torch.dataset import DATASETS, load_training, or_offline, translation
from Transformer_Torch.model import LanguageModel, Transformer
from Transformer_Torch.utils import architecture
from Transformer_Torch.utils.evaluation import evaluate
from Transformer_Torch.utils.optim import (
    OPTIMIZERS,
    TRANSFORMER_SCHEDULES,
    learning_rate,
    make_optimizer,
)
from Transformer_Torch.utils.parts import attention_kernel, check_compile, count, in_parts
from Transformer_Torch.utils.sampling import write_sample

FOLDER = Path(__file__).resolve().parent

MULTI30K = dict(
    task="translate", epochs=4, batch_size=1024, lr=2e-3, optimizer="adam", beta2=0.98,
    weight_decay=0.0, schedule="cosine", warmup=200, clip=1.0, patience=0, label_smoothing=0.1,
    ema=0.0, embed_dim=128, num_heads=4, num_layers=3, feedforward_dim=512, dropout=0.1,
    activation="relu", norm_first=True, positions="sinusoidal", tokenizer="subword",
    vocabulary_size=6000, subword_dropout=0.0, max_length=128, extra_length=10, sample_length=0,
    refit=False,
)  # fmt: skip
DATES = {
    **MULTI30K, "epochs": 10, "lr": 3e-3, "warmup": 100, "label_smoothing": 0.0,
    "embed_dim": 64, "num_layers": 2, "feedforward_dim": 256, "dropout": 0.0,
    "tokenizer": "character", "vocabulary_size": 200, "max_length": 64,
}  # fmt: skip
SHAKESPEARE = {
    **MULTI30K, "task": "lm", "epochs": 3, "batch_size": 8, "lr": 3e-3, "optimizer": "adamw",
    "beta2": 0.99, "weight_decay": 0.01, "label_smoothing": 0.0, "dropout": 0.0,
    "activation": "gelu", "tokenizer": "character", "max_length": 128, "sample_length": 500,
}  # fmt: skip
RECIPES = {  # the defaults of each dataset: a few-minute version of what the README records
    "multi30k": MULTI30K, "dates": DATES, "reverse": DATES, "copy": DATES,
    "files": {**MULTI30K, "epochs": 10}, "tiny-shakespeare": SHAKESPEARE,
    "help-topics": SHAKESPEARE, "text": SHAKESPEARE,
}  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.train_parser(
        __doc__, RECIPES, batch="translate: tokens per step; lm: windows",
        subset="train on so many pairs of sentences only; lm: characters",
    )  # fmt: skip
    add = parser.add_argument
    add("--task", choices=DATASETS, help="translate, or write a text (language model)")
    translation.add_flags(parser)
    architecture.add_flags(parser)
    add("--label-smoothing", type=cli.fraction, help="share of the target spread over all tokens")
    add("--optimizer", choices=OPTIMIZERS, help="muon is ours, the others torch.optim's")
    add("--beta2", type=cli.fraction, help="decay of Adam's mean of squares")
    add("--weight-decay", type=cli.non_negative, help="λ of the optimiser")
    add("--schedule", choices=TRANSFORMER_SCHEDULES, help="how the learning rate moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--clip", type=cli.non_negative, help="largest norm of all gradients together; 0: no limit")
    add("--patience", type=cli.natural, help="stop after so many epochs without progress; 0: never")
    add("--refit", action="store_true", help="lm: " + cli.REFIT)
    add("--sample-length", type=cli.natural, help="lm: characters written after each epoch")
    add("--ema", type=cli.fraction, help="decay of a moving average of the weights; 0: none")
    add("--precision", choices=cli.PRECISIONS, default="float32", help="of forward (AMP) and Muon")
    add("--compile", action="store_true", help="compile the model (torch.compile)")
    add("--accumulate", type=cli.positive_int, default=1, help="parts that a batch is computed in")
    return parser


def build_model(args: Namespace, tokenizer) -> nn.Module:
    """The network that the flags describe, for these tokens."""
    architecture.check(args)
    sizes = (
        len(tokenizer), args.embed_dim, args.num_heads, args.num_layers, args.feedforward_dim,
        args.dropout, args.activation, args.norm_first, args.positions, args.max_length,
    )  # fmt: skip
    if args.task == "translate":
        model = Transformer(*sizes)
        model.extra_length = args.extra_length
        return model
    return LanguageModel(*sizes, args.norm, args.kv_heads, args.bias, args.qk_norm)


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    with distributed.processes(select_device(args.device)) as device:
        train_on(device, args)


def train_on(device: torch.device, args: Namespace) -> None:
    cli.switch_dataset(args, RECIPES, or_offline(args))
    architecture.resolve(args)
    check_compile(args)
    train, validation = load_training(args)
    train, validation = train.subset(args.subset).to(device), validation and validation.to(device)
    num_batches = train.num_batches(args.batch_size)
    total_steps = cli.total_steps(args, num_batches)

    seed_everything(args.seed)
    model = build_model(args, train.tokenizer).to(device)
    fast_model = distributed.parallel(compiled(model, args.compile))
    average = moving_average(model, args.ema)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing, reduction="sum")
    optimizer = make_optimizer(
        args.optimizer, model, args.lr, args.weight_decay, args.beta2, args.precision
    )
    scaler = grad_scaler(device, args.precision)

    parts = dict(tokenizer=train.tokenizer, scaler=scaler, average=average)
    with Run(FOLDER, args, model, optimizer, train, **parts) as run:
        schedule = learning_rate(
            args.schedule, optimizer, args.lr, total_steps, args.warmup, start=run.step
        )
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            if run.should_stop(args.patience):
                break
            model.train()
            batches = train.batches(args.batch_size, args.seed, run.epoch, skip=run.batch)
            for inputs, labels in run.progress(batches, num_batches):
                lr, counted, loss = schedule.get_last_lr()[0], count(labels), 0.0
                share = distributed.world_size() / counted  # whose mean over processes is the mean

                optimizer.zero_grad()
                for tokens, targets in in_parts(fast_model, inputs, labels, args.accumulate):
                    with autocast(device, args.precision), attention_kernel(device, args.precision):
                        logits = fast_model(*tokens)
                        nats = criterion(logits.flatten(0, 1), targets.flatten()) * share
                    scaler.scale(nats).backward()
                    loss += nats.detach()
                if args.clip:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), args.clip)
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                if average is not None:
                    average.update_parameters(model)
                run.log_step(loss, counted, lr=lr)
            best = average.module if average else model
            metrics = {} if validation is None else evaluate(best, validation, args)
            write_sample(run, best, train.tokenizer, metrics)
            run.log_epoch(**metrics)
        run.finish()


if __name__ == "__main__":
    cli.entry(main)
