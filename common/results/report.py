"""Write the result tables into the READMEs: `python -m common.results.report` (--check: compare).

Tables stand between `<!-- NAME -->` and `<!-- /NAME -->`, where NAME is
    results            all of this folder's records; in RESULTS.md, every folder's
    superseded         figures of recipes that changed later, as superseded.csv keeps them
    compare            the side-by-side figures of the twins, from results/compare*.json
    studies.twins      what that module's verdict(folder) makes, for this folder or README.md
    a script's         of the folder's script of that name, or of docs/: what its table() makes
"""

import importlib
import json
from pathlib import Path
from statistics import mean

import pandas as pd

from common import checkpoint, cli
from common.data import ROOT
from common.device import machine
from common.history import METRICS, lowest_metric
from common.results.tables import compare_results, table

TABLE = pd.read_csv(ROOT / "common" / "metrics.csv", index_col="metric")
HEADLINES = list(TABLE["headline"].dropna().sort_values().index)  # for RESULTS.md, by priority
EFFORT = ["seeds", "epochs", "seconds", "parameters", "machine"]


def mean_std(values: list[float], factor: float, decimals: int) -> str:
    """mean ± sample standard deviation, or the value alone where there is just one."""
    figures = pd.Series(values).agg(["mean", "std"]).dropna()
    return " ± ".join(f"{factor * figure:.{decimals}f}" for figure in figures)


def load_records(folder: Path) -> list[dict]:
    """A folder's records, MNIST first, samples last."""
    kept = [p for p in folder.glob("results/*.json") if not p.name.startswith("compare")]
    order = ["mnist", "fashion-mnist", "cifar10", "cifar10-jpeg", "cifar100"]

    def rank(record: dict) -> tuple:
        epochs = max(run["epochs"] for run in record["runs"])
        place = [*order, record["dataset"]].index(record["dataset"])
        return record["sample"], place, -epochs, record["config"]

    records = [json.loads(path.read_text(encoding="utf-8")) for path in kept]
    for test in (run["test"] for record in records for run in record["runs"]):
        if "frechet_floor" in test:  # a ratio has the estimate's bias above and below
            test["frechet_excess"] = test["frechet_distance"] - test["frechet_floor"]
    return sorted(records, key=rank)


def columns(records: list[dict]) -> list[tuple[str, str]]:
    """The (split, metric) pairs of a folder's table; of validation, what epochs were chosen by."""
    runs = [run for record in records for run in record["runs"]]
    found = [("test", name) for name in METRICS if any(name in run["test"] for run in runs)]
    accuracy = any("accuracy" in run["validation"] for run in runs)
    chosen_by = dict.fromkeys(lowest_metric(v) for run in runs if (v := run["validation"]))
    return [*found, *(("validation", name) for name in (["accuracy"] if accuracy else chosen_by))]


def name_of(record: dict) -> str:
    name = record["config"] + (" (sample)" if record["sample"] else "")
    return name if name.startswith(record["dataset"]) else f"{record['dataset']} ({name})"


def cell(record: dict, split: str, name: str) -> str:
    """A metric over the record's runs; empty where there is none."""
    values = [run[split][name] for run in record["runs"] if name in run[split]]
    return mean_std(values, *METRICS[name][1:]) if values else ""


def effort(record: dict) -> list[str]:
    """The cells below EFFORT."""
    runs = pd.DataFrame(record["runs"])
    seconds = [run["seconds"] for run in record["runs"] if "environment" not in run]
    epochs = " to ".join(map(str, sorted({runs["epochs"].min(), runs["epochs"].max()})))
    parameters, where = f"{record['parameters']:,}", machine(record["environment"])
    return [f"{len(runs)}", epochs, f"{mean(seconds):.0f}", parameters, where]


def by_letter(rows: list[list[str]]) -> str:
    """Write A, B, … for the machines in the last cells of rows; says which these are."""
    letters = {name: chr(ord("A") + n) for n, name in enumerate(sorted({row[-1] for row in rows}))}
    for row in rows:
        row[-1] = letters[row[-1]]
    return "Machines: " + "; ".join(f"{letter}: {name}" for name, letter in letters.items()) + "."


def folder_results(folder: Path) -> str:
    """The table of one folder, with the commands below it."""
    records = load_records(folder)
    if not records:
        return "Nothing recorded yet."
    shown = columns(records)
    metrics = [f"{split} {METRICS[name][0]}" for split, name in shown]
    rows = [[name_of(r), *(cell(r, *metric) for metric in shown), *effort(r)] for r in records]
    where, lines = by_letter(rows), [["dataset", *metrics, *EFFORT], *rows]
    if len(metrics) > 6:  # wider than a page: a column for each record
        lines = [line for line in zip(*lines, strict=True) if any(line[1:])]
    note = f"Mean ± standard deviation of several seeds, else the figure of one. {where}"
    lines = [*table(lines), "", note, ""]
    for record in records:
        seeds = ", ".join(str(run["seed"]) for run in record["runs"])
        lines.append(f"- `{record['command']} --seed S`, S = {seeds}")
    for metric, signature in sorted({s for r in records for s in r.get("signatures", {}).items()}):
        lines.append(f"- {METRICS[metric][0]}: `{signature}`")
    return "\n".join(lines)


def all_results() -> str:
    """The table of RESULTS.md: of every folder's records, what counts most."""
    rows = [["model", "dataset", "figure", "test", "validation", *EFFORT]]
    for folder in sorted(path.parent for path in ROOT.glob("*/model.py")):
        for record in load_records(folder):
            metric = next(name for name in HEADLINES if name in record["runs"][0]["test"])
            cells = [cell(record, split, metric) for split in ("test", "validation")]
            names = f"[{folder.name}]({folder.name}/)", name_of(record), METRICS[metric][0]
            rows.append([*names, *cells, *effort(record)])
    where = by_letter(rows[1:])
    return "\n".join([*table(rows), "", where]) if rows[1:] else "Nothing recorded yet."


def fill(readme: Path) -> str:
    """The README's text with every marked table made anew."""
    text, folder = readme.read_text(encoding="utf-8"), readme.parent
    old = pd.read_csv(Path(__file__).with_name("superseded.csv"), header=None, dtype=str)
    tables = {
        "superseded": lambda: "\n".join(table(old.values.tolist())),
        "results": lambda: all_results() if folder == ROOT else folder_results(folder),
        "compare": lambda: compare_results(folder),
    }
    for script in (folder if folder != ROOT else ROOT / "docs").glob("*.py"):
        module = f"{script.parent.name}.{script.stem}"
        tables[script.stem] = lambda module=module: importlib.import_module(module).table()
    studies = [p.partition(" -->")[0] for p in text.split("<!-- ") if p.startswith("studies.")]
    tables |= {n: lambda n=n: importlib.import_module(n).verdict(folder) for n in studies}
    for name, make in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, opened, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if opened and not closed:
            raise cli.UserError(f"{readme} opens {start} but never closes it")
        if opened:
            text = f"{before}{start}\n\n{make()}\n\n{end}{after}"
    return text


def main(argv=None):
    parser = cli.Parser("Write the result tables into the READMEs.")
    parser.add_argument("--check", action="store_true", help="only say which READMEs differ")
    args = parser.parse_args(argv)
    texts = {path: fill(path) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])}
    differing = [path for path, text in texts.items() if text != path.read_text(encoding="utf-8")]
    if args.check and differing:
        names = ", ".join(str(path.relative_to(ROOT)) for path in differing)
        raise cli.UserError(f"{names}: run python -m common.results.report")
    for path in differing:
        checkpoint.write_atomically(path, texts[path].encode())
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    cli.entry(main)
