"""common/lock.py: one process at a time has a folder, and a killed one has it no longer."""

import errno
import json
import os
import signal
import sys
import threading

import pytest

from common import lock
from tests.conftest import user_error
from tests.running import finish, start

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

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


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 0.5)


def test_another_process_is_refused_until_it_is_killed(tmp_path):
    process = start("-c", HOLD, tmp_path)
    process.stdout.readline()
    for _ in range(2):  # being refused takes nothing away from it
        with user_error(tmp_path, "in use", f"process {process.pid} on"), lock.hold(tmp_path):
            pass
    process.kill()
    finish(process)
    assert os.listdir(tmp_path) == [".lock"]
    with lock.hold(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
def test_workers_that_outlive_a_killed_process_do_not_keep_its_folder(tmp_path):
    process = start("-c", HOLD, tmp_path, "fork")
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
        with user_error("in use", f"process {os.getpid()} on"), lock.hold(tmp_path / "." / ""):
            pass
        raise ZeroDivisionError
    with lock.hold(tmp_path):
        pass
    assert os.listdir(tmp_path) == [] and not lock.HELD


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_one_line(number, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with user_error("cannot write into", tmp_path, os.strerror(number)), lock.hold(tmp_path):
        pass


def elsewhere(tmp_path, monkeypatch, how: str):
    """A lock file of another machine, or of one whose file system has no locks."""
    machine = {"machine": "another", "host": "far", "pid": 7}
    if how == "no locks":
        machine = lock.owner() | {"host": "far", "pid": 7}

        def refuse(*args):
            raise OSError(errno.ENOLCK, "")

        monkeypatch.setattr("fcntl.lockf", refuse)
    (tmp_path / ".lock").write_text(json.dumps(machine))


@pytest.mark.parametrize("how", ["no locks", "another machine"])
def test_where_locks_do_not_reach_a_heartbeat_tells(how, tmp_path, monkeypatch, impatient, capsys):
    elsewhere(tmp_path, monkeypatch, how)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.05):
            os.utime(tmp_path / ".lock")

    heart = threading.Thread(target=beat)
    heart.start()
    with user_error("in use", "process 7 on far"), lock.hold(tmp_path):
        pass
    ended.set()
    heart.join()
    with lock.hold(tmp_path):  # nobody touches it any more
        assert json.loads((tmp_path / ".lock").read_text()) == lock.owner()
    assert os.listdir(tmp_path) == [] and "another machine" in capsys.readouterr().err


def test_who_has_a_folder_touches_its_file(tmp_path, impatient):
    with lock.hold(tmp_path):
        os.utime(tmp_path / ".lock", (1, 1))
        file = os.open(tmp_path / ".lock", os.O_RDONLY)
        assert lock.beats(tmp_path, file)
        os.close(file)


def test_a_file_that_its_owner_removed_meanwhile_is_not_what_is_locked(tmp_path, monkeypatch):
    asked, ask = [], lock.lock

    def removed(file):
        asked.append(file)
        if len(asked) == 1:
            (tmp_path / ".lock").unlink()
        return ask(file)

    monkeypatch.setattr(lock, "lock", removed)
    with lock.hold(tmp_path):
        assert len(asked) == 2 and (tmp_path / ".lock").is_file()
