"""A real Redis for the tests of this room."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.redis_server import RedisServer


@pytest.fixture(scope="session")
def one_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis that tests share who do it no harm; no two use the same call."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
