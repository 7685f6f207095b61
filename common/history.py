"""A run's history: one row (a dict) per epoch, as a table and as text."""

import csv
import io
import math
from pathlib import Path


def read_metrics() -> dict[str, tuple[str, float, int]]:
    """How each metric is shown, from metrics.csv: its name with a unit, factor, decimals."""
    with open(Path(__file__).with_name("metrics.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {r["metric"]: (r["heading"], float(r["factor"]), int(r["decimals"])) for r in rows}


METRICS = read_metrics()


def best_row(history: list[dict]) -> dict:
    """The best epoch: the highest validation accuracy where there is one, then what is lowest; the
    last one of a run without a validation split."""
    if not validation_metrics(history[0]):
        return history[-1]
    lowest = f"validation_{lowest_metric(validation_metrics(history[0]))}"
    return max(history, key=lambda r: (r.get("validation_accuracy", 0), -r[lowest]))


def lowest_metric(metrics: dict[str, float]) -> str:
    """What has to be low: the loss, or a GAN's Fréchet distance, as its losses say too little."""
    return "loss" if "loss" in metrics else "frechet_distance"


def validation_metrics(row: dict) -> dict[str, float]:
    """The row's validation metrics by their plain names."""
    prefix = "validation_"
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}


def shown(name: str) -> tuple[str, float, int]:
    """How a metric is shown: its name with a unit, the factor to that unit, decimals."""
    return METRICS.get(name, (name.replace("_", " "), 1, 4))


def describe(metrics: dict[str, float]) -> str:
    """ "loss 0.0312 nats, accuracy 98.76 %", for people; a unit stands once after its numbers"""
    parts = []
    for key, value in metrics.items():
        heading, factor, decimals = shown(key)
        name, _, unit = heading.partition(", ")
        if parts and parts[-1][1] == unit:
            parts[-1] = (parts[-1][0], "")
        decimals = decimals if abs(value) < 10 else min(decimals, 2)
        parts.append((f"{name} {factor * value:.{decimals}f}", unit))
    return ", ".join(f"{text} {unit}".strip() for text, unit in parts)


def counted(number: int, noun: str) -> str:
    """ "1 epoch", "20 epochs" """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def to_csv(history: list[dict]) -> str:
    """The text of history.csv."""
    text = io.StringIO()
    columns = {key: None for row in history for key in row}  # of older rows, some are empty
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def progress(state: dict, *names: str) -> dict:
    """What a checkpoint says under these names. Raises an error where it contradicts itself."""
    rows, stands = state["history"], [state[name] for name in ("epoch", "step", "batch")]
    numbers = [row[k] for row in rows for k in row.keys() - {"dataset"} | {"seconds", "train_loss"}]
    total = sum([*numbers, *stands, *state["train_loss"], state["lr"], state["seconds"]])
    epochs = [row["epoch"] for row in rows if best_row(rows)]
    if epochs != list(range(1, stands[0] + 1)) or not math.isfinite(total) or min(stands) < 0:
        raise ValueError("its history is not one of finite numbers, an epoch a row")
    return {name: state[name] for name in names}
