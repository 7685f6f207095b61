"""Bytes as text: in UTF-8, or in what the byte-order mark at their beginning says.

Editors of Windows write such marks: U+FEFF, which is no part of the text.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError

BLOCK = 1 << 16  # bytes that are read at once, at most: some 1,000 lines
MARKS = {  # UTF-32's first: it begins as UTF-16's does
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def encoding_of(start: bytes) -> str:
    """Of a text that begins so; Python's decoder of that name leaves the mark out."""
    return next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")


def decode(path: Path, content: bytes) -> str:
    """The text of a file. Raises UserError naming the line that is in no such encoding."""
    encoding = encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        # not of `content`, from which UTF-8's decoder takes the mark away before it counts
        line = error.object[: error.start].decode(encoding, "replace").count("\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def readable(content: bytes) -> str:
    """A text that somebody types or pipes in; bytes that are in no such encoding as �."""
    return content.decode(encoding_of(content), "replace")


def lines_of(stream) -> Iterator[list[str]]:
    """The lines that are there, as soon as they are: one of somebody who types, many of a file.
    Without spaces around them; as `readable`."""
    block = stream.read1(BLOCK)
    while block and any(mark.startswith(block) for mark in MARKS):  # perhaps a mark, half of it
        more = stream.read1(BLOCK)
        if not more:
            break
        block += more
    decoder, rest = codecs.getincrementaldecoder(encoding_of(block))("replace"), ""
    while block:
        *lines, rest = (rest + decoder.decode(block)).split("\n")
        if lines:
            yield [line.strip() for line in lines]
        block = stream.read1(BLOCK)
    rest += decoder.decode(b"", final=True)
    if rest:
        yield [rest.strip()]
