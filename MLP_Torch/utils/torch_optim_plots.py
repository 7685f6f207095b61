"""What the study of torch.optim found: the best rates, and its picture."""

import statistics
from itertools import product
from pathlib import Path

from matplotlib.ticker import LogLocator

from common.plots import new_figure, save
from MLP_Torch.utils.optim import OPTIMIZERS


def matching(study: dict, **key) -> list[dict]:
    """The rows of a study that have these values."""
    return [row for row in study["rows"] if key.items() <= row.items()]


def draw(path: Path, study: dict, by_hand: dict, points: int) -> None:
    """By hand as lines, torch.optim as points upon them: above, the curves of seed 0 at the best
    rates (`points` an epoch); below, the error at every rate, where no seed diverged."""
    datasets = study["settings"]["datasets"]
    figure, axes = new_figure(2, len(datasets), (7 * len(datasets), 9))
    for dataset, curves, rates in zip(datasets, *axes, strict=True):
        for number, (name, best) in enumerate(study["best"][dataset].items()):
            for source, style, label in ((by_hand, "-", name), (study, ".", None)):
                for row in matching(source, dataset=dataset, optimizer=name, lr=best, seed=0):
                    at = [(n + 0.5) / points for n in range(len(row["curve"]))]
                    curves.plot(at, row["curve"], style, color=f"C{number}", label=label)
                means = mean_accuracies(source, dataset)[name]
                errors = [100 - 100 * mean for mean in means.values()]
                rates.plot([*means], errors, style, color=f"C{number}", label=label)
        curves.set(yscale="log", title=dataset, xlabel="epoch", ylabel="training loss, nats")
        rates.set(yscale="log", xscale="log", xlabel="learning rate", ylabel="validation error, %")
        rates.xaxis.set_major_formatter("{x:g}")
        curves.legend(title="line: by hand\npoints: torch.optim", fontsize="small")
        for axis in (curves, rates):
            axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))  # 1, 2, 3, 5, 10, …
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
            axis.grid(alpha=0.3)
    save(figure, path)


def mean_accuracies(study: dict, dataset: str) -> dict[str, dict[float, float]]:
    """Of every optimiser, at each rate of those that never diverged."""
    means: dict[str, dict[float, float]] = {name: {} for name in OPTIMIZERS}
    for name, lr in product(OPTIMIZERS, study["settings"]["rates"]):
        found = matching(study, dataset=dataset, optimizer=name, lr=lr)
        if found and not any(row["diverged"] for row in found):
            means[name][lr] = statistics.fmean(row["accuracy"] for row in found)
    return means


def best_rates(by_hand: dict, dataset: str) -> dict[str, float]:
    """Of every optimiser, the rate with the highest mean accuracy."""
    means = mean_accuracies(by_hand, dataset)
    return {name: max(rates, key=rates.get) for name, rates in means.items() if rates}
