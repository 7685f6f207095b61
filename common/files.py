"""Files of data: fetching them, reading them packed or not, keeping what is made of them."""

import gzip
import hashlib
import http.client
import os
import shutil
import socket
import stat
import tempfile
import zlib
from argparse import ArgumentTypeError
from contextlib import suppress
from pathlib import Path

from common.errors import UserError


class DataMissing(UserError):
    """The dataset is nowhere to be found and could not be downloaded."""


def download(urls: list[str], path: Path, md5: str, timeout: float = 15) -> None:
    """Fetch `path` from the first of `urls` that has it, with a progress bar. It arrives under a
    temporary name and is moved to `path` once its md5 is right, so that a download cut short leaves
    nothing behind. Raises DataMissing when every url fails."""
    from torchvision.datasets.utils import download_url  # slow to import

    made = [folder for folder in (path.parent, path.parent.parent) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    failures, before = [], socket.getdefaulttimeout()
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=path.parent))
    try:
        socket.setdefaulttimeout(timeout)
        for url in urls:
            try:
                download_url(url, str(temporary), path.name, md5)
                os.replace(temporary / path.name, path)
                return
            except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
                failures.append(f"{url}: {' '.join(str(error).split())}")
    finally:
        socket.setdefaulttimeout(before)
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it is empty only if nothing arrived
                folder.rmdir()
    raise DataMissing(f"{path.name} could not be downloaded ({'; '.join(failures)})")


def picture_name(name: str) -> Path:
    """A flag's type: a PNG file that can be written, as is found out before the work for it."""
    path = Path(name)
    if path.suffix.lower() != ".png":
        raise ArgumentTypeError(f"{name}: pictures are PNG files, name one that ends in .png")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ArgumentTypeError(f"{name}: something that is no file has that name")
    if not (os.path.isdir(path.parent) and os.access(path.parent, os.W_OK)):
        raise ArgumentTypeError(f"{name}: {path.parent} is no folder that can be written into")
    return path


def is_file(path: Path | str) -> bool:
    """os.path.isfile, but where rights are lacking, it raises PermissionError instead of no."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        return False


def is_there(path: Path) -> bool:
    """Whether the file is, as it is or packed by gzip."""
    return is_file(path) or is_file(f"{path}.gz")


def read_file(path: Path, advice: str = "delete it and download again") -> tuple[bytes, Path]:
    """The content of `path`, or of its .gz unpacked; and the path of the file that was read.

    Raises UserError naming that file and giving the `advice`.
    """
    path = path if os.path.isfile(path) or not os.path.isfile(f"{path}.gz") else Path(f"{path}.gz")
    try:
        if path.exists() and not path.is_file():  # a pipe, say, of which reading would never end
            raise OSError("no regular file")
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content, path
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({reason}): {advice}") from None


def sha256(content: bytes) -> str:
    """The checksum that records and tables of known files hold."""
    return hashlib.sha256(content).hexdigest()


def kept_at(beside: Path, otherwise: Path, name: str) -> Path:
    """Where the cache `name` belongs: beside the data, if files may be made there. A folder marked
    read-only is left alone by root, too."""
    bits = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    writable = os.access(beside, os.W_OK) and beside.stat().st_mode & bits
    return (beside if writable else otherwise) / name
