"""A warm process: a Python that has torch and the other libraries imported, but nothing of this
repository, and forks itself for every command that a test gives it.

A command spends 1.5 to 2 s on imports before it does anything, and the tests start some hundred. A
fork goes on where an interpreter begins: it has the working directory, environment, streams,
`sys.argv` and `sys.path` that it was asked for, runs the file, module or code as `__main__`, and
ends as an interpreter does, with its exit functions, its last output and its status.

What a fork cannot show is how libraries are imported: which ones, what they say, and what they read
of the environment. `can_be_warm` says which commands are not for it. Tests of the start itself ask
for a `cold` process, and so do those that stand for what a user types (`tests/running.py`).

Started by its path, this file is the warm process itself.
"""

import atexit
import functools
import gc
import importlib.machinery
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = [
    "fasteners", "matplotlib.backends.backend_agg", "matplotlib.figure", "numpy", "pandas",
    "safetensors.torch", "sklearn.metrics", "torch", "torch._dynamo", "torch.utils.data",
    "torchvision.datasets", "torchvision.transforms.v2", "tqdm",
]  # fmt: skip
INTERRUPTED = 256  # no status that a command can end with
# what no library reads while it is imported: a command may have another value of it
FREE = {"COLUMNS", "GLOO_SOCKET_IFNAME", "PLAYGROUND_DATA", "PYTHONPATH"}
# what libraries write there themselves when they are imported; and later: tests/conftest.py
FREE |= {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"}


# ---- what a test sees of it ----


def usual(environment: dict[str, str]) -> dict[str, str]:
    """What libraries may read at their import. An empty PYTHON… is as none."""
    return {
        k: v
        for k, v in environment.items()
        if k not in FREE and not k.startswith("PYTEST_") and (v or not k.startswith("PYTHON"))
    }


# before any test changes it; CUDA_VISIBLE_DEVICES is that of all tests but the GPU's
USUAL = usual(os.environ) | {"CUDA_VISIBLE_DEVICES": ""}


def can_be_warm(words: list[str], cwd: Path, environment: dict[str, str]) -> bool:
    """Whether `python *words` may be a fork. It has no options of Python's own, such as -B, and is
    not torchrun. Neither the environment nor PYTHONPATH may have changed what libraries become."""
    if words[0] in ("-c", "-m"):
        plain = len(words) > 1 and not words[1].startswith("torch.")
    else:
        plain = (Path(cwd) / words[0]).is_file()
    clean = usual(environment) == USUAL and environment.get("PYTHONPATH", "") in ("", str(ROOT))
    return plain and clean and server() is not None


@functools.cache
def server() -> socket.socket | None:
    """Where requests go to; None where processes cannot be forked safely."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    ours, its = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, __file__, str(its.fileno())], env=USUAL, pass_fds=[its.fileno()],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    its.close()

    def stop():
        with suppress(OSError):  # it has ended already
            ours.shutdown(socket.SHUT_RDWR)
        process.wait()

    atexit.register(stop)
    return ours if ours.recv(1) == b"1" else None


class Process:
    """What subprocess.Popen would be, of a fork of the warm process."""

    def __init__(
        self, words: list[str], cwd: Path, env: dict[str, str], text: bool = False, stdin=None,
        stdout=None, stderr=None, start_new_session: bool = False,
    ):  # fmt: skip
        self.args, self.returncode, self.readers = [sys.executable, *words], None, {}
        self.stdin, its_stdin = opened(stdin, 0, text)
        self.stdout, its_stdout = opened(stdout, 1, text)
        self.stderr, its_stderr = opened(stderr, 2, text)
        its = [its_stdin, its_stdout, its_stdout if stderr == subprocess.STDOUT else its_stderr]
        self.control, remote = socket.socketpair()
        socket.send_fds(server(), [b"."], [remote.fileno(), *its])
        remote.close()
        for number, given in zip(its, (stdin, stdout, stderr), strict=True):
            if given in (subprocess.PIPE, subprocess.DEVNULL):
                os.close(number)
        request = {"words": words, "cwd": str(cwd), "env": env, "session": start_new_session}
        self.control.sendall(json.dumps(request).encode() + b"\n")
        self.answers = self.control.makefile("r")
        self.pid = self.answer("pid")

    def answer(self, name: str) -> int:
        """Its "pid", or its "status" when it has ended."""
        with suppress(ConnectionResetError):
            if found := json.loads(self.answers.readline() or "{}"):
                return found[name]
        raise RuntimeError("the warm process has ended")

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self.control], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = os.waitstatus_to_exitcode(self.answer("status"))
            self.answers.close()
            self.control.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple:
        """What is left of its output, and its end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.stdin and not self.stdin.closed:
            with suppress(BrokenPipeError):
                self.stdin.close()
        for stream in {self.stdout, self.stderr} - {None, *self.readers}:
            self.readers[stream] = Reader(stream)
        for reader in self.readers.values():
            reader.join(left(deadline))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(left(deadline))
        return tuple(
            self.readers[stream].content if stream else None
            for stream in (self.stdout, self.stderr)
        )

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Reader(threading.Thread):
    """Reads a stream to its end, beside the others."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream, self.content = stream, None
        self.start()

    def run(self):
        with self.stream:
            self.content = self.stream.read()


def left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def opened(given, number: int, text: bool) -> tuple:
    """(our end of a pipe or None, the descriptor that the process gets)."""
    if given == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    if given != subprocess.PIPE:
        inherited = given in (None, subprocess.STDOUT)
        return None, number if inherited else given if isinstance(given, int) else given.fileno()
    reading, writing = os.pipe()
    ours, its = (writing, reading) if number == 0 else (reading, writing)
    stream = open(ours, "wb" if number == 0 else "rb")  # noqa: SIM115
    return io.TextIOWrapper(stream, write_through=True) if text else stream, its


# ---- the warm process ----


def serve(requests: socket.socket) -> list[int]:
    """Fork for every request, and tell the end of each fork. Returns in the forks alone, with the
    descriptors that were sent along."""
    poll, running = select.poll(), {}
    poll.register(requests, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            if number in running:
                end(number, *running.pop(number))
                poll.unregister(number)
                os.close(number)
                continue
            _, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
            if not descriptors:
                os._exit(0)
            if not (pid := os.fork()):
                for other, (_, control) in running.items():
                    os.close(other)
                    os.close(control)
                requests.close()
                return descriptors
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            number = os.pidfd_open(pid)
            running[number] = pid, descriptors[0]
            poll.register(number, select.POLLIN)


def end(number: int, pid: int, control: int) -> None:
    """Tell the end of a fork to whoever waits for it."""
    _, status = os.waitpid(pid, 0)
    with suppress(OSError), socket.socket(fileno=control) as waiting:
        waiting.sendall(json.dumps({"status": status}).encode() + b"\n")


def begin(descriptors: list[int]) -> dict:
    """Be in the place, and have the streams, that the request asks for; gives the request."""
    with socket.socket(fileno=descriptors[0]) as control:
        request = json.loads(control.makefile("r").readline())
        for target, descriptor in enumerate(descriptors[1:]):
            os.dup2(descriptor, target)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        if request["session"]:
            os.setsid()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        new_streams()
        reseed()
        control.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    gc.enable()
    return request


def new_streams() -> None:
    """As Python makes them at its start, since they know what they lead to."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old, mode = getattr(sys, name), "w" if number else "r"
        unbuffered = old.write_through  # PYTHONUNBUFFERED
        buffer = open(  # noqa: SIM115
            number, f"{mode}b", 0 if number and unbuffered else -1, closefd=False
        )
        getattr(buffer, "raw", buffer).name = f"<{name}>"
        lines = not unbuffered and (number == 2 or buffer.isatty())
        new = io.TextIOWrapper(
            buffer, old.encoding, old.errors, "\n", line_buffering=lines, write_through=unbuffered
        )
        new.mode = mode
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def reseed() -> None:
    """What is drawn without a seed differs from fork to fork; Python's own `random` sees to it."""
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].seed()


def search_path(kind: str, given: str | None, libraries: list[str]) -> list[str]:
    """sys.path: the script's folder, those of PYTHONPATH, and what every Python has."""
    folder = os.path.dirname(os.path.realpath(kind))
    first = {"-c": "", "-m": os.getcwd()}.get(kind, folder)
    places = [os.path.abspath(place) for place in given.split(os.pathsep)] if given else []
    return [first, *dict.fromkeys([*places, *libraries])]


def execute(words: list[str], libraries: list[str]) -> None:
    """What `python *words` does once it has begun."""
    main = types.ModuleType("__main__")
    for name in {"__main__", "__mp_main__"} & sys.modules.keys():  # the latter is joblib's
        sys.modules[name] = main
    main.__dict__.update(
        __builtins__=sys.modules["builtins"], __annotations__={},
        __loader__=importlib.machinery.BuiltinImporter,
    )  # fmt: skip
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    kind, sys.orig_argv = words[0], [sys.executable, *words]
    sys.argv = words if kind not in ("-c", "-m") else [kind, *words[2:]]
    sys.path[:] = search_path(kind, os.environ.get("PYTHONPATH"), libraries)
    sys.path_importer_cache.clear()
    if kind == "-m":
        runpy._run_module_as_main(words[1])  # what Python itself calls
    elif kind == "-c":
        exec(compile(words[1], "<string>", "exec", dont_inherit=True), main.__dict__)
    else:
        path = os.path.join(os.getcwd(), kind)
        loader = importlib.machinery.SourceFileLoader("__main__", path)
        main.__dict__.update(__file__=path, __cached__=None, __loader__=loader)
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
        exec(code, main.__dict__)


def status_of(words: list[str], libraries: list[str]) -> int:
    """Run the command; the status that Python would end with. An error is shown."""
    try:
        execute(words, libraries)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    except BaseException as error:
        trace = error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    return 0


def leave(status: int) -> None:
    """Python's own end, but that libraries are not taken apart, which takes longer than most runs.
    Where the streams cannot be written, it is Python's own."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.modules["__main__"].__dict__.clear()
    gc.collect()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(status)
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


def warm_up() -> bool:
    """Import the libraries; whether what was imported can be forked: there is but one thread."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is imported is not looked through again, in no fork
    gc.disable()
    return threading.active_count() == 1 == len(os.listdir("/proc/self/task"))


def main() -> None:
    libraries = sys.path[1:]
    sys.path.pop(0)  # tests/
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # of a terminal: for the forks alone
    requests = socket.socket(fileno=int(sys.argv[1]))
    alone = warm_up()
    requests.sendall(b"1" if alone else b"0")
    if not alone:
        return
    request = begin(serve(requests))
    leave(status_of(request["words"], libraries))


if __name__ == "__main__":
    main()
