"""Multi30k, task 1 (Elliott et al., 2016, arXiv:1605.00459): 31,014 captions of pictures in German
and English; found, downloaded and checked."""

from pathlib import Path

from common import data
from common.errors import UserError
from common.files import is_there, read_file, sha256

from .pairs import Sentences

NAME = "multi30k"
RAW = "multi30k/dataset/master/data/task1/raw"
URLS = [
    f"https://raw.githubusercontent.com/{RAW}",
    f"https://github.com/{RAW.replace('/master/', '/raw/master/')}",
    f"https://cdn.jsdelivr.net/gh/{RAW.replace('/master/', '@master/')}",
]
SPLITS = {"train": ("train", 29_000), "validation": ("val", 1_014),
          "test": ("test_2016_flickr", 1_000)}  # fmt: skip
LANGUAGES = ("de", "en")  # from, to
CHECKSUMS = {  # md5 of the packed file, sha256 of what is in it
    "train.de": ("81ff90b99829c0cd4b1b587d394afd39",
                 "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
    "train.en": ("0065d13af80720a55ca8153d126e6627",
                 "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
    "val.de": ("6e0e229eb049e3fc99a1ef02fb2d5f91",
               "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
    "val.en": ("2b69aa9253948ac9f67e94917272dd40",
               "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
    "test_2016_flickr.de": ("efd67d314d98489b716b145475101932",
                            "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"),
    "test_2016_flickr.en": ("ff2c0fcb4893a13bd73414306bc250ae",
                            "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"),
}  # fmt: skip


def find(folder: Path, data_dir: str | None) -> Path:
    """The folder with the six files, packed or not, downloaded if they lie nowhere.

    Raises DataMissing when there is neither a copy nor a network.
    """
    files = {
        f"{NAME}/{name}.gz": ([f"{url}/{name}.gz" for url in URLS], md5)
        for name, (md5, _) in CHECKSUMS.items()
    }

    def holds(place: Path) -> bool:
        return all(is_there(place / NAME / name) for name in CHECKSUMS)

    return data.find(NAME, holds, f"{NAME}/train.de.gz", lambda: files, folder, data_dir) / NAME


def load(split: str, folder: Path, data_dir: str | None) -> Sentences:
    """One split, German to English. Raises UserError naming the file that is wrong."""
    raw = find(folder, data_dir)
    name, size = SPLITS[split]
    sides, checksums = [], {}
    for language in LANGUAGES:
        lines, checksums[f"{name}.{language}"] = read(raw, f"{name}.{language}", size)
        sides.append(lines)
    return Sentences(*sides, checksums)


def read(raw: Path, name: str, size: int) -> tuple[list[str], str]:
    """The lines of a file (or its .gz), and the sha256 of the unpacked file."""
    content, path = read_file(raw / name)
    again = ": delete it and download again"
    lines = content.count(b"\n")
    if lines != size:
        raise UserError(f"{path} has {lines:,} lines, not {size:,}{again}")
    checksum = sha256(content)
    if checksum != CHECKSUMS[name][1]:
        raise UserError(f"{path} is damaged: its checksum is not that of Multi30k's {name}{again}")
    return [line.strip() for line in content.decode().split("\n")[:-1]], checksum
