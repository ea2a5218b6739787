"""One event connection kept up for ever, and requests that do not wait for one another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ari_gemini.ari import client as client_module
from ari_gemini.ari import transport as transport_module
from ari_gemini.ari.channel import Channel
from ari_gemini.ari.client import AriClient, reconnect_pause
from ari_gemini.ari.events import (
    ApplicationReplaced,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    ChannelStateChange,
    Dial,
    Event,
    StasisEnd,
    StasisStart,
)
from ari_gemini.ari.requests import understood
from ari_gemini.ari.settings import AriSettings
from ari_gemini.errors import AriConflict, AriDenied, AriRejected, AriTimeout, AriUnavailable, ConfigError
from ari_gemini.simulator.asterisk import Party, Refused, SimulatedAsterisk

Lines = list[MutableMapping[str, Any]]
SettingsFor = Callable[..., AriSettings]
Running = Callable[[AriSettings], AbstractAsyncContextManager[Any]]

PATIENCE = 20.0


def said(lines: Lines) -> list[str]:
    """Log lines an operator sees, without debug."""
    return [str(line["event"]) for line in lines if line["log_level"] != "debug"]


# -- events --------


async def test_events_arrive_in_order(asterisk: SimulatedAsterisk, ear: Any) -> None:
    call = await asterisk.call(args=["sales", "x"], number="0123", name="Alice", exten="700")
    call.press("12")
    call.hang_up()
    await ear.event(StasisEnd)
    kinds = [StasisStart, ChannelDtmfReceived, ChannelDtmfReceived, ChannelHangupRequest, StasisEnd]
    assert [type(event) for event in ear.events] == kinds
    start = ear.events[0]
    assert (start.args, start.replace) == (("sales", "x"), None)
    assert (start.channel.caller_number, start.channel.caller_name) == ("0123", "Alice")
    assert (start.channel.called_number, start.channel.state) == ("700", "Ring")
    assert [event.digit for event in ear.events[1:3]] == ["1", "2"]


async def test_what_is_no_event_is_counted_and_skipped(asterisk: SimulatedAsterisk, ear: Any) -> None:
    for text in ("", "{", "[]", "null", "[" * 50_000, '{"type":"StasisStart"}', "\N{SNOWMAN}"):
        asterisk.send_raw(text)
    asterisk.send_raw(json.dumps({"type": "ChannelVarset", "channel": {"id": "x"}}))
    await asterisk.call()
    await ear.event(StasisStart)
    assert (ear.client.parser.malformed, ear.client.parser.unknown) == (7, 1)
    assert len(ear.events) == 1
    assert ear.downs == []


async def test_a_handler_that_fails_costs_the_others_nothing(
    asterisk: SimulatedAsterisk, ear: Any, logged: Lines
) -> None:
    def fail(_event: Event) -> None:
        raise RuntimeError("defect")

    heard: list[Event] = []
    ear.client.on_event(fail)
    ear.client.on_event(heard.append)
    await asterisk.call()
    await ear.event(StasisStart)
    (await asterisk.call()).hang_up()
    await ear.event(StasisEnd)
    assert heard == ear.events
    assert len(heard) == 4
    assert ear.client.handler_errors == 4
    assert said(logged) == ["! handler failed"] * 4


async def test_nobody_hears_what_he_no_longer_wants(asterisk: SimulatedAsterisk, ear: Any) -> None:
    heard: list[Event] = []
    stop = ear.client.on_event(heard.append)
    call = await asterisk.call()
    await ear.event(StasisStart)
    stop()
    stop()
    call.hang_up()
    await ear.event(StasisEnd)
    assert [type(event) for event in heard] == [StasisStart]


async def test_one_call_that_does_not_listen_holds_nobody_up(asterisk: SimulatedAsterisk, ear: Any) -> None:
    """Handlers enqueue; a call that never takes its events out does not keep another's from it."""
    queues: dict[str, asyncio.Queue[Event]] = {}

    def sort(event: Event) -> None:
        assert not isinstance(event, ApplicationReplaced)
        queues.setdefault(event.channel.id, asyncio.Queue()).put_nowait(event)

    ear.client.on_event(sort)
    deaf, lively = await asterisk.call(), await asterisk.call()
    deaf.press("0" * 100)
    lively.press("7")
    await ear.event(ChannelDtmfReceived, lively.id)
    assert (queues[deaf.id].qsize(), queues[lively.id].qsize()) == (101, 2)


# -- the connection --------


async def test_asterisk_comes_later_than_we(
    asterisk: SimulatedAsterisk, settings_for: SettingsFor, running: Running, logged: Lines
) -> None:
    settings, port = settings_for(asterisk), asterisk.port
    await asterisk.stop()
    attempts: list[int] = []
    enough = asyncio.Event()

    def count(attempt: int, *_: float) -> float:
        attempts.append(attempt)
        if len(attempts) == 5:
            enough.set()
        return 0.001

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module, "reconnect_pause", count)
        async with running(settings) as ear:
            async with asyncio.timeout(PATIENCE):
                await enough.wait()
                assert not ear.client.connected
                await asterisk.start(port=port)
                await ear.client.wait_connected()
                await asterisk.wait_connected()
            assert ear.client.connected
    assert attempts == list(range(len(attempts)))
    assert said(logged) == ["! ari unavailable, will keep trying", "= ari is back"]
    assert logged[0]["kind"] == "AriUnavailable"


async def test_wrong_credentials_are_said_once_and_can_be_put_right(
    asterisk: SimulatedAsterisk, settings_for: SettingsFor, running: Running, logged: Lines
) -> None:
    refusals = 0
    enough = asyncio.Event()

    def admits(request: Any, good: Any = asterisk._admits) -> bool:
        nonlocal refusals
        allowed: bool = good(request)
        refusals += not allowed
        if refusals == 3:
            enough.set()
        return allowed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asterisk, "_admits", admits)
        async with running(settings_for(asterisk, password="wrong")) as ear:
            async with asyncio.timeout(PATIENCE):
                await enough.wait()
            asterisk.password = "wrong"
            async with asyncio.timeout(PATIENCE):
                await ear.client.wait_connected()
    assert said(logged) == ["! ari unavailable, will keep trying", "= ari is back"]
    assert logged[0]["kind"] == "AriDenied"
    assert "wrong" not in str(logged)


async def test_a_cut_event_connection_is_opened_again(
    asterisk: SimulatedAsterisk, ear: Any, logged: Lines
) -> None:
    for round_ in (1, 2, 3):
        asterisk.drop_events()
        await ear.until(lambda expected=round_: len(ear.downs) == expected and ear.ups == expected + 1)
        await asterisk.call()
        await ear.until(lambda expected=round_: len(ear.events) == expected)
    assert said(logged) == ["! ari unavailable, will keep trying", "= ari is back"] * 3


async def test_requests_work_while_events_do_not(asterisk: SimulatedAsterisk, ear: Any) -> None:
    call = await asterisk.call()
    start = await ear.event(StasisStart)
    back = asyncio.Event()
    await _keep_events_out(asterisk, back)
    asterisk.drop_events()
    await ear.until(lambda: len(ear.downs) == 1)
    assert not ear.client.connected
    await Channel(ear.client, start.channel.id).answer()
    assert call.channel.state == "Up"
    back.set()
    await ear.until(lambda: ear.ups == 2)


async def _keep_events_out(asterisk: SimulatedAsterisk, until: asyncio.Event) -> None:
    register = asterisk._register

    async def wait(*args: Any) -> None:
        await until.wait()
        await register(*args)

    asterisk._register = wait  # type: ignore[method-assign,assignment]


async def test_asterisk_restarts(asterisk: SimulatedAsterisk, ear: Any) -> None:
    await asterisk.call()
    await ear.event(StasisStart)
    assert len(await ear.client.channels()) == 1
    await asterisk.restart()
    await ear.until(lambda: ear.ups == 2 and len(ear.downs) == 1)
    assert await ear.client.channels() == []
    await asterisk.call()
    await ear.until(lambda: len(ear.events) == 2)


async def test_an_event_that_is_too_long_costs_the_connection_only(
    asterisk: SimulatedAsterisk,
    settings_for: SettingsFor,
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport_module, "MAX_EVENT", 10_000)
    async with running(settings_for(asterisk)) as ear:
        await ear.until(lambda: ear.ups == 1)
        asterisk.send_raw(json.dumps({"type": "ChannelVarset", "value": "x" * 9_000}))
        asterisk.send_raw(json.dumps({"type": "ChannelVarset", "value": "x" * 10_000}))
        await ear.until(lambda: ear.ups == 2)
        assert ear.client.parser.unknown == 1


async def test_a_connection_that_never_lasts_is_tried_ever_more_slowly(
    asterisk: SimulatedAsterisk,
    settings_for: SettingsFor,
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []

    def count(attempt: int, *_: float) -> float:
        attempts.append(attempt)
        return 0.0

    monkeypatch.setattr(client_module, "reconnect_pause", count)
    async with running(settings_for(asterisk, reconnect_max=300.0)) as ear:
        for round_ in (1, 2, 3, 4):
            await ear.until(lambda expected=round_: ear.ups == expected)
            await asterisk.wait_connected()
            asterisk.drop_events()
            await ear.until(lambda expected=round_: len(ear.downs) == expected)
        await ear.until(lambda: ear.ups == 5)
    assert attempts == [0, 1, 2, 3]


async def test_cancelling_closes_everything(
    asterisk: SimulatedAsterisk, settings_for: SettingsFor, running: Running
) -> None:
    async with running(settings_for(asterisk)) as ear:
        await ear.until(lambda: ear.ups == 1)
        await ear.client.channels()
    assert ear.downs == ["event connection ended"]
    assert not ear.client.connected
    async with asyncio.timeout(PATIENCE):
        await asterisk.wait_disconnected()
    with pytest.raises(AriUnavailable, match="not connected"):
        await ear.client.channels()


async def test_cancelling_while_asterisk_does_not_answer(
    asterisk: SimulatedAsterisk, settings_for: SettingsFor, running: Running
) -> None:
    asterisk.delay = PATIENCE
    async with running(settings_for(asterisk)) as ear:
        await asyncio.sleep(0.01)
        assert not ear.client.connected


async def test_without_a_password_there_is_no_trying() -> None:
    with pytest.raises(ConfigError):
        await AriClient(AriSettings(username="gemini")).run()


async def test_two_services_with_one_name(
    asterisk: SimulatedAsterisk, settings_for: SettingsFor, running: Running, ear: Any, logged: Lines
) -> None:
    """The newer one has the calls; the older says so, and takes over when the newer is gone."""
    async with running(settings_for(asterisk)) as newer:
        await newer.until(lambda: newer.ups == 1)
        await ear.event(ApplicationReplaced)
        await ear.until(lambda: ear.downs == ["another client took the application"])
        call = await asterisk.call()
        await newer.event(StasisStart)
        assert not ear.client.connected
        assert [type(event) for event in ear.events] == [ApplicationReplaced]
        call.hang_up()
        await newer.event(StasisEnd)
        assert newer.downs == []
    await ear.until(lambda: ear.ups == 2)
    await asterisk.call()
    await ear.event(StasisStart)
    assert said(logged).count("! another client took our ARI application: no calls arrive here") == 1
    assert said(logged)[-1] == "= ari is back"


# -- requests --------


async def test_no_request_before_there_is_a_connection(settings_for: SettingsFor) -> None:
    client = AriClient(AriSettings.model_validate({"username": "gemini", "password": "x"}))
    with pytest.raises(AriUnavailable, match="not connected"):
        await client.asterisk_info()
    await client.close()


async def test_asking_without_events(asterisk: SimulatedAsterisk, settings_for: SettingsFor) -> None:
    async with AriClient(settings_for(asterisk)) as client:
        info = await client.asterisk_info()
        modules = await client.modules()
        assert info.version == "22.10.1-simulated"
        assert modules["chan_audiosocket.so"] == "Running"
        assert await client.applications() == []
        assert not client.connected
    with pytest.raises(AriDenied):
        async with AriClient(settings_for(asterisk, password="wrong")):
            pass


async def test_a_stalled_request_holds_up_neither_the_others_nor_the_events(
    asterisk: SimulatedAsterisk, ear: Any
) -> None:
    stalled, go_on = asyncio.Event(), asyncio.Event()
    first, second = await asterisk.call(), await asterisk.call()

    async def stall(_method: str, path: str) -> None:
        if first.id in path:
            stalled.set()
            await go_on.wait()

    asterisk.on_request = stall
    waiting = asyncio.create_task(Channel(ear.client, first.id).answer())
    await stalled.wait()
    await Channel(ear.client, second.id).answer()
    await ear.event(ChannelStateChange, second.id)
    assert (first.channel.state, waiting.done()) == ("Ring", False)
    go_on.set()
    await waiting
    assert first.channel.state == "Up"


async def test_many_requests_at_once(asterisk: SimulatedAsterisk, ear: Any) -> None:
    """All are on their way together, more than a common connection pool would allow."""
    together, all_there = 120, asyncio.Event()
    there = 0

    async def gather(_method: str, _path: str) -> None:
        nonlocal there
        there += 1
        if there == together:
            all_there.set()
        await all_there.wait()

    asterisk.on_request = gather
    answers = await asyncio.gather(*(ear.client.channels() for _ in range(together)))
    assert answers == [[]] * together


async def test_a_request_takes_no_longer_than_it_may(
    asterisk: SimulatedAsterisk, settings_for: SettingsFor
) -> None:
    never = asyncio.Event()

    async def stall(_method: str, _path: str) -> None:
        await never.wait()

    async with AriClient(settings_for(asterisk)) as client:
        pass
    client = AriClient(settings_for(asterisk, request_timeout=2.0))
    async with client:
        asterisk.on_request = stall
        assert client._transport is not None
        client._transport._limit = 0.02
        with pytest.raises(AriTimeout, match=r"GET /ari/channels: no answer within 0\.02 s"):
            await client.channels()
        asterisk.on_request = None
        client._transport._limit = PATIENCE
        assert await client.channels() == []
    never.set()


@pytest.mark.parametrize("body", ["null", "{}", '"x"', "7"])
async def test_an_answer_that_makes_no_sense(
    asterisk: SimulatedAsterisk, ear: Any, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nonsense(*_: object, **__: object) -> Any:
        return json.loads(body)

    monkeypatch.setattr(ear.client, "request", nonsense)
    for ask in (
        ear.client.channels,
        ear.client.bridges,
        ear.client.applications,
        ear.client.asterisk_info,
        lambda: ear.client.application("x"),
        lambda: ear.client.external_media("m", "a", "h:1", uuid4()),
        Channel(ear.client, "x").get,
    ):
        with pytest.raises(AriRejected):
            await ask()
    assert await ear.client.modules() == {}


async def test_external_media(asterisk: SimulatedAsterisk, ear: Any, media_peer: str) -> None:
    call_id = uuid4()
    made = await ear.client.external_media(f"media-{call_id}", "ari-gemini", media_peer, call_id)
    assert (made.id, made.name) == (f"media-{call_id}", f"AudioSocket/{media_peer}-{call_id}")
    start = await ear.event(StasisStart, made.id)
    assert (start.args, start.channel.state) == ((str(call_id),), "Up")
    assert asterisk.requests[-1].params == {
        "channelId": f"media-{call_id}",
        "app": "ari-gemini",
        "external_host": media_peer,
        "encapsulation": "audiosocket",
        "transport": "tcp",
        "connection_type": "client",
        "format": "slin",
        "data": str(call_id),
    }


async def test_external_media_with_nobody_there(asterisk: SimulatedAsterisk, ear: Any) -> None:
    with pytest.raises(AriRejected) as caught:
        await ear.client.external_media("m", "ari-gemini", "127.0.0.1:1", uuid4())
    assert caught.value.status == 500
    assert asterisk.channels == {}


@pytest.mark.parametrize("local", [False, True])
async def test_originate(asterisk: SimulatedAsterisk, ear: Any, local: bool) -> None:
    endpoint = "Local/1002@in/n" if local else "PJSIP/1002"
    asterisk.parties[endpoint] = Party(answers=0.0)
    caller = await asterisk.call()
    made = await ear.client.originate(
        endpoint,
        channel_id="party",
        app="ari-gemini",
        timeout=4.2,
        other_channel_id="far" if local else None,
        caller_id='"Ada" <4711>',
        originator=caller.id,
    )
    assert (made.id, made.state) == ("party", "Down")
    assert (await ear.event(StasisStart, "party")).channel.state == "Up"
    dials = [event.status for event in ear.events if isinstance(event, Dial)]
    assert dials == ["", "RINGING", "ANSWER"]
    assert asterisk.requests[-1].params == {
        "endpoint": endpoint,
        "channelId": "party",
        "app": "ari-gemini",
        "timeout": "5",
        "callerId": '"Ada" <4711>',
        "originator": caller.id,
        **({"otherChannelId": "far"} if local else {}),
    }
    await Channel(ear.client, "party").hangup()
    assert set(asterisk.channels) == {caller.id}


async def test_who_cannot_be_called(asterisk: SimulatedAsterisk, ear: Any) -> None:
    asterisk.parties["PJSIP/1002"] = Party()
    ask = partial(ear.client.originate, app="ari-gemini", channel_id="party", timeout=5)
    for refused, status in ((ask("PJSIP/9"), 500), (ask("PJSIP/1002", originator="nobody"), 400)):
        with pytest.raises(AriRejected) as caught:
            await refused
        assert caught.value.status == status
    caller = await asterisk.call()
    with pytest.raises(AriConflict):
        await ear.client.originate("PJSIP/1002", app="ari-gemini", channel_id=caller.id, timeout=5)


async def test_what_asterisk_refuses_is_told_in_its_words(asterisk: SimulatedAsterisk, ear: Any) -> None:
    def refuse(_method: str, _path: str) -> None:
        raise Refused(501, "Not today")

    asterisk.on_request = refuse
    with pytest.raises(AriRejected, match="GET /ari/bridges: 501 Not today"):
        await ear.client.bridges()


async def test_digits_and_variables_stay_out_of_the_log(
    asterisk: SimulatedAsterisk, ear: Any, logged: Lines
) -> None:
    call = await asterisk.call()
    start = await ear.event(StasisStart)
    channel = Channel(ear.client, start.channel.id)
    await channel.set_variable("PIN", "secret-value")
    await channel.send_dtmf("4242")
    call.press("9")
    await ear.event(ChannelDtmfReceived)
    requests = [line for line in logged if line["event"] == "> ari request"]
    assert [line["operation"] for line in requests] == ["channels.setChannelVar", "channels.sendDTMF"]
    assert not any(secret in str(logged) for secret in ("secret-value", "4242", "digit"))


# -- small things --------


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
@hypothesis_settings(max_examples=100, deadline=None)
def test_pauses_grow_up_to_a_limit(attempt: int, jitter: float) -> None:
    pause = reconnect_pause(attempt, 0.5, 5.0, jitter)
    ceiling = min(5.0, 0.5 * 2 ** min(attempt, 10))
    assert ceiling / 2 <= pause <= ceiling
    assert reconnect_pause(attempt, 0.5, 5.0, 0.0) == ceiling


def test_understood() -> None:
    assert understood("x", "what") == "x"
    with pytest.raises(AriRejected, match=r"what: the answer makes no sense"):
        understood(None, "what")
