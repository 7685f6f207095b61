"""What every test shares: no data folder from the environment, and the form of a user's error."""

from contextlib import contextmanager

import pytest

from common.errors import UserError


@pytest.fixture(autouse=True)
def no_data_from_the_environment(monkeypatch):
    monkeypatch.delenv("PLAYGROUND_DATA", raising=False)


@contextmanager
def user_error(*parts, kind=UserError):
    """The block raises a UserError of one line that holds all of `parts`; gives what it raised."""
    with pytest.raises(kind) as caught:
        yield caught
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    for part in parts:
        assert str(part) in message
