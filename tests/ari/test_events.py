"""What Asterisk's JSON means. The samples are events of a real Asterisk 22.10.1, shortened."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.ari import events
from ari_gemini.ari.events import (
    ApplicationReplaced,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    ChannelInfo,
    ChannelStateChange,
    Dial,
    EventParser,
    StasisEnd,
    StasisStart,
    parse_application,
    parse_asterisk_info,
    parse_bridge,
    parse_channel,
)

CHANNEL: dict[str, Any] = {
    "id": "1795362191.1",
    "name": "PJSIP/trunk-00000001",
    "state": "Ring",
    "protocol_id": "abc",
    "caller": {"name": "Alice", "number": "4711"},
    "connected": {"name": "Bob", "number": "12"},
    "accountcode": "",
    "dialplan": {
        "context": "from-trunk",
        "exten": "700",
        "priority": 3,
        "app_name": "Stasis",
        "app_data": "ari-gemini,default",
    },
    "creationtime": "2026-11-22T15:43:11.502+0000",
    "language": "en",
}

INFO = ChannelInfo(
    id="1795362191.1",
    name="PJSIP/trunk-00000001",
    state="Ring",
    caller_number="4711",
    caller_name="Alice",
    connected_number="12",
    connected_name="Bob",
    called_number="700",
    context="from-trunk",
    priority=3,
    app_name="Stasis",
    app_data="ari-gemini,default",
    creationtime="2026-11-22T15:43:11.502+0000",
)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    frame = {"type": kind, "timestamp": "2026-11-22T15:43:11.502+0000", "application": "ari-gemini"}
    return {**frame, "channel": CHANNEL, **fields}


EVENTS = [
    (event("StasisStart", args=["default", "x"]), StasisStart(INFO, ("default", "x"))),
    (event("StasisStart", args=[], replace_channel={"id": "old"}), StasisStart(INFO, (), ChannelInfo("old"))),
    (event("StasisEnd"), StasisEnd(INFO)),
    (
        event("ChannelDestroyed", cause=16, cause_txt="Normal Clearing"),
        ChannelDestroyed(INFO, 16, "Normal Clearing"),
    ),
    (event("ChannelHangupRequest", cause=32, soft=True), ChannelHangupRequest(INFO, 32)),
    (event("ChannelHangupRequest"), ChannelHangupRequest(INFO, 0)),
    (event("ChannelDtmfReceived", digit="#", duration_ms=100), ChannelDtmfReceived(INFO, "#", 100)),
    (event("ChannelDtmfReceived", digit="a", duration_ms=-1), ChannelDtmfReceived(INFO, "A", 0)),
    (event("ChannelStateChange"), ChannelStateChange(INFO)),
    ({"type": "Dial", "dialstatus": "BUSY", "peer": CHANNEL, "caller": {"id": "x"}}, Dial(INFO, "BUSY")),
    ({"type": "Dial", "dialstatus": "", "peer": CHANNEL}, Dial(INFO)),
    (
        {
            "type": "Dial",
            "dialstatus": "CANCEL",
            "peer": CHANNEL,
            "forward": "1009",
            "forwarded": {"id": "2"},
        },
        Dial(INFO, "CANCEL", ChannelInfo("2")),
    ),
    ({"type": "Dial", "dialstatus": "CANCEL", "peer": CHANNEL, "forwarded": {}}, Dial(INFO, "CANCEL")),
    ({"type": "ApplicationReplaced", "application": "ari-gemini"}, ApplicationReplaced("ari-gemini")),
]


@pytest.mark.parametrize(("raw", "expected"), EVENTS)
def test_events_are_understood(raw: dict[str, Any], expected: events.Event) -> None:
    parser = EventParser()
    assert parser.parse(raw) == expected
    assert (parser.unknown, parser.malformed) == (0, 0)


@pytest.mark.parametrize("kind", ["ChannelVarset", "BridgeDestroyed", "SomethingNew"])
def test_events_no_call_needs_are_counted(kind: str) -> None:
    parser = EventParser()
    assert parser.parse(event(kind)) is None
    assert (parser.unknown, parser.malformed) == (1, 0)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "StasisStart",
        {},
        {"type": 7},
        {"type": ""},
        {"type": "StasisStart"},
        {"type": "StasisStart", "channel": {}},
        {"type": "StasisStart", "channel": {"id": ""}},
        {"type": "StasisEnd", "channel": "1795362191.1"},
        {"type": "Dial", "dialstatus": "BUSY", "channel": CHANNEL},
        event("ChannelDtmfReceived"),
        event("ChannelDtmfReceived", digit="12"),
        event("ChannelDtmfReceived", digit="E"),
        event("ChannelDtmfReceived", digit=5),
    ],
)
def test_malformed_events_are_counted(raw: object) -> None:
    parser = EventParser()
    assert parser.parse(raw) is None
    assert (parser.unknown, parser.malformed) == (0, 1)


def test_a_channel_needs_no_more_than_an_id() -> None:
    assert parse_channel({"id": "a"}) == ChannelInfo("a")


def test_fields_of_other_types_count_as_absent() -> None:
    odd = {"id": "a", "name": 1, "caller": [], "dialplan": {"exten": None, "priority": True}}
    assert parse_channel(odd) == ChannelInfo("a")
    started = EventParser().parse({"type": "StasisStart", "channel": {"id": "a"}, "args": ["x", 1, None]})
    assert started == StasisStart(ChannelInfo("a"), ("x",))


def test_bridges_applications_and_asterisk_itself() -> None:
    bridge = parse_bridge({"id": "b", "name": "n", "bridge_type": "mixing", "channels": ["1", "2"]})
    assert bridge == events.BridgeInfo("b", "n", "mixing", "", ("1", "2"))
    application = parse_application({"name": "a", "channel_ids": ["1"], "bridge_ids": []})
    assert application == events.ApplicationInfo("a", ("1",), ())
    info = parse_asterisk_info({"system": {"version": "22.10.1", "entity_id": "02:fc"}, "status": {}})
    assert info == events.AsteriskInfo("22.10.1", "02:fc", "")


@pytest.mark.parametrize("parse", [parse_channel, parse_bridge, parse_application, parse_asterisk_info])
@pytest.mark.parametrize("raw", [None, 3, [], {}, {"id": 3}, {"name": None}, {"system": {}}])
def test_what_is_not_a_resource_is_none(parse: Any, raw: object) -> None:
    assert parse(raw) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from([str(raw["type"]) for raw, _ in EVENTS])
FIELDS = st.sampled_from(
    ["channel", "args", "cause", "cause_txt", "digit", "replace_channel", "peer", "forwarded"]
)


@given(KINDS, st.dictionaries(FIELDS, JSON), st.dictionaries(st.sampled_from(sorted(CHANNEL)), JSON))
@settings(max_examples=150, deadline=None)
def test_no_json_raises(kind: str, fields: dict[str, Any], channel: dict[str, Any]) -> None:
    parser = EventParser()
    for raw in ({"type": kind, **fields}, event(kind, **{**fields, "channel": {**CHANNEL, **channel}})):
        before = parser.unknown + parser.malformed
        parsed = parser.parse(raw)
        assert (parsed is None) == (parser.unknown + parser.malformed == before + 1)
