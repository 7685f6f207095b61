"""LSTM/dataset/log_ratios.py: naive Bayes' ratios against scikit-learn's counts, folds, the network
that reads them, and runs with --ngrams."""

import numpy
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer

from common import checkpoint
from LSTM import train as script
from LSTM.dataset import load_training
from LSTM.dataset.log_ratios import ALPHA, FOLDS, LEAST, checked, count_log_ratios, folds_of
from LSTM.dataset.ragged import Ragged
from LSTM.dataset.texts import Corpus
from LSTM.model import RATIO_SCALE, Evidence, RecurrentClassifier
from LSTM.train import make_parser
from tests.running import assert_one_line, call, history, small

pytestmark = pytest.mark.usefixtures("seeded")

V, LONGEST = 6, 3  # words, padding and <unk> among them: every n-gram comes often


def texts(N: int = 90, K: int = 2, seed: int = 0):
    """Random texts of 0 to 9 words, of which some are unknown; classes prefer words; folds."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (N,), generator=generator)
    lengths = torch.randint(10, (N,), generator=generator)
    words = torch.randint(1, V, (int(lengths.sum()),), generator=generator)
    liked = 2 + labels.repeat_interleave(lengths) % (V - 2)
    words = torch.where(torch.rand(len(words), generator=generator) < 0.3, liked, words)
    folds = torch.randint(FOLDS, (N,), generator=generator)
    return Ragged.of(words.int(), lengths), labels, folds


def by_scikit_learn(inputs: Ragged, labels, rows, n: int, K: int) -> dict[str, numpy.ndarray]:
    """The n-grams of n known words -> (F,), counted in these rows alone."""
    lines = [" ".join(map(str, inputs.sequence(row).tolist())) for row in range(len(inputs))]
    vectorizer = CountVectorizer(
        tokenizer=str.split, token_pattern=None, ngram_range=(n, n), binary=True
    )
    marks = vectorizer.fit_transform(lines).toarray()
    names = vectorizer.get_feature_names_out().tolist()
    known = [i for i, name in enumerate(names) if "1" not in name.split()]
    known = [i for i in known if marks[:, i].sum() >= LEAST]
    marks, of = marks[rows.numpy()][:, known], labels[rows].numpy()
    ratios = []
    for k in range(K) if K > 2 else [1]:
        c = ALPHA + marks[of == k].sum(0)
        d = ALPHA + marks[of != k].sum(0)
        # the unknown ones count as one more that never comes
        ratio = numpy.log(c / (c.sum() + ALPHA)) - numpy.log(d / (d.sum() + ALPHA))
        ratios.append(numpy.where(marks.sum(0) >= LEAST, ratio, 0))
    return {names[i]: column for i, column in zip(known, numpy.stack(ratios, 1), strict=True)}


@pytest.mark.smoke
@pytest.mark.parametrize("K", [2, 3])
def test_ratios_are_those_of_scikit_learn_s_counts(K):
    inputs, labels, folds = texts(K=K)
    found = count_log_ratios(inputs, labels, folds, K, LONGEST)
    assert len(found.keys) == len(found.tables) == LONGEST
    evidence = Evidence(found)
    assert evidence.size == LONGEST * (K if K > 2 else 1)
    some = 0
    for n in range(1, LONGEST + 1):
        assert (found.keys[n - 1].diff() > 0).all() and found.keys[n - 1][0] == 0
        assert not found.tables[n - 1][:, 0].any(), "of unknown n-grams nothing is said"
        for fold in (*range(FOLDS), None):
            rows = (folds != fold).nonzero().squeeze(1) if fold is not None else torch.arange(90)
            expected = by_scikit_learn(inputs, labels, rows, n, K)
            assert len(expected) == len(found.keys[n - 1]) - 1
            for name, ratios in expected.items():
                words = torch.tensor([list(map(int, name.split()))])
                own = None if fold is None else torch.tensor([fold])
                said = evidence(words, own)[0, -1].view(LONGEST, -1)[n - 1] / RATIO_SCALE
                numpy.testing.assert_allclose(said, ratios, rtol=1e-4, atol=1e-6)
                some += bool(ratios.any())
    assert some > 100


def test_evidence_stands_where_an_n_gram_ends():
    inputs, labels, folds = texts()
    evidence = Evidence(count_log_ratios(inputs, labels, folds, 2, LONGEST))
    text = torch.tensor([[2, 3, 1, 4, 2, 5, 0, 0]])
    said = evidence(text)
    for n in range(1, LONGEST + 1):
        for t in range(8):
            alone = text[:, max(0, t - n + 1) : t + 1]
            expected = evidence(alone)[0, -1, n - 1] if t >= n - 1 else 0
            assert said[0, t, n - 1] == expected
    assert not said[:, 6:].any() and not said[:, 2].any(), "padding and <unk>"
    assert not said[:, 3, 1:].any() and not said[:, 4, 2].any(), "no n-gram spans <unk>"
    assert said[:, :2].any() and said[:, 5].any()


def test_a_fold_is_told_nothing_of_its_own_texts():
    inputs, labels, folds = texts()
    before = count_log_ratios(inputs, labels, folds, 2, LONGEST)
    mine = folds == 2
    after = count_log_ratios(inputs, torch.where(mine, 1 - labels, labels), folds, 2, LONGEST)
    for old, new in zip(before.tables, after.tables, strict=True):
        assert torch.equal(old[2], new[2]) and not torch.equal(old[-1], new[-1])
        assert all(not torch.equal(old[fold], new[fold]) for fold in (0, 1, 3, 4))


def test_a_text_counts_once_and_rare_n_grams_are_unknown():
    assert LEAST == 3
    lines = [[2, 2, 2, 3], [2, 2], [2, 4], [4, 2]]
    inputs = Ragged.of(torch.tensor(sum(lines, [])), torch.tensor(list(map(len, lines))))
    found = count_log_ratios(inputs, torch.tensor([0, 0, 1, 1]), torch.arange(4), 2, 2)
    assert found.keys[0].tolist() == [0, 2], "the others are in two texts, or in one"
    assert found.keys[1].tolist() == [0], "2 2 is in two"
    c, d = 2 + ALPHA, 2 + ALPHA  # each class has two texts with a 2, however often
    assert found.tables[0][-1, 1, 0].item() == pytest.approx(numpy.log(c / d), abs=1e-6)
    c, d = 2 + ALPHA, 1 + ALPHA  # without the first text
    ratio = numpy.log(c / (c + ALPHA)) - numpy.log(d / (d + ALPHA))
    assert found.tables[0][0, 1, 0].item() == pytest.approx(ratio, abs=1e-6)


def test_neighbours_and_copies_share_a_fold():
    labels = torch.arange(200) // 100  # one class after the other, as IMDB
    folds = folds_of(labels, torch.arange(200))
    assert folds.tolist() == [n % 100 // 20 for n in range(200)]
    mixed = torch.arange(200) % 2
    folds = folds_of(mixed, torch.arange(200))
    assert folds.tolist() == sorted(folds.tolist())
    for k in (0, 1):
        assert folds[mixed == k].bincount().tolist() == [20] * FOLDS
    lines = [f"text {n % 60}" for n in range(100)]
    corpus = Corpus.of(lines, [0] * 50 + [1] * 50, ["a", "b"], {})
    folds = corpus.folds()
    assert torch.equal(folds[60:], folds[:40])
    assert folds[:50].tolist() == [n // 10 for n in range(50)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda keys, tables: (3, 5),
        lambda keys, tables: ([], []),
        lambda keys, tables: (keys[:1], tables),
        lambda keys, tables: (["a"] * LONGEST, tables),
        lambda keys, tables: ([part.float() for part in keys], tables),
        lambda keys, tables: ([part.flip(0) for part in keys], tables),
        lambda keys, tables: ([part[:, None] for part in keys], tables),
        lambda keys, tables: ([part[1:] for part in keys], [part[:, 1:] for part in tables]),
        lambda keys, tables: (keys, [part[:, 1:] for part in tables]),
        lambda keys, tables: (keys, [part[:0] for part in tables]),
        lambda keys, tables: (keys, [part / 0 for part in tables]),
    ],
)
def test_damaged_ratios_are_refused(damage):
    inputs, labels, folds = texts()
    found = count_log_ratios(inputs, labels, folds, 2, LONGEST)
    kept = checked(found.state_dict(), 2)
    assert kept.is_like(found) and found.is_like(kept)
    keys, tables = damage(*found)
    with pytest.raises((ValueError, TypeError)):
        checked({"keys": keys, "tables": tables}, 2)


# ---- the network ----


def network(**changes) -> tuple[RecurrentClassifier, Ragged]:
    inputs, labels, folds = texts()
    ratios = count_log_ratios(inputs, labels, folds, 2, LONGEST)
    return RecurrentClassifier(V, 2, "lstm", 5, 4, ratios=ratios, **changes).eval(), inputs


@pytest.mark.parametrize("pooling", ["max", "concat"])
def test_padding_changes_no_logit(pooling):
    model, inputs = network(pooling=pooling)
    tokens, lengths = inputs[torch.arange(20)]
    assert 0 in lengths and len(lengths.unique()) > 5
    together = model(tokens, lengths)
    for row in range(20):
        alone = model(*inputs[torch.tensor([row])])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_ratios_reach_the_cells_and_the_last_layer():
    model, inputs = network()
    tokens, lengths = inputs[torch.arange(20)]
    folds = torch.arange(20) % FOLDS
    assert not torch.equal(model(tokens, lengths, None, folds), model(tokens, lengths))
    with torch.no_grad():
        model.embedding.weight.zero_()
        for cells in (model.layers[0].forwards, model.layers[0].backwards):
            cells.weight_ih_l0[:, 5:].zero_()  # the last layer alone reads them
        model.output.weight[:, :-LONGEST].zero_()
        model.output.bias.zero_()
        evidence = model.evidence(tokens).sum(1) / lengths.clamp(min=1).sqrt()[:, None]
        expected = evidence @ model.output.weight[:, -LONGEST:].T
        torch.testing.assert_close(model(tokens, lengths), expected)
        model, _ = network()
        model.embedding.weight.zero_()
        model.output.weight[:, -LONGEST:].zero_()  # the cells alone read them
        assert len(model(tokens, lengths).unique(dim=0)) > 10


def test_ratios_are_counted_and_not_learned():
    model, _ = network()
    assert not any(name.startswith("evidence") for name in model.state_dict())
    plain = RecurrentClassifier(V, 2, "lstm", 5, 4)
    more = 2 * 4 * 4 * LONGEST + 2 * LONGEST  # weights of both directions' gates; of the last layer
    sizes = [sum(p.numel() for p in each.parameters()) for each in (model, plain)]
    assert sizes[0] - sizes[1] == more


# ---- runs ----


def train(run_dir, *argv):
    script.main([*small("LSTM"), "--run-dir", str(run_dir), *map(str, argv)])


def test_each_text_gets_what_the_other_folds_counted():
    args = make_parser().parse_args(["--dataset", "templates", "--ngrams", "2"])
    split, held_out = load_training(args)
    assert held_out.folds is None and torch.equal(split.folds, split.corpus.folds())
    rows = torch.arange(len(split)).flip(0)[:30]
    assert torch.equal(split.take(rows).folds, split.folds[rows])
    assert torch.equal(split.to(torch.device("cpu")).folds, split.folds)
    number = {tuple(split.inputs.sequence(row).tolist()): row for row in range(len(split))}
    seen = 0
    for (tokens, lengths, folds), labels in split.batches(16, seed=1, epoch=2):
        for text, length, fold, label in zip(tokens, lengths, folds, labels, strict=True):
            row = number[tuple(text[:length].tolist())]
            assert (fold, label) == (split.folds[row], split.labels[row])
            seen += 1
    assert seen == len(split)
    plain, _ = load_training(make_parser().parse_args(["--dataset", "templates"]))
    assert plain.folds is None and plain.encoding.ratios is None
    assert all(len(inputs) == 2 for inputs, _ in plain.batches(16, 0, 0))


def test_a_run_goes_on_with_its_own_ratios_alone(tmp_path, quick, capsys, monkeypatch):
    train(tmp_path / "run", "--ngrams", 2, "--epochs", 1)
    path = tmp_path / "run" / "last.safetensors"
    kept = checkpoint.load(path, "encoding")["encoding"]["ratios"]
    assert [len(part) for part in kept.values()] == [2, 2]
    assert all(len(table) == 1 for table in kept["tables"]), "those of the folds are counted anew"
    argv = ["--resume", "--run-dir", str(tmp_path / "run"), "--epochs", "2"]
    with monkeypatch.context() as patch:
        patch.setattr("LSTM.dataset.log_ratios.ALPHA", 2.0)
        assert_one_line(call(capsys, script.main, *argv), "n-grams or classes")
    assert call(capsys, script.main, *argv).code == 0
    assert len(history(tmp_path / "run")) == 2


def test_rare_words_are_known_early(tmp_path, quick):
    """Each text has one of 60 words that decide, each in about five texts of training: few for a
    word's vector, enough to be counted."""
    rows = [
        (f"{'so it is said here ' * (n % 3 + 1)} {kind}{n % 30}", kind)
        for n in range(180) for kind in ("good", "bad")
    ]  # fmt: skip
    place = tmp_path / "rare"
    place.mkdir()
    for name, part in (("train.csv", rows), ("test.csv", rows[:10])):
        lines = ["text,label", *(f'"{n} {text}",{kind}' for n, (text, kind) in enumerate(part))]
        (place / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    losses = []
    for ngrams in (0, 1):
        run_dir = tmp_path / f"run{ngrams}"
        flags = f"--dataset csv --data-dir {place} --epochs 1 --batch-size 16 --lr 0.02 --dropout 0"
        flags += f" --hidden-size 8 --embed-dim 8 --ngrams {ngrams} --run-dir {run_dir}"
        script.main(flags.split())
        losses.append(float(history(run_dir)[0]["validation_loss"]))
    assert losses[1] < 0.5 < 0.6 < losses[0] < 0.7
