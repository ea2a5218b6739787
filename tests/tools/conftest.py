"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """No child process, zombie or descriptor that was not there before: other tests may keep theirs."""
    us = psutil.Process()
    children, descriptors = set(us.children(recursive=True)), us.num_fds()
    yield
    assert set(us.children(recursive=True)) - children == set()
    assert us.num_fds() <= descriptors
