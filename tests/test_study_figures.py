"""Figures in the text of the studies: they follow from the studies' rows, as computed here."""

import itertools
import json
import math
import re
from collections.abc import Callable
from statistics import mean, variance

import numpy as np
import pytest

from CNN_Torch import lr_range
from CNN_Torch.regularisation import BATCH_SIZE
from common.data import ROOT
from common.results import rows
from MLP_Manual.utils.optimizer_plots import best_rates
from MLP_Torch import torch_optim
from studies import verdict
from tests import prose
from tests.test_figures import flat, measured, runs
from tests.test_readmes import anchors
from Transformer_Torch import parts


def read(folder: str, study: str) -> dict:
    return rows.read(ROOT / folder / "results" / f"compare_{study}.json")


def found(folder: str, study: str, value: Callable[[dict], float], **key) -> float:
    """The mean of a value over the rows of a study that have these keys."""
    return mean(value(row) for row in rows.matching(read(folder, study), **key))


def reached(study: str, place: int, **key) -> float:
    """What a network of studies/ has at its mark number `place`, as its table shows it."""

    def value(row: dict) -> float:
        ((name, values),) = row["validation"].items()
        return values[place] * (100 if name == "accuracy" else 1)

    return found("studies", study, value, **key)


def passes(study: str, place: int, network: str) -> float:
    return found("studies", study, lambda row: row["epochs"][place], network=network)


def brought(network: str, since: int, until: int) -> float:
    """By how much the loss of a language model fell between two marks."""
    return reached("text", since, network=network) - reached("text", until, network=network)


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
    return [row["ratio"][1] for row in rows.matching(read("studies", "twins"), what="step")]


def spread_of_paces() -> float:
    """By how much more steps a seed made in the same time than another, at most."""
    counts: dict[tuple, list] = {}
    for study in ("text", "images", "reviews"):
        for row in read("studies", study)["rows"]:
            for mark, steps in enumerate(row.get("steps", [])):
                counts.setdefault((study, row["network"], mark), []).append(steps)
    return max(max(steps) / min(steps) for steps in counts.values()) - 1


def step_seconds(network: str) -> float:
    value = lambda row: row["seconds"][-1] / row["steps"][-1]  # noqa: E731
    return found("studies", "text", value, network=network)


def rnn_step() -> float:
    """A third, if an RNN's step takes no larger share of the time of either other cell's."""
    shares = [step_seconds("rnn") / step_seconds(name) for name in ("gru", "lstm")]
    return math.ceil(3 * max(shares)) / 3


def order() -> list[float]:
    """What the order of words brings the LSTM at each mark, in points."""
    return [reached("reviews", mark, network="lstm")
            - reached("reviews", mark, network="lstm-shuffled") for mark in range(3)]  # fmt: skip


def part_losses(part: str) -> list[float]:
    study = read("Transformer_Torch", "parts")
    return [row["validation"]["loss"] for row in rows.matching(study, part=part)]


def parts_bring(first: str, last: str) -> float:
    return mean(part_losses(first)) - mean(part_losses(last))


def rotary_positions_alone_are_no_chance() -> float:
    """Two, if that step is more than two standard errors, and no other one is."""
    clear = []
    for before, after in itertools.pairwise(parts.PARTS):
        a, b = part_losses(before), part_losses(after)
        error = math.sqrt(variance(a) / len(a) + variance(b) / len(b))
        if abs(mean(a) - mean(b)) > 2 * error:
            clear.append(after)
    return 2 if clear == ["rotary positions"] else math.nan


def order_counts_at_the_last_mark_alone() -> float:
    """Two, if the others' differences are less than two standard errors, the last one's more."""
    record, errors = read("studies", "reviews"), []
    for mark, difference in enumerate(order()):
        scores = [[100 * row["validation"]["accuracy"][mark] for row in rows.matching(
                   record, network=name)] for name in ("lstm", "lstm-shuffled")]  # fmt: skip
        errors.append(difference / sum(variance(s) / len(s) for s in scores) ** 0.5)
    return 2 if max(errors[:2]) < 2 < errors[2] else math.nan


def more_memory() -> float:
    """Than that of seed 0 another seed had, at most, as a share."""
    taken = {(row["network"], row["seed"]): row.get("megabytes")
             for row in read("studies", "reviews")["rows"]}  # fmt: skip
    return max(taken[name, seed] / taken[name, 0] for name, seed in taken if seed) - 1


def standard_errors() -> list[float]:
    """Of the differences of twins' results: how many standard errors each is."""
    differences = [found for name in verdict.CORE for found in verdict.differences(name)]
    return [abs(d.mean) / d.standard_error for d in differences if d.standard_error]


def seconds_after_which_the_faster_twin_is_ahead() -> float:
    """Those of the short trainings, if it is so for each recurrent layer."""
    study = read("studies", "twins")
    for name in ("RNN", "GRU", "LSTM"):
        (step,) = rows.matching(study, what="step", pair=name)
        losses = [found("studies", "twins", lambda row: row["validation"]["loss"][-1],
                        what="training", pair=name, twin=twin)
                  for twin in ("manual", "torch")]  # fmt: skip
        if (step["ratio"][1] < 1) != (losses[0] < losses[1]):
            return math.nan
    return study["settings"]["seconds"]


def core_lines() -> list[float]:
    """How many times those of PyTorch each folder by hand has."""
    pairs = [verdict.lines_of_twins(name).values() for name in verdict.CORE]
    manual, native = zip(*([sum(n.core.values()) for n in pair] for pair in pairs), strict=True)
    return [a / b for a, b in zip(manual, native, strict=True)]


MODERN = ("Transformer_Manual", "Transformer_Torch")


def modern_minutes() -> list[float]:
    """How long the small modern Transformer was trained, in each folder."""
    recorded = [runs(folder, "tiny-shakespeare-modern") for folder in MODERN]
    return [mean(run["seconds"] for run in found) / 60 for found in recorded]


def default_losses() -> list[float]:
    """Of the recurrent networks' short recipes, on the test split."""
    configs = [f"tiny-shakespeare-default{cell}" for cell in ("", "-gru", "-rnn")]
    return [measured("RNN_Manual", config, "loss") for config in configs]


DATASETS = ("mnist", "fashion-mnist")


def beside_best(name: str, steps: int) -> list[tuple[float, float, float]]:
    """Of an optimiser, so many steps of the grid from its best rate, for each dataset: the factor
    between the rates, the share of runs that diverged, and the points that the others lost."""
    record, beside = read("MLP_Manual", "optimizers"), []
    grid = record["settings"]["rates"]
    for dataset in DATASETS:
        best = best_rates(record, dataset)[name]
        at = grid.index(best) + steps
        if not 0 <= at < len(grid):
            continue
        now, then = (rows.matching(record, dataset=dataset, optimizer=name, lr=lr)
                     for lr in (grid[at], best))  # fmt: skip
        ended = [100 * row["accuracy"] for row in now if not row["diverged"]]
        lost = mean(100 * row["accuracy"] for row in then) - mean(ended) if ended else math.nan
        beside.append((grid[at] / best, 1 - len(ended) / len(now), lost))
    return beside


def lost(name: str, *steps: int) -> list[float]:
    """Points, at so many steps of the grid from the best rate, where no run diverged."""
    return [points for k in steps for _, diverged, points in beside_best(name, k) if not diverged]


def cliff(*names: str) -> float:
    """The factor of the grid, if most runs of these diverge so much above their best rate."""
    (factors, diverged, _) = zip(*(of for n in names for of in beside_best(n, 1)), strict=True)
    return mean(factors) if min(diverged) > 0.5 else math.nan


def step_of(name: str) -> float:
    return read("MLP_Manual", "optimizers")["steps"][name]["step_milliseconds"]


def at_best_rates() -> list[list[dict]]:
    """The trainings by torch.optim at the best rate of each optimiser, on each data set."""
    record = read("MLP_Torch", "torch_optim")
    return [rows.matching(record, dataset=dataset, optimizer=name, lr=lr)
            for dataset, best in record["best"].items() for name, lr in best.items()]  # fmt: skip


def same_digits(part: str) -> list[float]:
    """Of every optimiser by hand and by torch.optim, over the "first" steps or the "whole"."""
    found = ([row[part] for row in kind] for kind in at_best_rates())
    return [float(torch_optim.digits(max(values))) for values in found]


def helps(technique: str, images: int) -> float:
    """By how many points of validation accuracy."""
    scores = [found("CNN_Torch", "regularisation", lambda row: row["validation"]["accuracy"],
                    technique=name, images=images) for name in (technique, "none")]  # fmt: skip
    return 100 * (scores[0] - scores[1])


def techniques_that_help(images: int) -> float:
    """Three, if those that are named help by more than two standard errors, and no others."""

    def scores(technique: str) -> list[float]:
        key = dict(technique=technique, images=images)
        study = rows.matching(read("CNN_Torch", "regularisation"), **key)
        return [row["validation"]["accuracy"] for row in study]

    names, plain = read("CNN_Torch", "regularisation")["settings"]["techniques"], scores("none")
    helping = set()
    for name in names:
        error = math.sqrt(sum(variance(s) / len(s) for s in (scores(name), plain)))
        if error and mean(scores(name)) - mean(plain) > 2 * error:
            helping.add(name)
    return 3 if helping == {"batch norm", "EMA", "label smoothing"} else math.nan


def tuned(recipe: str) -> float:
    value = lambda row: 100 * row["validation"]["accuracy"]  # noqa: E731
    return found("CNN_Torch", "tune", value, recipe=recipe)


def in_the_search() -> float:
    return 100 * lr_range.tune.best(read("CNN_Torch", "tune")["searches"]["tpe"])["accuracies"][-1]


def suggested(rate: str) -> float:
    """By the learning-rate range test."""
    study = read("CNN_Torch", "lr_range")
    return lr_range.geometric_mean(
        [lr_range.suggested(row, study["settings"])[rate] for row in study["rows"]]
    )


def lag() -> float:
    """In steps: how much older the losses are than the step whose smoothed loss they make."""
    return lr_range.SMOOTHING / (1 - lr_range.SMOOTHING)


def factor_of_the_lag() -> float:
    """Of the rate, in so many steps."""
    settings = read("CNN_Torch", "lr_range")["settings"]
    grid = lr_range.rates(settings["low"], settings["high"], settings["steps"])
    return (grid[1] / grid[0]) ** lag()


def tried(recipe: str) -> float:
    return lr_range.known(read("CNN_Torch", "lr_range")["settings"])[recipe]


def residual_lead(split: str) -> float:
    """By how many points 20 residual layers are better than any other number of them."""
    errors = {
        depth: found(
            "ResNet",
            "depth",
            lambda row: 100 * row[split]["error"][-1],
            network="residual",
            depth=depth,
        )
        for depth in (8, 20, 32, 44)
    }
    best = errors.pop(20)
    return min(errors.values()) - best


def best_length() -> float:
    """Of the VAE's code, by its likelihood."""
    return max((2, 5, 10, 20, 50), key=lambda size: code("log_likelihood", "vae", size))


def length_that_knows_the_class() -> float:
    """The shortest code of both autoencoders whose neighbours are right as often as pixels'."""
    value = lambda row: row["validation"]["same_class"]  # noqa: E731
    pixels = found("VAE", "codes", value, model="pixels")
    return min(
        size
        for size in (2, 5, 10, 20, 50)
        if min(code("same_class", model, size) for model in ("ae", "dae")) >= pixels
    )


def share_of_convolutions() -> float:
    path = ROOT / "CNN_Manual" / "results" / "compare_profile.json"
    of = json.loads(path.read_text(encoding="utf-8"))["step_parts"]["float32"]
    return sum(of[f"Conv2d, {way}"] for way in ("forward", "backward")) / sum(of.values())


def best_optimizers(dataset: str) -> list[float]:
    """The accuracy of each optimiser at its best rate, in %."""
    record = read("MLP_Manual", "optimizers")
    scores = {}
    for row in rows.matching(record, dataset=dataset):
        score = 0.0 if row["diverged"] else 100 * row["accuracy"]
        scores.setdefault((row["optimizer"], row["lr"]), []).append(score)
    names = {name for name, _ in scores}
    return [max(mean(scores[key]) for key in scores if key[0] == name) for name in names]


def pairs_apart() -> list[tuple[float, str, float]]:
    """Of trainings by hand and by torch.optim, where neither diverged: points, optimiser, rate."""
    pairs = [row for row in read("MLP_Torch", "torch_optim")["rows"] if row["first"] is not None]
    return [(100 * abs(row["accuracy"] - row["by_hand"]), row["optimizer"], row["lr"])
            for row in pairs]  # fmt: skip


def lowest_rate_far_apart() -> float:
    """Where twins differ by more than a point, if none but these three do."""
    far = [(name, lr) for points, name, lr in pairs_apart() if points > 1]
    return min(lr for _, lr in far) if {name for name, _ in far} <= {"adam", "adamw", "muon"} else 0


def one_diverges() -> int:
    pairs = read("MLP_Torch", "torch_optim")["rows"]
    return sum((row["accuracy"] is None) != (row["by_hand"] is None) for row in pairs)


def largest_difference_by_torch() -> float:
    """Of the mean accuracies after three epochs, by hand and by torch.optim, in points."""
    return max(
        abs(mean(100 * (row["accuracy"] - row["by_hand"]) for row in kind))
        for kind in at_best_rates()
    )


def plain_error(depth: int) -> float:
    value = lambda row: row["training"]["error"][-1]  # noqa: E731
    return found("ResNet", "depth", value, network="plain", depth=depth)


def code(name: str, model: str, size: int) -> float:
    return found("VAE", "codes", lambda row: row["validation"][name], model=model, latent_dim=size)


TRANSFORMERS = ("transformer", "transformer-torch")
WORDS = {
    "a": 1, "half": 0.5, "third": 1 / 3, "two thirds": 2 / 3, "tenth": 0.1, "twice": 2, "two": 2,
    "three": 3, "four": 4, "five": 5, "six": 6, "eight": 8,
}  # fmt: skip
FIGURES: list[tuple[str, str, Callable[[], float], float]] = [
    ("", "Rotary positions {0.05} nats of text",
     lambda: parts_bring("RMSNorm", "rotary positions"), 0.005),
    ("", "of text, all parts together {0.08}",
     lambda: parts_bring("original", "QK-norm"), 0.005),
    ("Transformer_Torch", "All parts together bring {0.08} nats",
     lambda: parts_bring("original", "QK-norm"), 0.005),
    ("Transformer_Torch", "Rotary positions bring {0.05} of them",
     lambda: parts_bring("RMSNorm", "rotary positions"), 0.005),
    ("Transformer_Torch", "than {two} standard errors",
     rotary_positions_alone_are_no_chance, 0.5),
    ("", "AdamW. A rate {three} times too high", lambda: cliff("sgd"), 0.2),
    ("", "costs it less than {a} point, and SGD",
     lambda: math.ceil(max(lost("adamw", 1))), 0),
    ("", "over three epochs {two} digits", lambda: math.floor(max(same_digits("whole"))), 0),
    ("", "TPE does, by {0.7} points", lambda: tuned("tpe") - tuned("by hand"), 0.05),
    ("", "44 layers make {twice} as many", lambda: plain_error(44) / plain_error(8), 0.15),
    ("", "after {8} epochs, a VAE", lambda: read("VAE", "codes")["settings"]["epochs"], 0),
    ("", "gains nothing beyond {20} numbers", best_length, 0),
    ("", "is where the MLP is after about {six} |",
     lambda: passes_of_mlp_to(reached("images", 2, network="resnet")), 0.5),
    ("", "To an LSTM {1.1} points at most", lambda: max(order()), 0.05),
    ("", "{78} % into the products", lambda: 100 * share_of_convolutions(), 0.5),
    ("studies", "pace changed by up to a {third} between", spread_of_paces, 0.02),
    ("studies", "After five it has {1.508} nats",
     lambda: reached("text", 2, network="gru"), 0.0005),
    ("studies", "and the LSTM has {1.510}:", lambda: reached("text", 2, network="lstm"), 0.0005),
    ("studies", "after one minute it has {1.588} nats",
     lambda: reached("text", 0, network="rnn"), 0.0005),
    ("studies", "four more minutes bring {0.006}", lambda: brought("rnn", 0, 2), 0.0005),
    ("studies", "A pass over the text takes them {67} seconds",
     lambda: mean(pass_seconds("text", name) for name in TRANSFORMERS), 1),
    ("studies", "and the GRU {25}.", lambda: pass_seconds("text", "gru"), 1),
    ("studies", "are ahead of the RNN, with {1.56} nats",
     lambda: mean(reached("text", 2, network=name) for name in TRANSFORMERS), 0.005),
    ("studies", "three minutes brought them {0.16} nats",
     lambda: mean(brought(name, 1, 2) for name in TRANSFORMERS), 0.005),
    ("studies", "and the GRU {0.006}.", lambda: brought("gru", 1, 2), 0.0005),
    ("studies", "the GRU has {1.56} after", lambda: reached("text", 0, network="gru"), 0.005),
    ("studies", "less than a {third} of their time", rnn_step, 0),
    ("studies", "the GRU has 1.56 after {2.4}.", lambda: passes("text", 0, "gru"), 0.05),
    ("studies", "small modern Transformer has {1.53} nats", lambda: mean(
        measured(folder, "tiny-shakespeare-modern", "loss") for folder in MODERN), 0.005),
    ("studies", "after {two} to three minutes on", lambda: min(modern_minutes()), 0.5),
    ("studies", "after two to {three} minutes on", lambda: max(modern_minutes()), 0.5),
    ("studies", "did not, have {1.67} to", lambda: min(default_losses()), 0.005),
    ("studies", "have 1.67 to {1.74}.", lambda: max(default_losses()), 0.005),
    ("studies", "the default GRU has {1.52} on",
     lambda: measured("RNN_Manual", "tiny-shakespeare-default-gru", "loss", "validation"), 0.005),
    ("studies", "on validation and {1.67} there",
     lambda: measured("RNN_Manual", "tiny-shakespeare-default-gru", "loss"), 0.005),
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
    *(("studies", text, lambda mark=mark: order()[mark], 0.05) for mark, text in enumerate((
        "Order is worth {0.2}, 0.5", "is worth 0.2, {0.5} and", "0.5 and {1.1} points to"))),
    ("studies", "last is more than {two} standard errors", order_counts_at_the_last_mark_alone, 0),
    ("studies", "bring the bag {1.4} points",
     lambda: 100 * (found("studies", "reviews", lambda row: row["best"], network="bag-2")
                    - found("studies", "reviews", lambda row: row["best"], network="bag-1")), 0.05),
    ("studies", "falls too, from {89.6} to",
     lambda: reached("reviews", 1, network="lstm-shuffled"), 0.05),
    ("studies", "to {88.7} %. On words",
     lambda: reached("reviews", 2, network="lstm-shuffled"), 0.05),
    ("studies", "seen the reviews {12} to 13 times", lambda: min(
        row["epochs"][-1] for row in rows.matching(read("studies", "reviews"), network="mean")),
     0.5),
    ("studies", "seen the reviews 12 to {13} times", lambda: max(
        row["epochs"][-1] for row in rows.matching(read("studies", "reviews"), network="mean")),
     0.5),
    ("studies", "had up to {half} more", more_memory, 0.03),
    ("studies", "it made {38} passes", lambda: passes("text", 2, "rnn"), 0.5),
    ("studies", "and the Transformers {4.5}.",
     lambda: mean(passes("text", 2, name) for name in TRANSFORMERS), 0.05),
    ("studies", "gets less: {86.4} % after", lambda: reached("images", 2, network="vit"), 0.05),
    ("studies", "% after {1.4} passes", lambda: passes("images", 2, "vit"), 0.05),
    ("studies", "A step by hand takes {0.87} to", lambda: min(ratios()), 0.005),
    ("studies", "takes 0.87 to {1.33} of", lambda: max(ratios()), 0.005),
    ("studies", "differs by more than {two} standard errors",
     lambda: math.ceil(max(standard_errors())), 0),
    ("studies", "After {60} seconds, the faster",
     seconds_after_which_the_faster_twin_is_ahead, 0),
    ("studies", "by hand there are {two} to three times", lambda: min(core_lines()), 0.25),
    ("studies", "there are two to {three} times as", lambda: max(core_lines()), 0.5),
    ("studies", "The LSTM by hand is a {third} slower", lambda: found(
        "studies", "twins", lambda row: row["ratio"][1], what="step", pair="LSTM") - 1, 0.02),
    ("studies", "wins its lead in AdamW, {4.1} ms", lambda: optimiser("manual"), 0.05),
    ("studies", "ms instead of {4.8}, and between", lambda: optimiser("torch"), 0.05),
    *(("studies", text, lambda twin=twin, pair=pair, names=names: layers(pair, twin, *names), 0.6)
      for text, twin, pair, *names in (
          ("in its convolutions, {75} ms", "manual", "CNN", "Conv2d"),
          ("75 ms instead of {55}", "torch", "CNN", "Conv2d"),
          ("slower by hand, {44} ms", "manual", "LanguageModel", "GELU", "LayerNorm"),
          ("44 ms instead of {22}", "torch", "LanguageModel", "GELU", "LayerNorm"))),
    ("studies", "LayerNorm costs {16} ms", lambda: layers("Transformer", "manual", "LayerNorm")
     - layers("Transformer", "torch", "LayerNorm"), 0.5),
    ("studies", "stands between the layers costs {16} ms less",
     lambda: layers("Transformer", "torch", "the rest")
     - layers("Transformer", "manual", "the rest"), 0.5),
    ("MLP_Manual", "AdamW, with a rate of {0.003}", lambda: mean(
        best_rates(read("MLP_Manual", "optimizers"), name)["adamw"] for name in DATASETS), 0.0005),
    ("MLP_Manual", "a rate {three} times too high or", lambda: beside_best("adamw", 1)[0][0], 0.2),
    ("MLP_Manual", "too low costs less than {a} point",
     lambda: math.ceil(max(lost("adamw", -1, 1))), 0),
    ("MLP_Manual", "{Three} times as much, and most", lambda: cliff("sgd", "momentum"), 0.2),
    ("MLP_Manual", "A {tenth} of it costs", lambda: beside_best("sgd", -2)[0][0], 0.001),
    ("MLP_Manual", "costs them {two} to six points",
     lambda: min(lost("sgd", -2) + lost("momentum", -2)), 0.5),
    ("MLP_Manual", "costs them two to {six} points",
     lambda: max(lost("sgd", -2) + lost("momentum", -2)), 0.5),
    ("MLP_Manual", "and costs AdamW {two}.", lambda: mean(lost("adamw", -2)), 0.4),
    ("MLP_Manual", "best rates, all {eight} lie", lambda: len(best_optimizers("mnist")), 0),
    ("MLP_Manual", "a single optimiser loses up to {87} without", lambda: max(
        max(lost(name, *range(-11, 12))) for name in torch_optim.OPTIMIZERS), 0.5),
    ("MLP_Manual", "its step takes {17} ms", lambda: step_of("muon"), 0.5),
    ("MLP_Manual", "where Adam's takes {3}.", lambda: step_of("adam"), 0.5),
    ("MLP_Manual", "lie within {1.2} points on MNIST",
     lambda: math.ceil(10 * (max(best_optimizers("mnist")) - min(best_optimizers("mnist")))) / 10,
     1e-9),
    ("MLP_Torch", "differ by {0.2} points at most", largest_difference_by_torch, 0.05),
    ("MLP_Torch", "of {428} pairs of trainings", lambda: len(pairs_apart()), 0),
    ("MLP_Torch", "diverges, {414} end within",
     lambda: sum(points <= 1 for points, *_ in pairs_apart()), 0),
    ("MLP_Torch", "The other {14} pairs all have",
     lambda: sum(points > 1 for points, *_ in pairs_apart()), 0),
    ("MLP_Torch", "AdamW or Muon at {0.03} and more", lowest_rate_far_apart, 0.005),
    ("MLP_Torch", "one differs by {28} points.", lambda: max(pairs_apart())[0], 0.5),
    ("MLP_Torch", "In {eight} pairs one twin diverges", one_diverges, 0),
    ("MLP_Torch", "over the first {43} steps", lambda: read(
        "MLP_Manual", "optimizers")["settings"]["steps_per_epoch"]["mnist"] / 10, 0.5),
    ("MLP_Torch", "agree to between {two} and six digits",
     lambda: math.floor(min(same_digits("first"))), 0),
    ("MLP_Torch", "agree to between two and {six} digits",
     lambda: math.floor(max(same_digits("first"))), 0),
    ("MLP_Torch", "Over three epochs {two} digits at most",
     lambda: math.floor(max(same_digits("whole"))), 0),
    *(("CNN_Torch", "help by about {a} point", lambda name=name: helps(name, 1000), 0.25)
      for name in ("dropout", "label smoothing")),
    ("CNN_Torch", "all techniques together by nearly {two}",
     lambda: helps("all together", 1000), 0.25),
    ("CNN_Torch", "the steps are less than {four} passes", lambda: math.ceil(
        read("CNN_Torch", "regularisation")["settings"]["steps"] * BATCH_SIZE / 55_000), 0),
    ("CNN_Torch", "{Three} techniques help:", lambda: techniques_that_help(55_000), 0),
    *(("CNN_Torch", text, lambda name=name: tuned(name), 0.005)
      for text, name in (("by hand: {89.27} %", "tpe"), ("instead of {88.61} %", "by hand"),
                         ("that is worse, {87.87} %", "random"))),
    *(("CNN_Torch", "with {five} new seeds each", lambda name=name: len(
        rows.matching(read("CNN_Torch", "tune"), recipe=name)), 0) for name in ("tpe", "by hand")),
    ("CNN_Torch", "the best trial had {89.96} %", in_the_search, 0.005),
    ("CNN_Torch", "{0.7} points of that are gone", lambda: in_the_search() - tuned("tpe"), 0.05),
    ("CNN_Torch", "fastest at a rate of {0.00011}", lambda: suggested("steepest"), 5e-6),
    ("CNN_Torch", "and is lowest at {0.0039}", lambda: suggested("lowest"), 5e-5),
    ("CNN_Torch", "behind the loss by about {19} steps", lag, 1e-9),
    ("CNN_Torch", "by a factor of {2.4} in the rate", factor_of_the_lag, 0.05),
    ("CNN_Torch", "would be at about {0.0016}, below both",
     lambda: suggested("lowest") / factor_of_the_lag(), 5e-5),
    ("CNN_Torch", "lowest loss, {0.003} and", lambda: tried("by hand"), 0),
    ("CNN_Torch", "0.003 and {0.006}.", lambda: tried("tune.py"), 5e-5),
    ("ResNet", "44 layers make {twice} as many", lambda: plain_error(44) / plain_error(8), 0.15),
    *(("ResNet", "the best by {a} point", lambda split=split: residual_lead(split), 0.3)
      for split in ("training", "validation")),
    ("VAE", "The VAE stops at {20} numbers", best_length, 0),
    ("VAE", "its KL stays at {24} to 25 nats", lambda: code("kl", "vae", 20), 0.5),
    ("VAE", "its KL stays at 24 to {25} nats", lambda: code("kl", "vae", 50), 0.5),
    ("VAE", "50 numbers cost {half} a nat",
     lambda: code("log_likelihood", "vae", 20) - code("log_likelihood", "vae", 50), 0.25),
    *(("VAE", "both are stuck at {87.5} nats",
       lambda model=model: code("filled_in", model, 50), 0.2) for model in ("ae", "vae")),
    ("VAE", "Both autoencoders' {20} numbers know", length_that_knows_the_class, 0),
    ("VAE", "autoencoder needs {61},", lambda: code("filled_in", "dae", 50), 0.5),
]  # fmt: skip


@pytest.mark.parametrize("folder, text, follows, within", FIGURES, ids=[f[1] for f in FIGURES])
def test_a_figure_of_a_study_follows_from_its_rows(folder, text, follows, within):
    (figure,) = re.findall(r"\{(.+?)\}", text)
    assert flat(folder).count(re.sub(r"[{}]", "", text)) == 1, "the README has changed"
    word = figure.lower()
    value = WORDS[word] if word in WORDS else float(figure)
    assert abs(follows() - value) <= within + 1e-9, follows()


# no measurements: settings, the numbers of things, what others found, and what is in a formula
NONE: list[tuple[str, str]] = [
    ("Transformer_Torch", "steps as should fit into {165} seconds"),
    ("", "over {three} epochs two digits at most"),
    ("", "Without them, {44} layers make twice as many mistakes as {8} |"),
    ("", "The GRU, after one and {two} minutes. After {five}, the LSTM"),
    ("", "pass the RNN within {five} minutes"),
    ("", "on film reviews and in {three} minutes."),
    ("CNN_Manual", "*{Nine} passes over the output of the first convolution.*"),
    ("CNN_Manual", "With its {nine} shifted"),
    ("CNN_Torch", "one {half} of the validation split, and the table is of the other {half}."),
    ("CNN_Torch", "On {1,000} images every network learns"),
    ("CNN_Torch", "is the worst row on {1,000} images."),
    ("CNN_Torch", "has the largest gap on {10,000} images"),
    ("CNN_Torch", "on {1,000} images is one seed's."),
    ("CNN_Torch", "measured on the {half} of the validation split that no search saw"),
    ("CNN_Torch", "The {two} searches agree that"),
    ("CNN_Torch", "One search of each kind, {10,000} images and {four} epochs."),
    ("CNN_Torch", "The test sees the first few {hundred} steps"),
    ("MLP_Manual", "one plain network with {three} hidden layers of {256} units."),
    ("MLP_Manual", "of one grid, {two} rates per decade"),
    ("MLP_Manual", "The rate falls to {0} along a cosine."),
    ("MLP_Manual", "At {ten} times its best rate, Muon kills"),
    ("MLP_Manual", "until the study rounded them to {0} ("),
    ("MLP_Manual", "Its velocity then fades towards {0},"),
    ("MLP_Manual", "This is one small network and {three} epochs."),
    ("MLP_Torch", "a normal distribution with mean {0} and deviation"),
    ("MLP_Torch", "whose slope is below {0.001} for all of {1,000} images."),
    ("MLP_Torch", "after a few {hundred} steps of SGD with momentum."),
    ("MLP_Torch", "a ratio near {1} means that the signal gets through."),
    ("MLP_Torch", "With {1e-10} nothing of it reaches the other end. With {1e+10} one step"),
    ("MLP_Torch", "no gradient comes back through weights of {0}."),
    ("MLP_Torch", "over many powers of {ten}."),
    ("MLP_Torch", "starts too small for {twenty} plain layers."),
    ("MLP_Torch", "You do not notice it in a network of {three}."),
    ("MLP_Torch", "trains one network with {eight} optimisers by hand"),
    ("MLP_Torch", "{two} sums in another order differ in the last digit"),
    ("MLP_Torch", "So look at the first {tenth} of an epoch."),
    ("MLP_Torch", "the mean accuracies after {three} epochs differ"),
    ("MLP_Torch", "The times are of {two} runs of different days"),
    ("MLP_Torch", "The first {two} tables are of the best rates, the {third} is of all"),
    ("MLP_Torch", "Over {three} epochs two digits at most agree"),
    ("MLP_Torch", "So {two} trainings that differ in nothing but"),
    ("MLP_Torch", "but by tests in {double} precision."),
    ("ResNet", "repeats figure {6} of He et al. ({2015}):"),
    ("ResNet", "plain and residual networks of {8}, {20}, {32} and {44} layers"),
    ("ResNet", "images are shrunk to {16} × {16} pixels"),
    ("ResNet", "With {8} layers, shortcuts change nothing."),
    ("ResNet", "{44} layers make twice as many mistakes as {8}, on the very images"),
    ("ResNet", "{20} residual layers are the best by a point, and {44} are no better than {8}."),
    ("ResNet", "In {16} epochs of {10,000} small images"),
    ("ResNet", "In the paper, after {64,000} steps, they did not."),
    ("VAE", "with codes of {2}, {5}, {10}, {20} and {50} numbers."),
    ("VAE", "(Vincent et al., {2008}) sees each image with a {quarter} of its pixels black"),
    ("VAE", "and {50} numbers cost half a nat"),
    ("VAE", "{Two} numbers do not tell a {3} from a {5} or an {8} (second picture)."),
    ("VAE", "With {50} numbers, both are stuck"),
    ("VAE", "know the class as well as {784} pixels do."),
    ("VAE", "Codes after {hundreds} of epochs"),
    ("studies", "measured after {1}, {2} and more minutes."),
    ("studies", "{Three} trainings with {three} schedules would be better tuned, and take {twice}"),
    ("studies", "in the first {fifth} of an epoch and then stays at {half} of the recipe's peak"),
    ("studies", "(Shamir & Zhang, [{2013}]"),
    ("studies", "the mean age of the weights in it is a {tenth} of the steps so far"),
    ("studies", "All {five} networks see the same training characters"),
    ("studies", "the Transformers see {64} characters or more before all but the first."),
    ("studies", "after one minute and after {two}. After {five} it has 1.508 nats"),
    ("studies", "GRU 25. After {five} minutes they are ahead"),
    ("studies", "the last {three} minutes brought them"),
    ("studies", "is last for {two} minutes."),
    ("studies", "and {four} more minutes bring 0.006."),
    ("studies", "three minutes on {two} cores"),
    ("studies", "93.3 % after {four}. The MLP"),
    ("studies", "is the largest: {512} images."),
    ("studies", "The LSTM is trained {twice}."),
    ("studies", "The difference of the {two} is what this network makes of order."),
    ("studies", "knows which {two} words stand side by side"),
    ("studies", "After {three} minutes only the GRU has as much"),
    ("studies", "to this LSTM after one, {two} and {three} minutes."),
    ("studies", "chosen among {seven} values on this same validation split."),
    ("studies", "The memory is that of seed {0};"),
    ("studies", "{Two} classes of long reviews are an easy task"),
    ("studies", "{Four} networks stand here {twice}, by hand and in PyTorch."),
    ("studies", "So do {three} recurrent layers:"),
    ("studies", "asks {five} questions."),
    ("studies", "A ratio below {1} means that"),
    ("studies", "Where both twins have {two} seeds or more"),
    ("studies", "(Welch, [{1938}]"),
    ("studies", "less than {two} of these may be chance. With {three} seeds"),
]  # fmt: skip
SECTIONS = prose.sections()


def listed(folder: str) -> list[str]:
    return [text for name, text, *_ in FIGURES + NONE if name == folder]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: f"{s.folder}: {s.heading}")
def test_every_number_is_computed_or_marked_or_no_measurement(section):
    assert not prose.unlisted(section, listed(section.folder))


@pytest.mark.parametrize("folder, text", [f[:2] for f in FIGURES] + NONE)
def test_what_is_listed_is_a_number_of_a_study(folder, text):
    """Each text stands in one section, once, and all that it has in braces are numbers there."""
    ((section, places),) = [(s, found) for s in SECTIONS if s.folder == folder
                            and (found := list(prose.marked(s, text)))]  # fmt: skip
    spans = {match.span() for match in prose.numbers(section)}
    assert len(places) == text.count("{") > 0
    assert {(place.start, place.stop) for place in places} <= spans


def test_no_figure_is_excused():
    """What is computed is not in the list of what need not be."""
    for section in SECTIONS:
        computed, excused = (
            {place for folder, text, *_ in rows_of if folder == section.folder
             for place in prose.marked(section, text)} for rows_of in (FIGURES, NONE)
        )  # fmt: skip
        assert not computed & excused


def test_the_front_page_names_no_section_that_is_not_read(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("\n## The studies\n")[2].partition("\n### ")[0]
    lines = [line for line in re.findall(r"^\| .+\? \| .*", table, re.MULTILINE)
             if " | not recorded yet | " not in line]  # fmt: skip
    assert len(lines) > 10
    for line in lines:
        folder, anchor = re.search(r"\((\w+)/README\.md#([^)]+)\) \|$", line).groups()
        headings = [f"# {section.heading}" for section in SECTIONS if section.folder == folder]
        (page := tmp_path / "page.md").write_text("\n".join(headings), encoding="utf-8")
        assert anchor in anchors(page), line


MADE_UP = """# A model of 7 layers

## A study

On 1,000 images, three ways, `4 × 4` and $5$ and [six](page_9.md) of Net2; [7]: half a point.

<!-- table -->
| 8 |
<!-- /table -->

**What it shows.** It has 93.3 %, a point more than in 1e-3 of the time. Two thirds are lost.
It took 2.5 hours (a single look, 11 runs). Another took 12.

```bash
# 13
```

## No study

It has 14 layers.
"""


def test_an_unlisted_number_is_found():
    (section,) = prose.cut("", MADE_UP)
    assert section.heading == "A study"
    assert [match[0] for match in prose.numbers(section)] == [
        "1,000", "three", "six", "7", "half", "93.3", "a", "1e-3", "Two thirds", "2.5", "11", "12"
    ]  # fmt: skip
    texts = ["On {1,000} images, {three} ways", "and [{six}]", "[{7}]: {half} a", "It has {93.3} %",
             "{Two thirds} are"]  # fmt: skip
    assert prose.unlisted(section, [*texts, "{a} point more than in {1e-3} of"]) == [
        "… (a single look, 11 runs). Another took {12}. ```bash # 13 ```…"
    ]
    assert len(prose.unlisted(section, texts)) == 3
    assert len(prose.unlisted(section, [])) == 10
