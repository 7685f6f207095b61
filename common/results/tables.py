"""Tables of the READMEs: how one is written, and that of the twins."""

import ast
import json
from pathlib import Path

from common.device import machine


def table(rows: list[list[str]]) -> list[str]:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def lines_of_code(folder: Path) -> int:
    """Lines of a module, or of model.py, train.py, test.py, dataset/ and utils/, that hold code: no
    blank lines, comments or docstrings, and none of the scripts that stand beside these."""
    main = ("model.py", "train.py", "test.py")
    total, files = 0, [p for p in folder.rglob("*.py") if p.parent != folder or p.name in main]
    for path in files or [folder] * folder.is_file():
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        lines = {node.lineno for node in nodes if isinstance(node, (ast.stmt, ast.expr))}
        for node in nodes:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                lines -= set(range(node.lineno, node.end_lineno + 1))
        total += len(lines)
    return total


def compare_results(folder: Path) -> str:
    """The twins side by side, as common.results.compare recorded them (in either twin's README)."""
    rows, texts = [["", "median time of a training step, ms", "lines of code"]], []
    for path in sorted(folder.parent.glob("*/results/compare*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if folder.name not in result.get("twins", {}).values():
            continue
        network = f": {result['network']}" if "network" in result else ""
        for twin, name in result["twins"].items():
            cells = result["step_milliseconds"][twin], lines_of_code(folder.parent / name)
            rows.append([f"{name}{network}", *map(str, cells)])
        batches = " ".join(filter(None, [f"{result['batch_size']}", result.get("examples")]))
        difference = result["largest_difference"]
        text = (
            f"Time of the hand-written step over PyTorch's: **{result['step_ratio']:.2f}** "
            f"(batches of {batches}, {result['steps']} steps in turns, "
            f"{machine(result['environment'])}). From the same weights and batches, in "
            f"double precision, the losses differ by at most {difference['loss']:.1e} nats "
            f"and the gradients by {difference['gradient']:.1e} of the largest one."
        )
        texts += ["", text, "", f"`{result['command']}`"]
    return "\n".join([*table(rows), *texts]) if texts else "Nothing recorded yet."
