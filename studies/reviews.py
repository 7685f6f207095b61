"""What is order worth? `python studies/reviews.py` (fifty minutes).

Which film reviews are good is told by networks that read the words in order (LSTM's RNN, GRU and
LSTM), by the same LSTM on words that were shuffled, and by what knows no order: the mean of the
words' embeddings, and a bag of words; a bag of pairs, too, knows a little. The networks learn for
the same minutes by the folder's recipe. Rows are kept as they are found, so a study that was
stopped goes on where it was.
"""

import time
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

if not __package__:  # started by its path
    import start  # noqa: F401

import torch
from torch import Tensor, nn

from common import cli
from common.device import seed_everything
from common.metrics import metrics_of
from common.results import rows
from LSTM.baseline import GRIDS
from LSTM.baseline import RECIPES as BASELINE
from LSTM.dataset import load_training, or_templates
from LSTM.dataset.ragged import Ragged
from LSTM.dataset.texts import Texts
from LSTM.model import PAD
from LSTM.train import RECIPES, build_model
from LSTM.utils.evaluation import predict_all
from LSTM.utils.ngrams import NGramLogistic, NGrams
from LSTM.utils.optim import make_optimizer
from studies import protocol
from studies.protocol import Learner

RECORD, METRIC = protocol.record("reviews"), "accuracy"
CELLS = {"rnn": "rnn", "gru": "gru", "lstm": "lstm", "lstm-shuffled": "lstm"}
BAGS = {"bag-1": 1, "bag-2": 2}  # the longest n-grams
NETWORKS = {
    "rnn": "RNN",
    "gru": "GRU",
    "lstm": "LSTM",
    "lstm-shuffled": "LSTM, words shuffled",
    "mean": "mean of embeddings",
    "bag-1": "bag of words",
    "bag-2": "bag of words and pairs",
}
MINUTES, QUICK_MINUTES = [1, 2, 3], [0.01, 0.02]
QUICK = {"embed_dim": 16, "hidden_size": 16}


class MeanOfEmbeddings(nn.Module):
    """tokens (N, T), lengths (N,) -> logits (N, K): a linear layer on the mean of the words'
    vectors, in which their order is gone (Iyyer et al., 2015; Joulin et al., 2016)."""

    def __init__(self, vocabulary: int, num_classes: int, embed_dim: int, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embed_dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=0.03)  # as in LSTM/model.py
        nn.init.zeros_(self.embedding.weight[PAD])
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(embed_dim, num_classes)
        self.not_decayed = {"embedding.weight"}

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        total = self.embedding(tokens).sum(1)  # padding is zeros: (N, T, D) -> (N, D)
        return self.output(self.dropout(total / lengths.clamp(min=1)[:, None]))


def shuffled(texts: Texts, seed: int = 0) -> Texts:
    """The same words in each text, in an order that is drawn once."""
    words, lengths = texts.inputs.flat().cpu(), texts.inputs.lengths.cpu()
    text = torch.repeat_interleave(lengths)  # of each word
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed))
    order = order[text[order].argsort(stable=True)]  # each text's words together again
    inputs = Ragged.of(words[order], lengths).to(texts.labels.device)
    return Texts(texts.corpus, texts.encoding, inputs, texts.labels, texts.folds)


def endless(train: Texts, size: int, seed: int) -> Iterator:
    """Training batches ((tokens, lengths), labels), epoch after epoch."""
    return (batch for epoch in count() for batch in train.batches(size, seed, epoch))


def reader(network: str, seed: int, train: Texts, validation: Texts, args: Namespace) -> Learner:
    """A network that learns in steps, on these texts."""
    seed_everything(seed)
    if network == "mean":
        sizes = len(train.encoding.vocabulary), len(train.classes)
        model = MeanOfEmbeddings(*sizes, args.embed_dim, args.dropout)
    else:
        model = build_model(Namespace(**{**vars(args), "cell": CELLS[network]}), train.encoding)
    model.to(args.device)
    optimizer = make_optimizer(args.optimizer, model, args.lr, args.weight_decay)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    epoch = train.num_batches(args.batch_size)
    batches = endless(train, args.batch_size, seed)
    rate = protocol.rate(args.lr, epoch)
    steps = protocol.fit(model, criterion, optimizer, batches, rate, args.clip)

    def evaluate(model: nn.Module) -> float:
        return metrics_of(*predict_all(model, validation))[METRIC]

    return Learner(model, steps, evaluate, epoch)


def bag(longest: int, train: Texts, validation: Texts, minutes: list[float], dataset: str) -> dict:
    """The row of logistic regression on n-grams, which is fitted at once: until then, None. Its
    regularisation is the best on the validation split, as in LSTM/baseline.py."""
    begun, reached = time.perf_counter(), []
    ngrams = NGrams(longest, BASELINE[dataset]["min_freq"], train.corpus)
    counts, held_out = ngrams(train.corpus), ngrams(validation.corpus)
    for C in GRIDS["logistic"]:
        model = NGramLogistic(C, 0).fit(counts, train.corpus.labels)
        metrics = metrics_of(model.logits(held_out), validation.corpus.labels)
        reached.append((metrics[METRIC], C))
    seconds, (best, C) = time.perf_counter() - begun, max(reached)
    values = [best if 60 * mark >= seconds else None for mark in minutes]
    return {"C": C, "fitted": round(seconds, 1), "best": best, "validation": {METRIC: values},
            "parameters": model.parameters}  # fmt: skip


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    words = "".join(
        f"The {NETWORKS[name]} reached {protocol.shown(METRIC, [row['best']])} % and was fitted in "
        f"{row['fitted']:.0f} s, the choice of its regularisation among them. "
        for name in BAGS for row in rows.matching(study, network=name)
    )  # fmt: skip
    lines = protocol.table(study, NETWORKS, METRIC)
    return "\n".join([*lines, *protocol.note(study, "reviews", words.strip())])


def main(argv=None):
    args = protocol.parse(__doc__, argv, MINUTES, QUICK_MINUTES)
    args.dataset = or_templates("templates" if args.quick else "imdb", False, args.data_dir)
    recipe = {**RECIPES[args.dataset], **(QUICK if args.quick else {}), "subset": None}
    recipe = Namespace(**{**recipe, **vars(args)})
    splits = [split.to(args.device) for split in load_training(recipe)]
    others = [shuffled(split) for split in splits]

    def build(network: str, seed: int) -> Learner:
        texts = others if network == "lstm-shuffled" else splits
        return reader(network, seed, *texts, recipe)

    def make(network: str, seed: int) -> dict:
        if network in BAGS:
            return bag(BAGS[network], *splits, args.minutes, args.dataset)
        return protocol.make_row(partial(build, network, seed), args.minutes, METRIC)

    keys = [{"network": name, "seed": 0} for name in BAGS]  # nothing is drawn
    learned = [name for name in NETWORKS if name not in BAGS]
    keys += [{"network": name, "seed": seed} for seed in range(args.seeds) for name in learned]
    path, study = protocol.collect("reviews", args, keys, make)
    protocol.draw(path.with_name("reviews.png"), study, NETWORKS, METRIC)
    protocol.finish(path, table(path))


if __name__ == "__main__":
    cli.entry(main)
