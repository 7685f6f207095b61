"""One process at a time writes into a run's folder.

The operating system locks the file `.lock` in it, and lets go when the process ends, however it
ends; workers that it forked do not keep it. This holds among all processes of a machine, those in
containers too, and over NFS, which passes such locks on. A mount that keeps locks to one machine
(NFS with nolock) cannot tell the processes of two machines apart.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fasteners import InterProcessLock

from common.errors import UserError

HELD: set[Path] = set()  # this process's own, which the system does not keep it from


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep out of `folder`, meanwhile, every other process that asks. Raises UserError where one
    has it, or where nothing can be written there."""
    path = folder.resolve() / ".lock"
    lock = InterProcessLock(path)
    try:
        if path in HELD or not lock.acquire(blocking=False):
            who = "this process" if path in HELD else "another process"
            advice = "wait until it ends, or take another folder (--run-dir; of a study: --output)"
            raise UserError(f"{folder} is in use: {who} is writing into it; {advice}")
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {path.name}: {error.strerror}") from None
    except threading.ThreadError:  # what the library says of a file system without locks
        print(f"{folder} cannot be locked: start no second run in it", file=sys.stderr)
    HELD.add(path)
    try:
        yield  # the file stays afterwards: another process may have opened it and ask for the lock
    finally:
        HELD.discard(path)
        if lock.acquired:
            lock.release()
