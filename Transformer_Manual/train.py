"""Train a Transformer: to translate German, or with `--task lm` to write like Shakespeare."""

from argparse import Namespace
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

from common import cli
from common.device import autocast, seed_everything, select_device
from common.run import Run
from Transformer_Manual.dataset import DATASETS, load_training, or_offline, translation
from Transformer_Manual.model import LanguageModel, Transformer
from Transformer_Manual.utils import architecture
from Transformer_Manual.utils.evaluation import evaluate
from Transformer_Manual.utils.losses import TokenCrossEntropy, count
from Transformer_Manual.utils.optim import (
    OPTIMIZERS,
    TRANSFORMER_SCHEDULES,
    MovingAverage,
    clip_gradients,
    learning_rate,
)
from Transformer_Manual.utils.sampling import write_sample

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
    add("--optimizer", choices=OPTIMIZERS, help="all written in utils/optim.py")
    add("--beta2", type=cli.fraction, help="decay of Adam's mean of squares")
    add("--weight-decay", type=cli.non_negative, help="λ of the optimiser")
    add("--schedule", choices=TRANSFORMER_SCHEDULES, help="how the learning rate moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--clip", type=cli.non_negative, help="largest norm of all gradients together; 0: no limit")
    add("--patience", type=cli.natural, help="stop after so many epochs without progress; 0: never")
    add("--refit", action="store_true", help="lm: " + cli.REFIT)
    add("--sample-length", type=cli.natural, help="lm: characters written after each epoch")
    add("--ema", type=cli.fraction, help="decay of a moving average of the weights; 0: none")
    add("--precision", choices=["float32", "bfloat16"], default="float32", help="of the products")
    return parser


def build_model(args: Namespace, tokenizer) -> Transformer | LanguageModel:
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
    device = select_device(args.device)
    cli.switch_dataset(args, RECIPES, or_offline(args))
    architecture.resolve(args)
    train, validation = load_training(args)
    train, validation = train.subset(args.subset).to(device), validation and validation.to(device)
    num_batches = train.num_batches(args.batch_size)
    total_steps = cli.total_steps(args, num_batches)

    seed_everything(args.seed)
    model = build_model(args, train.tokenizer).to(device=device)
    average = MovingAverage(model, args.ema) if args.ema else None
    criterion = TokenCrossEntropy(args.label_smoothing)
    optimizer = OPTIMIZERS[args.optimizer](
        model, args.lr, betas=(0.9, args.beta2), weight_decay=args.weight_decay
    )

    parts = dict(tokenizer=train.tokenizer, average=average)
    with Run(FOLDER, args, model, optimizer, train, **parts) as run:
        schedule = learning_rate(args.schedule, args.lr, total_steps, args.warmup)
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            if run.should_stop(args.patience):
                break
            model.train()
            batches = train.batches(args.batch_size, args.seed, run.epoch, skip=run.batch)
            for inputs, labels in run.progress(batches, num_batches):
                optimizer.lr = schedule(run.step)

                with autocast(device, args.precision):  # of backward and Muon, too
                    logits = model.forward(*inputs)
                    loss = criterion.forward(logits, labels)

                    model.backward(criterion.backward())
                    if args.clip:
                        clip_gradients(model, args.clip)
                    optimizer.step()
                if average is not None:
                    average.update(model)
                run.log_step(loss, count(labels), lr=optimizer.lr)
            best = average.model if average else model
            metrics = {} if validation is None else evaluate(best, validation, args)
            write_sample(run, best, train.tokenizer, metrics)
            run.log_epoch(**metrics)
        run.finish()


if __name__ == "__main__":
    cli.entry(main)
