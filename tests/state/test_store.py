"""Every store keeps the same promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from support.redis_server import RedisServer
from support.states import state

from ari_gemini.errors import StateError, StateUnavailable
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.state.directory import DirectoryStore
from ari_gemini.state.memory import MemoryStore
from ari_gemini.state.record import MAX_BYTES
from ari_gemini.state.redis import RedisStore
from ari_gemini.state.store import StateStore, key_of, within

STORES = ("memory", "directory", "redis")


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    opened: StateStore
    match request.param:
        case "memory":
            opened = MemoryStore()
        case "directory":
            opened = DirectoryStore(tmp_path / "calls", timeout=10)
        case _:
            server: RedisServer = request.getfixturevalue("one_redis")
            opened = RedisStore(SecretStr(server.url), timeout=10)
    yield opened
    await opened.close()


async def test_what_is_saved_is_loaded(store: StateStore) -> None:
    call = uuid4().hex
    assert await store.load(call) is None
    await store.save(state(call))
    assert await store.load(call) == state(call)
    await store.save(state(call, greeted=False))
    assert await store.load(call) == state(call, greeted=False)
    await store.delete(call)
    assert await store.load(call) is None


async def test_calls_are_apart(store: StateStore) -> None:
    calls = [uuid4().hex for _ in range(20)]
    await asyncio.gather(*(store.save(state(call, caller_name=call)) for call in calls))
    found = await asyncio.gather(*(store.load(call) for call in calls))
    assert [each and (each.call_id, each.caller_name) for each in found] == [(call, call) for call in calls]
    await store.delete(calls[0])
    assert await store.load(calls[1]) is not None


async def test_an_unknown_call_may_be_forgotten(store: StateStore) -> None:
    await store.delete(uuid4().hex)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/", ".", "a\0b", "x" * 1000, "\n* \r\nFLUSHALL\r\n", "ü"]
)
async def test_a_call_may_have_any_name(store: StateStore, name: str) -> None:
    await store.save(state(name))
    assert await store.load(name) == state(name)
    await store.delete(name)
    assert await store.load(name) is None


async def test_what_cannot_be_kept_leaves_what_was(store: StateStore) -> None:
    call = uuid4().hex
    await store.save(state(call))
    with pytest.raises(StateError):
        await store.save(state(call, unconfirmed=(FunctionResult("1", "f", {"result": "x" * MAX_BYTES}),)))
    assert await store.load(call) == state(call)


async def test_a_sweep_leaves_what_is_good(store: StateStore) -> None:
    await store.sweep()
    call = uuid4().hex
    await store.save(state(call))
    await store.sweep()
    assert await store.load(call) == state(call)


async def test_closing_twice_does_no_harm(store: StateStore) -> None:
    await store.save(state(uuid4().hex))
    await store.close()
    await store.close()


@given(st.text(), st.text())
def test_keys_are_plain_and_differ(one: str, other: str) -> None:
    assert len(key_of(one)) == 64
    assert int(key_of(one), 16) >= 0
    assert (key_of(one) == key_of(other)) is (one == other)


async def test_a_limit_is_a_limit() -> None:
    with pytest.raises(StateUnavailable, match=r"no answer within 0\.001 s"):
        async with within(0.001):
            await asyncio.Event().wait()
    async with within(10):
        pass
