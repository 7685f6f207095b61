"""What the model wrote, for its README: texts that `test.py --record` has kept in results/."""

import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
LINES = 10


def excerpt(text: str) -> str:
    """Of what a language model wrote after each epoch, ten lines of the first and of the last; of
    translations, all."""
    samples = re.split(r"^(?===== )", text, flags=re.MULTILINE)[1:]  # each has a head and a gap
    if samples[0].startswith("==== after epoch"):
        samples = ["\n".join(samples[i].splitlines()[: 2 + LINES]) + "\n\n" for i in (0, -1)]
    return "".join(samples).strip()


def table() -> str:
    """A block to unfold for each recorded text; the last one, of the longest recipe, is unfolded.
    Lines begin with a bar: their spelling is the model's."""
    blocks = []
    for path in sorted(RESULTS.glob("*_samples.txt")):
        lines = excerpt(path.read_text(encoding="utf-8")).splitlines()
        quoted = "\n".join(f"│ {line}".rstrip() for line in lines)
        name = path.stem.removesuffix("_samples")
        text = f"<summary>{name}</summary>\n\n```text\n{quoted}\n```\n\n</details>"
        blocks.append(f"<details>{text}")
    if not blocks:
        return "Nothing recorded yet."
    blocks[-1] = blocks[-1].replace("<details>", "<details open>", 1)
    return "\n\n".join(blocks)
