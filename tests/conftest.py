"""What every test shares: no data folder from the environment, no GPU, the form of an error."""

from contextlib import contextmanager

import pytest
import torch

from common.errors import UserError


@pytest.fixture(autouse=True)
def no_data_from_the_environment(monkeypatch):
    monkeypatch.delenv("PLAYGROUND_DATA", raising=False)


@pytest.fixture(autouse=True)
def no_gpu_but_where_it_is_tested(request, monkeypatch):
    """A GPU of this machine is for tests/gpu: the others expect the numbers of a CPU."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of processes that a test starts


@pytest.fixture(scope="module")
def one_thread():
    """Bit for bit is promised for equal conditions: also of runs that a module's tests share, and
    of processes that they start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def user_error(*parts, kind=UserError):
    """The block raises a UserError of one line that holds all of `parts`; gives what it raised."""
    with pytest.raises(kind) as caught:
        yield caught
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    for part in parts:
        assert str(part) in message
