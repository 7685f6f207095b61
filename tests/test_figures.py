"""Figures of ours in the READMEs' text. They follow from records, as computed here, or stand beside
a mark that they are a single look, or of one seed."""

import json
import re
from collections.abc import Callable
from statistics import mean

import pandas as pd
import pytest

from common.data import ROOT
from common.device import seed_everything
from LSTM.dataset import templates
from MLP_Manual.dataset import load_training
from MLP_Manual.model import MLP
from MLP_Manual.utils.losses import CrossEntropy


def runs(folder: str, config: str) -> list[dict]:
    path = ROOT / folder / "results" / f"{config}.json"
    return json.loads(path.read_text(encoding="utf-8"))["runs"]


def measured(folder: str, config: str, metric: str, split: str = "test") -> float:
    """The mean over the seeds of a record."""
    return mean(run[split][metric] for run in runs(folder, config))


def vae(config: str, metric: str) -> float:
    return measured("VAE", f"mnist-{config}", metric)


def gap(config: str) -> float:
    return vae(config, "log_likelihood") - vae(config, "elbo")


def harder(folder: str) -> float:
    """By how many points a test split is below its validation split."""
    scores = [measured(folder, "fashion-mnist", "accuracy", s) for s in ("validation", "test")]
    return 100 * (scores[0] - scores[1])


def superseded(folder: str, config: str, **which) -> float:
    table = pd.read_csv(ROOT / "common" / "results" / "superseded.csv")
    for column, value in {"model": folder, "record": config, **which}.items():
        table = table[table[column] == value]
    return table["test"].mean()


def above_floor(config: str) -> float:
    distance, floor = (measured("GAN", config, f"frechet_{name}") for name in ("distance", "floor"))
    return distance - floor


def default_seconds(folder: str) -> float:
    return mean(run["seconds"] for run in runs(folder, "mnist-default"))


def seconds(config: str) -> float:
    return mean(run["seconds"] for run in runs("LSTM", config))


def size(config: str) -> int:
    path = ROOT / "LSTM" / "results" / f"{config}.json"
    return json.loads(path.read_text(encoding="utf-8"))["parameters"]


def reviews(network: str) -> float:
    """The validation accuracy of the study of reviews, after all of its minutes, in %."""
    path = ROOT / "studies" / "results" / "compare_reviews.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return 100 * mean(
        row["validation"]["accuracy"][-1] for row in rows if row["network"] == network
    )


def sentences_to_one_that_needs_order() -> float:
    """Among all made-up sentences: those whose words, unordered, are of both classes."""
    found: dict[tuple, set] = {}
    parts = [
        (f"{judgement} {adjectives[0]} {aside}", (kind == "positive") != negated)
        for kind, adjectives in templates.ADJECTIVES.items()
        for negated, judgements in ((False, templates.PLAIN), (True, templates.NEGATED))
        for judgement in judgements
        for aside in sum(templates.ASIDES.values(), [])
    ]
    bags = [tuple(sorted(text.split())) for text, _ in parts]
    for bag, (_, positive) in zip(bags, parts, strict=True):
        found.setdefault(bag, set()).add(positive)
    return len(parts) / sum(len(found[bag]) == 2 for bag in bags)


NUMBERS = {"five": 5, "ten": 10, "half": 0.5, "sixteen": 16, "one sample in nine": 1 / 9}
# README, its text with the figure in braces, what that follows from, how far it may be off
FIGURES: list[tuple[str, str, Callable[[], float], float]] = [
    ("RNN_Manual", "of the small one is {1.684} instead of 1.681 nats",
     lambda: measured("RNN_Manual", "tiny-shakespeare-default-bfloat16", "loss"), 0.0005),
    ("RNN_Manual", "instead of {1.681} nats",
     lambda: measured("RNN_Manual", "tiny-shakespeare-default", "loss"), 0.0005),
    ("CNN_Torch", "It takes {21} s, and the twin takes 26 s.",
     lambda: default_seconds("CNN_Torch"), 0.5),
    ("CNN_Torch", "and the twin takes {26} s.", lambda: default_seconds("CNN_Manual"), 0.5),
    ("CNN_Torch", "This is {0.82} of the time",
     lambda: default_seconds("CNN_Torch") / default_seconds("CNN_Manual"), 0.005),
    ("CNN_Torch", "Two epochs of that network, with AdamW, had reached {99.43} %",
     lambda: superseded("CNN_Torch", "mnist-default", epochs=2), 0.005),
    ("CNN_Torch", "and reached {99.42} %. Timed in turns",
     lambda: superseded("CNN_Torch", "mnist-default", commit="df92166"), 0.005),
    ("CNN_Manual", "Two epochs of that network, with AdamW, had reached {99.47} %",
     lambda: superseded("CNN_Manual", "mnist-default", epochs=2), 0.005),
    ("CNN_Manual", "and reached {99.42} %. Timed in turns",
     lambda: superseded("CNN_Manual", "mnist-default", commit="df92166"), 0.005),
    ("CNN_Manual", "a point worse on Fashion-MNIST: {92.48} %",
     lambda: superseded("CNN_Manual", "fashion-mnist"), 0.005),
    ("CNN_Manual", "is {0.4} points above the test accuracy", lambda: harder("CNN_Manual"), 0.05),
    ("CNN_Manual", "For the MLP the difference is {0.8}", lambda: harder("MLP_Manual"), 0.05),
    ("LSTM", "accuracy is {2.1} points above that of `imdb`",
     lambda: 100 * (measured("LSTM", "imdb-ngrams", "accuracy")
                    - measured("LSTM", "imdb", "accuracy")), 0.05),
    ("LSTM", "but only {0.3} points above the last",
     lambda: 100 * (measured("LSTM", "imdb-ngrams", "accuracy")
                    - measured("LSTM", "imdb-nb-svm-trigrams", "accuracy")), 0.05),
    ("LSTM", "records of NB-SVM differ by {0.5} points",
     lambda: 100 * (measured("LSTM", "imdb-nb-svm-trigrams", "accuracy")
                    - measured("LSTM", "imdb-nb-svm", "accuracy")), 0.05),
    ("LSTM", "takes {ten} times as long as `imdb-nb-svm`",
     lambda: seconds("imdb") / seconds("imdb-nb-svm"), 1),
    ("LSTM", "has {five} times the weights", lambda: size("imdb") / size("imdb-nb-svm"), 0.5),
    *(("LSTM", text, lambda network=network: reviews(network), 0.05)
      for text, network in (("it has {88.9}% of the validation reviews right", "rnn"),
                            ("the GRU {91.0}%", "gru"), ("and the LSTM {89.9}% (three", "lstm"))),
    ("LSTM", "one sentence in {32} needs", sentences_to_one_that_needs_order, 0),
    ("VAE", "ELBO lies {4.2} nats below its log-likelihood.", lambda: gap("vae"), 0.05),
    ("VAE", "[{29} are in use]", lambda: vae("vae", "active_units"), 0.5),
    ("VAE", "is {0.9} nats likelier",
     lambda: vae("iwae", "log_likelihood") - vae("vae", "log_likelihood"), 0.05),
    ("VAE", "ELBO lies {6.6} nats below its log-likelihood, further", lambda: gap("iwae"), 0.05),
    ("VAE", "The IWAE's {150} minutes are",
     lambda: runs("VAE", "mnist-iwae")[0]["seconds"] / 60, 0.5),
    ("VAE", "{13} numbers still move", lambda: vae("beta-4", "active_units"), 0.5),
    ("VAE", "{9} nats together instead of 27", lambda: vae("beta-4", "kl"), 0.5),
    ("VAE", "nats together instead of {27}", lambda: vae("vae", "kl"), 0.5),
    ("VAE", "its likelihood is {18} nats lower",
     lambda: vae("vae", "log_likelihood") - vae("beta-4", "log_likelihood"), 0.5),
    ("VAE", "and holds {22} nats", lambda: vae("cvae", "kl"), 0.5),
    ("VAE", "The plain one has {137.3} nats", lambda: vae("ae", "reconstruction"), 0.05),
    ("VAE", "and the VAE {138.7}", lambda: vae("plane", "reconstruction"), 0.05),
    ("Transformer_Torch", "comes within {0.04} nats",
     lambda: measured("Transformer_Torch", "tiny-shakespeare-modern", "loss")
     - measured("Transformer_Torch", "tiny-shakespeare", "loss"), 0.005),
    *(("GAN", "is off by {1.4} points (mean), as it is among real",
       lambda name=name: 100 * measured("GAN", "mnist-dcgan", name), 0.05)
      for name in ("class_deviation", "real_class_deviation")),
    ("GAN", "{one sample in nine} leaves the classifier unsure",
     lambda: 1 - measured("GAN", "mnist-dcgan", "confident_share"), 0.01),
    ("GAN", "One sample in {22} leaves the classifier unsure",
     lambda: 1 / (1 - measured("GAN", "mnist-clusters", "confident_share")), 0.5),
    ("GAN", "Precision is {82} %",
     lambda: 100 * measured("GAN", "mnist-clusters", "precision"), 0.5),
    ("GAN", "instead of {74} %, recall",
     lambda: 100 * measured("GAN", "mnist-dcgan", "precision"), 0.5),
    ("GAN", "recall {85} % instead",
     lambda: 100 * measured("GAN", "mnist-clusters", "recall"), 0.5),
    ("GAN", "85 % instead of {87} %.",
     lambda: 100 * measured("GAN", "mnist-dcgan", "recall"), 0.5),
    ("GAN", "share that deviates most is off by {1.2} points. One",
     lambda: 100 * measured("GAN", "mnist-clusters", "class_deviation"), 0.05),
    ("GAN", "{2.4} instead of 6.3", lambda: above_floor("mnist-clusters"), 0.05),
    ("GAN", "2.4 instead of {6.3}", lambda: above_floor("mnist-dcgan"), 0.05),
    ("GAN", "[{half} of the samples]",
     lambda: measured("GAN", "ring-gan", "high_quality"), 0.05),
    ("Transformer_Torch", "Its test loss was {1.5238}, which is",
     lambda: superseded("Transformer_Torch", "tiny-shakespeare-muon", epochs=24), 5e-5),
    ("Transformer_Torch", "12 epochs, it was {1.4935}, also superseded",
     lambda: superseded("Transformer_Torch", "tiny-shakespeare-muon", epochs=12), 5e-5),
    *(("Transformer_Torch", text,
       lambda: measured("Transformer_Torch", "tiny-shakespeare-muon", "loss"), 5e-5)
      for text in ("`tiny-shakespeare-muon` is {1.4267}, that of the",
                   "test loss is {1.4267} nats, by hand",
                   "`tiny-shakespeare-muon` {1.4267} after 26 (one")),
    ("Transformer_Torch", "has {1.4338} nats after 65 minutes",
     lambda: measured("RNN_Manual", "tiny-shakespeare", "loss"), 5e-5),
    *(("Transformer_Torch", text,
       lambda folder=folder, config=config: runs(folder, config)[0]["seconds"] / 60, 0.5)
      for text, folder, config in (
          ("nats after {65} minutes", "RNN_Manual", "tiny-shakespeare"),
          ("1.4267 after {26} (one", "Transformer_Torch", "tiny-shakespeare-muon"))),
    ("Transformer_Torch", "AdamW {1.4917} (one seed",
     lambda: measured("Transformer_Torch", "tiny-shakespeare", "loss"), 5e-5),
    ("Transformer_Torch", "by hand {1.4266} (one seed",
     lambda: measured("Transformer_Manual", "tiny-shakespeare-muon", "loss"), 5e-5),
    ("Transformer_Manual", "the text by {0.0001} nats (one seed",
     lambda: abs(measured("Transformer_Manual", "tiny-shakespeare-muon", "loss")
                 - measured("Transformer_Torch", "tiny-shakespeare-muon", "loss")), 5e-5),
    ("ResNet", "record of 24 epochs was {92.22} %", lambda: superseded("ResNet", "cifar10-jpeg"),
     0.005),
    ("ResNet", "that of ten minutes {87.36} %",
     lambda: superseded("ResNet", "cifar10-jpeg-10min"), 0.005),
    ("Transformer_Manual", "`multi30k-muon` by {0.01}, the text",
     lambda: abs(measured("Transformer_Manual", "multi30k-muon", "bleu")
                 - measured("Transformer_Torch", "multi30k-muon", "bleu")), 0.005),
    ("Transformer_Manual", "differs by {0.4} points of BLEU",
     lambda: abs(measured("Transformer_Manual", "multi30k", "bleu")
                 - measured("Transformer_Torch", "multi30k", "bleu")), 0.05),
    *(("Transformer_Torch", text, lambda config=config: (
        measured("Transformer_Torch", config, "torchtext_bleu")
        - measured("Transformer_Torch", config, "bleu")), 0.1)
      for text in ("here by {0.2} to 0.3 points", "here by 0.2 to {0.3} points")
      for config in ("multi30k", "multi30k-muon", "multi30k-default")),
    ("Transformer_Torch", "It reaches {42.74} BLEU",
     lambda: measured("Transformer_Torch", "multi30k-muon", "bleu"), 0.005),
    ("Transformer_Torch", "each); by hand, {42.73}.",
     lambda: measured("Transformer_Manual", "multi30k-muon", "bleu"), 0.005),
    ("Transformer_Torch", "BLEU instead of {40.47} (one seed each)",
     lambda: measured("Transformer_Torch", "multi30k", "bleu"), 0.005),
]  # fmt: skip


def flat(folder: str) -> str:
    return " ".join((ROOT / folder / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("folder, text, follows, within", FIGURES, ids=[f[1] for f in FIGURES])
def test_a_figure_in_the_text_follows_from_the_records(folder, text, follows, within):
    (figure,) = re.findall(r"\{(.+?)\}", text)
    assert flat(folder).count(re.sub(r"[{}]", "", text)) == 1, "the README has changed"
    value = NUMBERS[figure] if figure in NUMBERS else float(figure)
    assert abs(follows() - value) <= within + 1e-9, follows()


# what was looked at once, and its mark, at most so many characters later
LOOKS = [
    ("CNN_Manual", "two thirds of the time", "a single look"),
    ("LSTM", "3.8 times as long", "a single look"), ("LSTM", "Less than 2 %", "a single look"),
    ("LSTM", "after a minute", "a single look"),
    ("RNN_Manual", "1.475", "a single look"),
    ("RNN_Manual", "took 0.79 of the time", "a single look"),
    ("RNN_Manual", "repeat a capital after more", "a single look"),
    ("RNN_Manual", "about a hundredth of the large LSTM's", "one network of each"),
    ("Transformer_Manual", "Language model's validation loss", "a single look"),
    ("Transformer_Torch", "halved the time of a step", "a single look"),
    ("Transformer_Torch", "1.37", "a single look"),
    ("Transformer_Torch", "took 0.74 of the time", "a single look"),
    ("Transformer_Torch", "gave 1.88", "a single look"),
    ("Transformer_Torch", "by 0.15 nats", "one seed"),
    ("Transformer_Torch", "43.5 BLEU there", "a single look"),
    ("MLP_Torch", "1.2 times as long", "a single look"),
    ("CNN_Torch", "0.99 times as long", "a single look"),
    ("GAN", "It did not happen here", "a single look"),
    ("VAE", "−148, −214 and −315", "a single look"),
    ("VAE", "0.05 nats", "a single look"), ("VAE", "at the first pace, 95", "a single look"),
    ("GAN", "three quarters of the time", "a single look"),
    ("GAN", "distances on validation", "a single look"),
    ("GAN", "a penalty of 0.1 with five steps", "a single look"),
    ("ResNet", "about half on one with AVX512-BF16", "a single look"),
    ("ResNet", "(of this one seed) rises from 88 to 92 %", "one seed"),
    ("ResNet", "goes down to 0.95", "one seed"),
    ("ResNet", "are 23 % of the mistakes", "one seed"),
    ("ResNet", "takes about half the time of PyTorch's", "a single look"),
    ("ViT", "These are times of forward and backward", "a single look"),
    ("ViT", "learns several times faster", "a single look"),
]  # fmt: skip


@pytest.mark.parametrize("folder, figure, mark", LOOKS, ids=[" ".join(row[:2]) for row in LOOKS])
def test_what_was_looked_at_once_says_so(folder, figure, mark):
    text = flat(folder)
    places = [m.start() for m in re.finditer(re.escape(figure), text, re.IGNORECASE)]
    assert places, "the README has changed"  # its answers may say it again
    assert any(mark in text[place : place + len(figure) + 220] for place in places)


def test_the_gradients_that_vanish_are_those_of_a_batch_of_all_digits():
    """MLP_Manual's answer, computed anew. The sample is sorted by class: its first 128 digits are
    zeros, whose gradients are four times as long."""
    train, _ = load_training("mnist-sample")
    inputs, labels = next(iter(train.batches(128, 0, 0)))
    assert labels.unique().numel() == 10
    for activation, text in (
        ("sigmoid", r"gradients are ([\d., and]+), from the first layer to the last"),
        ("relu", r"With ReLU the norms are ([\d., and]+)\."),
    ):
        (said,) = re.findall(text, flat("MLP_Manual"))
        seed_everything(0)
        model = MLP(784, (256,) * 4, 10, activation, batch_norm=False, dropout=0, input_dropout=0)
        criterion = CrossEntropy()
        criterion.forward(model.forward(inputs), labels)
        model.backward(criterion.backward())
        norms = [g.norm().item() for n, g in model.gradients().items() if n.endswith("weight")]
        said = [float(number) for number in re.findall(r"[\d.]+", said)]
        assert said == pytest.approx(norms, rel=0.25) and len(said) == 5
