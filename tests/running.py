"""Helpers of the tests that train: a script called in this process or started as a user starts it,
small files to learn from, and whether two runs ended alike."""

import csv
import importlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import torch

from common import checkpoint, cli, run
from common.data import ROOT
from GAN.dataset import ring
from LSTM.dataset import templates
from MLP_Manual.dataset import mnist
from tests import warm


def modules() -> list[Path]:
    """All Python files of the repository, and none of an environment that lies in it (.venv)."""
    packages = [path.parent for path in ROOT.glob("*/__init__.py")]
    return [*ROOT.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]


def readme_function(folder: str, name: str) -> Callable:
    """A function that a README defines in one of its blocks of code."""
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    (code,) = (block for block in blocks if f"def {name}(" in block)
    names = {"torch": torch}
    exec(compile(dedent(code), f"{folder}/README.md", "exec"), names)
    return names[name]


# a run of a fraction of a second: the controlled dataset, and a network that need not be good
SMALL = {
    "MLP": ["--dataset", "spirals", "--subset", "256", "--batch-size", "32", "--hidden-sizes", "8"],
    "CNN": ["--dataset", "shapes", "--subset", "128", "--batch-size", "32", "--channels", "4"],
    "ResNet": [
        "--dataset", "shapes", "--subset", "64", "--batch-size", "16", "--model", "resnet9-small",
    ],
    "ViT": [
        "--dataset", "shapes", "--subset", "64", "--batch-size", "16", "--patch-size", "16",
        "--model", "nano-conv",
    ],
    "LSTM": [
        "--dataset", "templates", "--subset", "64", "--batch-size", "16", "--hidden-size", "8",
    ],
    "RNN": [
        "--dataset", "anbn", "--subset", "256", "--batch-size", "4", "--window", "8",
        "--hidden-size", "8", "--sample-length", "20",
    ],
    "Transformer": [
        "--dataset", "reverse", "--subset", "48", "--batch-size", "128", "--embed-dim", "8",
        "--num-heads", "2", "--num-layers", "1", "--feedforward-dim", "8", "--warmup", "1",
    ],
    "VAE": [
        "--dataset", "shapes", "--subset", "64", "--batch-size", "16", "--network", "mlp",
        "--hidden-sizes", "8", "--no-batch-norm",
    ],
    "GAN": [
        "--dataset", "ring", "--subset", "256", "--batch-size", "32", "--hidden-sizes", "8",
    ],
}  # fmt: skip
FOLDERS = [
    "CNN_Manual", "CNN_Torch", "GAN", "LSTM", "MLP_Manual", "MLP_Torch", "RNN_Manual", "ResNet",
    "Transformer_Manual", "Transformer_Torch", "VAE", "ViT",
]  # fmt: skip
MLPS = [folder for folder in FOLDERS if folder.startswith("MLP")]
CNNS = [folder for folder in FOLDERS if folder.startswith("CNN")]
READERS = ["LSTM"]  # of texts, to say what class they are of
WRITERS = ["RNN_Manual"]  # language models: a loss and samples, but no accuracy
TRANSFORMERS = [folder for folder in FOLDERS if folder.startswith("Transformer")]  # nor have these
AUTOENCODERS = ["VAE"]  # a loss, what it is made of, and no accuracy
GAMES = ["GAN"]  # measured by how far samples are from data: neither loss nor accuracy
TWINS = [MLPS, CNNS, TRANSFORMERS]  # hand-written, PyTorch
# newer attention of PyTorch's draws what it drops in another way than a mask of its own does
SAME_DROPOUT = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 5)
DEADLINE = 120  # seconds that a process may take, on a machine that does much else
MARKED = ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"]  # encodings that have a byte-order mark


Process = subprocess.Popen | warm.Process


class Result(NamedTuple):
    code: int
    out: str
    err: str


def kind(folder: str) -> str:
    """What twins have in common."""
    return folder.split("_")[0]


def small(folder: str) -> list[str]:
    return SMALL[kind(folder)]


def few_shapes(monkeypatch) -> None:
    """And few sentences, where no other process has to see the same ones."""
    for split, size in (("train", 100), ("validation", 48), ("test", 32)):
        monkeypatch.setitem(templates.SIZES, split, size)
        for folder in TRANSFORMERS:
            for made in ("dates", "strings"):
                monkeypatch.setitem(script(folder, f"dataset.{made}").SIZES, split, size)
        monkeypatch.setitem(ring.SIZES_SEEDS, split, (5 * size, ring.SIZES_SEEDS[split][1]))
    for split, size in (("train", 80), ("validation", 48), ("test", 32)):
        for folder in ("ResNet", "ViT", "VAE"):
            sizes = script(folder, "dataset.coloured_shapes").SIZES_SEEDS
            monkeypatch.setitem(sizes, split, (size, sizes[split][1]))
    for split, size in (("train", 200), ("validation", 100), ("test", 100)):
        for folder in CNNS:
            sizes = script(folder, "dataset.shapes").SIZES_SEEDS
            monkeypatch.setitem(sizes, split, (size, sizes[split][1]))
    monkeypatch.setattr("VAE.test.SAMPLES", 20)
    small_networks(monkeypatch)


def small_networks(monkeypatch) -> None:
    """The networks of SMALL with fewer channels than their presets have."""
    resnet, vit = script("ResNet", "model").PRESETS, script("ViT", "model").PRESETS
    small = partial(resnet["resnet9-small"], widths=(8, 8, 8))
    monkeypatch.setitem(resnet, "resnet9-small", small)
    monkeypatch.setitem(vit, "nano-conv", partial(vit["nano-conv"], embed_dim=16, depth=2))


def short_strings(monkeypatch) -> None:
    """Of the controlled texts, likewise."""
    sizes = script("RNN_Manual", "dataset.strings").SIZES_SEEDS
    monkeypatch.setitem(sizes, "validation", (480, 2))
    monkeypatch.setitem(sizes, "test", (480, 3))


def script(folder: str, name: str = "train"):
    """The module of a script."""
    return importlib.import_module(f"{folder}.{name}")


def call(capsys, main: Callable, *argv) -> Result:
    """What the script whose main() this is would print and exit with."""
    capsys.readouterr()
    code = 0
    try:
        cli.entry(lambda: main([str(word) for word in argv]))
    except SystemExit as stopped:
        code = stopped.code or 0
    return Result(code, *capsys.readouterr())


def assert_one_line(result: Result, *parts, code: int = 2) -> None:
    """The script ended with `code` and one line that holds `parts`, no traceback."""
    assert result.code == code, result
    assert len(result.err.splitlines()) == 1, result.err
    assert result.err.startswith("error: ")
    for part in parts:
        assert str(part) in result.err


def no_pictures(place: Path) -> dict[str, str]:
    """Names that no picture can have, below a new folder, and what the refusal says."""
    (place / "folder.png").mkdir(parents=True)
    (place / "file").touch()
    return {
        str(place / "x.jpg"): "x.jpg: pictures are PNG files",
        str(place / "folder.png"): "folder.png: something that is no file",
        str(place / "none" / "x.png"): "none is no folder",
        str(place / "file" / "x.png"): "file is no folder",
    }


def environment(**more: str) -> dict[str, str]:
    """Of a process that runs the code of this tree, without the user's data."""
    kept = {k: v for k, v in os.environ.items() if k != "PLAYGROUND_DATA"}
    if sys.platform == "linux":  # several processes find each other without asking for names
        more = {"GLOO_SOCKET_IFNAME": "lo", **more}
    return kept | {"PYTHONPATH": str(ROOT), **more}


def start(
    *command, cwd: Path = ROOT, more: dict | None = None, cold: bool = False, **streams
) -> Process:
    """`python *command`, with its output in pipes, and `more` in its environment: a fork of a
    Python that has the libraries imported, where that is the same (tests/warm.py).

    `cold` is a process of its own, as it is to a user. So are, by their paths, train.py and test.py
    of both MLPs, CNN_Manual/train.py and LSTM/predict.py; by -m, train.py of both Transformers, and
    MLP_Torch's with a bad flag; and what is about imports, streams or what libraries read.
    """
    words, env = [*map(str, command)], environment(**(more or {}))
    options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    if not cold and warm.can_be_warm(words, cwd, env):
        return warm.Process(words, cwd, env, **options)
    return subprocess.Popen([sys.executable, *words], cwd=cwd, env=env, **options)


def finish(process: Process) -> Result:
    out, err = process.communicate(timeout=DEADLINE)
    return Result(process.returncode, out, err)


def free_port() -> int:
    """Below those that the system gives to whoever asks: until torchrun has it, nobody takes it."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as unused, suppress(OSError):
            unused.bind(("127.0.0.1", port))
            return port


def torchrun(*command, processes: int = 2) -> Result:
    """What so many processes of `command` print, on this machine alone."""
    where = ["--master-addr", "127.0.0.1", "--master-port", free_port()]
    where += ["--nproc-per-node", processes]
    return finish(start("-m", "torch.distributed.run", *where, *command))


def wait_until(condition: Callable[[], bool], process: Process) -> None:
    """Poll until the condition holds, while the process runs."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None, f"ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def history(run_dir: Path) -> list[dict[str, str]]:
    """The rows of history.csv; none when there is no such file yet."""
    path = run_dir / "history.csv"
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(value):
    """A checkpoint's state without the time it took."""
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    if isinstance(value, list):
        return [without_seconds(v) for v in value]
    return value


def differences(actual, expected, path: str = "") -> list[str]:
    """Where two nestings of dicts, lists, numbers and tensors are not equal in every bit."""
    if type(actual) is not type(expected):
        return [f"{path}: {type(actual)}, not {type(expected)}"]
    if isinstance(expected, dict):
        if actual.keys() != expected.keys():
            return [f"{path}: {sorted(map(str, actual.keys() ^ expected.keys()))}"]
        return sum((differences(actual[k], expected[k], f"{path}.{k}") for k in expected), [])
    if isinstance(expected, list) and len(actual) == len(expected):
        pairs = enumerate(zip(actual, expected, strict=True))
        return sum((differences(a, e, f"{path}.{i}") for i, (a, e) in pairs), [])
    if isinstance(expected, torch.Tensor):
        same = actual.dtype == expected.dtype and torch.equal(actual, expected)
        return [] if same else [f"{path}: another tensor"]
    return [] if actual == expected else [f"{path}: {actual}, not {expected}"]


def assert_ended_alike(run_dir: Path, other: Path) -> None:
    """Both runs left the same history and checkpoints, but for the time they took."""
    assert without_seconds(history(run_dir)) == without_seconds(history(other)) != []
    for name in ("last.safetensors", "best.safetensors"):
        states = [without_seconds(checkpoint.load(run / name)) for run in (run_dir, other)]
        assert differences(*states) == [], name


class Stop(BaseException):
    """Ends a run as suddenly as kill -9: nothing catches it, nothing is saved."""


def crash(monkeypatch, step: int) -> None:
    """Every step ends with a checkpoint; after that of step number `step`, the run ends."""
    log_step = run.Run.log_step

    def log(self, *args, **kwargs):
        log_step(self, *args, **kwargs)
        if self.step == step:
            raise Stop

    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(run.Run, "log_step", log)


def interrupt(monkeypatch, step: int) -> None:
    """Ctrl-C in step number `step`."""
    log_step = run.Run.log_step

    def log(self, *args, **kwargs):
        if self.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        log_step(self, *args, **kwargs)

    monkeypatch.setattr(run.Run, "log_step", log)


def make_digits(place: Path, dataset: str = "mnist", sizes: tuple[int, int] = (240, 40)) -> Path:
    """The four idx files of `dataset` below `place`, with a few images that can be learned: a
    bright row tells the class."""
    raw = place / mnist.FOLDERS[dataset]
    raw.mkdir(parents=True)
    for seed, ((images_name, labels_name), N) in enumerate(
        zip(mnist.FILES.values(), sizes, strict=True)
    ):
        generator = torch.Generator().manual_seed(seed)
        labels = (torch.arange(N) % 10).to(torch.uint8)
        images = torch.randint(100, (N, 28, 28), generator=generator, dtype=torch.uint8)
        images[torch.arange(N), 2 * labels.long() + 3] = 250
        for name, array in ((images_name, images), (labels_name, labels)):
            header = bytes([0, 0, 8, array.dim()]) + struct.pack(f">{array.dim()}i", *array.shape)
            (raw / name).write_bytes(header + array.numpy().tobytes())
    return place


def marked(text: str, encoding: str) -> bytes:
    """With a byte-order mark, which Python leaves out where the encoding's name says the order."""
    return ("\ufeff" * encoding.endswith("-be") + text).encode(encoding)
