"""Words against torchtext, where that loads; ragged sequences against their definition."""

import ast
import random
import sys
from collections import Counter

import pytest
import torch

from common.data import ROOT
from LSTM.dataset import buckets
from LSTM.dataset import words as text
from LSTM.dataset.buckets import bucketed
from LSTM.dataset.ragged import Ragged
from LSTM.dataset.texts import number_words
from LSTM.dataset.words import PAD, UNKNOWN, Vocab, basic_english, build_vocabulary
from tests.running import modules

needs_torchtext = pytest.mark.skipif(text.torchtext() is None, reason="no torchtext here")

REVIEWS = [
    "It's GREAT!<br /><br />Don't miss it.",
    'He said: "never again"; (and meant it)?',
    "I rate it 7.5/10 -- not bad, eh?!!",
    "",
]
NASTY = [
    " \t\n\r\f\v", "\x1c\x1d\x1e\x1f\x85\xa0\u2028\u3000a\u200bb", '<b"r />x<BR />y<br/>z<br  />',
    "<br /", '""', "''", "'\"'", "a''b", "...", ".,()!?;:'", ";:;", "İSTANBUL ẞ ǅ ﬁ", "naïve café",
    "电影。很好！", "😀😀", "a\x00b\x00", "<unk> <pad>", "it`s “quoted” …", "\\'", "%s {} $1 \\1",
    "x" * 5_000, "' " * 500, "&quot;&#39;", "\ufeffstart", "a<br />b;c:d\"e'f.g,h(i)j!k?l",
]  # fmt: skip


def random_texts(n: int = 400) -> list[str]:
    """Of pieces that the patterns may trip over."""
    rng = random.Random(0)
    pieces = [
        "<br />",
        "<br",
        " />",
        '"',
        *text.SPACED,
        ";",
        ":",
        " ",
        "\t",
        "A",
        "bé",
        "İ",
        "\x1f",
    ]
    return ["".join(rng.choices(pieces, k=rng.randint(0, 30))) for _ in range(n)]


# ---- the tokenizer ----


@pytest.mark.smoke
@pytest.mark.parametrize(
    "line, tokens",
    [
        ("", []),
        (" \n", []),
        ("It's GREAT.<br />", ["it", "'", "s", "great", "."]),
        ('"Never again"; he said: (no)!', ["never", "again", "he", "said", "(", "no", ")", "!"]),
        ("a<br /><br />b", ["a", "b"]),
        ("well-made, 7.5/10?", ["well-made", ",", "7", ".", "5/10", "?"]),
    ],
)
def test_tokens_are(line, tokens):
    assert basic_english(line) == tokens


@needs_torchtext
def test_tokens_are_those_of_torchtext():
    theirs = text.torchtext().data.get_tokenizer("basic_english")
    lines = [*REVIEWS, *NASTY, *random_texts()]
    assert [basic_english(line) for line in lines] == [theirs(line) for line in lines]


# ---- the vocabulary ----

CORPORA = {
    "ties": "b a c b a d e e f",
    "specials among the words": "<unk> x <pad> <unk> y x <unk>",
    "upper and lower case, accents, signs": "É e Z z é E a 1 10 2 ! 😀 电 😀",
    "one word": "a",
    "nothing": "",
}
SETTINGS = [{}, {"min_freq": 2}, {"max_tokens": 4}, {"max_tokens": 5, "min_freq": 2},
            {"max_tokens": 1_000}]  # fmt: skip


def assert_same_vocabulary(ours, theirs):
    assert ours.get_itos() == theirs.get_itos() and ours.get_stoi() == theirs.get_stoi()
    assert len(ours) == len(theirs)
    assert ours.get_default_index() == theirs.get_default_index()
    words = [*theirs.get_itos(), "never seen", "", "\x00"]
    assert ours(words) == theirs(words) == [ours[word] for word in words]
    assert ours.lookup_indices(words) == theirs.lookup_indices(words)
    assert [word in ours for word in words] == [word in theirs for word in words]
    assert ours.lookup_tokens([1, 0]) == theirs.lookup_tokens([1, 0])


@needs_torchtext
@pytest.mark.parametrize("loads", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", CORPORA)
def test_vocabulary_is_that_of_torchtext(name, settings, loads, monkeypatch):
    """Whether torchtext's own class holds it or ours."""
    lines = [CORPORA[name].split(), CORPORA[name].split()[::-1]]
    build = text.torchtext().vocab.build_vocab_from_iterator
    theirs = build(lines, specials=[PAD, UNKNOWN], **settings)
    theirs.set_default_index(theirs[UNKNOWN])
    if not loads:
        monkeypatch.setattr(text, "torchtext", lambda: None)
    ours = build_vocabulary(Counter(word for line in lines for word in line), **settings)
    assert isinstance(ours, Vocab) != loads
    assert_same_vocabulary(ours, theirs)


@needs_torchtext
def test_vocabulary_of_real_looking_texts_is_that_of_torchtext(monkeypatch):
    lines = [basic_english(line) for line in [*REVIEWS, *NASTY, *random_texts()]]
    build = text.torchtext().vocab.build_vocab_from_iterator
    for specials in ([PAD, UNKNOWN], ["<s>", UNKNOWN, "."], []):
        theirs = build(lines, specials=specials, min_freq=2)
        if UNKNOWN in specials:
            theirs.set_default_index(theirs[UNKNOWN])
        counts = Counter(word for line in lines for word in line)
        with monkeypatch.context() as patch:
            patch.setattr(text, "torchtext", lambda: None)
            ours = build_vocabulary(counts, min_freq=2, specials=specials)
        assert ours.get_itos() == theirs.get_itos()
        assert ours.get_default_index() == theirs.get_default_index()


@pytest.mark.parametrize("official", [True, False])
def test_what_a_vocabulary_refuses(official, monkeypatch):
    if not official:
        monkeypatch.setattr(text, "torchtext", lambda: None)
    elif text.torchtext() is None:
        pytest.skip("no torchtext here")
    with pytest.raises(RuntimeError):
        text.make_vocabulary(["a", "b", "a"])
    vocabulary = text.make_vocabulary(["a", "b"])
    for ask in (lambda: vocabulary["c"], lambda: vocabulary(["a", "c"])):
        with pytest.raises(RuntimeError):
            ask()
    for index in (2, -1):
        with pytest.raises(RuntimeError):
            vocabulary.lookup_token(index)
    with pytest.raises(ValueError, match="no place"):
        build_vocabulary({"a": 1}, max_tokens=2)


@pytest.mark.smoke
def test_vocabulary_is_by_frequency_then_by_alphabet():
    vocabulary = build_vocabulary({"z": 3, "b": 1, "a": 1, "y": 3, "x": 4})
    assert vocabulary.get_itos() == [PAD, UNKNOWN, "x", "y", "z", "a", "b"]
    assert vocabulary(["z", "?", "a"]) == [4, 1, 5]


@pytest.mark.parametrize("error", [ImportError, OSError("undefined symbol"), RuntimeError])
def test_torchtext_that_does_not_load_is_done_without(error, monkeypatch):
    class Fails:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.split(".")[0] == "torchtext":
                raise error

    for name in [name for name in sys.modules if name.split(".")[0] == "torchtext"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Fails, *sys.meta_path])
    assert text.torchtext.__wrapped__() is None


def test_no_other_module_imports_torchtext():
    importing = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            names.append(getattr(node, "module", None) or "")
            if isinstance(node, (ast.Import, ast.ImportFrom)) and any(
                name.split(".")[0] == "torchtext" for name in names
            ):
                importing.add(path.relative_to(ROOT).as_posix())
    folders = ("LSTM", "Transformer_Manual", "Transformer_Torch")
    assert importing == {f"{folder}/dataset/words.py" for folder in folders}


@pytest.mark.smoke
def test_words_are_numbered_by_appearance():
    flat, lengths, tokens = number_words(["B a.", "", "a c B"])
    assert (flat.tolist(), lengths.tolist()) == ([0, 1, 2, 1, 3, 0], [3, 0, 3])
    assert tokens == ["b", "a", ".", "c"]
    assert [part.tolist() for part in number_words([])[:2]] == [[], []]


# ---- sequences of different lengths ----

SEQUENCES = [[3, 1, 4], [], [1], [5, 9, 2, 6, 5], [3, 5]]


def make() -> Ragged:
    flat = torch.tensor([value for sequence in SEQUENCES for value in sequence], dtype=torch.int32)
    return Ragged.of(flat, torch.tensor([len(sequence) for sequence in SEQUENCES]))


@pytest.mark.smoke
def test_a_batch_is_padded_to_its_longest():
    sequences = make()
    tokens, lengths = sequences[torch.tensor([2, 0, 1])]
    assert tokens.tolist() == [[1, 0, 0], [3, 1, 4], [0, 0, 0]] and tokens.dtype == torch.int64
    assert lengths.tolist() == [1, 3, 0]
    assert sequences[1:2][0].tolist() == [[0]] and sequences[0:0][0].shape == (0, 1)
    assert [sequences.sequence(row).tolist() for row in range(5)] == SEQUENCES
    empty = Ragged.of(torch.zeros(0, dtype=torch.int32), torch.zeros(2, dtype=torch.long))
    assert empty[0:2][0].tolist() == [[0], [0]]


def test_sequences_may_be_taken_in_any_order():
    taken = make().take(torch.tensor([3, 0, 3]))
    assert [taken.sequence(row).tolist() for row in range(len(taken))] == [
        SEQUENCES[3], SEQUENCES[0], SEQUENCES[3],
    ]  # fmt: skip
    assert taken.flat().tolist() == SEQUENCES[3] + SEQUENCES[0] + SEQUENCES[3]
    assert taken[0:2][0].tolist() == [SEQUENCES[3], [*SEQUENCES[0], 0, 0]]
    assert make().take(torch.tensor([], dtype=torch.long)).flat().tolist() == []


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 9, None])
def test_long_sequences_lose_their_middle(most):
    cut = make().take(torch.tensor([3, 1, 0])).ends_of(most)
    for row, sequence in enumerate([SEQUENCES[3], SEQUENCES[1], SEQUENCES[0]]):
        expected = sequence
        if most is not None and len(sequence) > most:
            expected = sequence[: most - most // 2] + sequence[len(sequence) - most // 2 :]
        assert cut.sequence(row).tolist() == expected


@pytest.mark.parametrize("N, num_batches", [(1, 1), (7, 2), (64, 4), (1_000, 130), (1_003, 64)])
def test_batches_hold_every_row_once_and_are_of_equal_size(N, num_batches):
    lengths = torch.randint(1, 500, (N,), generator=torch.Generator().manual_seed(1))
    batches = bucketed(lengths, num_batches, torch.Generator().manual_seed(0))
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == num_batches and max(sizes) - min(sizes) <= 1
    assert torch.cat(batches).sort().values.tolist() == list(range(N))


def test_batches_are_of_similar_length_in_a_random_order():
    lengths = torch.randint(1, 500, (3_200,), generator=torch.Generator().manual_seed(1))
    batches = bucketed(lengths, 100, torch.Generator().manual_seed(0))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded < 1.05 * int(lengths.sum())
    means = torch.stack([lengths[batch].float().mean() for batch in batches])
    assert (means.diff() > 0).float().mean() < 0.7, "not sorted from short to long"
    other = bucketed(lengths, 100, torch.Generator().manual_seed(1))
    pairs = {tuple(sorted(batch.tolist())) for batch in batches}
    assert not pairs & {tuple(sorted(batch.tolist())) for batch in other}
    assert buckets.POOL < 100, "or else one pool held all of them"
