"""The front page's table of what is proven, by common.results.report: figures of the records, and
the tests that anybody can run."""

import json
from pathlib import Path
from statistics import mean

from common.device import machine
from common.results import tables
from common.results.report import cell

ROOT = Path(__file__).resolve().parent.parent
PAIRS = [("MLP_Manual", "MLP_Torch"), ("CNN_Manual", "CNN_Torch")]


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def comparisons() -> list[dict]:
    """Of hand-written networks with PyTorch's, as common.results.compare recorded them."""
    found = [load(path) for path in sorted(ROOT.glob("*/results/compare*.json"))]
    return [result for result in found if "twins" in result]


def largest(kind: str) -> str:
    return f"{max(result['largest_difference'][kind] for result in comparisons()):.0e}"


def layers() -> tuple[str, str]:
    """The names of hand-written layers, and the largest difference of one of them."""
    found = load(ROOT / "RNN_Manual" / "results" / "compare_layers.json")["layers"]
    return ", ".join(found), f"{max(one['largest_difference'] for one in found.values()):.0e}"


def step_ratios() -> str:
    """By hand over PyTorch's, of networks and layers: on the threads of each record."""
    recorded = load(ROOT / "RNN_Manual" / "results" / "compare_layers.json")
    study = load(ROOT / "studies" / "results" / "compare_twins.json")
    found = [(study["environment"], row["ratio"][1]) for row in study["rows"]
             if row["what"] == "step"]  # fmt: skip
    found += [(of["environment"], of["step_ratio"]) for of in comparisons()]
    found += [(recorded["environment"], of["step_ratio"]) for of in recorded["layers"].values()]
    texts = []
    for threads in sorted({where["threads"] for where, _ in found}):
        ratios = [ratio for where, ratio in found if where["threads"] == threads]
        on = f"{threads} thread{'s' * (threads > 1)}"
        texts.append(f"{min(ratios):.2f} to {max(ratios):.2f} on {on}")
    return ", ".join(texts)


def same_accuracy() -> str:
    texts = []
    for pair in PAIRS:
        records = [load(ROOT / folder / "results" / "mnist.json") for folder in pair]
        ours, theirs = (cell(record, "test", "accuracy") for record in records)
        texts.append(f"{ours} % by hand, {theirs} % by PyTorch ({pair[0].partition('_')[0]})")
    return "; ".join(texts)


def table() -> str:
    first = load(ROOT / "CNN_Manual" / "results" / "mnist-default.json")
    names, difference = layers()
    rows = [
        ["what", "figure", "proof"],
        ["Networks by hand have PyTorch's loss, step after step, in double precision",
         f"at most {largest('loss')} nats apart", "[test](tests/test_twins.py)"],
        ["Networks by hand have PyTorch's gradients, of every weight",
         f"at most {largest('gradient')} of the largest apart", "[test](tests/test_twins.py)"],
        [f"{names} by hand have PyTorch's outputs and gradients",
         f"at most {difference} of the largest apart", "[test](tests/test_rnn_manual.py)"],
        ["They use no `torch.nn`, no autograd and no `torch.optim`", "not one call",
         "[test](tests/test_contracts.py)"],
        ["They learn as well: test accuracy on MNIST", same_accuracy(), "[records](RESULTS.md)"],
        ["What it costs: time of a training step, by hand over PyTorch's",
         step_ratios(), "[the twins' verdict](studies/README.md#the-twins-verdict), "
         "[records](MLP_Manual/README.md#its-twin)"],
        ["A run that was killed goes on as if it had never stopped", "bit for bit, on a CPU",
         "[test](tests/test_run.py)"],
        ["The first command above, with MNIST at hand",
         f"{cell(first, 'test', 'accuracy')} % on the test split, after "
         f"{mean(run['seconds'] for run in first['runs']):.0f} s of training "
         f"({machine(first['environment'])})",
         "[record](CNN_Manual/README.md#results), [the whole command's time]"
         "(docs/using_it.md#how-long-a-first-run-takes)"],
    ]  # fmt: skip
    return "\n".join(tables.table(rows))
