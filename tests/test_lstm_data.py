"""LSTM/dataset/: reviews from an archive or a folder, and their cache; CSV files; sentences."""

import gzip
import io
import os
import shutil
import tarfile

import pytest
import torch

from common import checkpoint, data
from LSTM.dataset import cache, csv_files, imdb, load_training, templates, texts
from LSTM.dataset.texts import Corpus, Encoding, Texts, split_off
from LSTM.dataset.words import basic_english
from LSTM.train import make_parser
from LSTM.utils.ngrams import NBSVM, NGramLogistic, NGrams
from tests.conftest import user_error
from tests.running import MARKED, marked

PER_CLASS = 6


@pytest.fixture(autouse=True)
def few_reviews(monkeypatch, tmp_path):
    monkeypatch.setattr(imdb, "PER_CLASS", PER_CLASS)
    monkeypatch.setattr(imdb, "VALIDATION_SIZE", 4)
    monkeypatch.setattr(data, "ROOT", tmp_path / "repository")


def review(split: str, kind: str, number: int) -> bytes:
    word = {"pos": "Lovely", "neg": "Awful"}[kind]
    return f"{word} film no. {number}, {split}.<br /><br />Don't ask: it's \"{word}\".".encode()


def reviews() -> dict[str, bytes]:
    """The members of a small archive that is like the real one, in a wild order."""
    members = {"aclImdb/README": b"hello", "aclImdb/imdb.vocab": b"the\n"}
    for split in ("test", "train"):
        members[f"aclImdb/{split}/labeledBow.feat"] = b"9 0:9 1:1"
        members[f"aclImdb/{split}/urls_pos.txt"] = b"http://example.org"
        for kind, rating in (("pos", 8), ("neg", 3)):
            for number in (10, 2, 1, 0, 11, 3):
                name = f"aclImdb/{split}/{kind}/{number}_{rating}.txt"
                members[name] = review(split, kind, number)
    members["aclImdb/train/unsup/0_0.txt"] = b"unlabelled"
    return members


def pack(path, members: dict, more: list[tarfile.TarInfo] = ()) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)


@pytest.fixture
def place(tmp_path):
    """A folder with a small archive of reviews."""
    folder = tmp_path / "data"
    folder.mkdir()
    pack(folder / imdb.ARCHIVE, reviews())
    return folder


@pytest.fixture
def folder(tmp_path):
    """The model's folder, without data of its own."""
    (tmp_path / "LSTM" / "dataset").mkdir(parents=True)
    return tmp_path / "LSTM"


def unpack(place):
    for name, content in reviews().items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (place / imdb.ARCHIVE).unlink()


def as_dict(corpus: Corpus) -> dict[str, int]:
    return {" ".join(corpus.text(row)): int(corpus.labels[row]) for row in range(len(corpus))}


def expected(split: str) -> dict[str, int]:
    return {
        " ".join(basic_english(review(split, kind, number).decode())): int(kind == "pos")
        for kind in ("neg", "pos") for number in (0, 1, 2, 3, 10, 11)
    }  # fmt: skip


# ---- the archive ----


@pytest.mark.smoke
@pytest.mark.parametrize("split", ["train", "test"])
def test_reviews_are_read_straight_from_the_archive(split, place, folder):
    corpus = imdb.load(split, folder, str(place))
    assert as_dict(corpus) == expected(split) and corpus.classes == ["negative", "positive"]
    assert corpus.labels.tolist() == [0] * PER_CLASS + [1] * PER_CLASS
    numbers = [corpus.text(row)[corpus.text(row).index("film") + 3] for row in range(PER_CLASS)]
    assert numbers == ["0", "1", "2", "3", "10", "11"], "in a fixed order"
    unpacked = {path.name for path in place.iterdir()}
    assert len(unpacked) == 2 and imdb.ARCHIVE in unpacked, "beside it the cache, nothing else"


def test_an_unpacked_folder_gives_the_same(place, folder):
    packed = imdb.load("train", folder, str(place))
    unpack(place)
    loose = imdb.load("train", folder, str(place))
    assert as_dict(loose) == as_dict(packed) and loose.checksums == packed.checksums
    assert loose.words.values.equal(packed.words.values)
    (place / "aclImdb/train/pos/3_8.txt").write_text("changed")
    changed = imdb.load("train", folder, str(place))
    assert changed.checksums != packed.checksums and "changed" in as_dict(changed)


def test_the_order_of_the_search(place, folder, tmp_path, monkeypatch):
    sibling = tmp_path / "repository" / "Other" / "dataset"
    for where in (folder / "dataset", sibling):
        where.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / imdb.ARCHIVE, where)
    assert imdb.find(folder, None) == folder / "dataset" / imdb.ARCHIVE
    (folder / "dataset" / imdb.ARCHIVE).unlink()
    assert imdb.find(folder, None) == sibling / imdb.ARCHIVE
    monkeypatch.setenv("PLAYGROUND_DATA", str(place))
    assert imdb.find(folder, None) == place / imdb.ARCHIVE


def test_a_download_is_checked_and_kept(place, folder, monkeypatch):
    asked = []

    def download(urls, path, md5):
        asked.append((urls, path, md5))
        shutil.copy(place / imdb.ARCHIVE, path)

    monkeypatch.setattr(data, "download", download)
    assert as_dict(imdb.load("train", folder, None)) == expected("train")
    imdb.load("test", folder, None)
    target = folder / "dataset" / imdb.ARCHIVE
    assert asked == [(imdb.URLS, target, "7c2ac02c03563afcf9b574c7e56c153a")]


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


MALICIOUS = {
    "up": tarfile.TarInfo("aclImdb/../../escaped.txt"),
    "absolute": tarfile.TarInfo("/tmp/escaped.txt"),
    "backslashes": tarfile.TarInfo("aclImdb\\..\\..\\escaped.txt"),
    "drive": tarfile.TarInfo("C:\\escaped.txt"),
    "soft link": link("aclImdb/train/pos/9_9.txt", "/etc/passwd", tarfile.SYMTYPE),
    "hard link": link("aclImdb/train/pos/9_9.txt", "../../etc/passwd", tarfile.LNKTYPE),
    "link to a folder": link("aclImdb/train/pos", "/tmp", tarfile.SYMTYPE),
    "device": link("aclImdb/null", "", tarfile.CHRTYPE),
    "pipe": link("aclImdb/train/pos/9_9.txt", "", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_an_archive_that_reaches_outside_is_refused(name, place, folder):
    before = sorted(place.parent.rglob("*"))
    pack(place / imdb.ARCHIVE, reviews(), [MALICIOUS[name]])
    with user_error(place / imdb.ARCHIVE, "not the review set"):
        imdb.load("train", folder, str(place))
    assert sorted(place.parent.rglob("*")) == before, "something was written"


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.97, 0.999])
def test_a_truncated_archive_is_refused(share, place, folder):
    content = (place / imdb.ARCHIVE).read_bytes()
    (place / imdb.ARCHIVE).write_bytes(content[: int(share * len(content))])
    with user_error(place / imdb.ARCHIVE):
        imdb.load("test", folder, str(place))


@pytest.mark.parametrize(
    "change, part",
    [
        ({"aclImdb/train/pos/2_8.txt": None}, "6 negative and 5 positive train reviews"),
        ({"aclImdb/train/pos/2_8.txt": None, "aclImdb/train/pos/2_2.txt": b"bad"}, "mislabelled"),
        ({"aclImdb/train/neg/3_3.txt": b"\xff\xfe"}, "neg/3_3.txt is not UTF-8"),
        ({"./aclImdb/train/neg/3_3.txt": b"again"}, "twice"),
        ({name: None for name in reviews()} | {"index.html": b"<html>"}, "0 negative"),
    ],
)  # fmt: skip
def test_an_archive_with_other_content_is_refused(change, part, place, folder):
    members = reviews() | change
    pack(place / imdb.ARCHIVE, {name: c for name, c in members.items() if c is not None})
    with user_error(place / imdb.ARCHIVE, part):
        imdb.load("train", folder, str(place))


def test_an_archive_with_a_flipped_bit_is_refused(place, folder):
    content = bytearray((place / imdb.ARCHIVE).read_bytes())
    content[-8] ^= 1  # of the checksum itself: everything unpacks
    (place / imdb.ARCHIVE).write_bytes(content)
    with user_error(place / imdb.ARCHIVE, "CRC"):
        imdb.load("train", folder, str(place))


def test_something_that_is_no_archive_is_refused(place, folder):
    (place / imdb.ARCHIVE).write_bytes(b"<html>404 Not Found</html>")
    with user_error(place / imdb.ARCHIVE, "damaged"):
        imdb.load("train", folder, str(place))


def test_headers_inside_headers_are_refused(place, folder):
    """Each says that the name of the next one is a long one, and the next one is such a header."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 4
    member = head.tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")
    (place / imdb.ARCHIVE).write_bytes(gzip.compress(member * 5_000, 1))
    with user_error(place / imdb.ARCHIVE, "damaged", "download again"):
        imdb.load("train", folder, str(place))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_review_that_is_a_pipe_is_one_line(tmp_path, folder):
    path = tmp_path / "aclImdb" / "train" / "neg" / "3_1.txt"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with user_error(path, "no file"):
        imdb.load("train", folder, str(tmp_path))


# ---- the cache ----


def count_reads(monkeypatch) -> list:
    reads, number_words = [], texts.number_words

    def count(lines):
        reads.append(1)
        return number_words(lines)

    monkeypatch.setattr(texts, "number_words", count)
    return reads


def test_the_second_time_nothing_is_tokenised(place, folder, monkeypatch):
    reads = count_reads(monkeypatch)
    first = imdb.load("train", folder, str(place))
    (kept,) = place.glob("imdb-train-*.safetensors")
    second = imdb.load("train", folder, str(place))
    assert len(reads) == 1 and as_dict(first) == as_dict(second)
    assert first.checksums == second.checksums and first.labels.equal(second.labels)
    assert [path for path in place.iterdir() if path.name[0] == "."] == []
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)  # other words by another tokenizer
    imdb.load("train", folder, str(place))
    assert len(reads) == 2 and list(place.glob("imdb-train-*")) == [kept]


WRONG = {
    "words": [torch.tensor([9_999] * 40), torch.zeros(3).int(), 3, None],
    "lengths": [torch.tensor([-1, 1]), torch.ones(2, 2), "x"], "labels": [torch.zeros(1), []],
    "tokens": [1, torch.ones(3), torch.tensor([255], dtype=torch.uint8)], "classes": [...],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_cache_with_the_right_key_and_wrong_content_is_made_anew(name, place, folder):
    whole = as_dict(imdb.load("train", folder, str(place)))
    (path,) = place.glob("imdb-train-*.safetensors")
    state = checkpoint.load(path)
    for value in WRONG[name]:
        changed = {k: v for k, v in {**state, name: value}.items() if v is not ...}
        checkpoint.save(path, changed)
        assert as_dict(imdb.load("train", folder, str(place))) == whole


def test_other_content_is_tokenised_anew(place, folder):
    imdb.load("train", folder, str(place))
    members = reviews()
    members["aclImdb/train/pos/2_8.txt"] = b"other words"
    pack(place / imdb.ARCHIVE, members)
    assert "other words" in as_dict(imdb.load("train", folder, str(place)))


@pytest.mark.parametrize("damage", [b"", b"no cache", "cut", "bit"])
def test_a_damaged_cache_is_made_anew(damage, place, folder, monkeypatch):
    imdb.load("train", folder, str(place))
    (path,) = place.glob("imdb-train-*")
    good = path.read_bytes()
    if damage == "bit":
        damage = good[:-1] + bytes([good[-1] ^ 1])
    path.write_bytes(good[:-5] if damage == "cut" else damage)
    assert as_dict(imdb.load("train", folder, str(place))) == expected("train")
    reads = count_reads(monkeypatch)
    assert as_dict(imdb.load("train", folder, str(place))) == expected("train") and not reads


def test_where_the_data_cannot_be_written_the_cache_is_in_the_models_folder(place, folder):
    place.chmod(0o555)
    try:
        imdb.load("train", folder, str(place))
    finally:
        place.chmod(0o755)
    assert [path.name for path in place.iterdir()] == [imdb.ARCHIVE]
    assert len(list((folder / "dataset").glob("imdb-train-*.safetensors"))) == 1
    shutil.rmtree(folder)  # nor can it be written there: it works all the same
    place.chmod(0o555)
    try:
        assert as_dict(imdb.load("train", folder, str(place))) == expected("train")
    finally:
        place.chmod(0o755)


# ---- splits and words ----


def test_copies_of_a_text_are_on_one_side():
    lines = [f"text {n % 40} of {n % 2}" for n in range(100)] + [f"single {n}" for n in range(60)]
    corpus = Corpus.of(lines, [n % 2 for n in range(160)], ["a", "b"], {})
    assert len(set(corpus.groups().tolist())) == 100
    train, held_out = split_off(corpus, 20)
    inside, outside = ({" ".join(c.text(r)) for r in range(len(c))} for c in (train, held_out))
    assert not inside & outside and len(inside) == 80 and len(outside) == 20
    assert len(train) + len(held_out) == 160
    assert set(corpus.labels[:40].tolist()) == {0, 1} == set(held_out.labels.tolist())
    again = split_off(corpus, 20)[1]
    assert as_dict(again) == as_dict(held_out), "the same for every seed"


def arguments(*flags):
    return make_parser().parse_args([str(flag) for flag in flags])


def test_the_vocabulary_is_of_the_training_split_alone(place, monkeypatch):
    args = arguments("--data-dir", place, "--min-freq", 1)
    train, validation = load_training(args)
    assert (len(train), len(validation)) == (8, 4)
    known = set(train.encoding.vocabulary.get_itos())
    assert known == {"<pad>", "<unk>"} | {w for r in range(8) for w in train.corpus.text(r)}
    unknown = {w for r in range(4) for w in validation.corpus.text(r)} - known
    assert unknown, "numbers of the held-out reviews"
    row = next(r for r in range(4) if unknown & set(validation.corpus.text(r)))
    words = validation.corpus.text(row)
    numbers = validation.inputs.sequence(row).tolist()
    assert [n == 1 for n in numbers] == [w in unknown for w in words]
    assert max(numbers) < len(known)

    fewer, _ = load_training(arguments("--data-dir", place, "--min-freq", 1, "--subset", 2))
    assert len(fewer) == 2 and len(fewer.encoding.vocabulary) < len(known)
    with user_error("--subset 9"):
        load_training(arguments("--data-dir", place, "--subset", 9))


def test_long_texts_are_cut_for_training_alone(place):
    train, validation = load_training(arguments("--data-dir", place, "--max-length", 5))
    assert int(train.inputs.lengths.max()) == 5 < int(validation.inputs.lengths.min())


def make_texts(N: int = 103) -> Texts:
    lines = [" ".join(f"w{n}" for _ in range(n % 17)) for n in range(N)]
    corpus = Corpus.of(lines, [n % 2 for n in range(N)], ["a", "b"], {})
    return Texts.encode(corpus, Encoding.learn(corpus, arguments("--min-freq", 1)))


def test_batches_hold_every_text_once_an_epoch():
    split, seen = make_texts(), []
    for (tokens, lengths), labels in split.batches(8, seed=3, epoch=1):
        assert tokens.shape == (len(labels), max(1, int(lengths.max())))
        assert ((tokens != 0).sum(1) == lengths).all()
        seen += lengths.tolist()
    assert sorted(seen) == sorted(split.inputs.lengths.tolist())
    assert split.num_batches(8) == 13 and split.num_batches(1_000) == 1


def test_batches_depend_on_seed_and_epoch_alone_and_can_be_skipped():
    def order(**how):
        return [rows.tolist() for rows in make_texts().rows(8, **how)]

    first = order(seed=3, epoch=1)
    assert order(seed=3, epoch=1) == first
    assert order(seed=3, epoch=1, skip=5) == first[5:] and order(seed=3, epoch=1, skip=13) == []
    assert order(seed=3, epoch=2) != first != order(seed=4, epoch=1)


@pytest.mark.parametrize("N", [1, 300])
def test_for_evaluation_every_text_is_seen_once(N):
    rows = torch.cat(list(make_texts(N).sorted_batches()))
    assert rows.sort().values.tolist() == list(range(N))


def test_a_batch_for_evaluation_has_few_rows_where_texts_are_long(monkeypatch):
    """A text is as long as it is there, and all are padded to the longest."""
    split = make_texts(40)
    lengths = split.inputs.lengths
    most = 2 * int(lengths.max())
    monkeypatch.setattr("LSTM.dataset.texts.MOST_TOKENS", most)
    batches = list(split.sorted_batches())
    assert torch.cat(batches).sort().values.tolist() == list(range(40)) and len(batches) > 2
    assert all(len(rows) * max(1, int(lengths[rows].max())) <= most for rows in batches)
    monkeypatch.setattr("LSTM.dataset.texts.MOST_TOKENS", 1)
    assert {len(rows) for rows in split.sorted_batches() if lengths[rows].max()} == {1}


def test_an_encoding_comes_back_from_a_checkpoint_and_refuses_another():
    encoding = make_texts().encoding
    state = encoding.state_dict()
    again = Encoding.of(state)
    assert again.state_dict() == state
    assert again.vocabulary(["w7", "never"]) == encoding.vocabulary(["w7", "never"])
    encoding.load_state_dict(state)
    with pytest.raises(ValueError, match="words"):
        encoding.load_state_dict({**state, "tokens": state["tokens"][:-1]})


# ---- made-up sentences ----


def test_sentences_are_different_and_their_words_say_nothing():
    splits = {name: templates.load(name) for name in templates.SIZES}
    assert {name: len(c) for name, c in splits.items()} == templates.SIZES
    everything = [text for corpus in splits.values() for text in as_dict(corpus)]
    assert len(set(everything)) == len(everything) == sum(templates.SIZES.values())
    assert as_dict(templates.load("test")) == as_dict(splits["test"])

    labels = splits["train"].labels
    assert abs(labels.float().mean() - 0.5) < 0.03
    for model in (NGramLogistic, NBSVM):
        for longest in (1, 2):
            ngrams = NGrams(longest, 2, splits["train"])
            fitted = model(1.0, 0).fit(ngrams(splits["train"]), labels)
            guesses = fitted.logits(ngrams(splits["validation"])).argmax(1)
            accuracy = (guesses == splits["validation"].labels).float().mean()
            assert abs(accuracy - 0.5) < 0.07


def test_the_class_of_a_sentence_is_its_judgements():
    opposite = {"positive": 1, "negative": 0}
    for text, label in as_dict(templates.load("test")).items():
        parts = [part for part in text.split(" . ") if " was " in f" {part} "]
        (judgement,) = [p for p in parts if any(s in p for s in templates.SUBJECTS)]
        (kind,) = [
            k for k, words in templates.ADJECTIVES.items() if set(words) & set(judgement.split())
        ]
        negated = bool({"not", "never"} & set(judgement.split()))
        assert label == (opposite[kind] != negated), text


# ---- CSV files ----


def write_csv(folder, name: str, content: str | bytes, encoding: str = "utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


GOOD = "text,label\n" + "".join(f'"Fine, really {n}",good\nBad one {n},bad\n' for n in range(20))


@pytest.mark.smoke
def test_csv_files_are_read(tmp_path):
    write_csv(tmp_path, "train.csv", GOOD)
    train, held_out = csv_files.load_training(str(tmp_path))
    assert train.classes == ["bad", "good"] and (len(train), len(held_out)) == (36, 4)
    both = as_dict(train) | as_dict(held_out)
    assert both["fine , really 3"] == 1 and both["bad one 3"] == 0
    write_csv(tmp_path, "val.csv", "label,id,text\ngood,7,new\n")
    train, held_out = csv_files.load_training(str(tmp_path))
    assert len(train) == 40 and as_dict(held_out) == {"new": 1}
    write_csv(tmp_path, "test.csv", 'Text , LABEL\n"two\nlines, ""quoted""", bad \n\n')
    assert as_dict(csv_files.load_test(str(tmp_path))) == {"two lines , quoted": 0}
    assert list(csv_files.load_test(str(tmp_path)).checksums) == ["test.csv"]


@pytest.mark.parametrize("make", ["mkdir", "mkfifo", "symlink"])
def test_validation_that_is_no_file_is_one_line(make, tmp_path):
    write_csv(tmp_path, "train.csv", GOOD)
    arguments = ["nowhere"] if make == "symlink" else []
    getattr(os, make)(*arguments, tmp_path / "val.csv")
    with user_error(tmp_path / "val.csv", "no file"):
        csv_files.load_training(str(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", *MARKED, "utf-16-le-bom", "crlf"])
def test_encodings_of_csv_files(encoding, tmp_path):
    content = GOOD.replace("Fine", "Très bien 好")
    if encoding == "utf-16-le-bom":
        content = b"\xff\xfe" + content.encode("utf-16-le")
    elif encoding == "crlf":
        content = content.replace("\n", "\r\n").encode()
    else:
        content = marked(content, encoding)
    write_csv(tmp_path, "train.csv", content)
    texts_read, labels, rows, _ = csv_files.read(tmp_path / "train.csv")
    assert texts_read[0] == "Très bien 好, really 0" and labels[:2] == ["good", "bad"]
    assert rows == list(range(2, 42))


@pytest.mark.parametrize(
    "content, parts",
    [
        (b"", ["row 1", "'text'", "none"]),
        ("review,label\na,b\n", ["row 1", "'text'", "review, label"]),
        ("text\na\n", ["row 1", "'label'"]),
        ("text,text,label\na,b,c\n", ["row 1", "'text'"]),
        ("text,label\n", ["no rows"]),
        ("text,label\na,x\n,y\n", ["row 3", "the text is empty"]),
        ("text,label\na,x\n   ,y\n", ["row 3", "the text is empty"]),
        ("text,label\na,x\nb,\n", ["row 3", "the label is empty"]),
        ("text,label\na,x\nb,c,y\n", ["row 3", "3 columns instead of 2", "quotes"]),
        ("text,label\na,x\nb\n", ["row 3", "1 columns"]),
        ('text,label\na,x\n"b,y\n', ["row 3"]),
        ('text,label\na,x\n"b" c,y\n', ["row 3"]),
        ('text,label\n"a" b,x\n', ["row 2"]),
        ('"text"s,label\na,x\n', ["row 1"]),
        (b"text,label\na,x\nb,y\n" + b"caf\xe9,y\n", ["line 4", "UTF-8"]),
        (b"\xff\xfe" + "text,label\na,x\n".encode("utf-16-le") + b"\x00", ["line 3", "UTF-8"]),
        ("text,label\na,x\nb,x\nc,x\n", ["one class only", "'x'"]),
        ("text,label\na,x\nb,x\nc,y\n", ["fewer than 2", "'y'"]),
        ("text,label\na,1\nb,2\nc,1.0\nd,2\n", ["row 4", "'1.0'", "'1'", "row 2"]),
        ("text,label\na,x\nb,x\nc,y\nc,y\n", ["fewer than 2 different texts", "'y'"]),
        ("text,label\na,x\na,x\nb,y\nb,y\n", ["fewer than 2 different texts", "'x'"]),
    ],
)
def test_bad_csv_is_one_line_naming_the_row(content, parts, tmp_path):
    path = write_csv(tmp_path, "train.csv", content)
    with user_error(path, *parts):
        csv_files.load_training(str(tmp_path))


def test_labels_that_read_the_same_are_one_class(tmp_path):
    """Accents written in two ways, and spaces around."""
    rows = [f"text {n},{label}" for n in range(9) for label in ("\u00e9", "e\u0301", " x", "x ")]
    write_csv(tmp_path, "train.csv", "\n".join(["text,label", *rows]))
    assert csv_files.load(tmp_path / "train.csv").classes == ["x", "\u00e9"]


def test_copies_do_not_take_a_class_out_of_training(tmp_path):
    """Each text of b and of c comes twice: copies stay together, and a text of each is learned."""
    lines = [f"a text {n},a" for n in range(30)]
    lines += [f"{label} text {n},{label}" for label in "bc" for n in (0, 1, 0, 1)]
    write_csv(tmp_path, "train.csv", "\n".join(["text,label", *lines]))
    train, validation = csv_files.load_training(str(tmp_path))
    assert train.labels.unique().tolist() == [0, 1, 2]
    assert not as_dict(train).keys() & as_dict(validation).keys()
    assert len(train) + len(validation) == 38


def test_a_class_whose_texts_are_all_another_ones_is_named(monkeypatch):
    corpus = Corpus.of(["p", "p", "q", "q", "r", "s"], [0, 1, 0, 1, 0, 0], ["a", "b"], {})
    monkeypatch.setattr(
        texts, "stratified_split", lambda labels, size: (torch.tensor([2, 3]), torch.tensor([0, 1]))
    )
    with user_error("class 'b'"):
        split_off(corpus, 2)


def test_with_a_validation_file_copies_are_no_reason_to_refuse(tmp_path):
    write_csv(tmp_path, "train.csv", "text,label\na,x\na,x\nb,y\n")
    write_csv(tmp_path, "val.csv", "text,label\nc,x\n")
    train, validation = csv_files.load_training(str(tmp_path))
    assert (len(train), len(validation)) == (3, 1)


def test_labels_that_training_does_not_know_are_one_line(tmp_path):
    write_csv(tmp_path, "train.csv", GOOD)
    for name in ("val.csv", "test.csv"):
        path = write_csv(tmp_path, name, "text,label\na,good\nb,so-so\n")
        with user_error(path, "row 3", "'so-so'"):
            load = csv_files.load_training if name == "val.csv" else csv_files.load_test
            load(str(tmp_path))


def test_absent_csv_is_one_line(tmp_path):
    for place in (None, str(tmp_path / "none"), str(tmp_path / "train.csv")):
        with user_error("--data-dir", place or "train.csv") as caught:
            csv_files.load_training(place)
        assert "None" not in str(caught.value)
    with user_error(tmp_path, "no train.csv"):
        csv_files.load_training(str(tmp_path))
    write_csv(tmp_path, "train.csv", GOOD)
    with user_error(tmp_path, "no test.csv"):
        csv_files.load_test(str(tmp_path))
