"""Channels and bridges as Asterisk writes them down."""

from __future__ import annotations

from ari_gemini.simulator.asterisk_state import SimBridge, SimChannel, timestamp


def test_timestamps_are_asterisks() -> None:
    assert timestamp(1795362191.5029) == "2026-11-22T15:43:11.502+0000"
    assert timestamp(0.0) == "1970-01-01T00:00:00.000+0000"


def test_a_channel_as_a_real_asterisk_wrote_it() -> None:
    channel = SimChannel(
        "1795362191.1",
        "PJSIP/trunk-00000001",
        caller_number="4711",
        caller_name="Alice",
        context="a",
        exten="700",
        app_name="Stasis",
        app_data="ari-gemini,default",
        created="2026-11-22T15:43:11.502+0000",
    )
    assert channel.to_json() == {
        "id": "1795362191.1",
        "name": "PJSIP/trunk-00000001",
        "state": "Ring",
        "protocol_id": "",
        "caller": {"name": "Alice", "number": "4711"},
        "connected": {"name": "", "number": ""},
        "accountcode": "",
        "dialplan": {
            "context": "a",
            "exten": "700",
            "priority": 1,
            "app_name": "Stasis",
            "app_data": "ari-gemini,default",
        },
        "creationtime": "2026-11-22T15:43:11.502+0000",
        "language": "en",
    }
    assert not channel.is_media


def test_a_bridge_as_a_real_asterisk_wrote_it() -> None:
    bridge = SimBridge("b", "talk", created="2026-11-22T15:43:11.604+0000")
    bridge.channels = [SimChannel("1", "PJSIP/a"), SimChannel("2", "PJSIP/b")]
    assert bridge.to_json() == {
        "id": "b",
        "technology": "simple_bridge",
        "bridge_type": "mixing",
        "bridge_class": "stasis",
        "creator": "Stasis",
        "name": "talk",
        "channels": ["1", "2"],
        "creationtime": "2026-11-22T15:43:11.604+0000",
        "video_mode": "talker",
    }
    bridge.channels.append(SimChannel("3", "PJSIP/c"))
    assert bridge.to_json()["technology"] == "softmix"
