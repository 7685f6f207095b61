"""What the study of optimisers found: the best rates, the cells of its table, and its picture."""

import statistics
from pathlib import Path

from matplotlib.ticker import LogLocator

from common.plots import new_figure, save


def of(record: dict, dataset: str, name: str, lr: float) -> list[dict]:
    """The rows of an optimiser with a rate, of all seeds."""
    wanted = {"dataset": dataset, "optimizer": name, "lr": lr}
    return [row for row in record["rows"] if wanted.items() <= row.items()]


def accuracies(rows: list[dict]) -> list[float]:
    """Who diverged can but guess one class of ten."""
    return [row.get("accuracy", 0.1) for row in rows]


def best_rates(record: dict, dataset: str) -> dict[str, float]:
    """Optimiser -> the rate of the highest mean accuracy on the validation split."""
    means: dict[str, dict[float, float]] = {}
    for name in dict.fromkeys(row["optimizer"] for row in record["rows"]):
        for lr in record["settings"]["rates"]:
            if rows := of(record, dataset, name, lr):
                means.setdefault(name, {})[lr] = statistics.fmean(accuracies(rows))
    return {name: max(rates, key=rates.get) for name, rates in means.items()}


def reached(record: dict, dataset: str, name: str, at: int) -> str:
    """A cell: mean ± standard deviation with the rate of this number; "–" beyond the grid."""
    rates = record["settings"]["rates"]
    rows = of(record, dataset, name, rates[at]) if 0 <= at < len(rates) else []
    if not rows:
        return "–"
    if all(row["diverged"] for row in rows):
        return "diverges"
    found = [100 * value for value in accuracies(rows)]
    spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
    return f"{statistics.fmean(found):.2f}{spread}"


def draw_study(path: Path, record: dict) -> None:
    """A row of panels for each dataset: validation error over the learning rate, and the training
    loss at the best rate over steps and over seconds."""
    datasets, settings = record["settings"]["datasets"], record["settings"]
    powers = [10.0**k for k in range(-5, 2) if 10.0**k <= max(settings["rates"])]
    powers = [power for power in powers if power >= min(settings["rates"])]
    figure, axes = new_figure(len(datasets), 3, size=(14, 4.2 * len(datasets)))
    for dataset, (rates, steps, seconds) in zip(datasets, axes, strict=True):
        for color, (name, best) in enumerate(best_rates(record, dataset).items()):
            rows = [of(record, dataset, name, lr) for lr in settings["rates"]]
            known = [
                (lr, accuracies(r)) for lr, r in zip(settings["rates"], rows, strict=True) if r
            ]
            errors = [[100 * (1 - value) for value in values] for _, values in known]
            style = dict(color=f"C{color}", label=name)
            rates.plot([lr for lr, _ in known], [*map(statistics.fmean, errors)], ".-", **style)
            rates.fill_between(
                [lr for lr, _ in known], [*map(min, errors)], [*map(max, errors)],
                color=f"C{color}", alpha=0.2,
            )  # fmt: skip
            curves = [row["curve"] for row in of(record, dataset, name, best) if "curve" in row]
            if not curves:
                continue
            loss = [statistics.fmean(values) for values in zip(*curves, strict=True)]
            part = settings["steps_per_epoch"][dataset] * settings["epochs"] / len(loss)
            at = [part * (number + 0.5) for number in range(len(loss))]
            steps.plot(at, loss, **style)
            if name in record["steps"]:
                one = record["steps"][name]["step_milliseconds"] / 1000
                seconds.plot([one * step for step in at], loss, **style)
        rates.set(xscale="log", yscale="log", xlabel="learning rate", title=dataset)
        rates.set_ylabel("validation error, %")
        rates.set_xticks(powers, [f"{power:g}" for power in powers])
        for axis, of_what in ((steps, "steps"), (seconds, "seconds")):
            axis.set(yscale="log", ylim=(None, 3), xlabel=of_what, ylabel="training loss, nats")
            axis.set_title("at the best rate")
        for axis in (rates, steps, seconds):  # plain numbers: 1, 2, 3, 5, 10, …
            axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
            axis.tick_params(axis="y", which="both", labelsize="small")
        rates.legend(fontsize="small")
    save(figure, path)
