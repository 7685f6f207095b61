"""What a model wrote, as its README shows it: texts early and late, translations good and bad."""

import importlib
import subprocess
import sys

import pytest

from common.data import ROOT
from tests.running import TRANSFORMERS

FOLDERS = ["RNN_Manual", *TRANSFORMERS]


@pytest.fixture(params=FOLDERS)
def samples(request, tmp_path, monkeypatch):
    module = importlib.import_module(f"{request.param}.samples")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def written(epochs: int, lines: int) -> str:
    """As train.py writes it: `lines` lines after each epoch."""
    texts = ["\n".join(f"{epoch}.{line}" for line in range(lines)) for epoch in range(epochs)]
    heads = [f"==== after epoch {epoch}, training loss 1.5 ====" for epoch in range(epochs)]
    return "".join(f"{head}\n\n{text}\n\n" for head, text in zip(heads, texts, strict=True))


def test_the_readme_shows_ten_lines_of_the_first_and_of_the_last_epoch(samples, tmp_path):
    (tmp_path / "plays_samples.txt").write_text(written(epochs=3, lines=12))
    lines = samples.table().splitlines()
    assert lines[:3] == ["<details open><summary>plays</summary>", "", "```text"]
    assert lines[-3:] == ["```", "", "</details>"]
    first, last = ([f"│ {epoch}.{n}" for n in range(10)] for epoch in (0, 2))
    assert [line for line in lines if "." in line and "====" not in line] == first + last
    assert [line for line in lines if "====" in line] == [
        "│ ==== after epoch 0, training loss 1.5 ====",
        "│ ==== after epoch 2, training loss 1.5 ====",
    ]


def test_the_readme_shows_all_translations(samples, tmp_path):
    text = (
        "==== the worst of 2 ====\n\na\n  is      b\n\n==== the best of 2 ====\n\nc\n  is      d\n"
    )
    (tmp_path / "pairs_samples.txt").write_text(text)
    shown = [line.removeprefix("│").removeprefix(" ") for line in samples.table().splitlines()]
    assert shown[2:-2] == ["```text", *text.strip().splitlines(), "```"]


def test_only_the_longest_recipe_is_unfolded(samples, tmp_path):
    for name in ("plays", "plays-default"):
        (tmp_path / f"{name}_samples.txt").write_text(written(epochs=2, lines=1))
    heads = [line for line in samples.table().splitlines() if "<details" in line]
    assert heads == [
        "<details><summary>plays-default</summary>",
        "<details open><summary>plays</summary>",
    ]


def test_without_a_record_the_readme_says_so(samples):
    assert samples.table() == "Nothing recorded yet."


def test_the_spelling_of_what_a_model_wrote_is_its_own(tmp_path):
    """And a line of ours is still read, beside it."""
    page = tmp_path / "page.md"
    page.write_text("│ KING: You rec" + "ieve a crown.\n")
    command = [sys.executable, "-m", "codespell_lib", "--toml", "pyproject.toml", str(page)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    page.write_text("You rec" + "ieve a gradient. │ KING\n")
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode != 0


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_translations_are_ranked_from_the_worst_to_the_best(folder):
    references = [f"a little dog runs over {n} green fields" for n in range(9)]
    words = [8, 2, 5, 1, 7, 3, 6, 4, 0]  # how many are right
    translations = [
        " ".join([*line.split()[:n], *["qqq"] * (8 - n)])
        for line, n in zip(references, words, strict=True)
    ]
    found = importlib.import_module(f"{folder}.utils.bleu").from_worst_to_best(
        translations, references
    )
    assert [words[row] for row in found.values()] == [0, 2, 4, 6, 8]
    heads = list(found)
    assert heads[0].startswith("the worst of 9, chrF ")
    assert heads[-1] == "the best of 9, chrF 100"


@pytest.mark.parametrize("folder", TRANSFORMERS)
def test_of_perfect_translations_the_longest_is_the_best(folder):
    lines = ["a dog runs", "a dog runs over the wide green field", "two dogs run"]
    found = importlib.import_module(f"{folder}.utils.bleu").from_worst_to_best(lines, lines)
    assert list(found.values())[-1] == 1
