"""The READMEs as a reader meets them: formulas that render, links that lead somewhere, spelling,
and lessons that are short enough."""

import ast
import re
import subprocess
import sys
import textwrap
import unicodedata
from pathlib import Path

import pytest
from latex2mathml.converter import convert
from latex2mathml.exceptions import (
    ExtraLeftOrMissingRightError,
    MissingSuperScriptOrSubscriptError,
)
from pylatexenc.latexwalker import LatexWalker, LatexWalkerParseError

from common.data import ROOT
from docs.diagrams import DIAGRAMS
from docs.drawing import spelled_out
from tests.running import FOLDERS, modules

READMES = [ROOT / "README.md", *(ROOT / folder / "README.md" for folder in FOLDERS)]
PAGES = [*READMES, ROOT / "studies" / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "RESULTS.md"]
PAGES += sorted(ROOT.glob("docs/*.md"))
MAX_WORDS = 2_200

FENCE = re.compile(r"^( *)(`{3,})(\w*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
GUARDED = re.compile(r"\$`([^`\n]+)`\$")  # Markdown leaves these alone
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
# GitHub opens a formula after a space, a bracket or a cell's edge, and closes it before the same or
# a punctuation mark; Jupyter and VS Code agree on all that this finds
INLINE = re.compile(r"(?<![^\s(|])\$(?![\s$`])([^$\n]+?)(?<!\s)\$(?![^\s).,;:?!|])")
COMMANDS_GITHUB_REFUSES = ("operatorname", "def", "newcommand", "href", "require", "tag")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def split(text: str) -> tuple[list[str], list[str], str]:
    """Formulas that Markdown does not touch, formulas in plain dollars, and what is left of a text
    without these and without code."""
    formulas = [body for _, _, language, body in FENCE.findall(text) if language == "math"]
    text = FENCE.sub("\n", text)
    formulas += DISPLAY.findall(text) + GUARDED.findall(DISPLAY.sub(" ", text))
    text = CODE.sub("code", GUARDED.sub("formula", DISPLAY.sub(" ", text)))
    return formulas, INLINE.findall(text), INLINE.sub("formula", text)


def parse(formula: str) -> None:
    """Raise what the parsers raise; ValueError for a command that is unknown, or not GitHub's."""
    LatexWalker(f"${formula}$", tolerant_parsing=False).get_latex_nodes()  # braces, arguments
    unknown = re.findall(
        r"\\[A-Za-z]+", convert(formula)
    )  # \left and \right, sub- and superscripts
    refused = [c for c in COMMANDS_GITHUB_REFUSES if re.search(rf"\\{c}\b", formula)]
    if unknown or refused:
        raise ValueError(f"{formula!r}: {', '.join(unknown + refused)}")


def eaten_by_markdown(formula: str) -> str | None:
    """What Markdown would change in a formula between plain dollars, before anybody typesets it."""
    if re.search(r"\\[^A-Za-z\s]", formula):
        return "a backslash before a punctuation mark"
    if re.search(r"[*~<>]\S*[*~>]|<[A-Za-z/!]", formula):
        return "* ~ or <"
    # an underscore opens emphasis after a punctuation mark, not inside of a word
    if re.search(r"(?<![\w])_\S", formula):
        return "an underscore after a punctuation mark"
    return None


# ---- formulas ----


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_formula_parses(path):
    guarded, plain, rest = split(path.read_text(encoding="utf-8"))
    for formula in guarded + plain:
        parse(formula)
    for formula in plain:
        assert not eaten_by_markdown(formula), f"{formula}: {eaten_by_markdown(formula)}"
    assert "$" not in rest, [line for line in rest.splitlines() if "$" in line]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_a_formula_in_a_table_has_no_bar(path):
    """There a bar ends the cell, also inside of a formula."""
    text = FENCE.sub("\n", path.read_text(encoding="utf-8"))
    for line in text.splitlines():
        if line.startswith("|"):
            assert all("|" not in f for f in re.findall(r"\$[^$]+\$", line)), line


@pytest.mark.parametrize(
    "formula, error",
    [
        (r"\frac{a}{b", LatexWalkerParseError),
        (r"\frac{1}", LatexWalkerParseError),
        (r"\begin{aligned} a \end{array}", LatexWalkerParseError),
        ("x_", MissingSuperScriptOrSubscriptError),
        (r"\left( x", ExtraLeftOrMissingRightError),
        (r"\nosuch x", ValueError),
        (r"\operatorname{f}", ValueError),
    ],
)
def test_a_broken_formula_is_found(formula, error):
    with pytest.raises(error):
        parse(formula)


@pytest.mark.parametrize(
    "formula", [r"a\,b", r"\{x\}", r"x \\ y", r"\hat{x}_i + \hat{y}_i", "a*b*c"]
)
def test_a_formula_that_markdown_would_change_is_found(formula):
    assert eaten_by_markdown(formula)


def test_a_stray_dollar_is_found():
    for text in ("costs $5", "$x$-axis", "an open $x + y", "2$x$"):
        assert "$" in split(text)[2]
    assert split("a $x$, ($y$) and $`z_{1}`$; `$HOME`\n```bash\n$ ls\n```\n") == (
        ["z_{1}"], ["x", "y"], "a formula, (formula) and formula; code\n\n\n"
    )  # fmt: skip


def maths(folder: str) -> str:
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    return text.partition("\n## The maths\n")[2].partition("\n## ")[0]


GREEK = [
    "alpha", "beta", "gamma", "delta", "epsilon", "eta", "theta", "lambda", "mu", "rho", "sigma",
    "Phi", "varphi", "nabla",
]  # fmt: skip


def letters(formula: str) -> set[str]:
    """The letters of a formula, W for a width and *W for a matrix; not those of words in it."""
    formula = re.sub(r"\\(?:text|mathrm|begin|end)\{[^}]*\}|\[\d+pt\]", " ", formula)
    bold = re.findall(r"\\mathbf ([A-Z])", formula)
    formula = re.sub(r"\\mathbf [A-Z]", " ", formula)
    commands = re.findall(r"\\([A-Za-z]+)", formula)
    formula = re.sub(r"\\[A-Za-z]+", " ", formula)
    greek = {command for command in commands if command in GREEK}
    return greek | {f"*{letter}" for letter in bold} | set(re.findall(r"[A-Za-z]", formula))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_maths_begin_with_a_table_of_symbols(folder):
    """It has every letter of the formulas below, and none twice."""
    section = maths(folder)
    assert section.lstrip().startswith("| symbol | meaning |\n")
    rows = []
    for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        if table.startswith("| symbol |"):  # the optimisers of MLP_Manual have one of their own
            rows += [line.split(" | ") for line in table.splitlines()[2:]]
    listed = [symbol for row in rows for symbol in re.findall(r"\$(.+?)\$", row[0])]
    assert len(listed) == len(set(listed)), "a symbol with two meanings"
    explained = [formula for row in rows for formula in re.findall(r"\$(.+?)\$", " ".join(row))]
    guarded, plain, _ = split(section)
    used = set().union(*map(letters, guarded + plain)) - {"e"}  # 2.718…
    assert used == set().union(*map(letters, explained)) - {"e"}


def test_letters_of_a_formula():
    assert letters(r"\mathbf W_{ih} \hat x + \alpha W \cdot \text{or so} + \mathrm{max}") == {
        "*W", "i", "h", "x", "alpha", "W"
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in DIAGRAMS if name != "docs"])
def test_a_diagram_has_no_other_symbols(name):
    """Than its README's table; of a twin whose derivations stand by hand, than that one's."""
    folder = {"MLP_Torch": "MLP_Manual", "CNN_Torch": "CNN_Manual"}.get(name, name.split("/")[0])
    tables = "\n".join(line for line in maths(folder).splitlines() if line.startswith("|"))
    explained = set().union(*map(letters, re.findall(r"\$`?(.+?)`?\$", tables)))
    diagram = DIAGRAMS[name]()
    written = [text.text for text in diagram.texts]
    for box in diagram.boxes.values():
        written += [box.title, *box.forward, *box.back]
    formulas = re.findall(r"\$(.+?)\$", spelled_out(" ".join(written)))
    used = (letters(formula.replace(r"\mathbf{W}", r"\mathbf W")) for formula in formulas)
    assert formulas or not any("\\" in words for words in written)
    assert set().union(*used) <= explained | {"e", "L"}


@pytest.mark.parametrize("folder", [*FOLDERS, "studies"])
def test_formulas_are_not_typed_in_unicode(folder):
    """Shapes such as (N, C, H, W) and plain products of numbers may be."""
    _, _, rest = split((ROOT / folder / "README.md").read_text(encoding="utf-8"))
    assert re.findall(r"[∂Σ√∇Πᵀ²³⁵ₜₙₖᵢⱼ₁₂σμγβεδθηλρα]", rest) == []


# ---- links, spelling, length ----


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    found: list[str] = []
    text = FENCE.sub("\n", path.read_text(encoding="utf-8"))
    for title in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", title).lower()
        kept = [c for c in title if c in " -_" or unicodedata.category(c)[0] in "LN"]
        slug = "".join(kept).replace(" ", "-")
        found.append(f"{slug}-{n}" if (n := found.count(slug)) else slug)
    return set(found) | set(re.findall(r'<a (?:id|name)="(.+?)"', text))


def faults_of_code(text: str) -> list[str]:
    """Fences that do not stand at the beginning of a line, and blocks that Python cannot read."""
    text = re.sub(r"````.+?````", "", text)  # a line that speaks of fences
    faults = [line for line in text.splitlines() if re.search(r"\S.*```", line)]
    if sum(line.lstrip().startswith("```") for line in text.splitlines()) % 2:
        faults.append("a fence is never closed")
    for block in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        try:
            ast.parse(textwrap.dedent(block))
        except SyntaxError as error:
            faults.append(f"{error.msg}: {error.text}")
    return faults


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_code_is_code(path):
    assert not faults_of_code(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text", ["x = 1 ```\n", "```python\nx = 1\n", "```python\nclass A: def f(): return 1\n```\n"]
)
def test_code_that_became_prose_is_found(text):
    assert faults_of_code(text)
    assert not faults_of_code("```python\nx = 1\n```\n")


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_anchors_and_pictures_exist(path):
    text = CODE.sub("code", FENCE.sub("\n", path.read_text(encoding="utf-8")))
    links = re.findall(r"\]\(([^()\s]+(?:\([^()\s]*\))?)(?: +\"[^\"]*\")?\)", text)
    links += re.findall(r'(?:src|href)="(.+?)"', text)
    assert links or path not in READMES
    for link in links:
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", place):
            continue
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_anchors_are_those_of_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A b: `c_d`!\n## The maths\n## The maths\n```\n# no\n```\n### p − q, [x](y)\n"
    )
    assert anchors(page) == {"a-b-c_d", "the-maths", "the-maths-1", "p--q-x"}


def test_spelling():
    """codespell, with the words that [tool.codespell] of pyproject.toml accepts."""
    command = [sys.executable, "-m", "codespell_lib", *map(name, [*PAGES, *modules()])]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("folder", [*FOLDERS, "studies"])
def test_the_table_of_files_names_all_of_them(folder):
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Files\n")[2].partition("\n## ")[0]
    own = {path.name for path in modules() if path.relative_to(ROOT).parts[0] == folder}
    assert len(own) > 9 and own - set(re.findall(r"\w+\.py", section)) - {"__init__.py"} == set()


def test_an_environment_in_the_repository_is_none_of_its_code(tmp_path, monkeypatch):
    """README puts it there: .venv."""
    own = [tmp_path / name for name in ("tool.py", "folder/__init__.py", "folder/utils/layers.py")]
    for path in [*own, tmp_path / ".venv/lib/package/__init__.py", tmp_path / ".venv/bin/tool.py"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr("tests.running.ROOT", tmp_path)
    assert sorted(modules()) == sorted(own)


def test_a_misspelt_word_is_found(tmp_path):
    (tmp_path / "page.md").write_text("You rec" + "ieve a gradient.\n")
    command = [sys.executable, "-m", "codespell_lib", str(tmp_path / "page.md")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0 and "rec" + "ieve" in result.stdout


def words_of_prose(text: str) -> int:
    """What is read from top to bottom: without code, tables, formulas, pictures, what is folded and
    what is generated between markers."""
    text = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", " ", text, flags=re.DOTALL)
    text = re.sub(r"<details>.*?</details>", " ", text, flags=re.DOTALL)
    _, _, rest = split(text)
    rest = re.sub(r"^ *\|.*$", " ", rest, flags=re.MULTILINE)
    rest = re.sub(r"!\[[^]]*\]\([^)]*\)", " ", rest)
    rest = re.sub(r"\]\([^)]*\)", "]", rest).replace("formula", " ")
    return len(re.findall(r"[^\W\d_][\w'’-]*", rest))


@pytest.mark.parametrize("folder", [*FOLDERS, "studies"])
def test_a_lesson_is_read_in_twenty_minutes(folder):
    words = words_of_prose((ROOT / folder / "README.md").read_text(encoding="utf-8"))
    assert 200 < words <= MAX_WORDS


def test_words_of_prose():
    text = (
        "Two words $x$ `code`\n\n| a | table |\n\n```python\nno\n```\n<!-- t -->\nno\n<!-- /t -->\n"
        "- Why?\n  <details><summary>Answer</summary>\n\n  no\n\n  </details>\n- So\n"
    )
    assert words_of_prose(text) == 5  # `code` is read


# ---- questions and answers ----


def questions(text: str) -> list[str]:
    """The points of "Things to try", each with what is folded below it."""
    return text.partition("\n## Things to try\n")[2].partition("\n## ")[0].split("\n- ")[1:]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_question_has_its_answer_folded(folder):
    found = questions((ROOT / folder / "README.md").read_text(encoding="utf-8"))
    assert len(found) >= 3
    for question in found:
        _, opened, rest = question.partition("\n\n  <details><summary>Answer</summary>\n\n  ")
        answer, closed, after = rest.partition("\n\n  </details>\n")
        assert opened and closed and len(answer.split()) > 5 and not after.strip(), question
