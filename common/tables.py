"""Tables of the READMEs: how one is written, and the one of hand-written layers."""

import json
from pathlib import Path


def machine(environment: dict) -> str:
    threads = f"{environment['threads']} thread{'s' * (environment['threads'] > 1)}"
    where = environment.get("gpu") or f"{environment['processor']}, {threads}"
    return f"{where}, torch {environment['torch']}"


def table(rows: list[list[str]]) -> list[str]:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def compare_layer_results(folder: Path) -> str:
    """Hand-written layers beside PyTorch's, as common.compare_layers recorded them."""
    path = folder / "results" / "compare_layers.json"
    if not path.is_file():
        return "Nothing recorded yet."
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = [["layer", "by hand, ms", "nn + autograd, ms", "ratio"]]
    for name, layer in result["layers"].items():
        milliseconds = [f"{layer['step_milliseconds'][kind]}" for kind in ("manual", "torch")]
        rows.append([name, *milliseconds, f"**{layer['step_ratio']:.2f}**"])
    largest = max(layer["largest_difference"] for layer in result["layers"].values())
    return "\n".join(
        [
            *table(rows),
            "",
            f"Median time of forward and backward: batches of {result['batch_size']}, "
            f"{result['window']} steps, {result['input_size']} → {result['hidden_size']}; "
            f"{result['steps']} in turns ({machine(result['environment'])}). In double precision, "
            f"outputs and gradients differ by at most {largest:.1e} of the largest value.",
            "",
            f"`{result['command']}`",
        ]
    )
