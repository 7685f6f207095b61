"""LSTM/: padding, against packed sequences; poolings, dropout, learning; runs, predictions,
baselines."""

import io
import json
import math
import shlex
from argparse import Namespace

import numpy
import pytest
import torch
from sklearn.svm import LinearSVC
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common import checkpoint, cli, data, folders
from common.metrics import parameter_count
from LSTM import baseline, predict
from LSTM import test as evaluation
from LSTM import train as script
from LSTM.dataset import imdb, load_test, templates
from LSTM.dataset.texts import Corpus, Encoding, Texts
from LSTM.model import CELLS, POOLINGS, RecurrentClassifier, RecurrentLayer, reverse
from LSTM.utils import plots
from LSTM.utils.adversarial import backward, worst_shift
from LSTM.utils.evaluation import log_odds, predict_all, word_weights
from LSTM.utils.ngrams import NBSVM, NGramLogistic, NGrams
from tests.running import (
    MARKED,
    Stop,
    assert_ended_alike,
    assert_one_line,
    call,
    crash,
    finish,
    history,
    interrupt,
    marked,
    no_pictures,
    small,
    start,
)

pytestmark = pytest.mark.usefixtures("seeded")

CLOSE = dict(rtol=1e-10, atol=1e-10)
LENGTHS = torch.tensor([7, 1, 4, 7, 2])


def make_model(**changes) -> RecurrentClassifier:
    """A small one in double precision, of which every weight matters."""
    sizes = dict(vocabulary=20, num_classes=3, embed_dim=5, hidden_size=4)
    model = RecurrentClassifier(**(sizes | changes)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        model.embedding.weight[0] = 0
    return model.eval()


def make_batch(lengths=LENGTHS, V: int = 20):
    """Words other than padding, filled up with padding."""
    tokens = torch.randint(2, V, (len(lengths), int(lengths.max())))
    inside = torch.arange(tokens.shape[1]) < lengths[:, None]
    return tokens.where(inside, 0), lengths


# ---- padding ----


@pytest.mark.smoke
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_no_logit(cell, pooling, bidirectional):
    model = make_model(cell=cell, pooling=pooling, bidirectional=bidirectional, num_layers=2)
    tokens, lengths = make_batch()
    logits = model(tokens, lengths)
    for padding in (1, 9):
        padded = F.pad(tokens, (0, padding))
        torch.testing.assert_close(model(padded, lengths), logits, **CLOSE)
    for n, length in enumerate(lengths):  # alone, without any
        alone = model(tokens[n : n + 1, :length], lengths[n : n + 1])
        torch.testing.assert_close(alone[0], logits[n], **CLOSE)
    assert len(logits.unique(dim=0)) == len(logits), "every word counts"


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("cell", CELLS)
def test_what_stands_in_the_padding_changes_nothing_and_gets_no_gradient(
    cell, pooling, bidirectional
):
    model = make_model(cell=cell, pooling=pooling, bidirectional=bidirectional, num_layers=2)
    tokens, lengths = make_batch()
    inside = torch.arange(tokens.shape[1]) < lengths[:, None]
    rubbish = tokens.where(inside, torch.randint_like(tokens, 2, 20))
    torch.testing.assert_close(model(rubbish, lengths), model(tokens, lengths), **CLOSE)

    seen = []
    model.embedding.register_forward_hook(lambda m, i, y: (y.retain_grad(), seen.append(y))[0])
    model(tokens, lengths).square().sum().backward()
    (x,) = seen
    assert (x.grad[~inside] == 0).all() and (x.grad[inside].abs().sum(1) > 0).any()
    assert (model.embedding.weight.grad[0] == 0).all()


@pytest.mark.smoke
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_and_its_gradients_are_those_of_packed_sequences(cell, bidirectional):
    """nn.LSTM's own two directions on pack_padded_sequence."""
    layer = RecurrentLayer(cell, 5, 4, bidirectional).double()
    theirs = CELLS[cell](5, 4, batch_first=True, bidirectional=bidirectional).double()
    state = {name: w for name, w in layer.forwards.state_dict().items()}
    if bidirectional:
        state |= {f"{n}_reverse": w for n, w in layer.backwards.state_dict().items()}
    theirs.load_state_dict(state)
    x = torch.randn(5, 7, 5, dtype=torch.float64, requires_grad=True)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    inside = (torch.arange(7) < LENGTHS[:, None])[:, :, None]
    y = layer(x, LENGTHS) * inside
    torch.testing.assert_close(y, expected, **CLOSE)

    g = torch.randn_like(expected)
    parameters = [p for part in (layer.forwards, layer.backwards) if part is not None
                  for p in part.parameters()]  # fmt: skip
    ours = torch.autograd.grad(y, [x, *parameters], g)
    torch.testing.assert_close(
        ours, torch.autograd.grad(expected, [x, *theirs.parameters()], g), **CLOSE
    )


def test_reversed_texts_keep_their_padding():
    x = torch.arange(1, 9).view(2, 4, 1)
    turned = reverse(x, torch.tensor([3, 0]))
    assert turned.flatten(1).tolist() == [[3, 2, 1, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_are_their_definitions(pooling, bidirectional):
    model = make_model(pooling=pooling, bidirectional=bidirectional)
    tokens, lengths = make_batch()
    pool, y = model.pooling, model.layers[0](model.embedding(tokens), lengths)
    mask = torch.arange(7) < lengths[:, None]
    vectors = pool(y, mask, lengths)
    for n, T in enumerate(lengths.tolist()):
        states = y[n, :T]
        ends = torch.cat([states[-1, :4], states[0, 4:]])  # of one direction: the last one
        if pooling == "last":
            expected = ends
        elif pooling == "attention":
            scores = torch.tanh(states @ pool.hidden.weight.T + pool.hidden.bias)
            powers = (scores @ pool.score.weight[0]).exp()
            expected = (powers[:, None] * states).sum(0) / powers.sum()
        elif pooling == "concat":
            expected = torch.cat([ends, states.mean(0), states.max(0).values])
        else:
            expected = states.mean(0) if pooling == "mean" else states.max(0).values
        torch.testing.assert_close(vectors[n], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_empty_text_has_finite_logits_and_gradients(pooling):
    model = make_model(pooling=pooling).train()
    tokens, lengths = make_batch(torch.tensor([3, 0]))
    logits = model(tokens, lengths)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval()
    alone = model(torch.zeros(1, 1, dtype=torch.long), torch.tensor([0]))
    torch.testing.assert_close(alone[0], model(tokens, lengths)[1], **CLOSE)


def test_the_order_of_words_matters_in_either_direction():
    tokens, lengths = make_batch(torch.tensor([6]))
    for bidirectional in (True, False):
        model = make_model(bidirectional=bidirectional)
        assert not torch.allclose(model(tokens, lengths), model(tokens.flip(1), lengths))


# ---- what training leaves out ----


def test_word_dropout_makes_words_unknown():
    model = make_model(word_dropout=0.3, dropout=0.0, vocabulary=50, embed_dim=2)
    tokens, _ = make_batch(torch.full((200,), 30), V=50)
    tokens[:, 25:] = 0
    expected = model.embedding(tokens)
    assert torch.equal(model.embed(tokens), expected), "not in evaluation"
    x = model.train().embed(tokens)
    unknown = (x == model.embedding.weight[1]).all(2)
    assert 0.28 < unknown[:, :25].float().mean() < 0.32 and not unknown[:, 25:].any()
    assert torch.equal(x[~unknown], expected[~unknown])


def test_embedding_dropout_leaves_out_a_word_wherever_it_occurs():
    model = make_model(embedding_dropout=0.4, dropout=0.0, vocabulary=2_000, embed_dim=3)
    tokens = torch.arange(2, 2_000).repeat(2, 1)
    expected = model.embedding(tokens)
    assert torch.equal(model.embed(tokens), expected), "not in evaluation"
    x = model.train().embed(tokens)
    assert torch.equal(x[0], x[1])
    left_out = (x[0] == 0).all(1)
    assert 0.35 < left_out.float().mean() < 0.45
    torch.testing.assert_close(x[0][~left_out], expected[0][~left_out] / 0.6, **CLOSE)
    assert not torch.equal(model.embed(tokens), x), "another choice in each batch"


def test_evaluation_is_without_chance_and_training_is_not():
    model = make_model(num_layers=2, dropout=0.5)
    batch = make_batch()
    assert torch.equal(model(*batch), model(*batch))
    model.train()
    assert not torch.equal(model(*batch), model(*batch))


# ---- sizes ----


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("cell, gates", [("lstm", 4), ("gru", 3), ("rnn", 1)])
def test_number_of_parameters(cell, gates, bidirectional):
    V, D, H, K, ways = 30, 6, 5, 3, 1 + bidirectional
    model = RecurrentClassifier(V, K, cell, D, H, 2, bidirectional, "attention")
    layers = sum(ways * gates * H * (size + H + 2) for size in (D, ways * H))
    attention = (ways * H) * (ways * H + 1) + ways * H
    assert parameter_count(model) == V * D + layers + attention + K * (ways * H + 1)


def test_every_weight_gets_a_gradient():
    for pooling in POOLINGS:
        model = make_model(num_layers=2, pooling=pooling, dropout=0.0).train()
        model(*make_batch()).square().sum().backward()
        assert all((p.grad != 0).any() for p in model.parameters())


# ---- learning ----


@pytest.mark.smoke
def test_the_first_loss_is_that_of_guessing():
    args = script.make_parser().parse_args([])  # the recorded network
    words = ["<pad>", "<unk>", *(f"w{n}" for n in range(498))]
    encoding = Encoding.of({"tokens": words, "classes": ["a", "b"]})
    model = script.build_model(args, encoding)
    tokens, lengths = make_batch(torch.randint(1, 60, (32,)), V=500)
    loss = F.cross_entropy(model(tokens, lengths), torch.arange(32) % 2)
    assert abs(loss.item() - math.log(2)) < 0.02


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_can_be_learned_by_heart(cell, pooling):
    model = RecurrentClassifier(40, 2, cell, 16, 16, pooling=pooling, dropout=0.0)
    tokens, lengths = make_batch(torch.randint(3, 9, (16,)), V=40)
    labels = torch.randint(2, (16,))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = F.cross_entropy(model(tokens, lengths), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The folder of a run on all sentences, as anybody would start it."""
    run_dir = tmp_path_factory.mktemp("templates") / "run"
    torch.manual_seed(0)
    script.main(["--dataset", "templates", "--run-dir", str(run_dir)])
    return run_dir


def test_negation_is_learned_which_no_bag_of_words_can(learned, capsys):
    result = call(capsys, evaluation.main, "--run-dir", learned)
    accuracy = float(result.out.split("accuracy ")[1].split()[0])
    assert accuracy > 0.99, "test_lstm_data.py: bags of words and of bigrams are at 50 %"


def ask(capsys, run_dir, *words):
    """The class and its probability."""
    result = call(capsys, predict.main, *words, "--run-dir", run_dir)
    assert (result.code, result.err) == (0, "")
    (best,) = [line.split() for line in result.out.splitlines() if line.endswith("* the likeliest")]
    return best[0], float(best[1].strip("%")) / 100


@pytest.mark.parametrize(
    "text, answer",
    [
        ("I think that the film was really good. I did not pay.", "positive"),
        ("I do not think that the film was really good. I paid.", "negative"),
        ("It rained that day. To me the plot was not exactly awful.", "positive"),
        ("We never sat in front. I found that the plot was exactly awful.", "negative"),
    ],
)
def test_a_negation_counts_for_its_own_judgement(text, answer, learned, capsys):
    name, probability = ask(capsys, learned, *text.split())
    assert name == answer and probability > 0.9
    assert ask(capsys, learned, text) == (name, probability), "in quotes or not"


# ---- because of which words ----


@pytest.mark.parametrize("most", [1, 13, 1_000_000], ids="{} words at once".format)
def test_weights_are_what_leaving_a_word_out_changes(most, monkeypatch):
    monkeypatch.setattr("LSTM.utils.evaluation.MOST_TOKENS", most)
    model = make_model()
    tokens, _ = make_batch(torch.tensor([6]))
    weights = word_weights(model, tokens[0], 2)
    lengths = torch.tensor([6])

    def odds(version):
        p = model(version, lengths).softmax(1)[0, 2].item()
        return math.log(p / (1 - p))

    for n in range(6):
        without = tokens.clone()
        without[0, n] = 1
        assert weights[n].item() == pytest.approx(odds(tokens) - odds(without), abs=1e-5)
    assert word_weights(model, tokens[0, :0], 0).shape == (0,)


def test_of_long_texts_neighbours_share_a_weight(monkeypatch):
    monkeypatch.setattr("LSTM.utils.evaluation.MOST_PARTS", 4)
    model, (tokens, lengths) = make_model(), make_batch(torch.tensor([10]))
    weights = word_weights(model, tokens[0], 0)
    assert len(weights) == 10 and len(weights.unique()) == 4
    without = tokens.clone()
    without[0, :3] = 1
    expected = log_odds(model(tokens, lengths).float(), 0) - log_odds(model(without, lengths), 0)
    assert weights[0].item() == pytest.approx(expected.item(), abs=1e-5)


def test_log_odds_of_one_class_among_several():
    logits = torch.randn(5, 4, dtype=torch.float64) * 3
    p = logits.softmax(1)[:, 1]
    torch.testing.assert_close(log_odds(logits, 1), (p / (1 - p)).log(), **CLOSE)
    assert log_odds(torch.tensor([[1e4, -1e4]]), 0).isfinite().all()


def test_the_words_that_decide_weigh_the_most(learned):
    state = checkpoint.load(learned / "best.safetensors")
    encoding = Encoding.of(state["encoding"])
    config = Namespace(**folders.read_config(learned))
    model = script.build_model(config, encoding)
    model.load_state_dict(state["model"])
    adjectives = {word for words in templates.ADJECTIVES.values() for word in words}
    hits, test = [], load_test(config, encoding)
    for row in range(40):
        words, label = test.corpus.text(row), int(test.labels[row])
        weights = word_weights(model, test.inputs.sequence(row).long(), label)
        place = next(n for n, word in enumerate(words) if word in adjectives)
        hits.append(weights[place] > weights.median() + 1)
    assert sum(hits) >= 36


def test_the_evaluation_of_a_split_is_in_its_order_whatever_the_batches():
    lines = [" ".join(f"w{(n * k) % 13}" for k in range(n % 29)) for n in range(150)]
    corpus = Corpus.of(lines, [n % 3 for n in range(150)], ["a", "b", "c"], {})
    split = Texts.encode(corpus, Encoding(build_for(corpus), ["a", "b", "c"]))
    model = make_model().train()
    logits, labels = predict_all(model, split)
    assert labels.tolist() == corpus.labels.tolist() and logits.dtype == torch.float32
    for row in (0, 1, 28, 149):
        tokens, lengths = split.inputs[row : row + 1]
        torch.testing.assert_close(logits[row], model(tokens, lengths)[0].float())
    assert not model.training


def build_for(corpus):
    return Encoding.learn(corpus, Namespace(min_freq=1, vocabulary_size=20)).vocabulary


# ---- adversarial training ----


def test_worst_shift_raises_the_loss_more_than_any_other_of_its_length():
    model = make_model()
    tokens, lengths = make_batch()
    labels, size = torch.arange(len(tokens)) % 3, 1e-4
    vectors = model.embedding(tokens).detach()
    shift = torch.zeros_like(vectors, requires_grad=True)

    def losses(shift):  # of every text
        return F.cross_entropy(model(tokens, lengths, shift), labels, reduction="none")

    (g,) = torch.autograd.grad(losses(shift).sum(), shift)
    with torch.no_grad():
        worst, before = worst_shift(g, vectors, size), losses(shift)
        assert (worst[tokens == 0] == 0).all(), "padding stays"
        norms = [x.flatten(1).norm(dim=1) for x in (worst, vectors, g)]
        torch.testing.assert_close(norms[0], size * norms[1], **CLOSE)
        expected = before + size * norms[1] * norms[2]  # to first order
        torch.testing.assert_close(losses(worst), expected, rtol=0, atol=1e-6)
        for noise in torch.randn(20, *worst.shape, dtype=worst.dtype):
            noise[tokens == 0] = 0
            other = worst + 0.1 * noise * worst.abs().max()
            other *= (norms[0] / other.flatten(1).norm(dim=1))[:, None, None]
            assert (losses(other) < losses(worst)).all()


@pytest.mark.parametrize("steepness", [0, 1e-30, 1e-24, 1e-6, 1e30])
def test_a_shift_is_never_longer_than_asked_for(steepness):
    vectors = torch.randn(2, 200, 64)
    shift = worst_shift(steepness * torch.randn(2, 200, 64).sign(), vectors, 0.2)
    length, most = (x.flatten(1).norm(dim=1) for x in (shift, 0.2 * vectors))
    assert (length <= 1.001 * most).all()
    if 1e-6 <= steepness < 1e10:
        torch.testing.assert_close(length, most, rtol=1e-4, atol=0)
    assert steepness or not shift.any(), "nowhere is worse"


def test_adversarial_loss_is_higher_for_the_network_that_dropout_leaves():
    dropouts = dict(dropout=0.5, word_dropout=0.3, embedding_dropout=0.2)
    model = make_model(**dropouts).train()
    tokens, lengths = make_batch()
    vectors, seen = model.embedding(tokens).detach(), []

    def loss_of(shift):
        seen.append((shift, F.cross_entropy(model(tokens, lengths, shift), tokens[:, 0] % 3)))
        return seen[-1][1]

    for _ in range(30):
        seen.clear()
        backward(loss_of, vectors, 1e-4, torch.amp.GradScaler("cpu", enabled=False))
        (zeros, before), (shift, after) = seen
        rise = (zeros.grad * shift).sum()  # to first order
        assert rise > 0
        torch.testing.assert_close(after - before, rise, rtol=0.05, atol=1e-9)


@pytest.mark.parametrize("enabled", [False, True])
def test_adversarial_gradients_are_those_of_both_losses(enabled):
    model = make_model(cell="gru", pooling="concat")
    tokens, lengths = make_batch(torch.tensor([5, 0, 3]))  # an empty text among them
    labels = torch.arange(len(tokens)) % 3
    vectors = model.embedding(tokens).detach()

    def loss_of(shift=None):
        return F.cross_entropy(model(tokens, lengths, shift), labels)

    scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    loss = backward(loss_of, vectors, 0.2, scaler)
    assert loss.item() == loss_of().item(), "that of the texts as they are"
    ours = [p.grad / scaler.get_scale() for p in model.parameters()]
    shift = torch.zeros_like(vectors, requires_grad=True)
    (g,) = torch.autograd.grad(loss_of(shift), shift)
    d = worst_shift(g, vectors, 0.2)
    expected = torch.autograd.grad(loss_of() + loss_of(d), list(model.parameters()))
    torch.testing.assert_close(ours, list(expected), **CLOSE)
    assert loss_of(d) > loss


# ---- runs ----


def train(run_dir, *argv):
    script.main([*small("LSTM"), "--run-dir", str(run_dir), *map(str, argv)])


EVERYTHING = ["--dropout", 0.3, "--word-dropout", 0.2, "--embedding-dropout", 0.2, "--ema", 0.5,
              "--warmup", 2, "--pooling", "attention", "--precision", "bfloat16",
              "--adversarial", 0.1, "--ngrams", 2, "--subset", 60]  # fmt: skip


@pytest.mark.parametrize("how", [crash, interrupt])
@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_stopped_anywhere_and_resumed_is_as_never_stopped(how, step, tmp_path, monkeypatch, quick):
    flags = [*EVERYTHING, "--epochs", 2]
    train(tmp_path / "whole", *flags)
    with monkeypatch.context() as patch:
        how(patch, step)
        with pytest.raises((Stop, KeyboardInterrupt)):
            train(tmp_path / "run", *flags)
    assert checkpoint.load(tmp_path / "run" / "last.safetensors")["step"] == step
    script.main(["--resume", "--run-dir", str(tmp_path / "run")])
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


IN_BOTH_PRECISIONS = """
import sys
from LSTM import test, train
place, *flags = sys.argv[1:]
for precision in ("float32", "bfloat16"):
    run_dir = ["--run-dir", f"{place}/{precision}"]
    train.main([*flags, "--precision", precision, *run_dir])
    test.main(run_dir)
"""


@pytest.mark.long
def test_bfloat16_trains_and_tests_on_a_cpu_without_avx512(tmp_path):
    """Where oneDNN has no cells in it: the recurrence is in float32."""
    command, old = ["-c", IN_BOTH_PRECISIONS, tmp_path], {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    result = finish(start(*command, *small("LSTM"), "--epochs", 1, more=old))
    assert (result.code, result.err) == (0, "")
    rows = [history(tmp_path / precision)[0] for precision in ("float32", "bfloat16")]
    losses = [float(row["train_loss"]) for row in rows]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)


def test_every_text_counts_once_an_epoch(tmp_path, quick):
    train(tmp_path / "run", "--subset", 61, "--epochs", 1)
    state = checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert (state["epoch"], state["step"]) == (1, 4)


def write_csv(place, name: str, rows: list[tuple[str, str]]):
    lines = ["text,label", *(f'"{text}","{label}"' for text, label in rows)]
    (place / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def animals(tmp_path):
    """A folder of CSV files, three classes."""
    sounds = {"cat": "meow purr hiss", "cow": "moo", "dog": "woof bark"}
    rows = [
        (f"it says {sound} {n} times", animal)
        for n in range(12) for animal, words in sounds.items() for sound in words.split()
    ]  # fmt: skip
    place = tmp_path / "animals"
    place.mkdir()
    write_csv(place, "train.csv", rows)
    write_csv(place, "test.csv", [(f"{text} again", label) for text, label in rows[:20]])
    return place


def train_animals(place, run_dir, *more):
    flags = ["--dataset", "csv", "--data-dir", str(place), "--epochs", "6", "--batch-size", "8",
             "--hidden-size", "8", "--min-freq", "1", "--dropout", "0", "--lr", "0.03"]  # fmt: skip
    script.main([*flags, "--run-dir", str(run_dir), *map(str, more)])


@pytest.mark.parametrize("more", [(), ("--ngrams", 3)])
def test_a_folder_of_csv_files_from_training_to_prediction(more, animals, tmp_path, capsys, quick):
    run_dir = tmp_path / "run"
    train_animals(animals, run_dir, *more)
    assert {row["dataset"] for row in history(run_dir)} == {"animals"}
    result = call(capsys, evaluation.main, "--run-dir", run_dir)
    assert (result.code, result.err) == (0, "")
    assert "test split of animals, 20 examples" in result.out and "accuracy 100.00 %" in result.out
    assert ask(capsys, run_dir, "moo, it says")[0] == "cow"
    assert ask(capsys, run_dir, "Purr.")[0] == "cat"


@pytest.mark.parametrize("encoding", MARKED)
def test_texts_with_a_byte_order_mark_are_read_alike(
    encoding, animals, tmp_path, capsys, quick, monkeypatch
):
    train_animals(animals, tmp_path / "run")
    found = []
    for content in (b"it says moo", marked("it says moo", encoding)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        found.append(call(capsys, predict.main, "--run-dir", tmp_path / "run"))
    assert found[0] == found[1] and "known" not in found[0].out
    assert ask(capsys, tmp_path / "run", "\ufeffit says moo") == ask(
        capsys, tmp_path / "run", "it says moo"
    )


@pytest.mark.parametrize("labels", [["a cat", "a dog", "cow"], ["cat", "cow", "dog", "emu"]])
def test_other_classes_than_the_run_s_are_not_tested(labels, animals, tmp_path, capsys, quick):
    """They would be numbered otherwise."""
    train_animals(animals, tmp_path / "run", "--epochs", 1)
    write_csv(animals, "train.csv", [("it says moo", label) for label in labels])
    write_csv(animals, "test.csv", [("it says moo", "cow")])
    result = call(capsys, evaluation.main, "--run-dir", tmp_path / "run")
    assert_one_line(result, "cat, cow, dog", ", ".join(labels))


def test_a_relative_folder_has_a_name(animals, tmp_path, capsys, quick, monkeypatch):
    train_animals(animals, tmp_path / "run", "--epochs", 1)
    monkeypatch.chdir(animals)
    argv = ["--run-dir", tmp_path / "run", "--data-dir", "."]
    assert "test split of animals," in call(capsys, evaluation.main, *argv).out
    assert call(capsys, script.main, "--resume", *argv, "--epochs", 2).code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data_dir"] == str(animals)


def test_a_run_whose_data_changed_is_not_resumed(animals, tmp_path, capsys, quick):
    train_animals(animals, tmp_path / "run", "--epochs", 1)
    write_csv(animals, "train.csv", [(f"other words {n}", "catdog"[n % 2 * 3 :][:3])
                                     for n in range(40)])  # fmt: skip
    argv = ["--resume", "--run-dir", tmp_path / "run", "--epochs", 2]
    result = call(capsys, script.main, *argv)
    assert_one_line(result, "3: cat, cow, dog", "2: cat, dog")


def test_without_data_the_default_run_learns_sentences_and_says_so(
    tmp_path, capsys, monkeypatch, quick
):
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    for module in ("train", "dataset"):
        monkeypatch.setattr(f"LSTM.{module}.FOLDER", tmp_path / "LSTM")

    def fail(urls, path, md5):
        raise data.DataMissing(f"{path.name} could not be downloaded")

    monkeypatch.setattr(data, "download", fail)
    result = call(capsys, script.main, "--epochs", 1, "--run-dir", tmp_path / "run")
    assert result.code == 0 and "MADE-UP sentences" in result.err and "imdb" in result.err
    assert history(tmp_path / "run")[0]["dataset"] == "templates"
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["hidden_size"] == script.RECIPES["templates"]["hidden_size"]
    result = call(capsys, script.main, "--dataset", "imdb", "--run-dir", tmp_path / "other")
    assert_one_line(result, "imdb is not in", imdb.ARCHIVE)


@pytest.mark.pictures
def test_evaluation_draws_pictures_and_prints_the_accuracy(learned, capsys):
    result = call(capsys, evaluation.main, "--run-dir", learned)
    assert (result.code, result.err) == (0, "")
    pictures = sorted(path.name for path in learned.glob("*.png"))
    assert pictures == ["confusion.png", "curves.png", "mistakes.png", "words.png"]
    state = checkpoint.load(learned / "best.safetensors")
    encoding = Encoding.of(state["encoding"])
    config = Namespace(**folders.read_config(learned))
    model = script.build_model(config, encoding)
    model.load_state_dict(state["model"])
    test, right = templates.load("test"), 0
    for row in range(len(test)):
        tokens = torch.tensor([encoding.vocabulary(test.text(row))])
        with torch.no_grad():
            logits = model.eval()(tokens, torch.tensor([tokens.shape[1]]))
        right += int(logits.argmax() == test.labels[row])
    assert f"accuracy {100 * right / len(test):.2f} %" in result.out


# ---- predictions ----


def test_standard_input_is_read_where_there_is_no_text(learned, capsys, monkeypatch):
    text = "I do not think that the film was really good .\nI paid ."
    for given in (text.encode(), text.encode() + b" \xff\xfe"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert ask(capsys, learned)[0] == "negative"


@pytest.mark.parametrize("text", ["", " \n ", '""'])
def test_a_text_without_a_word_is_one_line(text, learned, tmp_path, capsys):
    picture = tmp_path / "words.png"
    argv = ["--run-dir", learned, "--picture", picture, "--", text]
    result = call(capsys, predict.main, *argv)
    assert_one_line(result, "no word")
    assert result.out == "" and not picture.exists()


@pytest.mark.pictures
def test_unknown_words_are_counted(learned, tmp_path, capsys):
    picture = tmp_path / "words.png"
    argv = ["--run-dir", learned, "--picture", picture, "--", "qwerty zxcvb 电影"]
    result = call(capsys, predict.main, *argv)
    assert (result.code, result.err) == (0, "")
    assert "(0 of 3 words known" in result.out
    shares = [float(line.split()[1].strip("%")) for line in result.out.splitlines()[:2]]
    assert sum(shares) == pytest.approx(100, abs=0.02)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_colours_are_for_terminals_alone(learned, capsys, monkeypatch):
    words = ["i", "found", "that", "the", "film", "was", "really", "awful", "\x1b[2J"]
    argv = [*words, "--run-dir", learned]
    assert "\x1b" not in call(capsys, predict.main, *argv).out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = call(capsys, predict.main, *argv).out
    assert "\x1b[30;42mawful\x1b[0m" in out
    assert "\x1b[2J" not in out, "a text moves no cursor"


def test_what_may_go_wrong_with_a_prediction_is_one_line(learned, tmp_path, capsys):
    for argv, part in (
        (["--run-dir", tmp_path], tmp_path),
        (["--run-dir", learned, "--device", "tpu"], "tpu"),
        (["--run-dir", learned, "--picture", tmp_path / "none" / "x.png"], "x.png"),
        (["--run-dir", learned, "--picture", tmp_path / "x.what"], "x.what"),
        (["--unknown"], "--unknown"),
    ):
        assert_one_line(call(capsys, predict.main, "fine", *argv), part)


def test_a_name_that_no_picture_can_have_is_refused_first(tmp_path, capsys):
    for name, said in no_pictures(tmp_path / "place").items():
        argv = ["fine", "--run-dir", tmp_path / "absent", "--picture", name]
        assert_one_line(call(capsys, predict.main, *argv), "--picture", said)


@pytest.mark.pictures
def test_long_texts_are_shortened_in_the_pictures_of_many():
    words, weights = [str(n) for n in range(50)], torch.arange(50.0)
    shown, shades = plots.shortened(words, weights, 10)
    assert shown == [*words[:5], "[…]", *words[-5:]]
    assert shades.tolist() == [0, 1, 2, 3, 4, 0, 45, 46, 47, 48, 49]
    assert plots.shortened(words, weights, 50) == (words, weights)
    lines = plots.lines_of(["x" * 30] * 10)
    assert [len(line) for line in lines] == [3, 3, 3, 1] and lines[0] == [0, 1, 2]
    assert plots.strengths(torch.tensor([-10.0, 0.0, *[1.0] * 30]))[0] == -1


@pytest.mark.pictures
def test_pictures_of_nasty_texts(tmp_path):
    texts = [["$x^2$", "a\x00b", "\n", "电影", "w" * 300, "_", "\\frac", "😀", "{"], []]
    rows = [("$a$ caption", words, torch.randn(len(words))) for words in texts]
    plots.draw_texts(tmp_path / "x.png", rows, "a $title$")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


# ---- baselines ----


def labelled(N: int = 60, K: int = 2) -> Corpus:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(K, (N,), generator=generator)
    numbers = torch.randint(12, (N, 9), generator=generator) + 2 * labels[:, None]
    lines = [" ".join(f"w{n}" for n in row) for row in numbers.tolist()]
    return Corpus.of(lines, labels.tolist(), [f"c{k}" for k in range(K)], {})


def test_n_grams_are_counted_as_they_are():
    corpus = Corpus.of(["a b a b", "b a", "c"], [0, 1, 1], ["x", "y"], {})
    ngrams = NGrams(2, 2, corpus)
    assert sorted(ngrams.vectorizer.vocabulary_) == ["a", "b", "b a"]
    assert ngrams(corpus).toarray().tolist() == [[2, 2, 1], [1, 1, 1], [0, 0, 0]]


def test_nb_svm_is_its_equations():
    corpus = labelled()
    f = (NGrams(1, 1, corpus)(corpus).toarray() > 0).astype(float)
    positive = corpus.labels.numpy() == 1
    p, q = 1 + f[positive].sum(0), 1 + f[~positive].sum(0)
    r = numpy.log((p / p.sum()) / (q / q.sum()))
    svm = LinearSVC(C=0.1, random_state=0, max_iter=5_000).fit(f * r, positive)
    w = svm.coef_[0]
    w = 0.75 * numpy.abs(w).mean() + 0.25 * w
    expected = (f * r) @ w + 0.25 * svm.intercept_[0]
    counts = NGrams(1, 1, corpus)(corpus)
    logits = NBSVM(0.1, 0).fit(counts, corpus.labels).logits(counts)
    numpy.testing.assert_allclose(
        (logits[:, 1] - logits[:, 0]).numpy(), expected, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("model", [NGramLogistic, NBSVM])
def test_baselines_learn_two_classes_and_more(model, K):
    corpus = labelled(300, K)
    counts = NGrams(1, 1, corpus)(corpus)
    fitted = model(1.0, 0).fit(counts, corpus.labels)
    logits = fitted.logits(counts)
    assert logits.shape == (300, K) and fitted.parameters >= counts.shape[1] * (K if K > 2 else 1)
    assert (logits.argmax(1) == corpus.labels).float().mean() > (0.7 if K == 2 else 0.6)
    if model is NBSVM:
        before = F.cross_entropy(logits, corpus.labels)
        fitted.calibrate(counts, corpus.labels)
        after = fitted.logits(counts)
        assert torch.equal(after.argmax(1), logits.argmax(1)), "no prediction changes"
        assert F.cross_entropy(after, corpus.labels) <= before + 1e-6
        for factor in (0.9, 1.1):
            assert F.cross_entropy(factor * after, corpus.labels) > F.cross_entropy(
                after, corpus.labels
            )


@pytest.mark.parametrize("model", ["logistic", "nb-svm"])
def test_a_baseline_is_recorded_beside_the_network(model, tmp_path, capsys, monkeypatch, quick):
    from common.results import report

    monkeypatch.setattr(baseline, "FOLDER", tmp_path / "LSTM")
    argv = ["--dataset", "templates", "--model", model, "--ngrams", 3]
    result = call(capsys, baseline.main, *argv)
    assert (result.code, result.err) == (0, "") and "test split of templates" in result.out
    assert not (tmp_path / "LSTM").exists()
    (tmp_path / "LSTM").mkdir()
    result = call(capsys, baseline.main, *argv, "--record")
    assert (result.code, result.err) == (0, "") and "test split of templates" in result.out

    (record,) = report.load_records(tmp_path / "LSTM")
    assert record["config"] == f"templates-{model}" and hasattr(baseline, record["model"])
    assert record["data"]["examples"] == {"train": 100, "validation": 48, "test": 32}
    (row,) = record["runs"]
    assert (row["seed"], row["epochs"], row["best_epoch"]) == (0, 1, 1) and row["seconds"] >= 0
    assert set(row["validation"]) == set(row["test"]) == {"accuracy", "loss"}
    assert f"| {record['config']} |" in report.folder_results(tmp_path / "LSTM")

    python, place, *argv = shlex.split(record["command"])
    assert (python, place) == ("python", "LSTM/baseline.py") and "--C" in argv
    args = cli.parse_training(baseline.make_parser(), baseline.RECIPES, tmp_path, argv)
    assert record["hyperparameters"].items() <= vars(args).items()
    again = call(capsys, baseline.main, *argv, "--record")
    assert again.code == 0
    (repeated,) = report.load_records(tmp_path / "LSTM")[0]["runs"]
    assert repeated["test"] == row["test"], "the command repeats the result"


@pytest.mark.parametrize("flag", ["--C 0", "--ngrams 0", "--model svm", "--dataset mnist", "--x"])
def test_a_bad_flag_of_the_baseline_is_one_line(flag, capsys):
    assert_one_line(call(capsys, baseline.main, *flag.split()), flag.split()[-1])


@pytest.mark.parametrize(
    "flags, part", [("--min-freq 9999", "--min-freq"), ("--subset 1 --min-freq 1", "--subset")]
)
@pytest.mark.parametrize("model", ["logistic", "nb-svm"])
def test_a_baseline_of_too_few_texts_is_one_line(model, flags, part, capsys, quick):
    argv = ["--dataset", "templates", "--model", model, *flags.split()]
    result = call(capsys, baseline.main, *argv)
    assert result.code == 2 and part in result.err and len(result.err.splitlines()) == 1
