"""Where what is made from data at first use is kept, so that the second run begins at once."""

import os
import stat
from pathlib import Path


def kept_at(beside: Path, otherwise: Path, name: str) -> Path:
    """Where the cache `name` belongs: beside the data, if files may be made there."""
    return (beside if writable(beside) else otherwise) / name


def writable(folder: Path) -> bool:
    """Whether files may be made there; a folder marked read-only is left alone by root, too."""
    bits = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return bool(os.access(folder, os.W_OK) and folder.stat().st_mode & bits)
