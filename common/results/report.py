"""Write the result tables into the READMEs: `python -m common.results.report`.

--check only says which READMEs differ.

Tables stand between `<!-- NAME -->` and `<!-- /NAME -->`, where NAME is

    results            all of this folder's records; in the root README, every folder's
    compare            the side-by-side figures of the twins, from results/compare*.json
    compare_layers     those of layers, from results/compare_layers.json
"""

import json
import statistics
from pathlib import Path

from common import cli
from common.data import ROOT
from common.history import METRICS, lowest_metric
from common.results.tables import compare_layer_results, compare_results, machine, table

# what the root README shows of a record: the first of these that it has
HEADLINES = [
    "accuracy", "bleu", "exact_match", "log_likelihood", "high_quality", "frechet_ratio", "loss",
]  # fmt: skip
# what a folder's table shows, where its records have it
SHOWN = [*(("test", name) for name in METRICS), ("validation", "accuracy")]


def mean_std(values: list[float], factor: float, decimals: int) -> str:
    """mean ± sample standard deviation, or the value alone where there is just one."""
    mean = f"{factor * statistics.mean(values):.{decimals}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {factor * statistics.stdev(values):.{decimals}f}"


def load_records(folder: Path) -> list[dict]:
    """A folder's records, MNIST first, samples last."""
    paths = [p for p in folder.glob("results/*.json") if not p.name.startswith("compare")]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    order = ("mnist", "fashion-mnist", "cifar10", "cifar10-jpeg", "cifar100")
    return sorted(
        records,
        key=lambda r: (
            r["sample"],
            order.index(r["dataset"]) if r["dataset"] in order else len(order),
            -max(run["epochs"] for run in r["runs"]),
            r["config"],
        ),
    )


def columns(records: list[dict]) -> list[tuple[str, str]]:
    """The (split, metric) pairs of a folder's table; of validation, what epochs were chosen by."""
    runs = [run for record in records for run in record["runs"]]
    found = [(split, name) for split, name in SHOWN if any(name in run[split] for run in runs)]
    if ("validation", "accuracy") in found:
        return found
    chosen_by = dict.fromkeys(lowest_metric(v) for run in runs if (v := run["validation"]))
    return [*found, *(("validation", name) for name in chosen_by)]


def name_of(record: dict) -> str:
    name = record["dataset"] + (" (sample)" if record["sample"] else "")
    return name if record["config"] == record["dataset"] else f"{name} ({record['config']})"


def cell(record: dict, split: str, name: str) -> str:
    """A metric over the record's runs; empty where there is none."""
    _, factor, decimals = METRICS[name]
    values = [run[split][name] for run in record["runs"] if name in run[split]]
    return mean_std(values, factor, decimals) if values else ""


EFFORT = ["seeds", "epochs", "seconds", "parameters"]


def effort(record: dict) -> list[str]:
    """The cells below EFFORT."""
    runs = record["runs"]
    epochs = sorted({run["epochs"] for run in runs})
    return [
        str(len(runs)),
        str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}",
        f"{statistics.mean(run['seconds'] for run in runs):.0f}",
        f"{record['parameters']:,}",
    ]


def folder_results(folder: Path) -> str:
    """The table of one folder, with the commands and the machine below it."""
    records = load_records(folder)
    if not records:
        return "Nothing recorded yet."
    shown = columns(records)
    metrics = [f"{split} {METRICS[name][0]}" for split, name in shown]
    rows = [[name_of(r), *(cell(r, *metric) for metric in shown), *effort(r)] for r in records]
    lines = table([["dataset", *metrics, *EFFORT], *rows])
    lines += [
        "",
        "Mean ± standard deviation over seeds. The commands, to be repeated for each seed:",
        "",
    ]
    for record in records:
        seeds = ", ".join(str(run["seed"]) for run in record["runs"])
        lines.append(
            f"- `{record['command']} --seed S`, S = {seeds} ({machine(record['environment'])})"
        )
    for metric, signature in sorted({s for r in records for s in r.get("signatures", {}).items()}):
        lines.append(f"- {METRICS[metric][0]}: `{signature}`")
    return "\n".join(lines)


def all_results() -> str:
    """The root README's table: of every folder's records, what counts most."""
    rows = [["model", "dataset", "figure", "test", "validation", *EFFORT]]
    for folder in sorted(path.parent for path in ROOT.glob("*/model.py")):
        for record in load_records(folder):
            headline = next(name for name in HEADLINES if name in record["runs"][0]["test"])
            cells = [cell(record, split, headline) for split in ("test", "validation")]
            link, figure = f"[{folder.name}]({folder.name}/)", METRICS[headline][0]
            rows.append([link, name_of(record), figure, *cells, *effort(record)])
    return "\n".join(table(rows)) if rows[1:] else "Nothing recorded yet."


def fill(readme: Path) -> str:
    """The README's text with every marked table made anew."""
    text = readme.read_text(encoding="utf-8")
    folder = readme.parent
    tables = {
        "results": lambda: all_results() if folder == ROOT else folder_results(folder),
        "compare": lambda: compare_results(folder),
        "compare_layers": lambda: compare_layer_results(folder),
    }
    for name, make in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start in text:
            if end not in text.split(start, 1)[1]:
                raise cli.UserError(f"{readme} opens {start} but never closes it")
            before, rest = text.split(start, 1)
            text = f"{before}{start}\n\n{make()}\n\n{end}{rest.split(end, 1)[1]}"
    return text


def main(argv=None):
    parser = cli.Parser("Write the result tables into the READMEs.")
    parser.add_argument("--check", action="store_true", help="only say which READMEs differ")
    args = parser.parse_args(argv)
    differing = []
    for readme in [ROOT / "README.md", *sorted(ROOT.glob("*/README.md"))]:
        text = fill(readme)
        if text != readme.read_text(encoding="utf-8"):
            differing.append(str(readme.relative_to(ROOT)))
            if not args.check:
                readme.write_text(text, encoding="utf-8")
                print(f"wrote {readme.relative_to(ROOT)}")
    if args.check and differing:
        raise cli.UserError(f"{', '.join(differing)}: run python -m common.results.report")


if __name__ == "__main__":
    cli.entry(main)
