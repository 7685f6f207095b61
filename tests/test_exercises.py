"""Without its function, the tests of an exercise fail, and for that reason. READMEs name the same
exercises. Nothing is emptied in this tree: all of it happens in copies."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import exercise as tool
from common.data import ROOT
from tests.conftest import user_error
from tests.exercises import EXERCISES, with_section
from tests.running import FOLDERS

IDS = [f"{e.folder}-{e.number}" for e in EXERCISES]


def test_every_folder_has_three():
    assert sorted(e[:2] for e in EXERCISES) == [(f, n) for f in sorted(FOLDERS) for n in (1, 2, 3)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each pytest is forked from a warm process")
@pytest.mark.long
def test_tests_fail_for_what_is_missing(tmp_path):
    """All that an exercise selects, with its own error. With the function put back, the same tests
    pass: they are a part of this suite."""
    for package in {path.parent for path in ROOT.glob("*/*.py")}:
        for path in package.rglob("*"):
            if path.suffix in (".py", ".csv", ".md") and "runs" not in path.parts:
                copy = tmp_path / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    for name in ("pyproject.toml", "exercise.py"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.py")}

    command = [sys.executable, "-m", "tests.judging"]
    # a module that is emptied within a second of its original must not pass for it, compiled
    fresh = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    judged = subprocess.run(
        command, cwd=tmp_path, env=fresh, stdout=subprocess.PIPE, check=True
    ).stdout
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.py")}
    for e, verdict in zip(EXERCISES, json.loads(judged), strict=True):
        assert verdict["code"] == pytest.ExitCode.TESTS_FAILED and verdict["errors"], e
        for test, error in verdict["errors"].items():
            assert error and f"NotImplementedError: exercise {e.number} of {e.folder}" in error, (
                f"{test} says {error}"
            )


@pytest.mark.parametrize("e", EXERCISES, ids=IDS)
def test_restored_is_the_original(e):
    source = (ROOT / e.path).read_text(encoding="utf-8")
    empty = tool.emptied(source, e)
    assert tool.restored(empty, source, e) == source != empty


MODULE = '''import math


class Layer:
    """A layer."""

    def forward(self, x):
        return x

    @property
    def width(self):  # in pixels
        """How wide.

        In pixels.
        """
        # of a circle,
        # roughly
        a = math.pi

        # why
        return a


def forward(x):
    return x + 1
'''


@pytest.mark.parametrize(
    "function, gone, kept",
    [
        ("Layer.forward", ["        return x\n"], ["    def forward(self, x):\n"]),
        ("forward", ["x + 1"], ["def forward(x):"]),
        (
            "Layer.width",
            ["# of a", "# roughly", "math.pi", "# why", "return a"],
            ['        """How wide.\n', "    @property\n", "# in pixels", "        In pixels.\n"],
        ),
    ],
)
def test_name_arguments_and_docstring_stay(function, gone, kept):
    e = EXERCISES[0]._replace(function=function)
    text = tool.emptied(MODULE, e)
    assert all(part not in text for part in gone) and all(part in text for part in kept)
    names = {}
    exec(text, names)
    layer = names["Layer"]
    call = {
        "forward": lambda: names["forward"](1), "Layer.forward": lambda: layer().forward(1),
        "Layer.width": lambda: layer().width,
    }  # fmt: skip
    for name, run in call.items():
        if name == function:
            with pytest.raises(NotImplementedError, match=f"exercise {e.number} of {e.folder}"):
                run()
        else:
            run()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with the file of the first exercise, which the tool takes for its own."""
    path = tmp_path / EXERCISES[0].path
    path.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / EXERCISES[0].path, path)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    return path


def test_a_function_is_emptied_written_and_restored(clone, capsys):
    e, original = EXERCISES[0], clone.read_text(encoding="utf-8")
    words = [e.folder, str(e.number)]
    tool.main(words)
    said = capsys.readouterr().out
    assert e.command in said and e.path in said and e.task in said
    empty = clone.read_text(encoding="utf-8")
    assert empty == tool.emptied(original, e)
    place = said.splitlines()[0].rpartition(" ")[2]
    assert e.function.split(".")[-1] in empty.splitlines()[int(place) - 1]

    # what somebody wrote is not taken away
    own = empty.replace("raise NotImplementedError", "return 1  #") + "\n# my own\n"
    clone.write_text(own, encoding="utf-8")
    with user_error(e.function, "--restore"):
        tool.main(words)
    assert clone.read_text(encoding="utf-8") == own

    tool.main([*words, "--restore"])  # this function alone
    assert clone.read_text(encoding="utf-8") == original + "\n# my own\n"
    tool.main(words)


def test_a_file_that_python_cannot_read_is_one_line(clone):
    text = clone.read_text(encoding="utf-8") + "\ndef f(:\n"
    clone.write_text(text, encoding="utf-8")
    for words in ([], ["--restore"]):
        with user_error(EXERCISES[0].path, "git checkout"):
            tool.main([EXERCISES[0].folder, "1", *words])
    assert clone.read_text(encoding="utf-8") == text


def test_an_exercise_that_is_committed_empty_is_not_taken_for_the_original(clone):
    words = [EXERCISES[0].folder, str(EXERCISES[0].number)]
    tool.main(words)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *author, "commit", "-qam", "mine"], cwd=tool.ROOT, check=True)
    for more in ([], ["--restore"]):
        with user_error("last commit", "git log"):
            tool.main([*words, *more])


def test_a_file_in_another_encoding_is_one_line(clone):
    clone.write_bytes(clone.read_bytes() + b"# caf\xe9\n")
    with user_error(EXERCISES[0].path, "git checkout"):
        tool.main([EXERCISES[0].folder, "1"])


def test_without_git_nothing_is_emptied(clone, monkeypatch):
    text = clone.read_text(encoding="utf-8")
    shutil.rmtree(tool.ROOT / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tool.ROOT.parent))
    with user_error("git"):
        tool.main([EXERCISES[0].folder, "1"])
    assert clone.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "words, parts",
    [
        (["MLP"], ["MLP", "MLP_Manual"]),
        (["MLP_Manual", "4"], ["4"]),
        (["MLP_Manual", "one"], ["one"]),
        (["--restore"], ["--restore"]),
        (["MLP_Manual", "--restore"], ["--restore"]),
    ],
)
def test_bad_words_are_one_line(words, parts):
    command = [sys.executable, "exercise.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and all(part in done.stderr for part in parts)


def test_all_are_listed(capsys):
    tool.main([])
    everything = capsys.readouterr().out.splitlines()
    assert len(everything) == len(EXERCISES)
    tool.main(["CNN_Manual"])
    assert [line for line in everything if "CNN_Manual" in line] == (
        capsys.readouterr().out.splitlines()
    )


# ---- READMEs ----


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_names_these(folder):
    """`python -m tests.exercises` writes them."""
    readme = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    assert readme.count("<!-- exercises -->") == 1
    assert with_section(readme, folder) == readme
    for e in EXERCISES:
        assert (e.command in readme) == (e.folder == folder)
