"""The README's table of our layers beside PyTorch's, which common.results.compare measures."""

import json
from pathlib import Path

from common.device import machine
from common.results import tables

RECORD = Path(__file__).resolve().parent / "results" / "compare_layers.json"


def table(path: Path = RECORD) -> str:
    """The README's table, by common.results.report."""
    if not path.is_file():
        return "Nothing recorded yet."
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = [["layer", "by hand, ms", "nn + autograd, ms", "ratio"]]
    for name, layer in result["layers"].items():
        milliseconds = map(str, layer["step_milliseconds"].values())
        rows.append([name, *milliseconds, f"**{layer['step_ratio']:.2f}**"])
    largest = max(layer["largest_difference"] for layer in result["layers"].values())
    text = (
        f"Median time of forward and backward: batches of {result['batch_size']}, "
        f"{result['window']} steps, {result['input_size']} → {result['hidden_size']}; "
        f"{result['steps']} in turns ({machine(result['environment'])}). In double precision, "
        f"outputs and gradients differ by at most {largest:.1e} of the largest value."
    )
    return "\n".join([*tables.table(rows), "", text, "", f"`{result['command']}`"])
