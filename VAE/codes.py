"""How long a code has to be, and what is near in it: `python VAE/codes.py` (forty minutes).

A plain autoencoder, one that sees its images with pixels missing and has to fill them in
(denoising: Vincent et al., 2008, section 2.3), and a VAE, each with codes of 2 to 50 numbers:
reconstruction, log-likelihood, and whether an image's nearest neighbour among the codes is of its
class. Rows are kept as they are found, so a study that was stopped goes on where it was.
"""

from argparse import Namespace
from itertools import product
from pathlib import Path
from statistics import mean

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import Tensor

from common import cli
from common.data import Split
from common.device import machine, seed_everything, select_device
from common.errors import UserError, printable
from common.metrics import RunningMean
from common.plots import new_figure, save
from common.results import rows, tables
from common.results.report import mean_std
from common.schedules import make_schedule
from VAE.dataset import load_training, mnist
from VAE.model import Autoencoder, Terms
from VAE.train import RECIPES
from VAE.utils.bounds import OBJECTIVES, kl_to_prior
from VAE.utils.build import build_model
from VAE.utils.importance import estimate_split
from VAE.utils.likelihoods import grey_levels, uniform
from VAE.utils.neighbours import draw_neighbours, neighbours
from VAE.utils.pictures import encode_all

FOLDER = Path(__file__).resolve().parent
RECORD = FOLDER / "results" / "compare_codes.json"
MODELS = {"pixels": "pixels, no code", "ae": "autoencoder", "dae": "denoising autoencoder",
          "vae": "VAE"}  # fmt: skip
LATENT_DIMS = [2, 5, 10, 20, 50]
MISSING = 0.25  # share of the pixels that the denoising autoencoder does not see
LIKELIHOOD_IMAGES = 1_000  # of validation, whose log-likelihood is estimated
KNOWN = 10_000  # training images that neighbours are looked for among
PICTURED = [("pixels", None), ("ae", 2), ("vae", 2), ("vae", 50)]
QUICK = dict(dataset="mnist-sample", subset=1_000, epochs=1, seeds=2, samples=10)
SETTINGS = ("dataset", "subset", "epochs", "samples")


def hide(x: Tensor, generator=None) -> Tensor:
    """Observed images (N, D) with a share of their pixels set to 0 (masking noise)."""
    return x * (uniform(x.shape, x.device, generator) >= MISSING).to(x.dtype)


def look(model: Autoencoder, kind: str, x: Tensor) -> Terms:
    """As model(x); but a denoising autoencoder's code is of what is left of x, and its likelihood
    of all that there was."""
    if kind != "dae":
        return model(x)
    z, _ = model.encode(hide(x))
    return Terms(model.likelihood.log_prob(model.decode(z[:, None]), x), z[:, None], z, None)


def fit(model: Autoencoder, kind: str, train: Split, recipe: Namespace, seed: int) -> None:
    """As train.py does it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr)
    steps = recipe.epochs * train.num_batches(recipe.batch_size)
    schedule = make_schedule(recipe.schedule, optimizer, recipe.lr, steps, 0)
    objective = OBJECTIVES["vae" if kind == "vae" else "ae"]
    model.train()
    for epoch in range(recipe.epochs):
        for images, _ in train.batches(recipe.batch_size, seed, epoch):
            x = model.likelihood.observe(images)
            loss = objective(look(model, kind, x), 1.0).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def measure(model: Autoencoder, data: Split) -> dict[str, float]:
    """Nats per image: −log p(x | z) with the code of x, for a VAE the mean of q, and with the code
    of what is left of x when pixels are missing; the KL of a VAE."""
    pixels, holes = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    means = {name: RunningMean() for name in ("reconstruction", "filled_in", "kl")}
    for images, _ in data.in_order():
        x = model.likelihood.observe(images, pixels)
        for name, seen in (("reconstruction", x), ("filled_in", hide(x, holes))):
            mu, logvar = model.encode(seen)
            outputs = model.decode(mu[:, None])
            means[name].add(-model.likelihood.log_prob(outputs, x).mean(), len(x))
            if name == "reconstruction" and logvar is not None:
                means["kl"].add(kl_to_prior(mu, logvar).sum(1).mean(), len(x))
    return {name: mean.value for name, mean in means.items() if mean.count}


def of(study: dict, model: str, latent_dim: int | None) -> list[dict]:
    return rows.matching(study, model=model, latent_dim=latent_dim)


def values(found: list[dict], name: str) -> list[float]:
    return [row["validation"][name] for row in found if name in row["validation"]]


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    shown = {"reconstruction, nats": ("reconstruction", 1), "with holes, nats": ("filled_in", 1),
             "KL, nats": ("kl", 1), "log-likelihood, nats": ("log_likelihood", 1),
             "nearest neighbour of the same class, %": ("same_class", 100)}  # fmt: skip
    lines = [["code", "numbers", *shown, "seeds"]]
    for model, J in product(MODELS, (None, *LATENT_DIMS)):
        found = of(study, model, J)
        if found:
            cells = [(values(found, name), factor) for name, factor in shown.values()]
            cells = [mean_std(v, factor, 1) if v else "" for v, factor in cells]
            lines.append([MODELS[model], f"{J or ''}", *cells, f"{len(found)}"])
    settings = study["settings"]
    note = f"{settings['dataset']}, {settings['epochs']} epochs; validation split. Holes: a share "
    note += f"of {MISSING:.0%} of the pixels is not seen. The log-likelihood is that of "
    note += f"{LIKELIHOOD_IMAGES:,} images at most, by importance sampling with "
    note += f"{settings['samples']:,} codes of each. Neighbours are looked for among {KNOWN:,} "
    note += f"training images at most. Mean ± standard deviation ({machine(study['environment'])})."
    return "\n".join([*tables.table(lines), "", note, "", f"`{study['command']}`", "",
                      "![Over the numbers in a code](results/codes.png)", "",
                      "![Nearest neighbours](results/codes_neighbours.png)"])  # fmt: skip


def draw(path: Path, study: dict) -> None:
    """What was measured, over the numbers in a code."""
    panels = {"reconstruction": "−log p(x | z), nats", "filled_in": "the same with holes, nats",
              "log_likelihood": "log-likelihood, nats",
              "same_class": "nearest neighbour of the same class"}  # fmt: skip
    figure, axes = new_figure(2, 2, (10, 7.2))
    for axis, (name, label) in zip(axes.flat, panels.items(), strict=True):
        for number, model in enumerate(MODELS):
            dims = [J for J in LATENT_DIMS if values(of(study, model, J), name)]
            for J in dims:
                found = values(of(study, model, J), name)
                axis.plot([J] * len(found), found, "o", ms=4, color=f"C{number}", alpha=0.5)
            if dims:
                means = [mean(values(of(study, model, J), name)) for J in dims]
                axis.plot(dims, means, color=f"C{number}", label=MODELS[model])
            elif values(of(study, model, None), name):
                pixels = values(of(study, model, None), name)[0]
                axis.axhline(pixels, color="k", ls=":", label=MODELS[model])
        axis.set_xscale("log")
        axis.set_xticks(LATENT_DIMS, map(str, LATENT_DIMS))
        axis.set_xticks([], minor=True)
        axis.set(xlabel="numbers in a code", ylabel=label)
        axis.legend()
        axis.grid(alpha=0.3)
    save(figure, path)


def main(argv=None):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    names = [name for name in RECIPES if name != "folder"]  # whose images may lie on the disk
    add("--dataset", choices=names, help="what to learn (default: mnist)")
    add("--data-dir", type=cli.place, help="where the data lies; before $PLAYGROUND_DATA")
    add("--subset", type=cli.positive_int, help="train on this many images only")
    add("--epochs", type=cli.positive_int, default=8, help="passes over them")
    add("--samples", type=cli.positive_int, default=200, help="codes per image, for log p(x)")
    add("--seeds", type=cli.positive_int, default=3, help="trainings of each network: 0, 1, …")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--quick", action="store_true", help="a few digits, few steps, to see that it works")
    add("--output", metavar="FILE", help="the rows (default: runs/codes.json)")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    if args.quick:
        vars(args).update(QUICK)
    else:
        named, dataset = args.dataset is not None, args.dataset or "mnist"
        args.dataset = mnist.or_sample(dataset, named, FOLDER, args.data_dir)
    path = Path(args.output or FOLDER / "runs" / ("quick" * args.quick) / "codes.json")
    recipe = Namespace(**{**RECIPES[args.dataset], "epochs": args.epochs})
    data = Namespace(**vars(args), refit=False, image_size=None)
    train, validation = (s.to(device) for s in load_training(data))
    train = train.subset(args.subset)
    if len(train) < 2:
        raise UserError("--subset 1 is too few: batch normalisation needs two images")
    known = train.subset(min(KNOWN, len(train)))
    likely = validation.subset(min(LIKELIHOOD_IMAGES, len(validation)))

    def make(model: str, latent_dim: int | None, seed: int) -> dict:
        if model == "pixels":
            pair = (grey_levels(split.inputs) for split in (validation, known))
            found = neighbours(*pair, validation, known)
        else:
            seed_everything(seed)
            recipe.model, recipe.latent_dim = "vae" if model == "vae" else "ae", latent_dim
            network = build_model(recipe, train).to(device)
            fit(network, model, train, recipe, seed)
            network.eval()
            found = measure(network, validation)
            if model == "vae":
                found["log_likelihood"] = estimate_split(network, likely, args.samples)[1]
            pair = (encode_all(network, split)[0] for split in (validation, known))
            with torch.no_grad():
                found |= neighbours(*pair, validation, known)
        near = found.pop("neighbours")
        keep = seed == 0 and (model, latent_dim) in PICTURED
        shown = "  ".join(f"{name} {value:.2f}" for name, value in found.items())
        print(f"seed {seed}  {model:6}  {latent_dim or '':3}  {shown}", flush=True)
        return {"validation": found, **({"neighbours": near} if keep else {})}

    trained = product(range(args.seeds), LATENT_DIMS, [m for m in MODELS if m != "pixels"])
    keys = [dict(model="pixels", latent_dim=None, seed=0)]
    keys += [dict(model=model, latent_dim=J, seed=seed) for seed, J, model in trained]
    settings = {name: getattr(args, name) for name in SETTINGS}
    words = [f"--{name} {value}" for name, value in settings.items() if value]
    command = " ".join(["python VAE/codes.py", *(["--quick"] if args.quick else words)])
    study = rows.collect(path, settings, command, device, keys, make)
    draw(path.with_name("codes.png"), study)
    near = {MODELS[model] + (f", {J} numbers" if J else ""): row["neighbours"]
            for model, J in PICTURED for row in of(study, model, J)[:1]}  # fmt: skip
    draw_neighbours(path.with_name("codes_neighbours.png"), near, validation, known)
    print(f"\n{table(path)}\n\nrows in {printable(path)}, pictures beside them")


if __name__ == "__main__":
    cli.entry(main)
