"""The page of all symbols, by common.results.report: the rows of the READMEs' own tables."""

import re
from pathlib import Path

from common.results import tables

ROOT = Path(__file__).resolve().parent.parent
HEADING = "| symbol | meaning |\n"


def symbols() -> dict[tuple[str, str], list[str]]:
    """(symbols, meaning) -> the folders whose README says so."""
    found: dict[tuple[str, str], list[str]] = {}
    for readme in sorted(ROOT.glob("*/README.md")):
        _, opened, rest = readme.read_text(encoding="utf-8").partition(HEADING)
        lines = rest.partition("\n\n")[0].splitlines()[1:] if opened else []
        for line in lines:
            symbol, _, meaning = line.strip("| ").partition(" | ")
            found.setdefault((symbol, meaning), []).append(readme.parent.name)
    return found


def order(row: tuple[str, str]) -> tuple:
    """Latin letters before Greek ones and signs, each with what stands for it elsewhere."""
    letters = re.sub(
        r"\\(mathbf|mathbb|mathcal|mathrm|hat|bar|tilde|sqrt)\b|[^\\A-Za-z]", "", row[0]
    )
    return letters.startswith("\\") or not letters, letters.lower(), row


def table() -> str:
    lines = [["symbol", "meaning", "in"]]
    for row in sorted(found := symbols(), key=order):
        links = [f"[{name}](../{name}/README.md#the-maths)" for name in found[row]]
        lines.append([*row, ", ".join(links)])
    return "\n".join(tables.table(lines))
