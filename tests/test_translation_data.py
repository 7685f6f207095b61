"""The Transformers' data: BLEU, tokenizers, Multi30k, own files, dates, batches, windows."""

import codecs
import datetime
import gzip
import hashlib
import importlib
import json
import math
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from argparse import Namespace
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sacrebleu
import torch

from common import checkpoint, cli, data, distributed, files
from common.data import ROOT, DataMissing
from common.results import records as record
from common.results import report
from tests.conftest import user_error
from tests.running import differences
from Transformer_Torch.dataset import (
    characters,
    dates,
    multi30k,
    pair_files,
    strings,
    subwords,
    translation,
)
from Transformer_Torch.dataset import words as text
from Transformer_Torch.dataset.batches import IGNORED, batch_sizes
from Transformer_Torch.dataset.merges import Merges
from Transformer_Torch.dataset.pairs import Pairs, Sentences, encode_sources
from Transformer_Torch.dataset.subwords import Subwords
from Transformer_Torch.dataset.tokenizers import (
    BEGIN,
    END,
    PAD,
    SPECIALS,
    UNKNOWN,
    Characters,
    Words,
)
from Transformer_Torch.dataset.windows import Windows
from Transformer_Torch.utils import bleu

FOLDERS = ["Transformer_Manual", "Transformer_Torch"]
LINES = {
    "de": [
        "Ein Mann geht über die Straße.", "Zwei Hunde spielen im Gras.",
        "Eine Frau liest ein Buch.", "Ein kleines Mädchen lächelt.", "Der Hund schläft.",
        "Drei Männer stehen am Fluß; es regnet!", "Ein Mann, der lächelt, sitzt auf einer Bank.",
    ],
    "en": [
        "A man crosses the street.", "Two dogs play in the grass.", "A woman reads a book.",
        "A little girl is smiling.", "The dog's asleep.",
        "Three men stand by the river (it rains)!", "A smiling man sits on a bench.",
    ],
}  # fmt: skip
SIZES = {"train": 4, "val": 2, "test_2016_flickr": 1}


def assert_notice(text: str) -> None:
    """Some short lines, each with stars before it. A name of a file may be as long as it is."""
    lines = text.strip().splitlines()
    assert len(lines) > 2 and all(line.startswith("*** ") for line in lines)
    assert all(len(line) <= 100 for line in lines if len(max(line.split(), key=len)) < 60)


def patch_copies(monkeypatch, module: str, name: str, value) -> None:
    """In both folders: each has its own."""
    for folder in FOLDERS:
        monkeypatch.setattr(f"{folder}.{module}.{name}", value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model's folder without data of its own, in a repository that has no other."""
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")
    (tmp_path / "repository" / "Model" / "dataset").mkdir(parents=True)
    monkeypatch.setattr(translation, "FOLDER", tmp_path / "repository" / "Model")
    return translation.FOLDER


def flags(**changes) -> Namespace:
    """What train.py's flags say of the data."""
    args = dict(
        task="translate", dataset="multi30k", data_dir=None, tokenizer="subword", max_length=64,
        vocabulary_size=120, subword_dropout=0.0, src=None, tgt=None, test_src=None, test_tgt=None,
        subset=None, resume=False, refit=False, given=[], extra_length=10,
    )  # fmt: skip
    return Namespace(**args | changes)


# ---- BLEU, chrF, exact match ----

TRANSLATIONS = ["the cat sat on the mat", "A dog, asleep.", "Two men"]
REFERENCES = ["the cat is on the mat", "A dog is asleep.", "Three men are standing."]


@pytest.mark.smoke
def test_scores_are_those_of_sacrebleus_own_api():
    metrics, signatures = bleu.score(TRANSLATIONS, REFERENCES)
    assert metrics["bleu"] == sacrebleu.corpus_bleu(TRANSLATIONS, [REFERENCES]).score
    assert metrics["chrf"] == sacrebleu.corpus_chrf(TRANSLATIONS, [REFERENCES]).score
    assert 0 < metrics["bleu"] < metrics["chrf"] < 100 and metrics["exact_match"] == 0
    expected = ["nrefs:1", "case:mixed", "eff:no", "tok:13a", "smooth:exp"]
    assert signatures["bleu"].split("|")[:5] == expected
    assert signatures["chrf"].startswith("nrefs:1|case:mixed") and "nc:6" in signatures["chrf"]


def test_bleu_of_a_sentence_worked_by_hand():
    """the cat sat on the mat: 5 of 6 words, 3 of 5 pairs, 1 of 4 triples (on the mat), none of 3
    fours, which counts as half of one; it is not shorter than the reference."""
    score, _ = bleu.score(TRANSLATIONS[:1], REFERENCES[:1])
    by_hand = 100 * (5 / 6 * 3 / 5 * 1 / 4 * (1 / 2) / 3) ** 0.25
    assert score["bleu"] == pytest.approx(by_hand)
    # four of five words: what is too short by a quarter is fined exp(1 - 5/4)
    score, _ = bleu.score(["a b c d"], ["a b c d e"])
    assert score["bleu"] == pytest.approx(100 * math.exp(1 - 5 / 4))


def test_bleu_of_a_corpus_is_no_mean_over_sentences():
    metrics, _ = bleu.score(["a b c d e f g h", "x"], ["a b c d e f g h", "y"])
    assert metrics["bleu"] == pytest.approx(100 * (8 / 9) ** 0.25) and metrics["exact_match"] == 0.5


@pytest.mark.skipif(text.torchtext() is None, reason="no torchtext here")
def test_torchtexts_bleu_stands_beside_it_and_differs_as_the_note_says():
    same = ["A Dog sleeps in the grass.", "Two men stand."]
    shouted = [line.upper() for line in same]
    ours, _ = bleu.score(shouted, same)
    assert ours["torchtext_bleu"] == pytest.approx(100) and ours["bleu"] < 10
    ours, _ = bleu.score(TRANSLATIONS[:1], REFERENCES[:1])
    assert ours["torchtext_bleu"] == 0 < ours["bleu"], "no smoothing"
    official = text.torchtext().data.metrics.bleu_score
    tokens = [[*line.lower().replace(".", " .").split()] for line in same]
    others = [tokens[0][:-2] + ["!", "."], tokens[1]]
    lines = [" ".join(words) for words in others]
    expected = 100 * official(others, [[words] for words in tokens])
    assert bleu.score(lines, same)[0]["torchtext_bleu"] == pytest.approx(expected)


def test_without_torchtext_its_bleu_is_left_out(monkeypatch):
    monkeypatch.setattr(text, "torchtext", lambda: None)
    assert list(bleu.score(TRANSLATIONS, REFERENCES)[0]) == ["bleu", "chrf", "exact_match"]


def test_exact_match_minds_all_but_spaces():
    ours = ["1999-03-03", "1999-3-03", " two  words", "Case", ""]
    theirs = ["1999-03-03", "1999-03-03", "two words", "case", ""]
    assert bleu.exact_match(ours, theirs) == 0.6
    with pytest.raises(ValueError):
        bleu.exact_match(["a"], ["a", "b"])


def test_signatures_stand_below_the_table(monkeypatch, tmp_path):
    test = {"loss": 1.25, "bleu": 39.126, "chrf": 60.0, "exact_match": 0.125}
    row = {"seed": 0, "epochs": 2, "seconds": 1.0, "validation": {"loss": 1.5}, "test": test}
    made = {
        "dataset": "multi30k", "config": "multi30k", "sample": False, "parameters": 5,
        "command": "c", "runs": [row],
        "environment": {"processor": "p", "torch": "2", "threads": 1, "device": "cpu"},
        "signatures": {"bleu": "nrefs:1|tok:13a", "chrf": "nc:6"},
    }  # fmt: skip
    monkeypatch.setattr(report, "load_records", lambda folder: [made])
    monkeypatch.setattr(report, "machine", lambda environment: "a machine")
    lines = report.folder_results(tmp_path).splitlines()
    assert "test BLEU | test chrF | test exact match, %" in lines[0]
    assert "| 39.13 | 60.00 | 12.50 |" in lines[2]
    assert lines[-2:] == ["- BLEU: `nrefs:1|tok:13a`", "- chrF: `nc:6`"]


def test_signatures_are_recorded_and_not_mixed(tmp_path):
    row = {"epoch": 1, "seconds": 1.0, "validation_loss": 1.5, "lr": 0.1}
    state = {"epoch": 1, "history": [row]}
    config = {"dataset": "multi30k", "epochs": 1, "commit": "abc", "environment": {}, "given": []}
    what = dict(model=object(), parameters=5, splits={}, test={"bleu": 39.0})

    def write_row(seed: int, signatures: dict) -> dict:
        path, _ = record.write(
            tmp_path, "multi30k", config | {"seed": seed}, state, signatures=signatures, **what
        )
        return json.loads(path.read_text())

    write_row(0, {"bleu": "tok:13a"})
    written = write_row(1, {"bleu": "tok:13a"})
    assert written["signatures"] == {"bleu": "tok:13a"} and len(written["runs"]) == 2
    with user_error("of other signatures", "--config"):
        write_row(2, {"bleu": "tok:none"})


# ---- tokenizers ----


def tokenizer(kind: str, size: int = 120):
    return translation.TOKENIZERS[kind].learn(LINES["de"] + LINES["en"], size)


KINDS = list(translation.TOKENIZERS)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_special_numbers_are_the_first_four(kind):
    learned = tokenizer(kind)
    assert (PAD, UNKNOWN, BEGIN, END) == (0, 1, 2, 3)
    assert learned.pieces(range(4)) == list(SPECIALS) == ["<pad>", "<unk>", "<s>", "</s>"]
    assert 4 < len(learned) <= 120
    for line in LINES["de"] + LINES["en"]:
        numbers = learned.encode(line)
        assert all(type(n) is int and n in range(len(learned)) for n in numbers)
        assert not {PAD, BEGIN, END} & set(numbers)
    assert learned.encode("") == [] and learned.decode([]) == ""


@pytest.mark.parametrize("kind", ["subword", "character"])
def test_subwords_and_characters_lose_nothing(kind):
    learned = tokenizer(kind)
    for line in [*LINES["de"], *LINES["en"], "Straße im Gras", "A dogs"]:
        assert learned.decode(learned.encode(line)) == line
        assert learned.decode([BEGIN, *learned.encode(line), END, PAD, PAD]) == line


def test_words_come_back_in_lower_case_and_detokenised():
    learned = Words.learn(LINES["en"], 120, min_freq=1)
    for line in LINES["en"]:
        assert learned.decode(learned.encode(line)) == line.lower()
    line = "A man's dog, asleep (the man isn't): men' play!"
    known = Words.learn([line], 120, min_freq=1)
    assert known.decode(known.encode(line)) == "a man's dog, asleep (the man isn't) men' play!"
    assert known.pieces(known.encode("dog, man")) == ["dog", ",", "man"]


def test_words_that_occur_once_are_unknown():
    learned = Words.learn(["a dog", "a cat", "a dog"], 50)
    assert learned.pieces(learned.encode("a dog a cat")) == ["a", "dog", "a", "<unk>"]
    assert learned.decode(learned.encode("a cat.")) == "a ⁇ ⁇"
    assert len(Words.learn(["a dog", "a cat", "a dog"], 5)) == 5, "the most frequent alone"


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_of_a_special_token_in_a_text_is_no_special_token(kind):
    line = "a <pad> <s> </s> <unk> b"
    for learned in (tokenizer(kind), translation.TOKENIZERS[kind].learn([line] * 9, 120)):
        assert not {PAD, BEGIN, END} & set(learned.encode(line))
    if kind == "character":
        assert learned.decode(learned.encode(line)) == line


@pytest.mark.parametrize("kind", KINDS)
def test_characters_never_seen_are_unknown(kind):
    learned = tokenizer(kind)
    numbers = learned.encode("Hund 電")
    assert numbers[-1] == UNKNOWN and learned.decode(numbers).endswith("⁇")


def test_both_ways_of_writing_an_umlaut_are_the_same_subwords():
    learned = tokenizer("subword")
    assert learned.encode("Ma\u0308nner") == learned.encode("Männer")
    assert UNKNOWN not in learned.encode("Ma\u0308nner")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_sentences_teach_the_same_tokenizer(kind):
    first, second = tokenizer(kind), tokenizer(kind)
    first.load_state_dict(second.state_dict())  # raises for another one
    other = translation.TOKENIZERS[kind].learn(LINES["de"], 120)
    with pytest.raises(ValueError, match="other sentences"):
        first.load_state_dict(other.state_dict())


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_the_whole_tokenizer(kind, tmp_path):
    learned = tokenizer(kind)
    checkpoint.save(tmp_path / "best.safetensors", {"tokenizer": learned.state_dict()})
    state = checkpoint.load(tmp_path / "best.safetensors")["tokenizer"]
    restored = translation.restore(state)
    assert type(restored) is type(learned) and len(restored) == len(learned)
    for line in [*LINES["de"], "unknown 電 words"]:
        assert restored.encode(line) == learned.encode(line)
        assert restored.decode(restored.encode(line)) == learned.decode(learned.encode(line))
    learned.load_state_dict(state)
    with pytest.raises(ValueError):
        learned.load_state_dict(tokenizer("character" if kind == "word" else "word").state_dict())


def test_common_words_are_whole_and_rare_ones_in_parts():
    learned = Subwords.learn(["the dog and the cat"] * 50 + ["the xylophone"], 32)
    pieces = learned.pieces(learned.encode("the xylophone"))
    assert pieces[0] == "▁the" and len(pieces) > 2 and "".join(pieces) == "▁the▁xylophone"


@pytest.mark.smoke
@pytest.mark.parametrize("dropout", [0.1, 0.4, 0.8])
def test_each_merge_is_left_out_with_the_probability_given(dropout):
    """▁a needs one merge. ▁bc needs two; one of ▁b and bc, both of them pieces, comes first, and
    if it is left out, the other one may come: (1 − p)² + p (1 − p)²."""
    subwords, p, n = Subwords.learn(["a a a a a bc bc bc bc bc"] * 9, 100), dropout, 4_000
    pieces = set(subwords.pieces(range(len(subwords))))
    assert {"▁a", "▁b", "bc", "▁bc"} <= pieces
    for word, expected in (("a", 1 - p), ("bc", (1 - p) ** 2 * (1 + p))):
        cuts = subwords.encode_randomly([word] * n, p, seed=3)
        whole = sum(len(tokens) == 1 for tokens in cuts) / n
        assert abs(whole - expected) < 4.5 * math.sqrt(expected * (1 - expected) / n)


def test_subwords_cut_further_are_the_same_text():
    subwords, lines = tokenizer("subword"), LINES["de"] + LINES["en"]
    usual = [subwords.encode(line) for line in lines]
    cut = subwords.encode_randomly(lines, 0.3, seed=1)
    assert [subwords.decode(tokens) for tokens in cut] == [subwords.decode(t) for t in usual]
    assert sum(map(len, cut)) > sum(map(len, usual))
    assert cut == subwords.encode_randomly(lines, 0.3, seed=1)
    assert cut != subwords.encode_randomly(lines, 0.3, seed=2)
    single = subwords.encode_randomly(lines, 1 - 1e-9, seed=0)
    assert max(len(piece) for tokens in single for piece in subwords.pieces(tokens)) == 1


def test_our_merges_are_sentencepieces_own():
    """Without dropout: of thousands of made-up words, known characters and unknown ones."""
    learned, draw = tokenizer("subword"), random.Random(0)
    letters = "".join(sorted({c for line in LINES["de"] + LINES["en"] for c in line})) + "電▁Ω\t"
    lines = LINES["de"] + LINES["en"]
    lines += ["".join(draw.choices(letters, k=draw.randrange(40))) for _ in range(5_000)]
    lines += [" ".join(draw.choices("".join(lines).split(), k=5)) for _ in range(500)] + ["", "  "]
    assert learned.encode_randomly(lines, 0.0, seed=0) == [*map(learned.encode, lines)]
    assert learned.encode_randomly(["ab" * 300], 0.0, seed=0) == [learned.encode("ab" * 300)]


def test_what_is_kept_of_words_changes_no_cut(monkeypatch):
    lines = (LINES["de"] + LINES["en"]) * 20
    cut = tokenizer("subword").encode_randomly(lines, 0.3, seed=1)
    patch_copies(monkeypatch, "dataset.merges", "MOST", 50)
    small = tokenizer("subword")
    assert small.encode_randomly(lines, 0.3, seed=1) == cut and small.merges.kept < 500
    patch_copies(monkeypatch, "dataset.merges", "LONG", 3)
    assert tokenizer("subword").encode_randomly(lines, 0.3, seed=1) == cut


def test_every_cut_comes_with_its_probability():
    """abcd in merges 1. ab 2. cd 3. ▁ab 4. ▁abcd: each is left out with p, and ▁ab cd needs four;
    the exact share of every cut, by adding up all ways to it."""
    numbers = {piece: n for n, piece in enumerate(["ab", "cd", "▁ab", "▁abcd", *"▁abcd"], 4)}
    merges = Merges(numbers, {piece: -float(n) for piece, n in numbers.items()})
    p, n = 0.3, 20_000
    q = 1 - p
    shares = {
        "▁abcd": q**4, "▁ab cd": q**3 * p, "▁ ab cd": q**2 * p, "▁ab c d": q**2 * p,
        "▁ ab c d": q * p**2, "▁ a b cd": p * q, "▁ a b c d": p * p,
    }  # fmt: skip
    assert abs(sum(shares.values()) - 1) < 1e-12
    pieces = {number: piece for piece, number in numbers.items()}
    found = Counter(
        " ".join(pieces[n] for n in cut) for cut in merges.encode(["abcd"] * n, p, seed=5)
    )
    assert found.keys() == shares.keys()
    for cut, share in shares.items():
        assert abs(found[cut] / n - share) < 4.5 * math.sqrt(share * (1 - share) / n)


CUT = """
import sys
from Transformer_Torch.dataset.subwords import Subwords
lines = [f"twice {n} is {2 * n}" for n in range(200)]
print(Subwords.learn(lines, 60).encode_randomly(lines, 0.3, int(sys.argv[1])))
"""


@pytest.mark.long
def test_every_process_cuts_alike():
    def cut(seed: int, hashes: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        command = [sys.executable, "-c", CUT, str(seed)]
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    lines = [f"twice {n} is {2 * n}" for n in range(200)]
    learned = Subwords.learn(lines, 60)
    here = learned.encode_randomly(lines, 0.3, 5)
    assert cut(5, "1") == cut(5, "2") == f"{here}\n"
    assert here != learned.encode_randomly(lines, 0.3, 6)


ODD = ["\0", "▁", "▅", "⁇", "\t", "\n", "\r", "\x1c", "\u2028", "\u00a0", "\u3000", "\ufeff",
       "\ufffd", "\uffff", "\U000f0000", "\u200b", "<s>", "</s>", "<unk>", "<pad>", "<<s>>",
       "<0x41>"]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_no_character_is_lost(odd):
    lines = [f"ab{odd}cd", f"{odd}x y{odd}", f"{odd}{odd}", f"a {odd} b"]
    learned = Subwords.learn(lines * 3, 80)
    for line in lines:
        assert learned.decode(learned.encode(line)) == line
        assert not set(range(len(SPECIALS))) & set(learned.encode(line))
        (cut,) = learned.encode_randomly([line], 0.5, seed=1)
        assert learned.decode(cut) == line
    restored = Subwords.of(learned.state_dict())
    assert restored.decode(restored.encode(lines[0])) == lines[0]


def test_lines_of_any_length_are_learned():
    long = "ein Satz ohne Ende und " * 1_000 + "q"
    for lines in ([long], [long, "kurz"]):
        learned = Subwords.learn(lines, 60)
        assert all(learned.decode(learned.encode(line)) == line for line in lines)


def test_bytes_that_are_no_character_are_unknown():
    learned = tokenizer("subword")
    assert learned.decode(learned.encode("Hund \udc80")) == "Hund ⁇"


def test_sentences_that_teach_nothing_are_one_line():
    with user_error("teach no subwords"):
        Subwords.learn(["", " "], 60)
    with user_error("no word is there 2 times", "--tokenizer"):
        Words.learn([";;;"] * 9, 60)
    with user_error("no word is there 2 times", "in the 2 words"):
        Words.learn(["once upon"], 60)


def test_vocabulary_that_cannot_hold_the_characters_is_refused():
    found = len({c for line in LINES["de"] for c in line}) + len(SPECIALS)
    with user_error(f"--vocabulary-size {found - 1}", f"the {found} characters"):
        Subwords.learn(LINES["de"], found - 1)
    assert len(Subwords.learn(LINES["de"], found)) == found
    assert len(Subwords.learn(["ab ab"], 5_000)) < 20, "there are no more pieces than that"
    few = Characters.learn(["aab", "aac", "bbd"], 6)
    assert few.pieces(few.encode("abcd")) == ["a", "b", "<unk>", "<unk>"]


# ---- Multi30k ----


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def contents() -> dict[str, bytes]:
    """Small files in the layout of Multi30k, unpacked."""
    files, start = {}, 0
    for name, size in SIZES.items():
        for language, lines in LINES.items():
            part = lines[start : start + size]
            part[0] += " "  # as some lines of the real files have
            files[f"{name}.{language}"] = "".join(f"{line}\n" for line in part).encode()
        start += size
    return files


def packed() -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(c, mtime=0) for name, c in contents().items()}


@pytest.fixture
def small(monkeypatch):
    """The module takes the small files for the real ones."""
    splits = {split: (name, SIZES[name]) for split, (name, _) in multi30k.SPLITS.items()}
    known = {
        name: (md5(packed()[f"{name}.gz"]), files.sha256(content))
        for name, content in contents().items()
    }
    patch_copies(monkeypatch, "dataset.multi30k", "SPLITS", splits)
    patch_copies(monkeypatch, "dataset.multi30k", "CHECKSUMS", known)


@pytest.fixture
def place(tmp_path, small):
    """A folder with the small files. Its name has a percent sign, as a name may."""
    raw = tmp_path / "50%" / "multi30k"
    raw.mkdir(parents=True)
    for name, content in packed().items():
        (raw / name).write_bytes(content)
    return raw.parent


@pytest.fixture
def no_network(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        patch_copies(monkeypatch, "dataset.multi30k", "URLS", [url])
        patch_copies(monkeypatch, "dataset.characters", "URL", url)
        yield url


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path, small, monkeypatch):
    """A folder whose files a server gives away, the second of two mirrors."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in packed().items():
        (folder / name).write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(multi30k, "URLS", [f"{url}/gone", url])
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.smoke
def test_each_split_has_its_own_files(place, folder):
    train = multi30k.load("train", folder, str(place))
    assert (train.source, train.target) == (LINES["de"][:4], LINES["en"][:4])
    expected = {name: files.sha256(contents()[name]) for name in ("train.de", "train.en")}
    assert train.checksums == expected
    assert multi30k.load("validation", folder, str(place)).source == LINES["de"][4:6]
    test = multi30k.load("test", folder, str(place))
    assert test.target == LINES["en"][6:] and list(test.checksums)[0] == "test_2016_flickr.de"


def test_files_may_be_unpacked(place, folder):
    before = multi30k.load("train", folder, str(place))
    for name, content in contents().items():
        (place / "multi30k" / name).write_bytes(content)
        (place / "multi30k" / f"{name}.gz").unlink()
    assert multi30k.load("train", folder, str(place)) == before


def test_known_checksums_are_of_all_the_official_files():
    assert [size for _, size in multi30k.SPLITS.values()] == [29_000, 1_014, 1_000]
    names = [f"{name}.{side}" for name, _ in multi30k.SPLITS.values() for side in ("de", "en")]
    assert list(multi30k.CHECKSUMS) == names
    sums = [part for both in multi30k.CHECKSUMS.values() for part in both]
    assert len(set(sums)) == 12 and {len(part) for part in sums} == {32, 64}
    assert all(url.startswith("https://") and "data/task1/raw" in url for url in multi30k.URLS)


def test_order_of_the_search(place, folder, tmp_path, monkeypatch, no_network):
    for where in (folder, folder.parent / "Other"):
        shutil.copytree(place / "multi30k", where / "dataset" / "multi30k")
    sibling = folder.parent / "Other" / "dataset" / "multi30k"
    assert multi30k.find(folder, None) == folder / "dataset" / "multi30k"
    (folder / "dataset" / "multi30k" / "val.en.gz").unlink()  # incomplete: stepped over
    assert multi30k.find(folder, None) == sibling
    monkeypatch.setenv("PLAYGROUND_DATA", str(place))
    assert multi30k.find(folder, None) == place / "multi30k"
    (tmp_path / "empty").mkdir()
    assert multi30k.find(folder, str(tmp_path / "empty")) == place / "multi30k"


@pytest.mark.parametrize("named", [True, False])
def test_absent_files_are_downloaded_and_checked(served, folder, tmp_path, named):
    (tmp_path / "named").mkdir()
    where = tmp_path / "named" if named else folder / "dataset"
    train = multi30k.load("train", folder, str(where) if named else None)
    assert train.source == LINES["de"][:4]
    assert {p.name: p.read_bytes() for p in (where / "multi30k").iterdir()} == packed()
    served.rename(served.with_name("away"))  # what is there is not asked for again
    assert multi30k.load("test", folder, str(where) if named else None).source == LINES["de"][6:]


@pytest.mark.parametrize("how", ["cut", "other", "gone"])
def test_a_download_that_is_not_the_file_leaves_nothing(how, served, folder):
    path = served / "val.en.gz"
    content = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(content[:-1] if how == "cut" else b"<html>busy</html>")
    with user_error("multi30k is not in", "val.en.gz could not be downloaded", kind=DataMissing):
        multi30k.load("train", folder, None)
    names = sorted(path.name for path in (folder / "dataset" / "multi30k").iterdir())
    assert names == ["train.de.gz", "train.en.gz", "val.de.gz"], "whole files, nothing else"
    path.write_bytes(content)
    assert multi30k.load("validation", folder, None).target == LINES["en"][4:6]


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda c: c[:-9], "cannot be read"),
        (lambda c: b"", "has 0 lines, not 4"),
        (lambda c: b"<html>404</html>", "cannot be read"),
        (lambda c: gzip.compress(gzip.decompress(c) + b"one more\n"), "has 5 lines, not 4"),
        (lambda c: gzip.compress(gzip.decompress(c).replace(b"Hunde", b"Runde")), "is damaged"),
        (lambda c: packed()["train.en.gz"], "is damaged: its checksum is not that of Multi30k's"),
    ],
)
def test_damaged_files_are_named_in_one_line(change, part, place, folder):
    path = place / "multi30k" / "train.de.gz"
    path.write_bytes(change(path.read_bytes()))
    with user_error(path, part, "delete it and download again"):
        multi30k.load("train", folder, str(place))


def test_the_default_goes_over_to_dates_loudly_and_a_named_dataset_never(
    folder, small, no_network, capsys
):
    assert translation.or_offline("multi30k", False, None) == "dates"
    error = capsys.readouterr().err
    assert "MADE-UP PAIRS" in error and "multi30k is not in" in error and "PLAYGROUND_DATA" in error
    assert_notice(error)
    with user_error("multi30k is not in", "--data-dir", kind=DataMissing):
        translation.or_offline("multi30k", True, None)
    for dataset in ("files", "dates", "reverse"):
        assert translation.or_offline(dataset, False, None) == dataset
    assert capsys.readouterr() == ("", "")


def test_data_that_is_there_is_taken_in_silence(place, folder, no_network, capsys):
    assert translation.or_offline("multi30k", False, str(place)) == "multi30k"
    assert capsys.readouterr() == ("", "")


# ---- two text files of one's own ----


def write(path, lines) -> str:
    content = lines if isinstance(lines, bytes) else "".join(f"{x}\n" for x in lines).encode()
    path.write_bytes(content)
    return str(path)


@pytest.fixture
def own(tmp_path):
    """A function (lines or bytes of the source, of the target, flags) -> args."""

    def make(source, target, **changes) -> Namespace:
        paths = dict(src=write(tmp_path / "a.txt", source), tgt=write(tmp_path / "b.txt", target))
        return flags(dataset="files", **paths | changes)

    return make


def numbered(n: int, of: int | None = None) -> tuple[list[str], list[str]]:
    """n pairs of `of` different source sentences."""
    return [f"satz {k % (of or n)}" for k in range(n)], [f"sentence {k}" for k in range(n)]


def test_own_files_are_split_once_and_for_all(own):
    args = own(*numbered(100))
    splits = {name: pair_files.load(args, name) for name in ("train", "validation", "test")}
    assert [len(split) for split in splits.values()] == [90, 5, 5]
    numbers = {name: [int(s.split()[1]) for s in split.source] for name, split in splits.items()}
    assert sorted(sum(numbers.values(), [])) == list(range(100))
    assert numbers["train"] == sorted(numbers["train"]), "in the order of the file"
    for name, split in splits.items():
        assert split.target == [f"sentence {n}" for n in numbers[name]]
        assert split.checksums == {
            "--src a.txt": files.sha256((data.Path(args.src)).read_bytes()),
            "--tgt b.txt": files.sha256((data.Path(args.tgt)).read_bytes()),
        }
        assert pair_files.load(args, name) == split
    assert numbers["validation"] != list(range(5)), "drawn"


def test_a_sentence_with_several_translations_is_in_one_split(own):
    args = own(*numbered(90, of=30))
    splits = [pair_files.load(args, name) for name in ("train", "validation", "test")]
    sources = [set(split.source) for split in splits]
    assert sum(map(len, splits)) == 90 and [len(s) for s in sources] == [26, 2, 2]
    assert not sources[0] & sources[1] and not sources[0] & sources[2]
    assert len(splits[1]) == 6, "with all its translations"


@pytest.mark.parametrize(
    "paths, part",
    [
        ({"test_src": "c.txt"}, "--test-src"),
        ({"test_src": "a.txt"}, "--test-tgt"),
        ({"test_tgt": "b.txt"}, "--test-src"),
        ({"test_src": "a.txt", "test_tgt": "typo.txt"}, "typo.txt"),
    ],
)
def test_a_test_split_that_is_not_there_is_found_out_before_training(paths, part, own, tmp_path):
    args = own(*numbered(100), **{name: str(tmp_path / path) for name, path in paths.items()})
    for split in ("train", "validation", "test"):
        with user_error(part):
            pair_files.load(args, split)


def test_a_test_split_of_its_own_is_taken_as_it_is(own, tmp_path):
    paths = dict(
        test_src=write(tmp_path / "c.txt", ["drei", "vier"]),
        test_tgt=write(tmp_path / "d.txt", ["three", "four"]),
    )
    args = own(*numbered(100), **paths)
    test = pair_files.load(args, "test")
    assert (test.source, test.target) == (["drei", "vier"], ["three", "four"])
    assert list(test.checksums) == ["--test-src c.txt", "--test-tgt d.txt"]
    assert (
        len(pair_files.load(args, "train")) == 95 and len(pair_files.load(args, "validation")) == 5
    )
    args.test_tgt = None
    with user_error("--test-tgt"):
        pair_files.load(args, "test")


@pytest.mark.parametrize(
    "source, target, parts",
    [
        (["a", "b", "c"], ["a", "b"], ["b.txt has 2 lines", "a.txt 3", "line 3 of the longer"]),
        (["a"], ["a", "b"], ["a.txt has 1 lines", "line 2"]),
        (["a", "", "c"], ["a", "b", "c"], ["a.txt, line 2", "empty"]),
        (["a", "b", "c"], ["a", "b", " \t"], ["b.txt, line 3", "empty"]),
        (["a", "b", "c"], ["a", "b", "c", ""], ["b.txt, line 4", "empty"]),
        (["a"], b"", ["b.txt", "no lines"]),
        (["a", "b"], b"a\nb\xe4r\n", ["b.txt, line 2", "UTF-8"]),
        (b"\xff\xfeh\x00\n\x00x", ["a"], ["a.txt, line 2", "UTF-8"]),
        (b"PK\x03\x04\n\n\x80\x81", ["a"], ["a.txt, line 3", "UTF-8"]),
        (["a", "a", "b"], ["x", "y", "z"], ["a.txt has 2 different lines", "too few"]),
    ],
)
def test_bad_files_are_named_with_the_line(source, target, parts, own):
    args = own(source, target)
    with user_error(*parts):
        pair_files.load(args, "train")


def test_files_from_other_systems_are_read_alike(own):
    source, target = numbered(40)
    source[3] = "Straße\u2028im\x85Grünen"  # no ends of lines
    plain = pair_files.load(own(source, target), "train")
    windows = codecs.BOM_UTF8 + "\r\n".join(source).encode()
    wide = "\n".join(target).encode("utf-16")  # with its mark, and no end of the last line
    other = pair_files.load(own(windows, wide), "train")
    assert (other.source, other.target) == (plain.source, plain.target)


@pytest.mark.parametrize("changes", [{"src": None}, {"tgt": "/nowhere"}, {"src": "."}])
def test_own_files_have_to_be_named(changes, own):
    name = "--" + next(iter(changes))
    with user_error("--dataset files needs", name, "a text file"):
        pair_files.load(own(["a"], ["b"], **changes), "train")


# ---- pairs made by code ----


def year_in_words(words: str) -> int:
    """The other way than the code's, which goes from numbers to words."""
    names = [dates.number(n) for n in range(1, 100)]
    words = words.replace("oh ", "").split()
    if words[:2] == ["two", "thousand"]:
        return 2000 + (names.index(words[2]) + 1 if len(words) > 2 else 0)
    rest = 0 if words[1] == "hundred" else names.index(words[1]) + 1
    return 100 * (names.index(words[0]) + 1) + rest


def read_date(written: str) -> datetime.date:
    """What a reader makes of it: an independent parser of all the ways of writing a date."""
    months = {name[:3]: k for k, name in enumerate(dates.MONTHS, start=1)}
    ordinals = {dates.ordinal(n): n for n in range(1, 32)}
    words = written.replace(",", " ").replace(".", " ").split()
    if len(words) == 1:
        words = written.split("-")
    words = [w for w in words if w not in ("the", "of", "in", "on")]
    words = [w for w in words if w[:3] not in {day[:3] for day in dates.WEEKDAYS}]
    (month,) = [months[w[:3]] for w in words if w[:3] in months]
    words = [w for w in words if w[:3] not in months]
    digits = [w for w in words if w.isdigit() and len(w) == 4]
    for word in words:
        figures = word.rstrip("stndrh")
        if word in ordinals or (figures.isdigit() and len(figures) < 3):
            day = ordinals.get(word) or int(figures)
            words.remove(word)
            break
    return datetime.date(int(digits[0]) if digits else year_in_words(" ".join(words)), month, day)


def test_dates_are_what_is_written():
    seen = set()
    rng = random.Random(3)
    for _ in range(400):
        first = dates.FIRST.toordinal()
        day = datetime.date.fromordinal(first + rng.randrange(200 * 365))
        for way in dates.WAYS:
            written = dates.write(day, way)
            assert read_date(written) == day, written
            seen.add(way)
    assert len(seen) == len(dates.WAYS) == len(set(dates.WAYS)) > 20


def test_dates_in_words_by_hand():
    day = datetime.date(1999, 3, 3)
    ways = [dates.write(day, way) for way in dates.WAYS]
    for written in ["the 3rd of March, 1999", "March 3, 1999", "Wednesday, 3 March 1999"]:
        assert written in ways
    assert "March third, nineteen ninety-nine" in ways and "Wed, 3 Mar 1999" in ways
    years = {1900: "nineteen hundred", 1905: "nineteen oh five", 2000: "two thousand",
             2007: "two thousand seven", 2012: "twenty twelve",
             2099: "twenty ninety-nine"}  # fmt: skip
    assert {y: dates.year(y) for y in years} == years
    days = {1: "first", 2: "second", 12: "twelfth", 20: "twentieth", 23: "twenty-third",
            30: "thirtieth", 31: "thirty-first", 5: "fifth", 19: "nineteenth"}  # fmt: skip
    assert {d: dates.ordinal(d) for d in days} == days
    ends = {1: "st", 2: "nd", 3: "rd", 4: "th", 11: "th", 12: "th", 13: "th", 21: "st", 22: "nd"}
    assert {d: dates.suffix(d) for d in ends} == ends


@pytest.mark.parametrize("dataset", ["dates", "reverse", "copy"])
def test_made_up_splits_are_disjoint_and_the_same_every_time(dataset):
    load = dates.load if dataset == "dates" else partial(strings.load, dataset)
    splits = {name: load(name) for name in dates.SIZES}
    assert {name: len(split) for name, split in splits.items()} == dates.SIZES
    answers = [answer for split in splits.values() for answer in split.target]
    assert len(set(answers)) == len(answers) == sum(dates.SIZES.values()), "in none twice"
    assert load("test") == splits["test"]
    for source, target in zip(splits["train"].source, splits["train"].target, strict=True):
        if dataset == "dates":
            assert datetime.date.fromisoformat(target).isoformat() == target
        else:
            assert source == (target[::-1] if dataset == "reverse" else target)
            assert strings.SHORTEST <= len(source) <= strings.LONGEST
    known = set("".join(splits["train"].source + splits["train"].target))
    assert set("".join(splits["test"].source + splits["test"].target)) <= known


def test_every_way_of_writing_and_every_year_is_learned():
    train = dates.load("train")
    assert {target[:4] for target in train.target} == {str(y) for y in range(1900, 2100)}
    assert {target[5:7] for target in train.target} == {f"{m:02d}" for m in range(1, 13)}
    lengths = {len(source) for source in train.source}
    assert min(lengths) <= 10 and max(lengths) >= 45


# ---- pairs in batches ----


def many(n: int = 600, seed: int = 0, longest: int = 30) -> Pairs:
    """Pairs of words that count: no two pairs are alike, sides are of different lengths."""
    rng = random.Random(seed)
    sides = [["x" * rng.randint(0, longest) + f" {k}" for k in range(n)] for _ in range(2)]
    return Pairs.encode(Sentences(*sides, {"f": "abc"}), Characters.learn(sides[0], 50))


def number_of(data: Pairs, tokens: torch.Tensor) -> int:
    """Which pair this source is of."""
    return int(data.tokenizer.decode(tokens.tolist()).split()[-1])


def numbers(data: Pairs, batches) -> list[list[int]]:
    return [[number_of(data, row) for row in source] for (source, _), _ in batches]


@pytest.mark.smoke
def test_a_batch_is_what_the_decoder_reads_and_what_it_should_say_next():
    tokens = Characters("abc")
    a, b, c = tokens.encode("abc")
    data = Pairs.encode(Sentences(["ab", ""], ["c", "abc"], {}), tokens)
    (source, target), labels = data.batch(torch.tensor([0, 1]))
    assert source.tolist() == [[a, b, END], [END, PAD, PAD]], "no source is empty"
    assert target.tolist() == [[BEGIN, c, END, PAD], [BEGIN, a, b, c]]
    assert labels.tolist() == [[c, END, IGNORED, IGNORED], [a, b, c, END]]
    assert source.dtype == target.dtype == labels.dtype == torch.int64
    assert data.lengths.tolist() == [3, 4] and len(data) == 2


@pytest.mark.parametrize("batch_size", [40, 100, 1_000, 100_000])
def test_every_pair_once_and_no_batch_too_large(batch_size):
    data = many()
    batches = list(data.batches(batch_size, seed=1, epoch=2))
    assert len(batches) == data.num_batches(batch_size)
    assert sorted(sum(numbers(data, batches), [])) == list(range(600))
    for (source, target), labels in batches:
        assert len(source) == len(target) and target.shape == labels.shape
        assert max(source.numel(), target.numel()) <= batch_size
    words = sum(int((labels != IGNORED).sum()) for _, labels in batches)
    assert words == sum(len(line) + 1 for line in data.sentences.target)


def test_batches_hold_the_pairs_of_the_files():
    data = many(50)
    for (source, target), labels in data.batches(200):
        for row in range(len(source)):
            k = number_of(data, source[row])
            spoken = [n for n in labels[row].tolist() if n != IGNORED]
            assert spoken[-1] == END and data.tokenizer.decode(spoken) == data.sentences.target[k]
            assert data.tokenizer.decode(source[row].tolist()) == data.sentences.source[k]
            assert target[row].tolist()[: len(spoken)] == [BEGIN, *spoken[:-1]]


def test_little_is_padding():
    data = many(4_000)
    longer = int(data.lengths.sum())
    spent = sum(max(s.numel(), t.numel()) for (s, t), _ in data.batches(2_000))
    assert spent < 1.08 * longer
    assert spent / data.num_batches(2_000) > 0.93 * 2_000, "batches are full"


def test_epochs_have_as_many_batches_of_other_compositions_in_another_order():
    data = many(longest=8)
    epochs = [numbers(data, data.batches(200, seed=0, epoch=epoch)) for epoch in range(4)]
    epochs.append(numbers(data, data.batches(200, seed=1, epoch=0)))
    assert len({len(batches) for batches in epochs}) == 1
    compositions = [{tuple(sorted(batch)) for batch in batches} for batches in epochs]
    for k in range(1, 5):
        assert len(compositions[0] & compositions[k]) <= 1
    lengths = [[len(batch) for batch in batches] for batches in epochs]
    assert len({tuple(row) for row in lengths}) == 5, "not always from short to long"
    assert numbers(data, data.batches(200, seed=0, epoch=3)) == epochs[3]
    torch.manual_seed(5)
    assert numbers(data, data.batches(200, seed=0, epoch=3)) == epochs[3], "no other generator"


@pytest.mark.parametrize("skip", [1, 7, 29])
def test_skipping_finds_the_place_again(skip):
    data = many()
    whole = list(data.batches(400, seed=3, epoch=1))
    rest = list(data.batches(400, seed=3, epoch=1, skip=skip))
    assert len(rest) == len(whole) - skip
    for ours, theirs in zip(rest, whole[skip:], strict=True):
        assert ours[0][0].equal(theirs[0][0]) and ours[0][1].equal(theirs[0][1])
        assert ours[1].equal(theirs[1])


def cut_further(dropout: float = 0.3) -> Pairs:
    """Pairs of numbers, each with its double, in subwords some merges of which are left out."""
    sides = [f"{'pair ' * (k % 9)}{k}" for k in range(300)], [f"twice {2 * k}" for k in range(300)]
    data = Pairs.encode(Sentences(*sides, {}), Subwords.learn(sum(sides, []), 80))
    data.dropout = dropout
    return data


def test_subword_dropout_changes_the_cut_of_every_epoch_and_nothing_else():
    data = cut_further()
    seen, longest = set(), int(data.lengths.max())
    for epoch in range(2):
        batches = list(data.batches(400, seed=1, epoch=epoch))
        assert len(batches) == data.num_batches(400)
        assert sorted(sum(numbers(data, batches), [])) == list(range(300)), "every pair once"
        tokens = 0
        for (source, target), labels in batches:
            assert max(source.shape[1], target.shape[1]) <= longest
            for row in range(len(source)):
                spoken = [n for n in labels[row].tolist() if n != IGNORED]
                k = number_of(data, source[row])
                assert spoken[-1] == END and data.tokenizer.decode(spoken) == f"twice {2 * k}"
            tokens += int((source != PAD).sum())
        assert tokens > 1.05 * int(data.source.lengths.sum())
        seen |= {tuple(batches[0][0][0].flatten().tolist())}
    assert len(seen) == 2
    for part in (data.to("cpu"), data.take(torch.arange(20)), data.subset(20)):
        assert part.dropout == data.dropout


@pytest.mark.parametrize("skip", [1, 9])
def test_skipping_finds_the_same_cut_again(skip):
    data = cut_further()
    whole = list(data.batches(400, seed=3, epoch=1))
    for ours, theirs in zip(data.batches(400, 3, 1, skip=skip), whole[skip:], strict=True):
        assert ours[0][0].equal(theirs[0][0]) and ours[0][1].equal(theirs[0][1])
        assert ours[1].equal(theirs[1])


def test_evaluation_knows_no_subword_dropout():
    data = cut_further()
    words = sum(int((labels != IGNORED).sum()) for _, labels in data.in_order(400))
    assert words == int((data.target.lengths - 1).sum())


def share(monkeypatch, rank: int, processes: int) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: processes)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_every_batch_evenly(processes, monkeypatch):
    data = many(601)
    shares, whole = [], []
    for rank in range(processes):
        share(monkeypatch, rank, processes)
        shares.append(list(data.batches(500, seed=1, epoch=4)))
        whole.append(numbers(data, data.in_order(500)))
        assert len(shares[-1]) == data.num_batches(500)
    for parts in zip(*shares, strict=True):
        assert len({len(labels) for _, labels in parts}) == 1, "as many pairs each"
        assert len(parts[0][1]) > 0
        longest = max(max(s.shape[1], t.shape[1]) for (s, t), _ in parts)
        assert sum(len(labels) for _, labels in parts) * longest <= 500
    dealt = sorted(sum((sum(numbers(data, part), []) for part in shares), []))
    assert len(set(dealt)) == len(dealt) == 601 - 601 % processes
    assert sorted(sum(sum(whole, []), [])) == list(range(601)), "in evaluation all of them"


def test_a_batch_that_cannot_hold_a_pair_is_refused():
    data = many(20)
    longest = int(data.lengths.max())
    assert data.num_batches(longest) >= 1
    with user_error(f"--batch-size {longest - 1}", f"a pair has {longest}", "--max-length"):
        data.num_batches(longest - 1)


def test_evaluation_has_every_label_once():
    data = many(300)
    batches = list(data.in_order(350))
    assert sorted(sum(numbers(data, batches), [])) == list(range(300))
    words = sum(int((labels != IGNORED).sum()) for _, labels in batches)
    assert words == sum(len(line) + 1 for line in data.sentences.target)
    assert all(max(s.numel(), t.numel()) <= 350 for (s, t), _ in batches)
    assert len(list(data.in_order(1))) == 300, "what is longer than that comes alone"


def test_long_pairs_are_left_out_of_training_aloud(capsys):
    data = many(100)
    kept = data.up_to(20)
    left_out = 100 - len(kept)
    assert f"{left_out} of 100 pairs have more than 20 tokens" in capsys.readouterr().out
    assert left_out == sum(n > 20 for n in data.lengths.tolist()) > 0
    assert int(kept.lengths.max()) <= 20 and len(kept.sentences) == len(kept)
    assert data.up_to(int(data.lengths.max())) is data and capsys.readouterr().out == ""
    with user_error("--max-length 1", "none of the 100 pairs"):
        data.up_to(1)


def test_a_subset_is_fixed_and_keeps_pairs_together():
    data = many(100)
    part = data.subset(30)
    assert len(part) == 30 and part.checksums == data.checksums
    found = numbers(part, part.in_order())
    assert sorted(sum(found, [])) == sorted(int(s.split()[-1]) for s in part.sentences.source)
    assert sorted(sum(found, [])) != list(range(30)) and data.subset(None) is data
    assert numbers(part, part.in_order()) == numbers(data.subset(30), data.subset(30).in_order())
    with user_error("--subset 101", "100 training examples"):
        data.subset(101)


def test_moving_keeps_everything():
    data = many(10)
    moved = data.to(torch.device("meta"))
    assert moved.labels.device.type == "meta" and moved.sentences is data.sentences
    assert moved.tokenizer is data.tokenizer and moved.checksums == data.checksums


def test_batch_sizes_are_as_large_as_they_may_be():
    for seed in range(20):
        rng = random.Random(seed)
        lengths = sorted(rng.choices(range(1, 30), k=rng.randint(1, 60)), reverse=seed % 2)
        most, step = rng.randint(30, 200), rng.choice([1, 1, 2, 3])
        sizes = batch_sizes(torch.tensor(lengths), most, step)
        assert sum(sizes) == len(lengths)
        start = 0
        for size in sizes:
            part = lengths[start : start + size]
            assert size <= step or size * max(part) <= most
            more = lengths[start : start + size + step]
            assert len(more) == size or len(more) * max(more) > most
            start += size
    assert batch_sizes(torch.tensor([]), 10) == []


@pytest.mark.smoke
def test_sentences_to_translate_come_with_their_places():
    tokens = tokenizer("subword")
    lines = [*LINES["de"], ""]
    batches = list(translation.source_batches(tokens, lines, 40, torch.device("cpu")))
    rows = torch.cat([rows for rows, _ in batches]).tolist()
    assert sorted(rows) == list(range(8)) and rows[-1] == 7, "the longest first"
    for rows, source in batches:
        assert len(rows) == len(source) and (source.numel() <= 40 or len(rows) == 1)
        for row, numbers_ in zip(rows.tolist(), source.tolist(), strict=True):
            kept = [n for n in numbers_ if n != PAD]
            assert kept == [*tokens.encode(lines[row]), END]
    assert list(translation.source_batches(tokens, [], 40, torch.device("cpu"))) == []
    assert encode_sources(tokens, ["Hund"]).sequence(0).tolist() == [*tokens.encode("Hund"), END]


# ---- windows of characters ----


def counting(n: int, context: int) -> Windows:
    """A text that counts."""
    classes = [chr(k) for k in range(n + 1)]
    return Windows(
        characters.Stretch(torch.arange(n), torch.arange(1, n + 1), classes, {}), context
    )


@pytest.mark.smoke
def test_training_windows_cover_the_text():
    data, N, T = counting(1_003, 10), 7, 10
    batches = list(data.batches(N, seed=1, epoch=2))
    assert len(batches) == data.num_batches(N) == 99 // N
    tokens = torch.cat([tokens for (tokens,), _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    assert tokens.shape == labels.shape == (98, T) and torch.equal(labels, tokens + 1)
    assert torch.equal(tokens, tokens[:, :1] + torch.arange(T))
    assert len(tokens.unique()) == tokens.numel(), "none twice"
    starts = tokens[:, 0]
    assert len((starts % T).unique()) == 1 and not torch.equal(starts, starts.sort().values)
    first = {int(next(data.batches(N, 1, epoch))[0][0].min()) % T for epoch in range(40)}
    assert len(first) > 5, "each epoch cuts elsewhere"
    seen = torch.cat([t for e in range(30) for (t,), _ in data.batches(N, 0, e)]).unique()
    assert len(seen) == 1_003


def test_windows_depend_on_seed_and_epoch_alone():
    data = counting(500, 8)

    def epoch(*which, **more):
        return [tokens for (tokens,), _ in data.batches(4, *which, **more)]

    whole = epoch(1, 2)
    torch.manual_seed(9)
    assert all(map(torch.equal, epoch(1, 2), whole))
    assert all(map(torch.equal, epoch(1, 2, skip=11), whole[11:]))
    assert len(epoch(1, 2, skip=11)) == len(whole) - 11
    assert not torch.equal(epoch(1, 3)[0], whole[0]) and not torch.equal(epoch(2, 2)[0], whole[0])


@pytest.mark.parametrize("N, T", [(1, 1), (3, 8), (1, 9)])
def test_shortest_text_for_a_batch(N, T):
    short = (N + 1) * T - 1
    assert counting(short, T).num_batches(N) == 1
    for epoch in range(10):
        ((tokens,), labels), *_ = counting(short, T).batches(N, epoch=epoch)
        assert tokens.shape == (N, T) and int(labels.max()) <= short
    with user_error(f"{short:,}", f"{short - 1:,}", "--batch-size"):
        counting(short - 1, T).num_batches(N)


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 14, 15, 16, 30, 97, 100, 101])
@pytest.mark.parametrize("context", [1, 2, 3, 10])
def test_every_character_is_scored_once_with_enough_past(n, context):
    for batch_size in (1, 3, 64):
        data, scored = counting(n, context), []
        for (tokens,), labels in data.in_order(batch_size):
            assert len(tokens) <= batch_size and tokens.shape == labels.shape
            assert tokens.shape[1] == min(context, n)
            for row, place in (labels != IGNORED).nonzero().tolist():
                label = int(labels[row, place])
                assert label == int(tokens[row, place]) + 1
                scored.append(label)
                assert place + 1 >= min(label, math.ceil(context / 2)), "too little past"
        assert scored == list(range(1, n + 1))


def test_windows_are_dealt_out(monkeypatch):
    data, parts, scored = counting(500, 8), [], []
    for rank in range(2):
        share(monkeypatch, rank, 2)
        parts.append([tokens for (tokens,), _ in data.batches(6, 3, 1)])
        scored += [labels[labels != IGNORED] for _, labels in data.in_order(4)]
    share(monkeypatch, 0, 1)
    whole = [tokens for (tokens,), _ in data.batches(6, 3, 1)]
    for first, second, both in zip(*parts, whole, strict=True):
        assert torch.equal(torch.stack([first, second], 1).flatten(0, 1), both)
    assert torch.cat(scored).sort().values.tolist() == list(range(1, 501))


def test_part_of_a_text_is_its_beginning():
    data = counting(100, 5)
    assert len(data.subset(40)) == 40 and data.subset(None) is data
    assert max(int(labels.max()) for _, labels in data.subset(40).batches(1)) <= 40
    assert len(data.to(torch.device("cpu"))) == 100
    with user_error("--subset 101", "100 training examples"):
        data.subset(101)


# ---- what the training scripts call ----


@pytest.fixture(params=FOLDERS)
def dataset(request, monkeypatch, folder):
    """A Transformer's dataset package, as if it stood in an empty repository."""
    for name in ("translation", "lm"):
        module = importlib.import_module(f"{request.param}.dataset.{name}")
        monkeypatch.setattr(module, "FOLDER", folder)
    return importlib.import_module(f"{request.param}.dataset")


@pytest.mark.smoke
def test_pairs_are_loaded_in_the_tokens_of_the_training_split(dataset, place):
    args = flags(data_dir=str(place))
    train, validation = dataset.load_training(args)
    assert [len(train), len(validation)] == [4, 2] and train.tokenizer is validation.tokenizer
    (batch,) = train.batches(400)
    assert batch[0][0].max() < len(train.tokenizer) <= 120
    assert not any("Fluß" in piece for piece in train.tokenizer.pieces(range(len(train.tokenizer))))
    restored = dataset.restore_tokenizer(args, train.tokenizer.state_dict())
    test = dataset.load_test(args, restored)
    assert len(test) == 1 and test.sentences.target == LINES["en"][6:]
    assert test.source.sequence(0).tolist() == [*restored.encode(LINES["de"][6]), END]
    assert not train.checksums.keys() & test.checksums.keys()


def test_training_and_validation_lose_their_long_pairs_and_the_test_split_none(
    dataset, place, capsys
):
    args = flags(data_dir=str(place), tokenizer="character", max_length=27)
    train, validation = dataset.load_training(args)
    out = capsys.readouterr().out
    assert [len(train), len(validation)] == [1, 1]
    assert "3 of 4 pairs" in out and "1 of 2 pairs" in out
    assert int(train.lengths.max()) <= 27 and int(validation.lengths.max()) <= 27

    args.max_length = 5
    test = dataset.load_test(args, train.tokenizer)
    assert len(test) == 1 and int(test.lengths.max()) > 5


def test_subword_dropout_is_of_the_training_split_alone(dataset, place):
    args = flags(data_dir=str(place), subword_dropout=0.2)
    train, validation = dataset.load_training(args)
    assert (train.dropout, validation.dropout) == (0.2, 0.0)
    assert dataset.load_test(args, train.tokenizer).dropout == 0.0


@pytest.mark.parametrize("kind", ["word", "character"])
def test_subword_dropout_without_subwords_is_refused(kind, dataset):
    args = flags(dataset="copy", tokenizer=kind, subword_dropout=0.1)
    with user_error(f"--subword-dropout needs --tokenizer subword, not {kind}"):
        dataset.load_training(args)


@pytest.mark.parametrize("name", ["dates", "reverse", "copy"])
def test_made_up_pairs_need_no_files(name, dataset, monkeypatch):
    for made in ("dataset.dates", "dataset.strings"):
        patch_copies(monkeypatch, made, "SIZES", {"train": 50, "validation": 10, "test": 10})
    args = flags(dataset=name, tokenizer="character")
    train, validation = dataset.load_training(args)
    test = dataset.load_test(args, train.tokenizer)
    assert [len(train), len(validation), len(test)] == [50, 10, 10] and train.checksums == {}


def test_texts_are_loaded_in_windows(dataset, tmp_path):
    (tmp_path / "input.txt").write_text("".join(chr(97 + n * n % 26) for n in range(2_000)))
    args = flags(task="lm", dataset="text", data_dir=str(tmp_path), max_length=16)
    train, validation = dataset.load_training(args)
    restored = dataset.restore_tokenizer(args, train.tokenizer.state_dict())
    test = dataset.load_test(args, restored)
    assert [len(train), len(validation), len(test)] == [1_703, 96, 200]
    assert train.context == 16 and len(train.tokenizer) == len(restored) < 26
    ((tokens,), labels) = next(train.batches(3))
    assert tokens.shape == labels.shape == (3, 16)
    written = restored.decode(tokens[0].tolist())
    assert written in (tmp_path / "input.txt").read_text()
    (tmp_path / "input.txt").write_text("XYZ" * 300)
    with user_error("other characters"):
        dataset.load_test(args, restored)


def test_splits_are_those_of_rnn_manual(dataset, monkeypatch):
    rnn = importlib.import_module("RNN_Manual.dataset")
    whole = "".join(chr(97 + n * n % 26) for n in range(1_115_394))
    for name in (*FOLDERS, "RNN_Manual"):
        read = f"{name}.dataset.characters.read"
        monkeypatch.setattr(read, lambda *_: (whole, {"input.txt": "abc"}))
    args = flags(task="lm", dataset="tiny-shakespeare", max_length=256)
    ours = [*dataset.load_training(args)]
    ours.append(dataset.load_test(args, ours[0].tokenizer))
    theirs = [*rnn.load_training("tiny-shakespeare"), rnn.load_test("tiny-shakespeare")]
    assert [len(split) for split in ours] == [948_093, 55_760, 111_540]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.labels.equal(other.labels) and mine.stretch.inputs.equal(other.inputs)
        assert mine.checksums == other.checksums


@pytest.mark.parametrize(
    "task, default, instead", [("translate", "multi30k", "dates"),
                               ("lm", "tiny-shakespeare", "help-topics")],
)  # fmt: skip
def test_offline_the_default_is_replaced_and_said_so(
    task, default, instead, dataset, small, no_network, capsys
):
    args = flags(task=task, dataset=default)
    assert dataset.or_offline(args) == instead and instead in dataset.DATASETS[task]
    assert_notice(capsys.readouterr().err)
    for changes in ({"given": ["dataset"]}, {"resume": True}):
        with user_error(default, kind=DataMissing):
            dataset.or_offline(flags(task=task, dataset=default, **changes))


def test_datasets_of_the_other_task_are_refused(dataset):
    with user_error("--task lm", "tiny-shakespeare, help-topics, text", "multi30k"):
        dataset.load_training(flags(task="lm", dataset="multi30k"))
    with user_error("--task translate", "not text"):
        dataset.or_offline(flags(dataset="text"))


def test_both_folders_have_the_same_data():
    ours, theirs = (importlib.import_module(f"{name}.dataset").DATASETS for name in FOLDERS)
    assert {t: list(ours[t]) for t in ours} == {t: list(theirs[t]) for t in theirs}
    assert [next(iter(names)) for names in ours.values()] == ["multi30k", "tiny-shakespeare"]


def test_flags_of_the_data(tmp_path, monkeypatch, capsys):
    parser = cli.Parser("test")
    translation.add_flags(parser)
    monkeypatch.chdir(tmp_path)
    args = parser.parse_args(["--src", "a.txt", "--tokenizer", "word", "--max-length", "9"])
    assert args.src == str(tmp_path / "a.txt") and args.tgt is None, "read from anywhere later"
    assert (args.tokenizer, args.max_length, args.vocabulary_size) == ("word", 9, None)
    for wrong in (["--tokenizer", "bytes"], ["--vocabulary-size", "4"], ["--max-length", "0"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
        assert len(capsys.readouterr().err.splitlines()) == 1


# ---- subwords are learned once ----


@pytest.fixture
def lessons(monkeypatch) -> list[int]:
    """How many pieces were asked for, each time that subwords are learned."""
    sizes, learn = [], Subwords.learn

    def count(texts, size):
        sizes.append(size)
        return learn(texts, size)

    monkeypatch.setattr(Subwords, "learn", count)
    return sizes


def kept(where) -> list:
    return sorted(path.name for path in where.glob("*subwords*"))


def test_subwords_are_learned_once_and_kept_beside_the_data(place, folder, lessons):
    args = flags(data_dir=str(place))
    first, _ = translation.load_training(args)
    second, _ = translation.load_training(args)
    assert lessons == [120] and len(kept(place / "multi30k")) == 1 and not kept(folder / "dataset")
    second.tokenizer.load_state_dict(first.tokenizer.state_dict())
    args.vocabulary_size = 80
    translation.load_training(args)
    assert lessons == [120, 80] and len(kept(place / "multi30k")) == 2
    assert [p for p in (place / "multi30k").iterdir() if p.name.endswith(".part")] == []


def test_other_sentences_teach_other_subwords(own, folder, lessons, tmp_path):
    for word in ("satz", "zeile", "satz"):
        source, target = numbered(60)
        args = own([line.replace("satz", word) for line in source], target, vocabulary_size=60)
        train, _ = translation.load_training(args)
        assert UNKNOWN not in train.tokenizer.encode(f"{word} 1")
    assert lessons == [60, 60] and len(kept(tmp_path)) == 2


def other_state(damage: str) -> dict:
    """A tokenizer that was not learned from the sentences at `place`."""
    if damage == "words":
        return tokenizer("word").state_dict()
    if damage == "too many pieces":
        return Subwords.learn(LINES["de"] + LINES["en"], 300).state_dict()
    if damage == "other sentences":
        return Subwords.learn(["other words, same size"] * 9, 100).state_dict()
    if damage == "other words of the same characters":
        lines = LINES["de"] + LINES["en"]
        return Subwords.learn([line[::-1] for line in lines], 120).state_dict()
    models = {"no model": b"no model", "empty model": b""}
    if damage in models:
        return {"kind": "subword", "model": torch.tensor([*models[damage]], dtype=torch.uint8)}
    return {"no kind": {}, "no tensor": {"kind": "subword", "model": "text"}}[damage]


@pytest.mark.parametrize(
    "damage",
    ["words", "too many pieces", "other sentences", "other words of the same characters",
     "no model", "empty model", "no kind", "no tensor"],
)  # fmt: skip
def test_kept_subwords_of_the_right_key_are_those_of_the_sentences(damage, place, folder, lessons):
    args = flags(data_dir=str(place))
    first, _ = translation.load_training(args)
    (path,) = (place / "multi30k").glob("subwords-*")
    state = checkpoint.load(path)
    checkpoint.save(path, state | {"tokenizer": other_state(damage)})
    lessons.clear()
    second, _ = translation.load_training(args)
    assert lessons == [120] and differences(checkpoint.load(path), state) == []
    second.tokenizer.load_state_dict(first.tokenizer.state_dict())


@pytest.mark.parametrize("damage", [b"", b"no cache", "cut", "bit", "another"])
def test_damaged_subwords_are_learned_anew(damage, place, folder, lessons):
    args = flags(data_dir=str(place))
    translation.load_training(args)
    (path,) = (place / "multi30k").glob("subwords-*")
    good, state = path.read_bytes(), checkpoint.load(path)
    if damage == "another":  # of other sentences, under this name
        checkpoint.save(path, state | {"key": "0" * 64})
    elif damage == "bit":
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    else:
        path.write_bytes(good[:-5] if damage == "cut" else damage)
    translation.load_training(args)
    assert lessons == [120, 120] and differences(checkpoint.load(path), state) == []


def test_where_the_data_cannot_be_written_subwords_are_kept_in_the_models_folder(
    place, folder, lessons
):
    (place / "multi30k").chmod(0o555)
    args = flags(data_dir=str(place))
    try:
        for _ in range(2):
            translation.load_training(args)
        assert lessons == [120] and len(kept(folder / "dataset")) == 1
        shutil.rmtree(folder)  # nor can they be kept there: it works all the same
        train, _ = translation.load_training(args)
    finally:
        (place / "multi30k").chmod(0o755)
    assert lessons == [120, 120] and len(train) == 4 and not kept(place / "multi30k")


def test_subwords_of_made_up_pairs_are_kept_in_the_models_folder(folder, lessons, monkeypatch):
    sizes = {"train": 200, "validation": 10, "test": 10}
    patch_copies(monkeypatch, "dataset.dates", "SIZES", sizes)
    train, _ = translation.load_training(flags(dataset="dates"))
    assert lessons == [120] and len(kept(folder / "dataset")) == 1
    written = train.sentences.source[0]
    assert train.tokenizer.decode(train.tokenizer.encode(written)) == written


def test_one_process_alone_keeps_the_subwords(place, folder, lessons, monkeypatch):
    share(monkeypatch, 1, 2)
    translation.load_training(flags(data_dir=str(place)))
    assert lessons == [120] and not kept(place / "multi30k")
    monkeypatch.setattr(subwords, "VERSION", subwords.VERSION + 1)
    share(monkeypatch, 0, 2)
    translation.load_training(flags(data_dir=str(place)))
    assert len(kept(place / "multi30k")) == 1
