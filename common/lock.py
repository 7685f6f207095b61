"""One process at a time writes into a run's folder: `.lock` in it says which.

The operating system locks that file and lets go when the process ends, however it ends; the workers
that it forked do not keep it (POSIX record locks are not theirs). This holds among all processes of
a machine, those in containers too, and over NFS, which passes such locks on.

Where a system has no locks, or keeps them to one machine (NFS mounted with nolock), a heartbeat
tells: the owner touches the file every BEAT seconds, and who finds the file of another machine
watches it for PATIENCE seconds before taking it over. A process that is halted for longer loses its
folder there, and of two that start in the same second both may get it.
"""

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError

if os.name == "posix":
    import fcntl
else:
    import msvcrt

BEAT, PATIENCE = 3.0, 12.0  # seconds
HELD: set[Path] = set()  # this process's own, which the system does not keep it from


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep out of `folder`, meanwhile, every other process that asks.

    Raises UserError where one has it, or where nothing can be written there.
    """
    path, ended = folder.resolve() / ".lock", threading.Event()
    if path in HELD:
        raise in_use(folder, owner())
    try:
        file = acquire(folder, path)
    except OSError as error:
        raise UserError(f"cannot write into the run folder {folder}: {error.strerror}") from None
    HELD.add(path)

    def beat() -> None:
        while not ended.wait(BEAT):
            with suppress(OSError):
                os.utime(path)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        with suppress(OSError):  # Windows removes no open file: an empty one stays
            os.ftruncate(file, 0)
            path.unlink()
        os.close(file)
        HELD.discard(path)


def acquire(folder: Path, path: Path) -> int:
    """The file at `path`, open and locked, with a note of whose it is."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked, note = lock(file), read_note(file)
            elsewhere = note and (locked is None or note.get("machine") != owner()["machine"])
            if locked is False or elsewhere and beats(folder, file):
                raise in_use(folder, note)
            # not if it was removed meanwhile, by who had it before
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                os.ftruncate(file, 0)
                os.lseek(file, 0, os.SEEK_SET)
                os.write(file, json.dumps(owner()).encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def lock(file: int) -> bool | None:
    """Ask the operating system: False where another process has it, None where it has no locks."""
    try:
        if os.name == "posix":
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(file, 1 << 20, os.SEEK_SET)  # far off: others may read the note
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        return True
    except OSError as error:
        taken = error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
        return False if taken else None


def beats(folder: Path, file: int) -> bool:
    """Whether somebody touches the file. The clocks of two machines are not compared."""
    print(f"{folder} was in use on another machine: looking if it still is", file=sys.stderr)
    before, end = os.fstat(file).st_mtime_ns, time.monotonic() + PATIENCE
    while os.fstat(file).st_mtime_ns == before:
        if time.monotonic() > end:
            return False
        time.sleep(BEAT / 10)
    return True


def owner() -> dict:
    """This process. A machine's name for itself is, on Linux, one that its containers share."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = boot.read_text().strip() if boot.is_file() else socket.gethostname()
    return {"machine": machine, "host": socket.gethostname(), "pid": os.getpid()}


def read_note(file: int) -> dict:
    """Who has the file; {} when nobody has written that yet."""
    os.lseek(file, 0, os.SEEK_SET)
    try:
        note = json.loads(os.read(file, 4096))
        return note if isinstance(note, dict) else {}
    except ValueError:
        return {}


def in_use(folder: Path, note: dict) -> UserError:
    who = f"process {note.get('pid')} on {note.get('host')}" if note else "another process"
    return UserError(
        f"{folder} is in use: {who} is writing into it; wait until it ends, or take another folder"
    )
