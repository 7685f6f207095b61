"""Figures in the text of the studies: they follow from the studies' rows, as computed here."""

import re
from collections.abc import Callable
from statistics import mean

import numpy as np
import pytest

from common.data import ROOT
from common.results import rows
from tests.test_figures import flat


def found(folder: str, study: str, value: Callable[[dict], float], **key) -> float:
    """The mean of a value over the rows of a study that have these keys."""
    record = rows.read(ROOT / folder / "results" / f"compare_{study}.json")
    return mean(value(row) for row in rows.matching(record, **key))


def reached(study: str, place: int, **key) -> float:
    """What a network of studies/ has at its mark number `place`, as its table shows it."""

    def value(row: dict) -> float:
        ((name, values),) = row["validation"].items()
        return values[place] * (100 if name == "accuracy" else 1)

    return found("studies", study, value, **key)


def passes(study: str, place: int, network: str) -> float:
    return found("studies", study, lambda row: row["epochs"][place], network=network)


def pass_seconds(study: str, network: str) -> float:
    whole = found("studies", study, lambda row: row["seconds"][-1], network=network)
    return whole / passes(study, -1, network)


def passes_of_mlp_to(accuracy: float) -> float:
    marks = [(reached("images", n, network="mlp"), passes("images", n, "mlp")) for n in range(3)]
    return np.interp(accuracy, *zip(*marks, strict=True))


def layers(pair: str, twin: str, *names: str) -> float:
    """Milliseconds of some layers, forward and backward."""
    return found(
        "studies", "twins",
        lambda row: sum(sum(row["layers"][name][twin].values()) for name in names),
        what="profile", pair=pair,
    )  # fmt: skip


def optimiser(twin: str) -> float:
    value = lambda row: row["parts"][twin]["optimiser"]  # noqa: E731
    return found("studies", "twins", value, what="step", pair="MLP")


def ratios() -> list[float]:
    record = rows.read(ROOT / "studies" / "results" / "compare_twins.json")
    return [row["ratio"][1] for row in rows.matching(record, what="step")]


def trained_step(twin: str) -> float:
    """Milliseconds of a step of the LSTM in the short trainings."""
    value = lambda row: 1000 * row["seconds"][-1] / row["steps"][-1]  # noqa: E731
    return found("studies", "twins", value, what="training", pair="LSTM", twin=twin)


def best_optimizers(dataset: str) -> list[float]:
    """The accuracy of each optimiser at its best rate, in %."""
    record = rows.read(ROOT / "MLP_Manual" / "results" / "compare_optimizers.json")
    scores = {}
    for row in rows.matching(record, dataset=dataset):
        score = 0.0 if row["diverged"] else 100 * row["accuracy"]
        scores.setdefault((row["optimizer"], row["lr"]), []).append(score)
    names = {name for name, _ in scores}
    return [max(mean(scores[key]) for key in scores if key[0] == name) for name in names]


def largest_difference_by_torch() -> float:
    """Of the mean accuracies after three epochs, by hand and by torch.optim, in points."""
    record = rows.read(ROOT / "MLP_Torch" / "results" / "compare_torch_optim.json")
    kinds = {(row["dataset"], row["optimizer"]) for row in record["rows"]}
    return max(
        abs(mean(100 * (row["accuracy"] - row["by_hand"]) for row in
                 rows.matching(record, dataset=dataset, optimizer=name)))
        for dataset, name in kinds
    )  # fmt: skip


def plain_error(depth: int) -> float:
    value = lambda row: row["training"]["error"][-1]  # noqa: E731
    return found("ResNet", "depth", value, network="plain", depth=depth)


def code(name: str, model: str, size: int) -> float:
    return found("VAE", "codes", lambda row: row["validation"][name], model=model, latent_dim=size)


TRANSFORMERS = ("transformer", "transformer-torch")
WORDS = {"a": 1, "half": 0.5, "twice": 2, "four": 4, "six": 6}
FIGURES: list[tuple[str, str, Callable[[], float], float]] = [
    ("studies", "After three minutes it has {1.506} nats",
     lambda: reached("text", 2, network="gru"), 0.0005),
    ("studies", "and the LSTM has {1.515}", lambda: reached("text", 2, network="lstm"), 0.0005),
    ("studies", "after one minute it has {1.587} nats",
     lambda: reached("text", 0, network="rnn"), 0.0005),
    ("studies", "two more minutes bring {0.004}",
     lambda: reached("text", 0, network="rnn") - reached("text", 2, network="rnn"), 0.0005),
    ("studies", "A pass over the text takes them {60} seconds",
     lambda: mean(pass_seconds("text", name) for name in TRANSFORMERS), 1),
    ("studies", "and the GRU {25}.", lambda: pass_seconds("text", "gru"), 1),
    ("studies", "After three passes they have {1.61} nats",
     lambda: mean(reached("text", 2, network=name) for name in TRANSFORMERS), 0.005),
    ("studies", "The GRU has {1.56} after", lambda: reached("text", 0, network="gru"), 0.005),
    ("studies", "{93.3} % after four", lambda: reached("images", 2, network="cnn"), 0.05),
    ("studies", "The MLP follows with {91.2} %", lambda: reached("images", 2, network="mlp"), 0.05),
    ("studies", "has seen the data {23} times", lambda: passes("images", 2, "mlp"), 0.5),
    ("studies", "it has {89.6} %. The MLP", lambda: reached("images", 2, network="resnet"), 0.05),
    ("studies", "The MLP needs about {six} for that",
     lambda: passes_of_mlp_to(reached("images", 2, network="resnet")), 0.5),
    ("studies", "an epoch takes it almost {four} minutes",
     lambda: pass_seconds("images", "resnet") / 60, 0.5),
    ("studies", "words and pairs has {91.3} % after",
     lambda: found("studies", "reviews", lambda row: 100 * row["best"], network="bag-2"), 0.05),
    ("studies", "after {36} seconds",
     lambda: found("studies", "reviews", lambda row: row["fitted"], network="bag-2"), 0.5),
    ("studies", "The LSTM has {89.9} %", lambda: reached("reviews", 2, network="lstm"), 0.05),
    *(("studies", text, lambda mark=mark: reached("reviews", mark, network="lstm")
       - reached("reviews", mark, network="lstm-shuffled"), 0.05) for mark, text in enumerate((
        "Order is worth {0.2}, 0.5", "is worth 0.2, {0.5} and", "0.5 and {1.1} points to"))),
    ("studies", "bring the bag {1.4} points",
     lambda: 100 * (found("studies", "reviews", lambda row: row["best"], network="bag-2")
                    - found("studies", "reviews", lambda row: row["best"], network="bag-1")), 0.05),
    ("studies", "falls too, from {89.6} to",
     lambda: reached("reviews", 1, network="lstm-shuffled"), 0.05),
    ("studies", "to {88.7} %. On words",
     lambda: reached("reviews", 2, network="lstm-shuffled"), 0.05),
    ("studies", "seen the reviews {12} to 13 times", lambda: passes("reviews", 2, "mean"), 0.7),
    ("studies", "it made {24} passes", lambda: passes("text", 2, "rnn"), 0.5),
    ("studies", "and the Transformers {3}.", lambda: passes("text", 2, "transformer"), 0.1),
    ("studies", "gets less: {86.4} % after", lambda: reached("images", 2, network="vit"), 0.05),
    ("studies", "% after {1.4} passes", lambda: passes("images", 2, "vit"), 0.05),
    ("studies", "A step by hand takes {0.74} to", lambda: min(ratios()), 0.005),
    ("studies", "takes 0.74 to {1.31} of", lambda: max(ratios()), 0.005),
    ("studies", "wins that back: {8.4} ms", lambda: optimiser("manual"), 0.05),
    ("studies", "ms instead of {10.8}.", lambda: optimiser("torch"), 0.05),
    *(("studies", text, lambda twin=twin, pair=pair, names=names: layers(pair, twin, *names), 0.6)
      for text, twin, pair, *names in (
          ("in its convolutions, {64} ms", "manual", "CNN", "Conv2d"),
          ("64 ms instead of {43}", "torch", "CNN", "Conv2d"),
          ("its pooling, {17} instead", "manual", "CNN", "MaxPool2d"),
          ("17 instead of {13}.", "torch", "CNN", "MaxPool2d"),
          ("slower by hand, {73} ms", "manual", "LanguageModel", "GELU", "LayerNorm"),
          ("73 ms instead of {28}", "torch", "LanguageModel", "GELU", "LayerNorm"))),
    ("studies", "LayerNorm costs {38} ms more", lambda: layers("Transformer", "manual", "LayerNorm")
     - layers("Transformer", "torch", "LayerNorm"), 0.5),
    ("studies", "the loss costs {62} ms less",
     lambda: layers("Transformer", "torch", "CrossEntropy")
     - layers("Transformer", "manual", "CrossEntropy"), 0.5),
    ("studies", "a step by hand takes {65} ms", lambda: trained_step("manual"), 0.6),
    ("studies", "65 ms and PyTorch's {47}.", lambda: trained_step("torch"), 0.6),
    ("MLP_Manual", "lie within {1.1} points on MNIST",
     lambda: max(best_optimizers("mnist")) - min(best_optimizers("mnist")), 0.05),
    ("MLP_Torch", "differ by {0.2} points at most", largest_difference_by_torch, 0.05),
    *(("CNN_Torch", text, lambda name=name: found(
        "CNN_Torch", "tune", lambda row: 100 * row["validation"]["accuracy"], recipe=name), 0.005)
      for text, name in (("by hand: {89.27} %", "tpe"), ("instead of {88.61} %", "by hand"),
                         ("that is worse, {87.87} %", "random"))),
    ("ResNet", "44 layers make {twice} as many", lambda: plain_error(44) / plain_error(8), 0.15),
    ("VAE", "its KL stays at {24} to 25 nats", lambda: code("kl", "vae", 20), 0.5),
    ("VAE", "its KL stays at 24 to {25} nats", lambda: code("kl", "vae", 50), 0.5),
    ("VAE", "50 numbers cost {half} a nat",
     lambda: code("log_likelihood", "vae", 20) - code("log_likelihood", "vae", 50), 0.25),
    ("VAE", "both are stuck at {87} nats",
     lambda: mean(code("filled_in", model, 50) for model in ("ae", "vae")), 0.6),
    ("VAE", "autoencoder needs {61},", lambda: code("filled_in", "dae", 50), 0.5),
]  # fmt: skip


@pytest.mark.parametrize("folder, text, follows, within", FIGURES, ids=[f[1] for f in FIGURES])
def test_a_figure_of_a_study_follows_from_its_rows(folder, text, follows, within):
    (figure,) = re.findall(r"\{(.+?)\}", text)
    assert flat(folder).count(re.sub(r"[{}]", "", text)) == 1, "the README has changed"
    value = WORDS[figure] if figure in WORDS else float(figure)
    assert abs(follows() - value) <= within + 1e-9, follows()
