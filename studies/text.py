"""Cells and attention: who learns Shakespeare soonest? `python studies/text.py` (80 minutes).

The RNN, GRU and LSTM of RNN_Manual and the small GPTs of Transformer_Manual and Transformer_Torch
learn the same characters for the same minutes, each by its folder's recipe, and are measured on the
same validation split. Before that, each network by hand and its twin in PyTorch take some steps in
turns. Rows are kept as they are found, so a study that was stopped goes on where it was.
Two processes, one for each core, take three quarters of an hour: `--part 1/2` and `--part 2/2`.
"""

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

if not __package__:  # started by its path
    import start  # noqa: F401

from torch import Tensor, nn
from torch.nn import functional as F

from common import cli
from common.device import seed_everything
from common.results import rows, tables
from common.results.compare import timings
from RNN_Manual.dataset import load_training
from RNN_Manual.dataset.text import Text
from RNN_Manual.dataset.texts import or_help_topics
from RNN_Manual.model import LanguageModel
from RNN_Manual.train import RECIPES, evaluate
from RNN_Manual.utils.losses import SequenceCrossEntropy
from RNN_Manual.utils.optim import OPTIMIZERS, clip_gradients
from studies import protocol
from studies.memory import peak_megabytes
from studies.protocol import Learner
from Transformer_Manual.model import LanguageModel as ManualGPT
from Transformer_Manual.utils.evaluation import mean_loss as manual_loss
from Transformer_Manual.utils.losses import TokenCrossEntropy
from Transformer_Manual.utils.optim import OPTIMIZERS as GPT_OPTIMIZERS
from Transformer_Torch.dataset import lm
from Transformer_Torch.dataset.windows import Windows
from Transformer_Torch.model import LanguageModel as TorchGPT
from Transformer_Torch.train import RECIPES as GPT_RECIPES
from Transformer_Torch.utils.evaluation import mean_loss
from Transformer_Torch.utils.optim import make_optimizer

RECORD, METRIC = protocol.record("text"), "loss"
NETWORKS = {
    "rnn": "RNN, by hand",
    "gru": "GRU, by hand",
    "lstm": "LSTM, by hand",
    "transformer": "Transformer, by hand",
    "transformer-torch": "Transformer, PyTorch",
}
PAIRS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM", "transformer": "Transformer"}
TIMED = 20  # steps of each twin, and 3 before these
MINUTES, QUICK_MINUTES = [1, 2, 5], [0.005, 0.01]
QUICK = {"embed_dim": 16, "hidden_size": 32, "num_layers": 1, "feedforward_dim": 32,
         "max_length": 32, "window": 16}  # fmt: skip


class TorchTwin(nn.Module):
    """RNN_Manual's language model of nn.RNN, nn.GRU or nn.LSTM: its weights have the same names."""

    def __init__(self, cell: str, vocab_size: int, embed_dim: int, hidden_size: int, layers: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.recurrent = getattr(nn, cell.upper())(embed_dim, hidden_size, layers)
        self.linear = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tensor, state=None) -> Tensor:  # (T, N) -> (T, N, V)
        x, state = self.recurrent(self.embedding(tokens), state)
        pair = isinstance(state, tuple)  # what is carried on has no gradient
        self.state = tuple(part.detach() for part in state) if pair else state.detach()
        return self.linear(x)


def windows(model, train: Text, recipe: Namespace, seed: int) -> Iterator:
    """Batches of a recurrent network, without an end: ((tokens, the state before them), labels)."""
    for epoch in count():
        state = None
        for tokens, labels in train.batches(recipe.batch_size, recipe.window, seed, epoch):
            yield (tokens, state), labels
            state = model.state


def fit_by_hand(model, criterion, optimizer, batches, rate, clip: float) -> Iterator[Tensor]:
    """The loop of train.py in every folder by hand; yields the loss of each step."""
    model.train()
    for step, (inputs, labels) in enumerate(batches):
        optimizer.lr = rate(step)
        loss = criterion.forward(model.forward(*inputs), labels)
        model.backward(criterion.backward())
        if clip:
            clip_gradients(model, clip)
        optimizer.step()
        yield loss


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def recurrent(network: str, seed: int, train: Text, validation: Text, recipe) -> Learner:
    """RNN_Manual's, or with "-torch" its twin from the same weights."""
    seed_everything(seed)
    cell, device = network.removesuffix("-torch"), train.labels.device
    sizes = len(train.classes), recipe.embed_dim, recipe.hidden_size, recipe.num_layers
    model = LanguageModel(*sizes, cell, dropout=0.0).to(device=device)
    epoch = train.num_batches(recipe.batch_size, recipe.window)
    rate = protocol.rate(recipe.lr, epoch)
    if network == cell:
        optimizer = OPTIMIZERS[recipe.optimizer](model, recipe.lr)
        batches = windows(model, train, recipe, seed)
        steps = fit_by_hand(model, SequenceCrossEntropy(), optimizer, batches, rate, recipe.clip)
    else:
        twin = TorchTwin(cell, *sizes).to(device)
        twin.load_state_dict(model.state_dict())
        model, optimizer = twin, make_optimizer(recipe.optimizer, twin, recipe.lr, 0.0, 0.999)
        batches = windows(model, train, recipe, seed)
        steps = protocol.fit(model, cross_entropy, optimizer, batches, rate, recipe.clip)
    return Learner(model, steps, lambda network: evaluate(network, validation)["loss"], epoch)


def transformer(
    network: str, seed: int, train: Windows, validation: Windows, recipe,
    networks: tuple = (ManualGPT, TorchGPT),
) -> Learner:  # fmt: skip
    """The language model of Transformer_Manual, or with "-torch" of Transformer_Torch."""
    seed_everything(seed)
    by_hand, size = network == "transformer", recipe.batch_size
    model = networks[not by_hand](
        len(train.tokenizer), recipe.embed_dim, recipe.num_heads, recipe.num_layers,
        recipe.feedforward_dim, recipe.dropout, recipe.activation, recipe.norm_first,
        recipe.positions, recipe.max_length,
    ).to(device=train.labels.device)  # fmt: skip
    batches = (batch for epoch in count() for batch in train.batches(size, seed, epoch))
    epoch = train.num_batches(size)
    rate, beta2, decay = protocol.rate(recipe.lr, epoch), recipe.beta2, recipe.weight_decay
    if by_hand:
        optimizer = GPT_OPTIMIZERS[recipe.optimizer](
            model, recipe.lr, betas=(0.9, beta2), weight_decay=decay
        )
        steps = fit_by_hand(model, TokenCrossEntropy(), optimizer, batches, rate, recipe.clip)
        return Learner(model, steps, lambda network: manual_loss(network, validation), epoch)
    optimizer = make_optimizer(recipe.optimizer, model, recipe.lr, decay, beta2)
    steps = protocol.fit(model, cross_entropy, optimizer, batches, rate, recipe.clip)
    return Learner(model, steps, lambda network: mean_loss(network, validation), epoch)


def compare(builds: dict, device, steps: int) -> dict:
    """A row: time and memory of a step of twins, which take their steps in turns."""
    megabytes = {twin: round(peak_megabytes(build), 1) for twin, build in builds.items()}
    learners = {twin: build() for twin, build in builds.items()}
    pair = [partial(next, learners[twin].steps) for twin in ("manual", "torch")]
    seconds = timings(pair, (), device, steps, warmup=3)
    medians = {twin: 1000 * median(taken) for twin, taken in seconds.items()}
    ratio = medians["manual"] / medians["torch"]
    milliseconds = {twin: round(value, 2) for twin, value in medians.items()}
    return {"milliseconds": milliseconds, "ratio": round(ratio, 3), "megabytes": megabytes,
            "timed": steps}  # fmt: skip


def table(path: Path = RECORD) -> str:
    """The README's tables, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    study = rows.read(path)
    lines = protocol.table(study, NETWORKS, METRIC)
    twins = [["a training step of the", "by hand, ms", "PyTorch, ms", "by hand / PyTorch",
              "by hand, MB", "PyTorch, MB"]]  # fmt: skip
    timed = TIMED
    for pair, name in PAIRS.items():
        for row in rows.matching(study, pair=pair):
            ms, megabytes = (row[unit].values() for unit in ("milliseconds", "megabytes"))
            twins.append([name, *map(str, ms), f"**{row['ratio']:.2f}**",
                          *(f"{value:.0f}" for value in megabytes)])  # fmt: skip
            timed = row["timed"]
    words = f"Loss per character; twins: medians of {timed} steps in turns."
    return "\n".join([*lines, "", *tables.table(twins), *protocol.note(study, "text", words)])


def main(argv=None):
    args = protocol.parse(__doc__, argv, MINUTES, QUICK_MINUTES)
    quick = QUICK if args.quick else {}
    args.dataset = "help-topics" if args.quick else "tiny-shakespeare"
    args.dataset = or_help_topics(args.dataset, False, args.data_dir)
    recipe = Namespace(**{**RECIPES[args.dataset], **quick})
    gpt = Namespace(**{**GPT_RECIPES[args.dataset], **quick, "data_dir": args.data_dir})
    gpt.dataset = args.dataset
    texts = load_training(args.dataset, args.data_dir)
    text, validation = (split.to(args.device) for split in texts)
    gpt_text, gpt_validation = (split.to(args.device) for split in lm.load_training(gpt))
    if args.quick:
        validation, gpt_validation = validation.subset(4_000), gpt_validation.subset(4_000)

    def build(network: str, seed: int) -> Learner:
        if network.startswith("transformer"):
            return transformer(network, seed, gpt_text, gpt_validation, gpt)
        return recurrent(network, seed, text, validation, recipe)

    def make(**key) -> dict:
        if "pair" in key:
            manual, native = (partial(build, key["pair"] + kind, 0) for kind in ("", "-torch"))
            twins = {"manual": manual, "torch": native}
            return compare(twins, args.device, 3 if args.quick else TIMED)
        return protocol.make_row(partial(build, **key), args.minutes, METRIC)

    keys = [{"pair": pair} for pair in PAIRS]
    keys += [{"network": name, "seed": seed} for seed in range(args.seeds) for name in NETWORKS]
    path, study = protocol.collect("text", args, keys, make)
    protocol.draw(path.with_name("text.png"), study, NETWORKS, METRIC)
    protocol.finish(path, table(path))


if __name__ == "__main__":
    cli.entry(main)
