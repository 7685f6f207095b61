"""Train the PyTorch CNN: `python CNN_Torch/train.py` learns MNIST in half a minute."""

from argparse import BooleanOptionalAction
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import Tensor, nn

from CNN_Torch.dataset import load_training, mnist
from CNN_Torch.model import CNN
from CNN_Torch.utils.augment import random_affine, random_flip
from CNN_Torch.utils.optim import OPTIMIZERS, make_optimizer
from CNN_Torch.utils.views import judge
from common import cli
from common.data import Split
from common.device import autocast, compiled, grad_scaler, seed_everything, select_device
from common.errors import UserError
from common.metrics import metrics_of
from common.run import Run
from common.schedules import SCHEDULES, make_schedule

FOLDER = Path(__file__).resolve().parent

SAMPLE = dict(
    epochs=12, batch_size=128, lr=1e-2, optimizer="adamw", weight_decay=0.05, schedule="one-cycle",
    warmup=0, clip=0.0, patience=0, label_smoothing=0.1, channels=[32, 64, 128], dropout=0.3,
    hidden_size=0, shift=1.5, rotation=8.0, zoom=0.08, flip=False, flip_test=False,
    shift_test=False,
)  # fmt: skip
RECIPES = {  # the defaults of each dataset: shorter than the best ones that the README records
    "mnist": {**SAMPLE, "epochs": 2, "lr": 0.03, "optimizer": "muon", "label_smoothing": 0.05,
              "channels": [16, 32, 128], "dropout": 0.1, "shift": 1.0, "rotation": 5.0,
              "zoom": 0.05, "shift_test": True},
    "mnist-sample": SAMPLE,
    "fashion-mnist": {
        **SAMPLE, "epochs": 3, "lr": 3e-3, "channels": [32, 64], "hidden_size": 512, "dropout": 0.4,
        "label_smoothing": 0.05, "shift": 0.0, "rotation": 0.0, "zoom": 0.0, "flip": True,
    },
    "shapes": {**SAMPLE, "epochs": 5, "channels": [16, 32, 64]},
}  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.train_parser(__doc__, RECIPES)
    add = parser.add_argument
    add("--channels", type=cli.positive_int, nargs="+", help="output channels of each convolution")
    add("--hidden-size", type=cli.natural, help="units of a hidden Linear layer; 0: none")
    add("--dropout", type=cli.fraction, help="share of the last features dropped")
    add("--shift", type=cli.non_negative, help="augmentation: pixels, at most, either way")
    add("--rotation", type=cli.non_negative, help="augmentation: degrees, at most, either way")
    add("--zoom", type=cli.fraction, help="augmentation: share, at most, either way")
    add("--flip", action=BooleanOptionalAction, help="augmentation: mirror half of the images")
    add("--label-smoothing", type=cli.fraction, help="share of the target spread over all classes")
    add("--optimizer", choices=OPTIMIZERS, help="muon is ours, the others torch.optim's")
    add("--weight-decay", type=cli.non_negative, help="λ of the optimiser")
    add("--schedule", choices=SCHEDULES, help="how the learning rate moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--clip", type=cli.non_negative, help="largest norm of all gradients together; 0: no limit")
    add("--patience", type=cli.natural, help="stop after so many epochs without progress; 0: never")
    add("--train-accuracy", type=cli.natural, default=0, help="examples it is measured on; 0: none")
    add("--flip-test", action=BooleanOptionalAction, help="evaluate with mirrored images as well")
    add("--shift-test", action=BooleanOptionalAction, help="where unsure, judge moved images too")
    add("--precision", choices=cli.PRECISIONS, default="float32", help="of forward (AMP) and Muon")
    add("--channels-last", action=BooleanOptionalAction, default=True, help="memory layout: NHWC")
    add("--compile", action="store_true", help="compile the model (torch.compile)")
    return parser


def build_model(args, data: Split) -> CNN:
    """The network that the flags describe, for images like those of `data`."""
    _, in_channels, image_size, _ = data.inputs.shape
    if image_size >> len(args.channels) == 0:
        poolings = len(args.channels)
        raise UserError(f"--channels: {poolings} poolings leave nothing of {image_size} pixels")
    return CNN(
        in_channels, image_size, len(data.classes), args.channels, args.dropout, args.hidden_size
    )


def augment(images, args, background: float):
    """Each image of the batch, a little moved: (N, C, H, W) -> (N, C, H, W)."""
    if args.flip:
        images = random_flip(images)
    if args.shift or args.rotation or args.zoom:
        images = random_affine(images, args.shift, args.rotation, args.zoom, background)
    return images


@torch.no_grad()
def predict(model: nn.Module, data: Split, flip: bool = False, shift: bool = False) -> Tensor:
    """Logits (N, K) of a whole split; with `flip` and `shift` from several looks at an image."""
    model.eval()
    return torch.cat([judge(model, images, flip, shift) for images, _ in data.in_order()])


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    device = select_device(args.device)
    named = args.resume or "dataset" in args.given
    dataset = mnist.or_sample(args.dataset, named, FOLDER, args.data_dir)
    cli.switch_dataset(args, RECIPES, dataset)
    train, validation = load_training(args.dataset, args.data_dir)
    train, validation = train.subset(args.subset).to(device), validation.to(device)
    seen = train.subset(args.train_accuracy, "--train-accuracy")
    num_batches = train.num_batches(args.batch_size)
    total_steps = cli.total_steps(args, num_batches)
    background = train.inputs[:, :, 0].median().item()  # of the top rows
    looks = args.flip_test, args.shift_test

    seed_everything(args.seed)
    model = build_model(args, train).to(device=device)
    last_size = train.inputs.shape[2] >> len(args.channels)  # halved by each pooling
    cli.check_batch_norm(min(args.batch_size, len(train)) * last_size**2)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    fast_model = compiled(model, args.compile)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    optimizer = make_optimizer(args.optimizer, model, args.lr, args.weight_decay, args.precision)
    scaler = grad_scaler(device, args.precision)

    with Run(FOLDER, args, model, optimizer, train, scaler=scaler) as run:
        schedule = make_schedule(
            args.schedule, optimizer, args.lr, total_steps, args.warmup, start=run.step
        )
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            if run.should_stop(args.patience):
                break
            model.train()
            batches = train.batches(args.batch_size, args.seed, run.epoch, skip=run.batch)
            for images, labels in run.progress(batches, num_batches):
                lr = schedule.get_last_lr()[0]
                images = augment(images, args, background)

                with autocast(device, args.precision):
                    logits = fast_model(images)
                    loss = criterion(logits, labels)

                optimizer.zero_grad()
                scaler.scale(loss).backward()
                if args.clip:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), args.clip)
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                run.log_step(loss, len(labels), lr=lr)
            metrics = metrics_of(predict(model, validation, *looks), validation.labels)
            if args.train_accuracy:
                found = metrics_of(predict(model, seen, *looks), seen.labels)
                metrics["train_accuracy"] = found["accuracy"]
            run.log_epoch(**metrics)
        run.finish()


if __name__ == "__main__":
    cli.entry(main)
