"""Texts of your own: F/train.csv, F/test.csv and, if you like, F/val.csv, each with the columns
text and label. Without a val.csv, validation is held out of train.csv."""

import csv
import io
import os
import unicodedata
from contextlib import suppress
from pathlib import Path

from common.errors import UserError
from common.files import sha256

from .encodings import decode
from .texts import Corpus, check_choice, check_copies, split_off

COLUMNS = ("text", "label")
VALIDATION_SHARE = 0.1
csv.field_size_limit(2**30)  # a text may be long


def read(path: Path) -> tuple[list[str], list[str], list[int], str]:
    """Texts, labels, the row of the file that each stands in (the head is row 1), a checksum."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    rows = csv.reader(io.StringIO(decode(path, content), newline=""), strict=True)
    texts, labels, numbers, number = [], [], [], 0
    try:
        head = [name.strip().lower() for name in next(rows, [])]
        number = 1
        for name in COLUMNS:
            if head.count(name) != 1:
                has = ", ".join(head) or "none"
                raise UserError(f"{path}, row 1: needs one column {name!r}; it has: {has}")
        for number, row in enumerate(rows, start=2):
            if not row:  # an empty line
                continue
            if len(row) != len(head):
                raise UserError(
                    f"{path}, row {number}: {len(row)} columns instead of {len(head)}; "
                    "texts with commas stand in quotes"
                )
            text, label = (row[head.index(name)].strip() for name in COLUMNS)
            if not text or not label:
                raise UserError(f"{path}, row {number}: the {'label' if text else 'text'} is empty")
            texts.append(text)
            labels.append(unicodedata.normalize("NFC", label))  # "é" as one character, not as two
            numbers.append(number)
    except csv.Error as error:
        raise UserError(f"{path}, row {number + 1}: not a row of a CSV file ({error})") from None
    if not texts:
        raise UserError(f"{path} has no rows below its head")
    return texts, labels, numbers, sha256(content)


def find(data_dir: str | None, name: str) -> Path:
    if not data_dir or not os.path.isdir(data_dir):
        what = f", not {data_dir}" if data_dir else ""
        raise UserError(f"--dataset csv needs --data-dir, a folder with {name}{what}")
    path = Path(data_dir) / name
    if not path.is_file():
        raise UserError(f"{data_dir} has no {name} (columns text, label)")
    return path


def check_numbers(path: Path, labels: list[str], rows: list[int]) -> None:
    """Raises UserError for a number that is written in two ways: 1 and 1.0 would be two classes."""
    written: dict[float, tuple[str, int]] = {}
    for label, row in zip(labels, rows, strict=True):
        with suppress(ValueError):
            other, first = written.setdefault(float(label), (label, row))
            if other != label:
                raise UserError(
                    f"{path}, row {row}: the label {label!r} is the number {other!r} of row "
                    f"{first}: write it one way"
                )


def load(path: Path, classes: list[str] | None = None) -> Corpus:
    """One file; the `classes` are those of train.csv, in alphabetical order."""
    texts, labels, rows, checksum = read(path)
    check_numbers(path, labels, rows)
    known = classes or sorted(set(labels))
    for label, row in zip(labels, rows, strict=True):
        if label not in known:
            raise UserError(f"{path}, row {row}: the label {label!r} is not in train.csv")
    numbers = {name: number for number, name in enumerate(known)}
    return Corpus.of(texts, [numbers[label] for label in labels], known, {path.name: checksum})


def load_training(data_dir: str | None) -> tuple[Corpus, Corpus]:
    path = find(data_dir, "train.csv")
    train = load(path)
    check_choice(train, path)
    validation = path.with_name("val.csv")
    if os.path.lexists(validation):
        if not validation.is_file():  # but a folder, a pipe, a link to nothing
            raise UserError(f"{validation} is no file: remove it, or put the texts there")
        return train, load(validation, train.classes)
    check_copies(train, path)
    different = int(train.groups().max()) + 1
    size = max(len(train.classes), round(VALIDATION_SHARE * different))
    if size >= different:
        raise UserError(f"{path} has {different} different texts: too few to hold some out")
    return split_off(train, size)


def load_test(data_dir: str | None) -> Corpus:
    classes = load(find(data_dir, "train.csv")).classes
    return load(find(data_dir, "test.csv"), classes)
