"""Train a variational autoencoder: `python VAE/train.py` learns to write digits in two minutes."""

from argparse import BooleanOptionalAction, Namespace
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import nn

from common import cli
from common.data import Split
from common.device import autocast, seed_everything, select_device
from common.errors import UserError
from common.metrics import RunningMean
from common.run import Run
from common.schedules import SCHEDULES, make_schedule, moving_average
from VAE.dataset import load_training, mnist
from VAE.model import Autoencoder
from VAE.utils.bounds import OBJECTIVES, doubly_reparameterised_loss, kl_to_prior
from VAE.utils.build import build_model
from VAE.utils.film import keep_frame, make_film
from VAE.utils.likelihoods import LIKELIHOODS
from VAE.utils.networks import ACTIVATIONS
from VAE.utils.pictures import frame

FOLDER = Path(__file__).resolve().parent
EVALUATION_ROWS = 1_000  # codes that are decoded at once

DIGITS = dict(
    model="vae", epochs=20, batch_size=128, lr=1e-3, schedule="cosine", warmup=0, clip=0.0, ema=0.0,
    beta=1.0, beta_warmup=0, samples=1, dreg=False, latent_dim=50, likelihood="bernoulli",
    network="mlp", hidden_sizes=[512, 512], channels=[32, 64], activation="leaky-relu",
    batch_norm=True, precision="float32", refit=False, image_size=None,
)  # fmt: skip
COLOURS = {**DIGITS, "likelihood": "gaussian", "network": "conv", "hidden_sizes": [256]}
MODELS = {"ae": {}, "vae": {}, "iwae": {"samples": 5}, "cvae": {}}  # what each brings
RECIPES = {  # the defaults of each dataset: a few-minute version of what the README records
    "mnist": DIGITS,
    "mnist-sample": {**DIGITS, "epochs": 50, "batch_size": 64, "latent_dim": 10},
    "fashion-mnist": DIGITS,
    "shapes": {**COLOURS, "epochs": 30, "batch_size": 64, "latent_dim": 10},
    "folder": {**COLOURS, "latent_dim": 128},
}  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.train_parser(__doc__, RECIPES, MODELS)
    add = parser.add_argument
    add("--model", choices=MODELS, help="ae: no distribution; cvae: is told the class")
    add("--beta", type=cli.non_negative, help="weight of the KL: 1 is the ELBO, other values β-VAE")
    add("--beta-warmup", type=cli.natural, help="epochs in which that weight grows from 0")
    add("--samples", type=cli.positive_int, help="k: codes drawn of each image (iwae: 5)")
    add("--dreg", action=BooleanOptionalAction, help="iwae: doubly reparameterised gradient")
    add("--latent-dim", type=cli.positive_int, help="numbers in a code")
    add("--likelihood", choices=LIKELIHOODS, help="of the pixels; grey: as pytorch/examples")
    add("--network", choices=["mlp", "conv"], help="perceptrons, or convolutions")
    add("--hidden-sizes", type=cli.positive_int, nargs="+", help="encoder's; conv: the first alone")
    add("--channels", type=cli.positive_int, nargs="+", help="conv: of each convolution")
    add("--activation", choices=ACTIVATIONS, help="between the layers")
    add("--batch-norm", action=BooleanOptionalAction, help="normalise before the activation")
    add("--schedule", choices=SCHEDULES, help="how the learning rate moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--clip", type=cli.non_negative, help="largest norm of all gradients together; 0: no limit")
    add("--ema", type=cli.fraction, help="decay of a moving average of the weights; 0: none")
    add("--image-size", type=cli.positive_int, help="pixels of a side, of --dataset folder")
    add("--precision", choices=["float32", "bfloat16"], help="of the networks' products")
    add("--refit", action="store_true", help=cli.REFIT)
    return parser


@torch.no_grad()
def evaluate(model: Autoencoder, data: Split, args: Namespace) -> dict[str, float]:
    """Nats per image over the whole split: what is minimised (never of a moving β), −log p(x | z)
    and KL. Pixels are drawn with the same seed for every model, codes with another."""
    model.eval()
    pixels, codes = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    means = {name: RunningMean() for name in ("loss", "reconstruction", "kl")}
    for images, labels in data.in_order(max(1, EVALUATION_ROWS // args.samples)):
        x = model.likelihood.observe(images, pixels)
        terms = model(x, labels, args.samples, codes)
        means["loss"].add(OBJECTIVES[args.model](terms, args.beta).mean(), len(x))
        means["reconstruction"].add(-terms.log_p_x.mean(), len(x))
        if terms.logvar is not None:
            means["kl"].add(kl_to_prior(terms.mu, terms.logvar).sum(1).mean(), len(x))
    return {name: mean.value for name, mean in means.items() if mean.count}


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    if args.dreg and args.model != "iwae":
        raise UserError(f"--dreg is a gradient of --model iwae, not of {args.model}")
    if args.model == "ae" and {"beta", "beta_warmup"} & set(args.given):
        raise UserError("--beta weighs the KL, and --model ae has none")
    if args.model == "ae" and args.samples > 1:
        raise UserError("--samples draws codes, and --model ae has one for each image")
    device = select_device(args.device)
    named = args.resume or "dataset" in args.given
    dataset = mnist.or_sample(args.dataset, named, FOLDER, args.data_dir)
    cli.switch_dataset(args, RECIPES, dataset, MODELS)
    train, validation = load_training(args)
    if args.dataset == "folder" and not args.resume:
        args.image_size = train.shape[1]  # whatever is put into the folder later
        args.given = sorted({*args.given, "image_size"})
    train, validation = train.subset(args.subset).to(device), validation and validation.to(device)
    if args.batch_norm:
        cli.check_batch_norm(min(args.batch_size, len(train)))
    num_batches = train.num_batches(args.batch_size)
    steps = cli.total_steps(args, num_batches)

    seed_everything(args.seed)
    model = build_model(args, train).to(device=device)
    average = moving_average(model, args.ema)
    objective = doubly_reparameterised_loss if args.dreg else OBJECTIVES[args.model]
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    def beta(step: int) -> float:
        return args.beta * min(1.0, (step + 1) / max(1, args.beta_warmup * num_batches))

    with Run(FOLDER, args, model, optimizer, train, average=average) as run:
        schedule = make_schedule(args.schedule, optimizer, args.lr, steps, args.warmup, run.step)
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            model.train()
            batches = train.batches(args.batch_size, args.seed, run.epoch, skip=run.batch)
            for images, labels in run.progress(batches, num_batches):
                lr = schedule.get_last_lr()[0]
                x = model.likelihood.observe(images)  # drawn anew: (N, D)

                with autocast(device, args.precision):
                    terms = model(x, labels, args.samples)
                loss = objective(terms, beta(run.step)).mean()

                optimizer.zero_grad()
                loss.backward()
                if args.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), args.clip)
                optimizer.step()
                schedule.step()
                if average is not None:
                    average.update_parameters(model)
                run.log_step(loss, len(labels), lr=lr)
            best = average.module if average else model
            keep_frame(run.path, run.epoch + 1, frame(best, validation or train))
            run.log_epoch(**(evaluate(best, validation, args) if validation else {}))
        run.finish()
        make_film(run.path)


if __name__ == "__main__":
    cli.entry(main)
