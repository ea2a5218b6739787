"""The register of calls, and the meeting of a call with its media connection."""

from __future__ import annotations

from uuid import uuid4

import pytest

from ari_gemini.call.registry import Registry
from ari_gemini.errors import CallEnded, Cause


class Listed:
    def __init__(self, name: str) -> None:
        self.id = name

    def end(self, cause: Cause, detail: str = "") -> None:
        raise AssertionError("the registry ends nobody")


def test_a_call_is_listed_while_it_lasts() -> None:
    registry, call = Registry(1), Listed("a")
    with registry.admit(call):
        assert registry.calls == {"a": call}
    assert registry.calls == {}


def test_a_call_that_fails_leaves_the_list() -> None:
    registry = Registry(1)
    with pytest.raises(ZeroDivisionError), registry.admit(Listed("a")):
        raise ZeroDivisionError
    assert registry.calls == {}


def test_more_calls_than_the_limit_are_refused() -> None:
    registry = Registry(2)
    with registry.admit(Listed("a")), registry.admit(Listed("b")):
        with pytest.raises(CallEnded) as refused, registry.admit(Listed("c")):
            raise AssertionError("let in")
        assert refused.value.cause is Cause.OVERLOADED
        assert set(registry.calls) == {"a", "b"}
    with registry.admit(Listed("c")):
        assert set(registry.calls) == {"c"}


def test_an_adopted_caller_is_let_in_beyond_the_limit_and_newcomers_are_not() -> None:
    registry = Registry(1)
    with registry.admit(Listed("a")), registry.admit(Listed("b"), adopted=True):
        with registry.admit(Listed("c"), adopted=True):
            assert set(registry.calls) == {"a", "b", "c"}
        with pytest.raises(CallEnded) as refused, registry.admit(Listed("d")):
            raise AssertionError("let in")
        assert refused.value.cause is Cause.OVERLOADED
    with registry.admit(Listed("b"), adopted=True), pytest.raises(CallEnded), registry.admit(Listed("d")):
        raise AssertionError("the adopted one has a place like any other")
    with registry.admit(Listed("d")):
        assert set(registry.calls) == {"d"}


def test_an_adopted_caller_has_one_call_alone() -> None:
    registry = Registry(5)
    with registry.admit(Listed("a")):
        with pytest.raises(CallEnded) as refused, registry.admit(Listed("a"), adopted=True):
            raise AssertionError("let in")
        assert refused.value.cause is Cause.UNKNOWN_CALL


def test_a_second_call_of_the_same_id_is_refused_and_the_first_stays() -> None:
    registry, first = Registry(5), Listed("a")
    with registry.admit(first):
        with pytest.raises(CallEnded) as refused, registry.admit(Listed("a")):
            raise AssertionError("let in")
        assert refused.value.cause is Cause.UNKNOWN_CALL
        assert registry.calls == {"a": first}
    assert registry.calls == {}


def test_a_connection_goes_to_the_call_that_expects_it(make_connection) -> None:
    registry, mine, other = Registry(1), uuid4(), uuid4()
    arrived: list[str] = []
    with (
        registry.expect(mine, lambda connection: arrived.append(f"mine {connection.uuid}")),
        registry.expect(other, lambda connection: arrived.append("other")),
    ):
        assert registry.deliver(make_connection(uuid=mine)) is True
        assert registry.deliver(make_connection(uuid=mine)) is False, "only once"
        assert registry.deliver(make_connection()) is False
    assert arrived == [f"mine {mine}"]


def test_nobody_is_expected_for_ever(make_connection) -> None:
    registry, uuid = Registry(1), uuid4()
    with registry.expect(uuid, lambda connection: None):
        pass
    assert registry.deliver(make_connection(uuid=uuid)) is False
    with pytest.raises(ZeroDivisionError), registry.expect(uuid, lambda connection: None):
        raise ZeroDivisionError
    assert registry.deliver(make_connection(uuid=uuid)) is False
