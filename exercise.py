"""Write a part of a lesson yourself: take out what a function does, and let its tests judge yours.

    python exercise.py                          what there is
    python exercise.py CNN_Manual 2             empty the function of exercise 2
    python exercise.py CNN_Manual 2 --restore   put back what the last commit has

`git diff` shows yours beside the original.
"""

import argparse
import ast
import subprocess
from pathlib import Path

from common.errors import UserError, entry, printable
from tests.exercises import EXERCISES, Exercise

ROOT = Path(__file__).resolve().parent


def find(source: str, function: str) -> ast.FunctionDef:
    """The definition of "function" or "Class.method" in a module."""
    node = ast.parse(source)
    for name in function.split("."):
        (node,) = (child for child in node.body if getattr(child, "name", None) == name)
    return node


def whole(source: str, function: str) -> slice:
    """The lines of a definition."""
    node = find(source, function)
    first = min([node, *node.decorator_list], key=lambda part: part.lineno)
    return slice(first.lineno - 1, node.end_lineno)


def emptied(source: str, exercise: Exercise) -> str:
    """The module with the function's name, arguments and docstring alone."""
    node, lines = find(source, exercise.function), source.splitlines(keepends=True)
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    first = body[0].lineno - 1
    while lines[first - 1].lstrip().startswith("#"):  # a comment tells what it stands above
        first -= 1
    error = f'raise NotImplementedError("exercise {exercise.number} of {exercise.folder}")\n'
    lines[first : node.end_lineno] = [" " * body[0].col_offset + error]
    return "".join(lines)


def restored(source: str, original: str, exercise: Exercise) -> str:
    """The module with the function as it is in `original`."""
    lines, lines_of_original = (text.splitlines(keepends=True) for text in (source, original))
    place, place_in_original = (whole(text, exercise.function) for text in (source, original))
    lines[place] = lines_of_original[place_in_original]
    return "".join(lines)


def committed(path: str) -> str:
    """The file as git has it."""
    command = ["git", "show", f"HEAD:./{path}"]
    try:
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError(
            "the original comes back from git, which does not know this folder: use a clone"
        ) from None
    return shown.stdout.decode("utf-8").replace("\r\n", "\n")


def both(exercise: Exercise) -> tuple[str, str]:
    """The module as it is and as it was, with the function in each of them."""
    original = committed(exercise.path)
    try:
        source = (ROOT / exercise.path).read_text(encoding="utf-8")
        for text in (source, original):
            find(text, exercise.function)
    except (SyntaxError, ValueError) as error:  # among the latter, what is no UTF-8
        raise UserError(
            f"{exercise.function} is not to be found in {exercise.path} ({error}): mend it, or put "
            f"the file back with `git checkout {exercise.path}`"
        ) from None
    lines = original.splitlines(keepends=True)[whole(original, exercise.function)]
    if f'NotImplementedError("exercise {exercise.number} of' in "".join(lines):
        raise UserError(
            f"your last commit has {exercise.function} empty: find an older one with "
            f"`git log {exercise.path}`"
        )
    return source, original


def empty(exercise: Exercise) -> None:
    source, original = both(exercise)
    if restored(source, original, exercise) != source:
        raise UserError(f"{exercise.function} is changed already: begin again with --restore")
    (ROOT / exercise.path).write_text(emptied(source, exercise), encoding="utf-8")
    line = find(source, exercise.function).lineno
    print(f"{exercise.function} is empty now: {exercise.path}, line {line}")
    print(f"what it must do       {exercise.task}")
    print(f"what judges it        {exercise.command}")
    print(f"yours, the original   git diff {exercise.path}")
    print(f"the original back     python exercise.py {exercise.folder} {exercise.number} --restore")


def restore(exercise: Exercise) -> None:
    text = restored(*both(exercise), exercise)
    (ROOT / exercise.path).write_text(text, encoding="utf-8")
    print(f"{exercise.function} in {exercise.path} is again as the last commit has it")


class Parser(argparse.ArgumentParser):
    """Errors are one line."""

    def error(self, message: str):
        self.exit(2, f"error: {printable(message)}\n")


def main(argv=None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders = list(dict.fromkeys(exercise.folder for exercise in EXERCISES))
    parser.add_argument("folder", nargs="?", choices=folders, metavar="folder")
    parser.add_argument("number", nargs="?", type=int, choices=(1, 2, 3), help="of the exercise")
    parser.add_argument("--restore", action="store_true", help="put the original back")
    args = parser.parse_args(argv)
    if args.number is not None:
        (exercise,) = (e for e in EXERCISES if e[:2] == (args.folder, args.number))
        (restore if args.restore else empty)(exercise)
    elif args.restore:
        raise UserError("--restore of which one? Name the folder and the number")
    else:
        for e in EXERCISES:
            if args.folder in (None, e.folder):
                print(f"{e.folder:<18} {e.number}  {e.function}: {e.task}")


if __name__ == "__main__":
    entry(main)
