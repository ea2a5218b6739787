from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.gemini import rate
from ari_gemini.gemini.rate import Bucket, Clients


def test_a_burst_and_then_the_rate() -> None:
    bucket = Bucket(2.0, 3)
    assert [bucket.take(100.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert bucket.take(100.25) == 0.25
    assert bucket.take(100.5) == 0.0
    assert bucket.take(100.5) == 0.5
    assert [bucket.take(1e6) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5], "never more than the burst"


@given(
    st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=200),
    st.floats(0.1, 20),
    st.integers(1, 20),
)
def test_never_more_than_burst_and_rate_allow(steps: list[float], per_second: float, burst: int) -> None:
    bucket, now, taken = Bucket(per_second, burst), 0.0, 0
    for step in steps:
        now += step
        wait = bucket.take(now)
        taken += wait == 0.0
        assert 0.0 <= wait <= 1 / per_second
    assert taken <= burst + now * per_second + 1e-6


def test_each_client_has_its_own() -> None:
    clients = Clients(1.0, 1)
    assert clients.take("192.0.2.1", 0.0) == 0.0
    assert clients.take("192.0.2.1", 0.0) == 1.0
    assert clients.take("192.0.2.2", 0.0) == 0.0
    assert clients.take("192.0.2.1", 1.0) == 0.0


def test_the_longest_quiet_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MAX_CLIENTS", 2)
    clients = Clients(1.0, 1)
    for address in ("a", "b", "a", "c"):
        clients.take(address, 0.0)
    assert len(clients) == 2
    assert clients.take("a", 0.0) == 1.0, "remembered"
    assert clients.take("b", 0.0) == 0.0, "forgotten"


def test_one_ipv6_host_is_one_client() -> None:
    clients = Clients(1.0, 1)
    assert clients.take("2001:db8:1:2::1", 0.0) == 0.0
    assert clients.take("2001:db8:1:2:3:4:5:6", 0.0) == 1.0
    assert clients.take("2001:db8:1:3::1", 0.0) == 0.0
