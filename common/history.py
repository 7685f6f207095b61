"""A run's history: one row (a dict) per epoch, as a table and as text."""

import csv
import io
from pathlib import Path


def best_row(history: list[dict]) -> dict:
    """The best epoch: the highest validation accuracy where there is one, then what is lowest.

    The last one of a run without a validation split.
    """
    if not validation_metrics(history[0]):
        return history[-1]
    lowest = f"validation_{lowest_metric(validation_metrics(history[0]))}"
    return max(history, key=lambda r: (r.get("validation_accuracy", 0), -r[lowest]))


def lowest_metric(metrics: dict[str, float]) -> str:
    """The name of what has to be low: the loss, or of a GAN, whose losses do not say how good it
    is, the Fréchet distance."""
    return "loss" if "loss" in metrics else "frechet_distance"


def validation_metrics(row: dict) -> dict[str, float]:
    """The row's validation metrics by their plain names."""
    prefix = "validation_"
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}


def describe(metrics: dict[str, float], prefix: str = "") -> str:
    """ "val loss 0.0312  val accuracy 98.76%", for people"""
    return "  ".join(
        f"{prefix}{name} {value:.2%}" if name == "accuracy" else f"{prefix}{name} {value:.4f}"
        for name, value in metrics.items()
    )


def to_csv(history: list[dict]) -> str:
    """The text of history.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def read_csv(path: Path):
    """The epochs, seconds and validation metrics of a history.csv, as a pandas table of numbers.

    Raises KeyError, OSError or ValueError where it is damaged or cut off: a run writes all of it,
    with a line feed at the end.
    """
    import pandas as pd  # slow to import

    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    table = pd.read_csv(io.StringIO(text), dtype=str)
    table = table.filter(regex="^(epoch|seconds|validation_.*)$").astype(float)
    is_whole = text.endswith("\n") and (table.abs() < float("inf")).all(axis=None)
    if not is_whole or list(table["epoch"]) != list(range(1, len(table) + 1)):
        raise ValueError("not a row for every epoch")
    return table
