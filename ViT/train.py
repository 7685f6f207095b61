"""Train a Vision Transformer: `python ViT/train.py` learns CIFAR-10 in twelve minutes."""

from argparse import BooleanOptionalAction, Namespace
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from common import cli, distributed
from common.device import autocast, compiled, grad_scaler, seed_everything, select_device
from common.metrics import metrics_of
from common.run import Run
from common.schedules import SCHEDULES, make_schedule, moving_average
from ViT.dataset import load_training, or_shapes
from ViT.dataset.normalize import Normalize
from ViT.utils import augmentation, build, pretrained
from ViT.utils.optim import OPTIMIZERS, make_optimizer
from ViT.utils.predict import check_batch, predict_all, share_buffers
from ViT.utils.weights import fit_weights

FOLDER = Path(__file__).resolve().parent

CIFAR = dict(
    model="nano-conv", epochs=5, batch_size=128, lr=2e-3, optimizer="adamw", weight_decay=0.05,
    schedule="one-cycle", warmup=0, clip=1.0, patience=0, label_smoothing=0.1, ema=0.0,
    dropout=0.0, drop_path=0.0, layer_scale=0.1, attention="fused", patch_size=None, stem=None,
    pooling=None, positions=None, flip_test=True, shift_test=False, image_size=None, refit=False,
    **{**augmentation.OFF, "crop": 4, "flip": True},
)  # fmt: skip
RECIPES = {  # the defaults of each dataset
    "cifar10": CIFAR,
    "cifar100": {**CIFAR, "epochs": 8},
    "folder": CIFAR,
    "mnist": {**CIFAR, "epochs": 3, "crop": 2, "flip": False, "flip_test": False},
    "fashion-mnist": {**CIFAR, "crop": 2},
    "shapes": {
        **CIFAR, "epochs": 3, "batch_size": 32, "pooling": "token", "label_smoothing": 0.0,
        "crop": 2, "flip_test": False,
    },
}  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.train_parser(__doc__, RECIPES)
    build.add_flags(parser)
    add = parser.add_argument
    add("--image-size", type=cli.positive_int, help="pixels; default: see the README")
    add("--optimizer", choices=OPTIMIZERS, help="nesterov: SGD with a momentum of 0.9")
    add("--weight-decay", type=cli.non_negative, help="λ, of all but norms, biases, embeddings")
    add("--schedule", choices=SCHEDULES, help="how the learning rate moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--clip", type=cli.non_negative, help="largest norm of all gradients together; 0: no limit")
    add("--patience", type=cli.natural, help="stop after so many epochs without progress; 0: never")
    add("--train-accuracy", type=cli.natural, default=0, help="examples it is measured on; 0: none")
    add("--refit", action="store_true", help=cli.REFIT)
    add("--label-smoothing", type=cli.fraction, help="share of the target spread over all classes")
    add("--ema", type=cli.fraction, help="decay of a moving average of the weights; 0: none")
    add("--flip-test", action=BooleanOptionalAction, help="evaluate with mirrored images as well")
    add("--shift-test", action=BooleanOptionalAction, help="where unsure, judge moved images too")
    augmentation.add_flags(parser)
    pretrained.add_flags(parser)
    add("--precision", choices=cli.PRECISIONS, default="float32", help="of forward (AMP) and Muon")
    add("--compile", action="store_true", help="compile the model (torch.compile)")
    add("--accumulate", type=cli.positive_int, default=1, help="parts that a batch is computed in")
    add("--sync-batch-norm", action="store_true", help="torchrun on GPUs: statistics of all")
    return parser


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    with distributed.processes(select_device(args.device)) as device:
        train_on(device, args)


def train_on(device: torch.device, args: Namespace) -> None:
    named = args.resume or "dataset" in args.given
    dataset = or_shapes(args.dataset, named, args.data_dir)
    cli.switch_dataset(args, RECIPES, dataset)
    train, validation = load_training(args)
    if args.dataset == "folder" and not args.resume:
        args.image_size = train.shape[1]  # whatever is put into the folder later
    train, validation = train.subset(args.subset).to(device), validation and validation.to(device)
    seen = train.subset(args.train_accuracy, "--train-accuracy")
    check_batch(lambda: build.build_model(args, train), args, train)
    num_batches = train.num_batches(args.batch_size)
    total_steps = cli.total_steps(args, num_batches)

    seed_everything(args.seed)
    augment = augmentation.Augmentation(args, train.shape[1], len(train.classes))
    first_sides = augmentation.first_sides(len(train), args.seed).to(train.labels.device)
    normalize = Normalize(args.dataset, device)
    model = build.build_model(args, train).to(device=device, memory_format=torch.channels_last)
    if args.pretrained and not args.resume:
        pretrained.load_pretrained(model, args.pretrained, head="head", fit=fit_weights)
    if args.freeze:
        pretrained.freeze(model, head="head")
    fast_model = distributed.parallel(compiled(model, args.compile), args.sync_batch_norm)
    average = moving_average(model, args.ema)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    optimizer = make_optimizer(args.optimizer, model, args.lr, args.weight_decay, args.precision)
    scaler = grad_scaler(device, args.precision)

    with Run(FOLDER, args, model, optimizer, train, scaler=scaler, average=average) as run:
        schedule = make_schedule(
            args.schedule, optimizer, args.lr, total_steps, args.warmup, start=run.step
        )
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            if run.should_stop(args.patience):
                break
            model.train(not args.freeze)
            place = args.batch_size, args.seed, run.epoch, run.batch
            batches = zip(train.rows(*place), train.batches(*place), strict=True)
            for rows, (images, labels) in run.progress(batches, num_batches):
                lr = schedule.get_last_lr()[0]
                images, targets = augment(images, labels, first_sides[rows] + run.epoch)
                images, loss = normalize(images), 0.0

                optimizer.zero_grad()
                for part in range(args.accumulate):
                    last = part == args.accumulate - 1
                    share = slice(part, None, args.accumulate)
                    with distributed.synchronising(fast_model, last):
                        with autocast(device, args.precision):
                            logits = fast_model(images[share])
                            part_loss = criterion(logits, targets[share]) / args.accumulate
                        scaler.scale(part_loss).backward()
                    loss += part_loss.detach()
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
            share_buffers(best)
            metrics = {} if validation is None else metrics_of(*predict_all(best, validation, args))
            if args.train_accuracy:
                metrics["train_accuracy"] = metrics_of(*predict_all(best, seen, args))["accuracy"]
            run.log_epoch(**metrics)
        run.finish()


if __name__ == "__main__":
    cli.entry(main)
