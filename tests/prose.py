"""The numbers in the prose of the study sections, and which of them nobody accounts for.

A number is written in digits or as a word. "One" is not looked for: it is nearly always a pronoun.
"A point" is a number, and so is any other unit with "a" before it.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from common.data import ROOT
from tests.test_readmes import CODE, DISPLAY, FENCE, GUARDED, INLINE

GENERATED = re.compile(r"<!-- ([\w.]+) -->.*?<!-- /\1 -->", re.DOTALL)
PICTURE = re.compile(r"!\[[^]]*\]\([^)]*\)")
TARGET = re.compile(r"(?<=\])\([^)]*\)")  # of a link, whose words are read
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
NUMBER = re.compile(
    r"\b(?:two|three) (?:thirds|quarters|fifths|tenths)\b"
    r"|(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?<!,)"
    r"|\b(?:hal[fv]\w*|twice|doubl\w+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|thirds?|quarters?|fifths?|sixths?|eighths?|tenths?|hundred\w*|thousand\w*|dozens?"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty)\b"
    r"|(?<!half )\ba(?= (?:point|nat|minute|\w*second)\b)",
    re.IGNORECASE,
)
# what was looked at once, and says so: the numbers of that sentence, up to the bracket's end
LOOK = re.compile(r"(?:[^.]|\.(?=\w)){0,220}\((?:a single look|one seed)[^)]*\)")
STUDY = "**What it shows.**"  # every study says so
MORE = [  # sections that do not, but belong to the studies or are on the front page
    ("", "The studies"), ("studies", "One protocol"), ("CNN_Manual", "Where time goes"),
]  # fmt: skip


class Section(NamedTuple):
    folder: str
    heading: str
    text: str  # on a line
    prose: str  # as long, with a dot for each letter of what is no prose


def blank(text: str) -> str:
    """A text with dots for code, formulas, pictures, links' targets and what is generated."""
    for pattern in (GENERATED, FENCE, DISPLAY, GUARDED, CODE, INLINE, PICTURE, TARGET):
        text = pattern.sub(lambda match: re.sub(r"\S", "·", match[0]), text)
    return text


def cut(folder: str, text: str) -> Iterable[Section]:
    """The sections of a README about a study, each up to the next heading of any rank."""
    prose = re.sub(r"^#+ .*$", lambda m: re.sub(r"\S", "·", m[0]), blank(text), flags=re.MULTILINE)
    headings = list(HEADING.finditer(FENCE.sub(lambda m: re.sub(r"[^\n]", "·", m[0]), text)))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=True):
        part, where = slice(heading.start(), end), (folder, heading[2])
        if STUDY in text[part] or where in MORE:
            yield Section(*where, *(" ".join(t[part].split()) for t in (text, prose)))


def sections() -> list[Section]:
    folders = sorted(path.parent for path in ROOT.glob("*/README.md"))
    found = []
    for folder in [ROOT, *folders]:
        name = "" if folder == ROOT else folder.name
        found += cut(name, (folder / "README.md").read_text(encoding="utf-8"))
    return found


def marked(section: Section, text: str) -> Iterable[range]:
    """Where what stands in braces in `text`, such as "has {93.3} % after", stands in a section."""
    plain, places = "", []
    for k, piece in enumerate(re.split(r"[{}]", text)):
        if k % 2:
            places.append((len(plain), len(plain) + len(piece)))
        plain += piece
    for match in re.finditer(re.escape(plain), section.text):
        yield from (range(match.start() + a, match.start() + b) for a, b in places)


def numbers(section: Section) -> list[re.Match]:
    return list(NUMBER.finditer(section.prose))


def unlisted(section: Section, texts: Iterable[str]) -> list[str]:
    """The numbers of a section that no text has in braces, nor a mark beside it; each with what
    stands around it."""
    known = [place for text in texts for place in marked(section, text)]
    known += [range(*match.span()) for match in LOOK.finditer(section.text)]
    return [
        f"…{section.text[max(0, m.start() - 40) : m.start()]}{{{m[0]}}}"
        f"{section.text[m.end() : m.end() + 40]}…"
        for m in numbers(section)
        if not any(m.start() in place for place in known)
    ]
