"""Train a GAN: `python GAN/train.py` learns to draw digits in a quarter of an hour."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.console import not_finite
from common.device import seed_everything, select_device
from common.errors import UserError
from common.folders import dataset_name
from common.history import counted
from common.run import Run
from common.schedules import SCHEDULES, make_schedule, moving_average
from GAN.dataset import load_training, mnist, scaled
from GAN.model import NORMS
from GAN.utils.build import build_model, check_flags
from GAN.utils.clusters import with_clusters
from GAN.utils.diary import Diary
from GAN.utils.diffaugment import CHANGES, Augmentation
from GAN.utils.film import keep_frame, make_film
from GAN.utils.judge import make_judge
from GAN.utils.kind import Kind
from GAN.utils.losses import LOSSES
from GAN.utils.sheets import sheet
from GAN.utils.turns import discriminator_step, generator_step

FOLDER = Path(__file__).resolve().parent

BETAS = [0.5, 0.999]  # of Adam: DCGAN's, section 4
HINGE = dict(  # a discriminator of bounded slope: at the dataset's own --lr, which may be high
    loss="hinge", norm="spectral", penalty=0.0, critic_steps=1, betas=BETAS
)  # fmt: skip
MODELS = {  # what each brings
    "gan": dict(
        loss="non-saturating", norm="none", penalty=0.0, critic_steps=1, lr=2e-4, betas=BETAS
    ),
    "dcgan": HINGE,
    "wgan-gp": dict(
        loss="wasserstein", norm="none", penalty=10.0, critic_steps=5, lr=2e-4, betas=[0.0, 0.9]
    ),
    "cgan": HINGE,
}
IMAGES = dict(
    model="dcgan", **HINGE, lr=1e-3, epochs=8, batch_size=64, schedule="cosine", warmup=0,
    ema=0.999, latent_dim=64, clusters=0, channels=64, hidden_sizes=[256, 512], slope=1.0,
    augment=[], image_size=None,
)  # fmt: skip
DIGITS = {**IMAGES, "channels": 48}
RECIPES = {  # the defaults of each dataset; on images, short versions of the recorded ones
    "mnist": DIGITS,
    "mnist-sample": {  # few images show sooner what is asked for by its class
        **DIGITS, "model": "cgan", "epochs": 20, "batch_size": 32, "channels": 32, "ema": 0.99,
    },
    "fashion-mnist": DIGITS,
    "folder": {**IMAGES, "epochs": 40, "lr": 2e-4},
    "ring": {
        **IMAGES, "model": "wgan-gp", **MODELS["wgan-gp"], "penalty": 0.02, "critic_steps": 3,
        "lr": 1e-3, "betas": [0.5, 0.9], "epochs": 100, "batch_size": 256, "ema": 0.99,
        "latent_dim": 8, "hidden_sizes": [128, 128, 128],
    },
}  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.train_parser(__doc__, RECIPES, MODELS)
    add = parser.add_argument
    add("--model", choices=MODELS, help="brings loss, norm, penalty, steps, --betas; some --lr")
    add("--loss", choices=LOSSES, help="what the players minimise")
    add("--norm", choices=NORMS, help="in the discriminator")
    add("--slope", type=cli.positive, help="factor of the discriminator's logits")
    add("--penalty", type=cli.non_negative, help="λ of the gradient penalty")
    add("--critic-steps", type=cli.positive_int, help="discriminator's steps per generator step")
    add("--betas", type=cli.fraction, nargs=2, help="of Adam")
    add("--schedule", choices=SCHEDULES, help="how the learning rate of both moves")
    add("--warmup", type=cli.natural, help="steps of linear warm-up before the schedule")
    add("--ema", type=cli.fraction, help="decay of the moving average of the generator; 0: none")
    add("--latent-dim", type=cli.positive_int, help="numbers that a sample is made from")
    add("--clusters", type=cli.natural, help="classes that k-means finds, without labels; 0: none")
    add("--channels", type=cli.positive_int, help="of the largest feature maps")
    add("--hidden-sizes", type=cli.positive_int, nargs="+", help="layers of dense players")
    add("--augment", choices=CHANGES, nargs="*", help="changes to real and generated images alike")
    add("--image-size", type=cli.positive_int, help="pixels of a folder's images; default: theirs")
    add("--precision", choices=["float32", "bfloat16"], default="float32", help="of both (AMP)")
    return parser


def main(argv=None):
    args = cli.parse_training(make_parser(), RECIPES, FOLDER / "runs", argv)
    device = select_device(args.device)
    named = args.resume or "dataset" in args.given
    dataset = mnist.or_sample(args.dataset, named, FOLDER, args.data_dir)
    cli.switch_dataset(args, RECIPES, dataset, MODELS)
    check_flags(args)
    whole, validation = (split.to(device) for split in load_training(args))
    train = with_clusters(whole.subset(args.subset), args.clusters)
    if args.norm == "batch":
        cli.check_batch_norm(min(args.batch_size, len(train)))
    num_batches = train.num_batches(args.batch_size)
    total_steps = cli.total_steps(args, num_batches)
    if total_steps < args.critic_steps:
        raise UserError(
            f"{counted(total_steps, 'step')} in all: too few for --critic-steps {args.critic_steps}"
        )

    seed_everything(args.seed)
    kind = Kind.of(train, args.clusters)
    model = build_model(args, kind).to(device=device, memory_format=torch.channels_last)
    augment = Augmentation(args.augment, train.shape)
    judge = make_judge(args, whole, validation, real=validation)
    average = moving_average(model.generator, args.ema, warmup=True)
    optimizers = [
        torch.optim.Adam(player.parameters(), lr=args.lr, betas=args.betas)
        for player in (model.generator, model.discriminator)
    ]
    diary = Diary(judge.name)

    parts = dict(kind=kind, diary=diary, average=average, discriminator_optimizer=optimizers[1])
    with Run(FOLDER, args, model, optimizers[0], train, **parts) as run:
        schedules = [
            make_schedule(args.schedule, optimizer, args.lr, total_steps, args.warmup, run.step)
            for optimizer in optimizers
        ]
        run.announce(train, validation)
        for _ in range(run.epoch, args.epochs):
            model.train()
            batches = train.batches(args.batch_size, args.seed, run.epoch, skip=run.batch)
            for inputs, labels in run.progress(batches, num_batches):
                lr, step = schedules[0].get_last_lr()[0], run.step + 1

                loss, norm = discriminator_step(
                    model, optimizers[1], scaled(inputs), labels, args, augment
                )
                finite = diary.add("discriminator", step, loss, norm)
                if finite and step % args.critic_steps == 0:
                    g_loss, norm = generator_step(model, optimizers[0], labels, args, augment)
                    finite = diary.add("generator", step, g_loss, norm)
                    if average is not None:
                        average.update_parameters(model.generator)
                if not finite:
                    run.step, run.lr = step, lr
                    raise UserError(not_finite(run))
                for schedule in schedules:
                    schedule.step()
                run.log_step(loss, len(labels), lr=lr)
            generator = average.module if average else model.generator
            keep_frame(run.path, run.epoch + 1, sheet(generator))
            run.log_epoch(**judge.validate(generator))
        run.finish()
        from GAN.utils.plots import draw_players  # matplotlib is slow to import

        draw_players(run.path / "players.png", diary, dataset_name(vars(args)))
        make_film(run.path)


if __name__ == "__main__":
    cli.entry(main)
