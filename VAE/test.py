"""Evaluate a run of an autoencoder on the test split, and draw what it learned."""

from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch

from common import cli
from common.console import print_metrics
from common.folders import dataset_name
from common.results.records import write_record
from VAE.dataset import coloured_shapes, load_test, load_training
from VAE.train import evaluate
from VAE.utils.bounds import active_units, kl_to_prior
from VAE.utils.factors import information, mutual_information_gap
from VAE.utils.importance import estimate_split
from VAE.utils.pictures import (
    ROWS,
    column_labels,
    columns_of,
    draw_reconstructions,
    draw_sheet,
    encode_all,
    sample_codes,
)
from VAE.utils.plots import (
    draw_factors,
    draw_latent_grid,
    draw_scatter,
    draw_traversals,
    draw_units,
)
from VAE.utils.trained import load_trained

FOLDER = Path(__file__).resolve().parent
SAMPLES = 5_000


@torch.no_grad()
def main(argv=None):
    parser = cli.test_parser(__doc__)
    help_samples = "codes of each image that its log-likelihood is estimated with"
    parser.add_argument("--samples", type=cli.positive_int, default=SAMPLES, help=help_samples)
    args = parser.parse_args(argv)
    run_dir, config, model = load_trained(FOLDER, args)
    test = load_test(config).to(config.device)
    metrics, signatures = evaluate(model, test, config), None
    name = dataset_name(vars(config))
    title = f"{name}: test split, {config.model}"
    print(f"{run_dir}: test split of {name}, {len(test):,} examples", flush=True)

    mu, logvar = encode_all(model, test)
    if config.model != "ae":
        if model.likelihood.is_likelihood:
            bounds = estimate_split(model, test, args.samples)
            metrics["elbo"], metrics["log_likelihood"] = bounds
            given = " given its class" if model.num_classes else ""
            signatures = {
                "log_likelihood": f"of an image{given}, by importance sampling with "
                f"{args.samples:,} codes each; {config.likelihood} pixels, seen once, with seed 0"
            }
        kl, active = kl_to_prior(mu, logvar).mean(0), active_units(mu)
        metrics["active_units"] = int(active.sum())
        draw_units(run_dir / "units.png", kl, active, title)
        draw_traversals(run_dir / "traversals.png", model, mu[:1], test.labels[:1], kl, title)
    if config.dataset == "shapes":
        _, factors = coloured_shapes.make_with_factors("test")
        shares = information(mu, factors)
        metrics["mig"] = mutual_information_gap(shares)
        draw_factors(run_dir / "factors.png", shares, list(factors), title)
    print_metrics(metrics)

    columns = columns_of(model)
    z = sample_codes(model, ROWS * columns, torch.Generator().manual_seed(0), seen=mu)
    pictures = model.pictures(z, column_labels(model, len(z), columns))
    by_class = ", a class in each column" if model.num_classes else ""
    what = f"{name}, {config.model}: new images{by_class}"
    draw_sheet(run_dir / "samples.png", pictures, what, columns)
    draw_reconstructions(run_dir / "reconstructions.png", model, test, title)
    draw_scatter(run_dir / "scatter.png", mu, test.labels, test.classes, title)
    if config.latent_dim == 2:
        draw_latent_grid(run_dir / "latent_grid.png", model, mu, title)
    print(f"pictures in {run_dir}")

    if args.record:
        train, validation = load_training(config)
        splits = {"train": train.subset(config.subset), "validation": validation, "test": test}
        write_record(FOLDER, args, run_dir, config, model, splits, metrics, signatures)


if __name__ == "__main__":
    cli.entry(main)
