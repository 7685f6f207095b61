"""Your runs in a table, the best marked: `python -m common.results.runs`; --plot draws them."""

import io
import os
import shutil
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pandas as pd

from common import checkpoint, cli, folders
from common.data import ROOT
from common.errors import UserError, printable
from common.history import METRICS

BEST = {"accuracy": max, "loss": min, "bleu": max, "frechet_distance": min}  # of a run, the first
OF_LOSS = ["model", "likelihood", "beta", "samples", "tokenizer", "vocabulary-size"]  # nats of what
STAR = f"* best of its dataset, task and metric (a loss: also of its {', '.join(OF_LOSS)})"
APART = "dataset|folder|task|epochs|seed|data-dir|device|commit|environment|given|run-dir|resume"
NOTHING = dict(best="", dataset="?", task="", done=0, epochs="?", metric="", value=None, unit="",
               seconds=None, seed="", shown="no config.json", kind=None, history=())  # fmt: skip


def words(value) -> str:
    """A flag's value on one line."""
    if isinstance(value, list):
        return " ".join(map(words, value)) or "none"
    return printable(f"{value:.12g}" if isinstance(value, float) else value)


def read_history(path: Path):
    """The epochs, seconds and validation metrics of a history.csv, as numbers. Raises KeyError,
    OSError or ValueError where it is cut off: a run ends it with a line feed."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    table = pd.read_csv(io.StringIO(text), dtype=str)
    table = table.filter(regex="^(epoch|seconds|validation_.*)$").astype(float)
    is_whole = text.endswith("\n") and (table.abs() < float("inf")).all(axis=None)
    if not is_whole or list(table["epoch"]) != list(range(1, len(table) + 1)):
        raise ValueError("not a row for every epoch")
    return table


def read_run(folder: Path, path: Path) -> dict:
    """A run's cells. `shown`: its best validation, or what it lacks; `kind`: what that measures."""
    run = {"folder": folder.name, "run": printable(path.relative_to(folder / "runs")), **NOTHING}
    with suppress(UserError, OSError, ValueError, KeyError, TypeError, RecursionError):
        if os.path.isfile(path / "config.json"):
            run["shown"] = "config.json unreadable"
            config = folders.read_config(path)
            flags = {printable(k).replace("_", "-"): words(v) for k, v in config.items()}
            run |= {k: flags[k] for k in ("task", "epochs", "seed") if k in flags}
            run |= {f"--{k}": v for k, v in flags.items()}
            run |= {"dataset": words(folders.dataset_name(config)), "shown": "no epoch yet"}
        if "--dataset" in run and os.path.lexists(path / "history.csv"):
            run["shown"] = "history.csv unreadable"
            history = read_history(path / "history.csv")
            run |= {"seconds": history["seconds"].max(), "done": len(history), "history": history}
            run["shown"] = "no validation" if len(history) else "no epoch yet"
    metric = next((m for m in BEST if run["done"] and f"validation_{m}" in run["history"]), None)
    if metric is None:
        return run
    heading, factor, decimals = METRICS[metric]
    name, _, unit = heading.partition(", ")
    history["value"] = factor * history[f"validation_{metric}"]
    value = BEST[metric](history["value"])
    same = ["src", "tgt", *(OF_LOSS if metric == "loss" else [])]
    same += ["data-dir"] * (flags["dataset"] in (*folders.OWN_DATA, "text"))
    same = [f"{flag}={flags[flag]}" for flag in same if flags.get(flag, "None") != "None"]
    kind = " ".join(filter(None, [f"{folder.name}:", run["dataset"], run["task"], name, *same]))
    shown = f"{name} {value:.{decimals}f} {unit}".strip()
    return run | dict(metric=metric, value=value, unit=unit, shown=shown, kind=kind)


def read_runs(folder: Path) -> pd.DataFrame:
    """The runs below a model folder's runs/, and a column --FLAG for each flag that differs."""
    found = {path for _, path in folders.numbered(folder / "runs") if path.is_dir()}
    found |= {path.parent for path in (folder / "runs").rglob("config.json")}
    table = pd.DataFrame([read_run(folder, path) for path in sorted(found)], dtype=object)
    flags = table.filter(regex=f"^--(?!({APART})$)")
    table = table.filter(regex="^(?!--)").join(flags.loc[:, flags.nunique() > 1])
    for _, alike in table.groupby("kind") if found else ():
        best = BEST[alike["metric"].iloc[0]](alike["value"])
        table.loc[alike.index[alike["value"] == best], "best"] = "*"
    return table


def format_table(runs: pd.DataFrame, width: int | None) -> str:
    """A folder's runs as text; columns for which `width` has no room come below the others."""
    cells = pd.DataFrame({"dataset": runs["dataset"], "task": runs["task"]})
    cells["epochs"] = [f"{run.done}/{run.epochs}" for run in runs.itertuples()]
    cells["best validation"] = runs["shown"]
    cells["seconds"] = [f"{run.seconds:.1f}" if run.done else "" for run in runs.itertuples()]
    cells = cells.join(runs.filter(regex="^(seed|--.*)$")).fillna("")
    cells.index = [f"{r.best:1} {r.run.removesuffix(f'-{r.dataset}')}" for r in runs.itertuples()]
    return cells.loc[:, cells.ne("").any()].to_string(line_width=width)


def draw(runs: pd.DataFrame, file: io.BytesIO):
    """Write a PNG, and give its Figure: each kind of runs over epochs and over seconds."""
    from common.plots import STYLE, Figure, matplotlib  # slow to import

    kinds = [alike for _, alike in runs.groupby("kind", sort=False)]
    heights = [max(3, 0.35 * len(alike)) for alike in kinds]  # in inches, of a legend at least
    grid = {"height_ratios": heights, "wspace": 0.06, "hspace": 0.4}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.4 * sum(heights)))
        axes = figure.subplots(len(kinds), 2, squeeze=False, sharey="row", gridspec_kw=grid)
        for (left, right), alike in zip(axes, kinds, strict=True):
            flags = alike.filter(regex="^(epochs|seed|--.*)$")
            flags = flags.loc[:, flags.nunique() > 1].rename(columns=lambda k: k.lstrip("-"))
            for n, run in enumerate(alike.itertuples()):
                label = [f"{k}={v}" for k, v in flags.loc[run.Index].dropna().items()]
                label = "  ".join([f"{run.best:1} {run.run}", *label])
                label = textwrap.fill(label, 80, break_on_hyphens=False)
                style = dict(color=f"C{n % 10}", ls=["-", "--", ":"][n // 10 % 3], marker=".")
                left.plot(run.history["epoch"], run.history["value"], **style)
                right.plot(run.history["seconds"], run.history["value"], label=label, **style)
            left.set(xlabel="epoch", ylabel=f"validation {METRICS[run.metric][0]}")
            left.set_title(textwrap.fill(run.kind, 120), loc="left", fontsize="medium")
            left.xaxis.get_major_locator().set_params(integer=True)
            right.set_xlabel("seconds")
            right.legend(title="* best", loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
        dpi = min(110, 45_000 / sum(heights))  # a PNG of matplotlib's has at most 65,535 rows
        figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight")
    return figure


def write(name: str, content: bytes) -> None:
    """Write a whole file, and say whether it took the place of another."""
    there = os.path.lexists(name)
    if there and not os.path.isfile(name):
        raise UserError(f"cannot write {name}: something that is no file has that name")
    checkpoint.write_atomically(Path(os.path.realpath(name)), content)
    print("replaced" if there else "wrote", printable(name), file=sys.stderr)


def main(argv=None):
    parser = cli.Parser(__doc__.splitlines()[0])
    names = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
    add = parser.add_argument
    add("folders", nargs="*", metavar="FOLDER", help="whose runs; all folders' without one")
    add("--plot", nargs="?", const="runs.png", metavar="FILE", help="draw their curves (runs.png)")
    add("--csv", metavar="FILE", help="write the rows as CSV; -: print that instead of the table")
    args = parser.parse_args(argv)
    asked = [name.rstrip("/") for name in args.folders]  # which completion appends
    for name in {*asked} - {*names}:
        raise UserError(f"{name!r} is no model folder; there are {', '.join(names)}")
    if args.plot and not args.plot.endswith(".png"):
        raise UserError(f"--plot {args.plot}: a picture's name ends in .png")
    tables = {name: read_runs(ROOT / name) for name in asked or names}
    found = [table for table in tables.values() if len(table)]
    if not found:
        raise UserError(f"no runs yet: python {next(iter(tables))}/train.py makes the first")
    runs = pd.concat(found, ignore_index=True)
    if args.csv != "-":
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for name in tables if asked else runs["folder"].unique():
            text = format_table(tables[name], width) if len(tables[name]) else "no runs yet"
            print(f"{name}\n{text}\n")
        print(textwrap.fill(STAR, width or len(STAR)))
    if args.csv:
        csv = runs.drop(columns=["kind", "history"]).to_csv(index=False)
        print(csv, end="") if args.csv == "-" else write(args.csv, csv.encode())
    if args.plot:
        if runs["kind"].isna().all():
            raise UserError("nothing to draw: no run has an epoch and a validation split yet")
        picture = io.BytesIO()
        draw(runs, picture)
        write(args.plot, picture.getvalue())


if __name__ == "__main__":
    cli.entry(main)
