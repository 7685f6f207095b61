"""common/lock.py: one process at a time has a folder, and a killed one has it no longer."""

import errno
import os
import signal
import sys

import pytest

from common import lock
from tests.conftest import user_error
from tests.running import finish, start

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

# it imports no torch, which a process would have to be warm for
HOLD = """
import os, sys, time
from pathlib import Path
from common import lock
with lock.hold(Path(sys.argv[1])):
    child = os.fork() if "fork" in sys.argv else 1
    if child:
        print(child, flush=True)
    time.sleep(100)
"""


def test_another_process_is_refused_until_it_is_killed(tmp_path):
    process = start("-c", HOLD, tmp_path, cold=True)
    process.stdout.readline()
    for _ in range(2):  # being refused takes nothing away from it
        with user_error(tmp_path, "in use", "another process"), lock.hold(tmp_path):
            pass
    process.kill()
    finish(process)
    with lock.hold(tmp_path):
        pass
    assert os.listdir(tmp_path) == [".lock"] and not (tmp_path / ".lock").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_workers_that_outlive_a_killed_process_do_not_keep_its_folder(tmp_path):
    process = start("-c", HOLD, tmp_path, "fork", cold=True)
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)  # it lives
        with lock.hold(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        finish(process)


def test_a_process_has_a_folder_once_and_gives_it_up_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), lock.hold(tmp_path):
        with user_error("in use", "this process"), lock.hold(tmp_path / "." / ""):
            pass
        raise ZeroDivisionError
    with lock.hold(tmp_path):
        pass
    assert not lock.HELD


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_one_line(number, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", refuse)
    with user_error("cannot write into", tmp_path, os.strerror(number)), lock.hold(tmp_path):
        pass


def test_where_there_are_no_locks_a_run_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "")

    monkeypatch.setattr("fcntl.lockf", refuse)
    for _ in range(2):
        with lock.hold(tmp_path):
            assert f"{tmp_path} cannot be locked" in capsys.readouterr().err
            with user_error(tmp_path, "in use", "this process"), lock.hold(tmp_path):
                pass
    assert not lock.HELD
