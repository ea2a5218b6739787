"""Fixtures of the end-to-end tests: ``asterisk``, ``phone``, and the rule when they run."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

# The harness and what all tests share are packages of the tests alone; nothing installs them.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.asterisk import Asterisk
from harness.jail import reason_not_to_run
from harness.phone import Phone, PhoneMaker

_why_not = functools.cache(reason_not_to_run)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs the real Asterisk where there is none; fail instead where it is required."""
    if item.get_closest_marker("asterisk") is None or (reason := _why_not()) is None:
        return
    if os.environ.get("ARI_GEMINI_REQUIRE_ASTERISK") == "1":
        pytest.fail(f"the tests of the real Asterisk must run here: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def one_asterisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asterisk]:
    """The Asterisk that all tests share; a test asks for ``asterisk`` instead."""
    asterisk = Asterisk(tmp_path_factory.mktemp("asterisk"))
    try:
        asterisk.start()
        yield asterisk
    finally:
        asterisk.close()


@pytest.fixture
async def asterisk(one_asterisk: Asterisk) -> AsyncIterator[Asterisk]:
    """A running Asterisk without channels or bridges. A test that leaves any behind fails.

    A test may kill it; the next one finds it restarted.
    """
    if not one_asterisk.running:
        await one_asterisk.restart()
    yield one_asterisk
    if one_asterisk.running:
        try:
            await one_asterisk.empty()
        except AssertionError:
            await one_asterisk.restart()
            raise


@pytest.fixture
async def phone(asterisk: Asterisk, tmp_path: Path) -> AsyncIterator[PhoneMaker]:
    """Makes phones: ``alice = await phone("1001")``; further arguments are those of ``Phone``.

    All end with the test. A call still up then is hung up first, so that ``asterisk`` finds no channel of a
    phone that vanished.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def make(number: str = "1001", **options: Any) -> Phone:
            made = Phone(tmp_path / number, asterisk, number, **options)
            await stack.enter_async_context(made)
            stack.push_async_callback(made.hang_up)
            return made

        yield make
