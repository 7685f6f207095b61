"""tiny-shakespeare, Python's help topics, and a text of your own, split by characters.

The last tenth is the test split (of tiny-shakespeare 111,540 characters: what nanoGPT calls
val), the twentieth before it is for validation.
"""

import os
import sys
from pathlib import Path

from common.data import DataMissing, download, search_folders, sha256
from common.errors import UserError
from RNN_Manual.dataset.text import EVALUATION_STREAMS, Text, split

FOLDER = Path(__file__).resolve().parent.parent
FILE = "tinyshakespeare/input.txt"
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
MD5 = "6fb458f1232090904fb40fe944165e91"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def find_file(data_dir: str | None) -> Path:
    """tiny-shakespeare's file, downloaded if it lies nowhere.

    Raises DataMissing when there is neither a copy nor a network.
    """
    places = search_folders(FOLDER, data_dir)
    for place in places:
        if os.path.isfile(place / FILE):
            return place / FILE
    path = (Path(data_dir) if data_dir else FOLDER / "dataset") / FILE
    try:
        download([URL], path, MD5)
    except (DataMissing, OSError) as error:
        looked = ", ".join(str(place) for place in places[:3])
        raise DataMissing(
            f"tiny-shakespeare is not in {looked}, and {error}; "
            f"name the folder that holds {FILE} with --data-dir"
        ) from None
    return path


def or_help_topics(dataset: str, named: bool, data_dir: str | None) -> str:
    """`dataset` if it can be had; else, unless the user named it, "help-topics", said loudly."""
    if dataset != "tiny-shakespeare":
        return dataset
    try:
        find_file(data_dir)
    except DataMissing as error:
        if named:
            raise
        print(
            f"\n*** {error}\n*** So this run learns ANOTHER TEXT instead: Python's own help topics."
            "\n*** Its results are not comparable with tiny-shakespeare's.\n",
            file=sys.stderr,
        )
        return "help-topics"
    return dataset


def read(dataset: str, data_dir: str | None) -> tuple[str, dict[str, str]]:
    """The whole text and the sha256 of where it came from. Raises UserError naming a bad file."""
    if dataset == "help-topics":
        from pydoc_data.topics import topics

        text = "\n\n".join(topics[name] for name in sorted(topics))
        return text, {"pydoc_data.topics": sha256(text.encode())}
    if dataset == "text":
        if not data_dir:
            raise UserError("--dataset text needs --data-dir, the folder that holds your input.txt")
        (place, *_) = search_folders(FOLDER, data_dir)
        path = place / "input.txt"
    else:
        path = find_file(data_dir)
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text in UTF-8 ({error})") from None
    checksum = sha256(content)
    if dataset == "tiny-shakespeare" and checksum != SHA256:
        raise UserError(
            f"{path} is not tiny-shakespeare: {len(content):,} bytes with another checksum; delete "
            "it and download again, or use --dataset text for a text of your own"
        )
    return text, {path.name: checksum}


def load(dataset: str, data_dir: str | None, wanted: tuple[str, ...]) -> list[Text]:
    """Some of the splits. The vocabulary is that of the whole text, in the order of the codes."""
    text, checksums = read(dataset, data_dir)
    vocabulary = sorted(set(text))
    test = int(0.9 * len(text))
    held_out = len(text) // 20
    held_out -= held_out % EVALUATION_STREAMS if held_out > EVALUATION_STREAMS else 0
    ends = {
        "train": (0, test - held_out),
        "validation": (test - held_out, test),
        "test": (test, len(text)),
    }
    for start, end in ends.values():
        if end - start < 2:
            where = f"{next(iter(checksums))}: " if dataset == "text" else ""
            raise UserError(f"{where}a text of {len(text)} characters is too short to split")
    return [split(text, vocabulary, *ends[name], checksums) for name in wanted]


def load_training(dataset: str, data_dir: str | None) -> tuple[Text, Text]:
    train, validation = load(dataset, data_dir, ("train", "validation"))
    return train, validation


def load_test(dataset: str, data_dir: str | None) -> Text:
    return load(dataset, data_dir, ("test",))[0]
