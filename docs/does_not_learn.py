"""Nine sick networks beside healthy ones: python -m docs.does_not_learn

It trains those of docs/symptoms.py on one core, in about half a minute, and draws the pictures.
Into a copy of the page, docs/does_not_learn.md, it writes the checks of docs/checks.py and what
they measured. Nothing else of the playground is needed.
"""

import argparse
import inspect
from pathlib import Path

import torch
from matplotlib.figure import Figure

from docs import symptoms
from docs.checks import HEALTHY

HERE = Path(__file__).resolve().parent


def examine(symptom: str) -> tuple[Figure, float, float]:
    """A picture, and what the check measures on the healthy and on the sick network."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    measured = []
    for axis, sick in zip(figure.subplots(1, 2), (False, True), strict=True):
        measured.append(getattr(symptoms, symptom)(axis, sick))
        axis.set_title(f"{'sick' if sick else 'healthy'}: {axis.get_title()}")
    return figure, *measured


def fill(page: str, marker: str, content: str) -> str:
    """The page with new content between <!-- marker --> and <!-- /marker -->."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, _, rest = page.partition(start)
    return f"{before}{start}\n{content}\n{end}{rest.partition(end)[2]}"


def source_of(symptom: str) -> str:
    return f"```python\n{inspect.getsource(HEALTHY[symptom][0])}```"


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # sums in one order: on one machine, the same figures each time
    (folder / "does_not_learn").mkdir(parents=True, exist_ok=True)
    page = (HERE / "does_not_learn.md").read_text(encoding="utf-8")
    table = (
        "| symptom | the check | healthy range | healthy | sick |\n| --- | --- | --- | --- | --- |"
    )
    for symptom, (check, least, most) in HEALTHY.items():
        figure, healthy, sick = examine(symptom)
        figure.savefig(folder / "does_not_learn" / f"{symptom}.png", dpi=100)
        name = symptom.replace("_", " ")
        link = f"[{name}](#{name.replace(' ', '-')})"
        cells = [
            link,
            f"`{check.__name__}`",
            f"{least:g} to {most:g}",
            f"{healthy:.2g}",
            f"{sick:.2g}",
        ]
        table += f"\n| {' | '.join(cells)} |"
        page = fill(page, symptom, source_of(symptom))
    (folder / "does_not_learn.md").write_text(fill(page, "measured", table), encoding="utf-8")
    print(f"page and pictures in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    place = "where page and pictures go; those of the repository are in docs"
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "runs", help=place)
    main(parser.parse_args().folder)
