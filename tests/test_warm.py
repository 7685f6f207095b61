"""tests/warm.py: a fork of the warm process begins, sees and ends as a Python of its own does."""

import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from common.data import ROOT
from tests import warm
from tests.running import environment, finish, start

on_linux = sys.platform == "linux" and hasattr(os, "pidfd_open")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not on_linux, reason="only Linux forks a warm process"),
]

SEES = """
import gc, json, locale, os, resource, signal, sys, threading, warnings
main = sys.modules["__main__"]
streams = [sys.stdin, sys.stdout, sys.stderr]
print(json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": repr(sys.flags),
    "main": {k: repr(v) for k, v in vars(main).items() if k not in ("main", "streams")},
    "same": vars(main) is globals(), "cwd": os.getcwd(), "environment": dict(os.environ),
    "streams": [(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through,
                 s.newlines, s.closed, s.isatty(), s.seekable(), s.fileno()) for s in streams],
    "originals": [getattr(sys, f"__{name}__") is getattr(sys, name)
                  for name in ("stdin", "stdout", "stderr")],
    "locale": [locale.getlocale(), locale.getpreferredencoding()],
    "signals": [repr(signal.getsignal(s)) for s in sorted(signal.valid_signals())],
    "blocked": repr(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "group": os.getpgid(0), "session": os.getsid(0), "leads": os.getsid(0) == os.getpid(),
    "umask": os.umask(0), "limits": [resource.getrlimit(n) for n in range(10)],
    "files": sorted(os.listdir("/proc/self/fd")), "stdin": sys.stdin.read(),
    "threads": [t.name for t in threading.enumerate()], "tasks": len(os.listdir("/proc/self/task")),
    "hooks": [sys.excepthook is sys.__excepthook__, repr(sys.displayhook), gc.isenabled()],
    "function": (lambda: 0).__module__, "bytecode": sys.dont_write_bytecode,
}))
"""


@pytest.fixture
def place(tmp_path):
    """A script, a module and a package, and a link to the script elsewhere."""
    folder = tmp_path / "a folder"
    (folder / "package").mkdir(parents=True)
    for path in ("script.py", "package/__init__.py", "package/__main__.py", "package/module.py"):
        (folder / path).write_text("" if path.endswith("__init__.py") else SEES)
    (tmp_path / "link.py").symlink_to(folder / "script.py")
    return folder


def both(*command, **options) -> tuple:
    """What a warm process gives and what a cold one gives."""
    processes = [start(*command, cold=cold, **options) for cold in (False, True)]
    assert list(map(type, processes)) == [warm.Process, subprocess.Popen]
    return tuple(map(finish, processes))


COMMANDS = [
    ["script.py"], ["script.py", "a b", "--c", "", "é日\udce9"], ["../link.py"],
    ["./package/../script.py", "-m"], ["-c", SEES], ["-c", SEES, "-c", "x"], ["-m", "package"],
    ["-m", "package.module", "--help"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words)[-25:].strip())
def test_it_sees_what_a_process_of_its_own_sees(command, place):
    seen = both(*command, cwd=place, stdin=subprocess.DEVNULL, more={"COLUMNS": "77"})
    assert seen[0].code == seen[1].code == 0 and seen[0].err == seen[1].err == ""
    mine, other = (json.loads(result.out) for result in seen)
    for name in ("__loader__", "__annotations__", "__builtins__", "__spec__"):
        if name in mine["main"]:  # addresses; and what code of Python 3.14 has when it is needed
            mine["main"][name] = mine["main"][name].split(" at 0x")[0]
            other["main"][name] = other["main"].get(name, mine["main"][name]).split(" at 0x")[0]
    assert mine == other


@pytest.mark.parametrize("more", ["", "a::b/../c", f"{ROOT}:.:{ROOT}"])
def test_python_path_comes_after_the_scripts_folder(more, place, monkeypatch):
    """Where no library is hidden it could be anything: `can_be_warm` is more careful."""
    code = "import sys; print(sys.path)"
    monkeypatch.setattr(warm, "can_be_warm", lambda *args: True)
    results = both("-c", code, cwd=place, more={"PYTHONPATH": more})
    assert results[0] == results[1] and results[0].code == 0


ENDS = {
    "nothing": "",
    "number": "raise SystemExit(3)",
    "large number": "import sys; sys.exit(259)",
    "negative number": "import sys; sys.exit(-1)",
    "none": "import sys; print('a', end=''); sys.exit()",
    "true": "raise SystemExit(True)",
    "words": "import sys; print('out'); sys.exit('words')",
    "error": "def f():\n    1 / 0\ntry:\n    f()\nexcept ValueError as e:\n    pass",
    "two errors": "try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError(1) from e",
    "no syntax": "def f(:",
    "interrupted": "raise KeyboardInterrupt('a')",
    "killed": "import os; print('lost'); os.kill(os.getpid(), 9)",
    "terminated": "import os; os.kill(os.getpid(), 15)",
    "at once": "import os; os._exit(7)",
    "aborted": "import os; os.abort()",
    "exit functions": "import atexit; atexit.register(print, 1); atexit.register(print, 2); 1 / 0",
    "exit function fails": "import atexit; atexit.register(lambda: 1 / 0)",
    "thread goes on": (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('late'))).start(); 1 / 0"
    ),
    "daemon": "import threading as t; t.Thread(target=t.Event().wait, daemon=True).start()",
    "file left open": "import sys; f = open(sys.argv[1], 'w'); f.write('kept')",
    "object left": "class A:\n    def __del__(self):\n        print('gone')\na = A(); a.a = a",
    "own hook": "import sys; sys.excepthook = lambda *a: print(a[0].__name__); 1 / 0",
    "stdout closed": "import sys; sys.stdout.close(); sys.exit(4)",
    "stdout full": "import os; os.dup2(os.open('/dev/full', 1), 1); print(1)",
    "stderr full": "import os, sys; os.dup2(os.open('/dev/full', 1), 2); sys.exit('words')",
    "other process": "import os\nif not os.fork(): raise SystemExit(5)\nprint(os.wait()[1])",
}


@pytest.mark.parametrize("end", ENDS)
def test_it_ends_as_a_process_of_its_own_does(end, tmp_path):
    script, file = tmp_path / "script.py", tmp_path / "file"
    script.write_text(ENDS[end])
    seen = []
    for cold in (False, True):
        process = start(script, file, cold=cold, stdin=subprocess.PIPE)
        assert isinstance(process, subprocess.Popen) == cold
        code, out, err = finish(process)
        seen.append(
            (code, out, re.sub("0x[0-9a-f]+", "", err), file.read_text() if file.exists() else None)
        )
        file.unlink(missing_ok=True)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("words", [["-m", "no_such"], ["-m", "json"], ["-c", "1 / 0"]], ids=str)
def test_errors_of_commands_read_alike(words):
    mine, other = both(*words)
    assert mine.code == other.code != 0 and mine.out == other.out
    assert mine.err.splitlines()[-1] == other.err.splitlines()[-1]


WAITS = "import time; print('ready', flush=True); time.sleep(100)"


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1"])
def test_it_ends_by_the_signals_it_is_sent(number):
    results = []
    for cold in (False, True):
        process = start("-c", WAITS, cold=cold)
        assert process.stdout.readline() == "ready\n" and process.poll() is None
        process.send_signal(getattr(signal, number))
        results.append(finish(process))
        assert process.poll() == process.wait() == results[-1].code
        process.send_signal(signal.SIGKILL)  # to nobody
    assert results[0].code == results[1].code == -getattr(signal, number)
    assert results[0].err.splitlines()[-1:] == results[1].err.splitlines()[-1:]


def test_ctrl_c_that_comes_before_it_is_ready_is_not_lost():
    for _ in range(20):
        process = start("-c", "import time; time.sleep(100)")
        os.kill(process.pid, signal.SIGINT)
        assert finish(process).code == -signal.SIGINT


def test_a_session_of_its_own_is_killed_with_its_processes():
    code = "import os, time; os.fork(); os.write(1, b'%d\\n' % os.getpid()); time.sleep(100)"
    process = start("-c", code, start_new_session=True)
    pids = {int(process.stdout.readline()) for _ in range(2)}
    assert process.pid in pids and [os.getsid(pid) for pid in pids] == [process.pid] * 2
    os.killpg(process.pid, signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL


def test_several_run_at_once_and_end_in_any_order():
    code = "import sys; print(ascii(sys.stdin.read())); sys.exit(int(sys.argv[1]))"
    processes = [start("-c", code, n, stdin=subprocess.PIPE) for n in range(4)]
    assert [process.poll() for process in processes] == [None] * 4
    for n in (2, 0, 3, 1):
        processes[n].stdin.write(f"\ré\r\n{n}")
        assert finish(processes[n]) == (n, rf"'\r\xe9\r\n{n}'" "\n", "")


def test_waiting_has_its_time_and_may_be_tried_again():
    process = start("-c", "print('a' * 1_000_000); input()", stdin=subprocess.PIPE)
    for _ in range(2):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
    assert finish(process).out == "a" * 1_000_000 + "\n"


def test_streams_may_be_files_bytes_and_one(tmp_path):
    code = "import os, sys; os.write(1, b'\\xff'); sys.stderr.write('é'); print(sys.stdin.read())"
    command, end = ["-c", code], b"\xff\xc3\xa9in\n"
    (tmp_path / "in").write_text("in")
    with open(tmp_path / "in") as given, open(tmp_path / "out", "wb") as taken:
        process = start(*command, text=False, stdin=given, stderr=subprocess.STDOUT)
        assert finish(process) == (0, end, None)
        given.seek(0)
        process = start(*command, stdin=given, stdout=taken, stderr=subprocess.STDOUT)
        assert finish(process) == (0, None, None)
    assert (tmp_path / "out").read_bytes() == end


def test_without_the_warm_process_nobody_waits_for_ever(monkeypatch):
    """It may have been killed, by the system where memory was short."""
    ours, its = socket.socketpair()
    monkeypatch.setattr(warm, "server", lambda: ours)
    threading.Timer(0.05, its.close).start()
    with pytest.raises(RuntimeError, match="has ended"):
        start("-c", "")


LOADED = """
import os, sys, threading
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
ours = [f for f in files if f.startswith({root!r}) and "site-packages" not in f]  # a .venv in it
print(len(ours), threading.active_count(), len(os.listdir("/proc/self/task")))
print("torch" in sys.modules, os.environ["OMP_NUM_THREADS"], sys.modules["torch"].get_num_threads())
"""


def test_it_has_the_libraries_but_nothing_of_this_repository_and_one_thread():
    """Were the warm process not to start, everything would be slower but pass."""
    assert finish(start("-c", LOADED.format(root=str(ROOT)))) == (0, "0 1 1\nTrue 1 1\n", "")


def test_forks_draw_as_processes_of_their_own_do():
    code = """
import random, tempfile, numpy, torch, uuid
print(random.random(), numpy.random.rand(), next(tempfile._get_candidate_names()), uuid.uuid4())
print(torch.initial_seed(), torch.rand(1).item())
"""
    drawn = [finish(start("-c", code)).out.split() for _ in range(2)]
    assert len(drawn[0]) == 6 and not set(drawn[0]) & set(drawn[1])


def test_what_libraries_write_into_the_environment_keeps_no_process_from_being_warm():
    for name in [*warm.LIBRARIES, "matplotlib.pyplot", "optuna", "scipy.stats"]:
        importlib.import_module(name)
    assert warm.usual(environment()) == warm.USUAL
    assert isinstance(process := start("-c", ""), warm.Process) and finish(process).code == 0


CHANGED = [{"OMP_NUM_THREADS": "2"}, {"PYTHONHASHSEED": "1"}, {"MPLBACKEND": "svg"},
           {"HOME": "/"}, {"LC_ALL": "C"}, {"TORCH_LOGS": "x"}, {"PYTHONUNBUFFERED": "2"},
           {"PYTHONPATH": "/tmp"}, {"CUDA_VISIBLE_DEVICES": "0"}, {"NEW": ""}]  # fmt: skip


@pytest.mark.parametrize("more", CHANGED, ids=lambda more: next(iter(more)))
def test_what_libraries_may_read_needs_a_process_of_its_own(more):
    assert warm.can_be_warm(["-c", ""], ROOT, environment())
    assert not warm.can_be_warm(["-c", ""], ROOT, environment(**more))


@pytest.mark.parametrize(
    "words",
    [["-B", "-c", ""], ["-"], ["-V"], ["-m"], ["-m", "torch.distributed.run", "a.py"],
     ["no_such.py"], ["tests"], ["-Wd", "exercise.py"]], ids=" ".join,
)  # fmt: skip
def test_other_commands_need_a_process_of_their_own(words):
    assert not warm.can_be_warm(words, ROOT, environment())


def test_where_nothing_can_be_forked_all_processes_are_their_own(monkeypatch):
    monkeypatch.setattr(warm, "server", lambda: None)
    process = start("-c", "print(1)")
    assert isinstance(process, subprocess.Popen) and finish(process) == (0, "1\n", "")
