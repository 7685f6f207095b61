"""The IMDB review set (Maas et al., 2011): 25,000 reviews to train on and 25,000 to test, half of
each positive; found or downloaded, and read straight from the archive."""

import hashlib
import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from common import data
from common.errors import UserError
from common.files import is_file, kept_at, sha256

from . import cache
from .texts import Corpus

NAME, ARCHIVE = "aclImdb", "aclImdb_v1.tar.gz"
URLS = ["https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"]
MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
CLASSES = ["negative", "positive"]
PER_CLASS, VALIDATION_SIZE = 12_500, 2_500
LARGEST = 1024**2  # bytes of a review; the longest known has 14 thousand
DAMAGE = (  # what a bad archive raises; headers inside headers, one of Python's RuntimeErrors
    tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError, RuntimeError,
)  # fmt: skip
REVIEW = re.compile(r"(?:\./)?aclImdb/(train|test)/(neg|pos)/(\d+)_(\d+)\.txt")  # number_rating


def find(folder: Path, data_dir: str | None) -> Path:
    """The archive, or the unpacked folder aclImdb; downloaded if need be.

    Raises DataMissing when there is neither a copy nor a network.
    """

    def unpacked(place: Path) -> bool:
        return (place / NAME / "train").is_dir()

    def holds(place: Path) -> bool:
        return unpacked(place) or is_file(place / ARCHIVE)

    files, wanted = {ARCHIVE: (URLS, MD5)}, f"{ARCHIVE} or {NAME}/"
    place = data.find("imdb", holds, wanted, lambda: files, folder, data_dir)
    return place / NAME if unpacked(place) else place / ARCHIVE


def load(split: str, folder: Path, data_dir: str | None) -> Corpus:
    """The official "train" or "test" split, tokenised; labels 0 negative, 1 positive."""
    source = find(folder, data_dir)
    if source.is_dir():
        reviews = read_folder(source, split)
        key = checksum(reviews)
    else:
        reviews, key = None, file_checksum(source)
    path = kept_at(source.parent, folder / "dataset", f"imdb-{split}-{key[:16]}.safetensors")
    found = cache.load(path, key)
    if found is not None:
        return found
    reviews = read_archive(source, split) if reviews is None else reviews
    labels = [int(kind == "pos") for kind, _, _ in reviews]
    counts = [labels.count(label) for label in (0, 1)]
    if counts != [PER_CLASS] * 2:
        raise UserError(
            f"{source} has {counts[0]:,} negative and {counts[1]:,} positive {split} reviews, "
            f"not {PER_CLASS:,} each: delete it and download again"
        )
    texts = []
    for (kind, number, rating), content in reviews.items():
        if (rating >= 7) != (kind == "pos") or not 1 <= rating <= 10 or rating in (5, 6):
            raise UserError(f"{source}: {split}/{kind}/{number}_{rating}.txt is mislabelled")
        try:
            texts.append(content.decode())
        except UnicodeDecodeError:
            name = f"{split}/{kind}/{number}_{rating}.txt"
            raise UserError(f"{source}: {name} is not UTF-8: download again") from None
    corpus = Corpus.of(texts, labels, CLASSES, {f"imdb {split} reviews": checksum(reviews)})
    cache.save(path, key, corpus)
    return corpus


def checksum(reviews: dict) -> str:
    """Of the reviews themselves, whether they lie in a folder or in an archive."""
    digest = hashlib.sha256()
    for name, content in reviews.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def file_checksum(path: Path) -> str:
    try:
        return sha256(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def read_folder(source: Path, split: str) -> dict[tuple, bytes]:
    """(neg or pos, number, rating) -> content of every review of a split, in a fixed order."""
    reviews = {}
    for kind in ("neg", "pos"):
        try:
            for path in (source / split / kind).iterdir():
                match = REVIEW.fullmatch(f"{NAME}/{split}/{kind}/{path.name}")
                if match and not path.is_file():  # a pipe, of which reading would never end
                    raise UserError(f"{path} is no file: remove it")
                if match:
                    reviews[kind, int(match[3]), int(match[4])] = path.read_bytes()
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read ({error.strerror})") from None
    return dict(sorted(reviews.items()))


def read_archive(source: Path, split: str) -> dict[tuple, bytes]:
    """As `read_folder`. Nothing is unpacked: the archive's members never touch the disk.

    Raises UserError for an archive that is damaged, or that would write outside of its folder if
    somebody unpacked it: such a thing is not the review set.
    """
    reviews = {}
    try:
        with tarfile.open(source, "r:gz") as archive:
            for member in archive:
                check_member(source, member)
                match = REVIEW.fullmatch(member.name) if member.isfile() else None
                if not match or match[1] != split:
                    continue
                key = (match[2], int(match[3]), int(match[4]))
                if key in reviews or member.size > LARGEST:
                    raise UserError(f"{source}: {member.name} is there twice, or too large")
                reviews[key] = archive.extractfile(member).read()
            while archive.fileobj.read(2**20):  # to its end, where the checksum is compared
                pass
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source} is damaged ({reason}): delete it and download again") from None
    return dict(sorted(reviews.items()))


def check_member(source: Path, member: tarfile.TarInfo) -> None:
    """Raises UserError for links, devices, and paths that lead out of the archive's folder."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or ":" in member.name  # C:
    if outside or not (member.isfile() or member.isdir()):
        what = "leads outside of its folder" if outside else "is a link or a device"
        raise UserError(f"{source}: {member.name} {what}: this is not the review set, delete it")
