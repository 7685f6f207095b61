"""Train the PyTorch MLP: `python MLP_Torch/train.py` learns MNIST in two minutes."""

from argparse import BooleanOptionalAction
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from common import cli
from common.data import Split
from common.device import compiled, seed_everything, select_device
from common.errors import UserError
from common.metrics import RunningMean, correct
from common.run import Run
from common.schedules import SCHEDULES, make_schedule
from MLP_Torch.dataset import load_training, mnist
from MLP_Torch.model import ACTIVATIONS, MLP
from MLP_Torch.utils.losses import OneHotMSELoss
from MLP_Torch.utils.optim import OPTIMIZERS, make_optimizer

FOLDER = Path(__file__).resolve().parent

IMAGES = dict(
    epochs=20, batch_size=128, lr=2e-3, optimizer="adamw", weight_decay=0.05, schedule="one-cycle",
    warmup=0, clip=0.0, patience=0, loss="cross-entropy", label_smoothing=0.1,
    hidden_sizes=[1024, 1024], activation="relu", batch_norm=True, dropout=0.4, input_dropout=0.2,
)  # fmt: skip
RECIPES = {  # the defaults of each dataset; those of mnist and fashion-mnist are the recorded ones
    "mnist": IMAGES,
    "mnist-sample": IMAGES,
    "fashion-mnist": {**IMAGES, "input_dropout": 0.0},
    "spirals": {
        **IMAGES, "epochs": 60, "batch_size": 64, "lr": 1e-2, "weight_decay": 0.0,
        "label_smoothing": 0.0, "hidden_sizes": [64, 64], "activation": "tanh", "dropout": 0.0,
        "input_dropout": 0.0,
    },
}  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.train_parser(__doc__, RECIPES)
    add = parser.add_argument
    add("--hidden-sizes", type=cli.positive_int, nargs="+", help="units of each hidden layer")
    add("--activation", choices=ACTIVATIONS, help="between the layers")
    add("--batch-norm", action=BooleanOptionalAction, help="normalise before the activation")
    add("--dropout", type=cli.fraction, help="share of hidden values dropped")
    add("--input-dropout", type=cli.fraction, help="share of inputs dropped")
    add("--loss", choices=["cross-entropy", "mse"], help="mse is against one-hot targets")
    add("--label-smoothing", type=cli.fraction, help="share of the target spread over all classes")
    add("--optimizer", choices=OPTIMIZERS, help="muon is ours, the others torch.optim's")
    add("--weight-decay", type=cli.non_negative, help="λ of the optimiser")
    add("--schedule", choices=SCHEDULES, help="how the learning rate moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--clip", type=cli.non_negative, help="largest norm of all gradients together; 0: no limit")
    add("--patience", type=cli.natural, help="stop after so many epochs without progress; 0: never")
    add("--train-accuracy", type=cli.natural, default=0, help="examples it is measured on; 0: none")
    add("--compile", action="store_true", help="compile the model (torch.compile)")
    return parser


def build_model(args, data: Split) -> MLP:
    """The network that the flags describe, for examples like `data`."""
    in_features, num_classes = data.inputs.shape[1], len(data.classes)
    return MLP(
        in_features,
        args.hidden_sizes,
        num_classes,
        args.activation,
        args.batch_norm,
        args.dropout,
        args.input_dropout,
    )


@torch.no_grad()
def evaluate(model: nn.Module, data: Split, mse: bool = False) -> dict[str, float]:
    """Mean loss (nats per example, never smoothed) and accuracy over the whole split; with `mse`
    the squared error as well."""
    model.eval()
    criteria = {"loss": nn.CrossEntropyLoss(), **({"mse": OneHotMSELoss()} if mse else {})}
    means = {name: RunningMean() for name in (*criteria, "accuracy")}
    for inputs, labels in data.in_order():
        logits = model(inputs)
        for name, criterion in criteria.items():
            means[name].add(criterion(logits, labels), len(labels))
        means["accuracy"].add(correct(logits, labels).float().mean(), len(labels))
    return {name: mean.value for name, mean in means.items()}


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    if args.loss == "mse" and args.label_smoothing and "label_smoothing" in args.given:
        raise UserError("--label-smoothing is of --loss cross-entropy")
    device = select_device(args.device)
    named = args.resume or "dataset" in args.given
    dataset = mnist.or_sample(args.dataset, named, FOLDER, args.data_dir)
    cli.switch_dataset(args, RECIPES, dataset)
    if args.loss == "mse":
        args.label_smoothing = 0.0
    train, validation = load_training(args.dataset, args.data_dir)
    train, validation = train.subset(args.subset).to(device), validation.to(device)
    seen = train.subset(args.train_accuracy, "--train-accuracy")
    if args.batch_norm:
        cli.check_batch_norm(min(args.batch_size, len(train)))
    num_batches = train.num_batches(args.batch_size)
    total_steps = cli.total_steps(args, num_batches)

    seed_everything(args.seed)
    model = build_model(args, train).to(device=device)
    fast_model = compiled(model, args.compile)
    if args.loss == "mse":
        criterion = OneHotMSELoss()
    else:
        criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    optimizer = make_optimizer(args.optimizer, model, args.lr, args.weight_decay)

    with Run(FOLDER, args, model, optimizer, train) as run:
        schedule = make_schedule(
            args.schedule, optimizer, args.lr, total_steps, args.warmup, start=run.step
        )
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            if run.should_stop(args.patience):
                break
            model.train()
            batches = train.batches(args.batch_size, args.seed, run.epoch, skip=run.batch)
            for inputs, labels in run.progress(batches, num_batches):
                lr = schedule.get_last_lr()[0]

                logits = fast_model(inputs)
                loss = criterion(logits, labels)

                optimizer.zero_grad()
                loss.backward()
                if args.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), args.clip)
                optimizer.step()
                schedule.step()
                run.log_step(loss, len(labels), lr=lr)
            metrics = evaluate(model, validation, args.loss == "mse")
            if args.train_accuracy:
                metrics["train_accuracy"] = evaluate(model, seen)["accuracy"]
            run.log_epoch(**metrics)
        run.finish()


if __name__ == "__main__":
    cli.entry(main)
