"""Errors that users can mend, names as a terminal may show them, how a script begins and ends."""

import ctypes
import errno
import os
import re
import signal
import sys
import unicodedata
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import NoReturn

NO_MEMORY = re.compile("MemoryError|(out of|allocate|enough) memory")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)  # what a stream's end may say
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of writing


class UserError(Exception):
    """Something the user can put right: printed as one line, exit code 2."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(name: object) -> str:
    r"""A name of a file, class or column on one line: "a\nb" for one with a line break in it.

    Escaped are control characters, line separators, changes of direction, and bytes that are no
    text: what could move a terminal's cursor, hide a part of the line, or stop print().
    """
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if c in TURNING or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        else c
        for c in str(name)
    )


@contextmanager
def reading(path: object, wrong: str = "is no whole run's"):
    """What goes wrong inside, with the content of `path`, is a UserError that names it."""
    try:
        yield
    except Exception as error:  # whatever content that is not as expected may raise
        what = "cannot be read" if isinstance(error, OSError) else wrong
        why = f"{path} {what} ({' '.join(str(error).split())[:300]}): use another run"
        raise error if isinstance(error, UserError) else UserError(why) from None


def prepare_streams() -> None:
    """What an encoding lacks is printed as \\xe9; a closed stream (`<&-`) is an empty one."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure") and name != "stdin":
            stream.reconfigure(errors="backslashreplace")


def keep_memory() -> None:
    """Have glibc keep the memory of freed tensors, unless the user has told it what to do. By
    itself it gives large pieces back, and the next step waits until the system has cleared new."""
    if any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in os.environ):
        return
    with suppress(AttributeError, OSError, TypeError):  # other systems have no mallopt
        # M_MMAP_THRESHOLD, for which old releases take no more than 32 MB, and M_TRIM_THRESHOLD
        for option, size in ((-3, 2**25), (-3, 2**31 - 1), (-1, 2**31 - 1)):
            ctypes.CDLL(None).mallopt(option, size)


def last_words(line: str, code: int) -> NoReturn:
    """End with a line on stderr, where there is room for one. What stdout still holds is lost."""
    for stream in (sys.stdout, sys.stderr):
        try:
            print(line if stream is sys.stderr else "", end="", file=stream, flush=True)
        except OSError:  # or its remainder would raise at exit, where nobody can catch it
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def entry(main: Callable) -> None:
    """Run a script's main(): a UserError is one line and exit code 2, Ctrl-C is exit code 130."""
    prepare_streams()
    keep_memory()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as it was while imports went on
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            main()
        finally:
            sys.stdout.flush()  # here, not at exit, where nobody would catch what it raises
    except UserError as error:
        last_words(f"error: {error}\n", 2)
    except KeyboardInterrupt as interruption:
        last_words(f"{str(interruption) or 'interrupted'}\n", 130)
    except BrokenPipeError:  # `… | head` closed our output
        last_words("", 141)
    except (MemoryError, RuntimeError) as error:  # PyTorch's are of the latter
        if not NO_MEMORY.search(repr(error)):
            raise
        last_words("error: not enough memory: take a smaller --batch-size or network\n", 2)
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        full = f"the output cannot be written ({error.strerror})"
        last_words(f"error: {full if error.filename is None else error}\n", 2)
