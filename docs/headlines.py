"""The front page's table of our main results beside known baselines, by
common.results.report. Ours are the records'; the others and their sources are in headlines.csv."""

import csv
import json
from pathlib import Path

from common.history import METRICS
from common.results import tables
from common.results.report import cell

ROOT = Path(__file__).resolve().parent.parent


def headlines() -> list[dict[str, str]]:
    with open(ROOT / "docs" / "headlines.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def record_of(row: dict[str, str]) -> dict:
    path = ROOT / row["folder"] / "results" / f"{row['config']}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def table() -> str:
    rows = [["what", "figure", "ours", "seeds", "theirs", "whose", "comparable?"]]
    for row in headlines():
        record, figure = record_of(row), METRICS[row["metric"]][0]
        ours = f"**{cell(record, 'test', row['metric'])}**"
        rows.append([f"[{row['task']}]({row['folder']}/README.md#results)", figure, ours,
                     f"{len(record['runs'])}", row["theirs"],
                     f"[{row['whose']}]({row['url']})", row["comparable"]])  # fmt: skip
    return "\n".join(tables.table(rows))
