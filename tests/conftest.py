"""What every test shares: one thread, no data folder from the environment, a user error's form."""

import os
from contextlib import contextmanager

import pytest

# pytest has a process per core; and bit for bit is promised for equal conditions, also of the
# processes that tests start
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # torch reads them at its import

from common.errors import UserError


@pytest.fixture(autouse=True)
def no_data_from_the_environment(monkeypatch):
    monkeypatch.delenv("PLAYGROUND_DATA", raising=False)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Some seven thousand times: what it is for, a power failure, no test can make."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(autouse=True)
def empty_pictures(request, monkeypatch):
    """Where a test does not say that it looks at them: one takes longer than a small run."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *to, **how: None)


@contextmanager
def user_error(*parts, kind=UserError):
    """The block raises a UserError of one line that holds all of `parts`; gives what it raised."""
    with pytest.raises(kind) as caught:
        yield caught
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    for part in parts:
        assert str(part) in message
