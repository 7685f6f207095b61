"""Empty the functions of the exercises, one after the other, and see what the tests say, as JSON:
`python -m tests.judging`, started in a copy of the repository.

Each pytest has a process of its own, which imports the emptied module afresh. It is forked from
this one, where the libraries are imported already: importing them 36 times would take minutes.
"""

import compileall
import gc
import importlib
import json
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from py_compile import PycInvalidationMode

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # no threads that a fork would lose

import matplotlib.pyplot  # noqa: E402, F401
import pandas  # noqa: E402, F401
import pytest  # noqa: E402
import sklearn.neighbors  # noqa: E402, F401
import torch  # noqa: E402
import torchvision.transforms.v2  # noqa: E402, F401

from exercise import emptied  # noqa: E402
from tests.exercises import EXERCISES, Exercise  # noqa: E402


class Judge:
    """A plugin of pytest: the error of each test that failed, None for the others."""

    def __init__(self):
        self.errors: dict[str, str | None] = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or not report.passed:
            self.errors[report.nodeid] = report.longreprtext[-2000:] if report.failed else None


def judge(exercise: Exercise) -> dict:
    """{"code": of pytest, "errors": by test} with the function emptied, and put back again."""
    path, (receiver, sender) = Path(exercise.path), os.pipe()
    source = path.read_text(encoding="utf-8")
    path.write_text(emptied(source, exercise), encoding="utf-8")
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        judge = Judge()
        # which need no syntax tree, and no asserts of their own
        options = ["-p", "no:cacheprovider", "--tb=native", "--assert=plain"]
        code = pytest.main([*exercise.arguments, *options], plugins=[judge])
        with os.fdopen(sender, "w") as stream:
            json.dump({"code": int(code), "errors": judge.errors}, stream)
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as stream:
        found = json.load(stream)
    os.waitpid(pid, 0)
    path.write_text(source, encoding="utf-8")
    return found


if __name__ == "__main__":
    for name in ("mlxtend.data", "torchtext.vocab"):  # which tests/conftest.py asks for
        with suppress(Exception), warnings.catch_warnings():  # where it does not load
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # imports what torch.optim needs
    # once for all; and an emptied module is known by its content, however new it is
    compileall.compile_dir(".", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    gc.freeze()  # what is imported is not looked through again, in no process
    print(json.dumps([judge(exercise) for exercise in EXERCISES]))
