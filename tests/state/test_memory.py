"""The store in memory: what expires, and how much there may be."""

from __future__ import annotations

from support.states import state

from ari_gemini.state.memory import MAX_CALLS, MemoryStore


async def test_records_expire() -> None:
    now = 50.0
    store = MemoryStore(lifetime=10, clock=lambda: now)
    await store.save(state("a"))
    now = 59.9
    assert await store.load("a") is not None
    await store.save(state("b"))
    now = 60.0
    assert await store.load("a") is None
    assert await store.load("b") is not None


async def test_saving_again_prolongs_and_clears_what_has_expired() -> None:
    now = 0.0
    store = MemoryStore(lifetime=10, clock=lambda: now)
    await store.save(state("a"))
    await store.save(state("b"))
    now = 9.0
    await store.save(state("a"))
    now = 11.0
    await store.save(state("c"))
    assert list(store._records) == ["a", "c"]


async def test_a_sweep_clears_what_has_expired_and_nothing_else() -> None:
    now = 0.0
    store = MemoryStore(lifetime=10, clock=lambda: now)
    await store.sweep()
    await store.save(state("a"))
    now = 1.0
    await store.save(state("b"))
    now = 5.0
    await store.save(state("c"))
    now = 11.0
    await store.sweep()
    assert list(store._records) == ["c"]
    now = 15.0
    await store.sweep()
    assert not store._records


async def test_the_oldest_of_too_many_are_dropped() -> None:
    store = MemoryStore()
    for number in range(MAX_CALLS + 2):
        await store.save(state(str(number)))
    assert await store.load("1") is None
    assert await store.load("2") is not None
    assert len(store._records) == MAX_CALLS
