"""One connection, on both event loops, against peers that behave and peers that do not."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from uuid import UUID

import pytest

from ari_gemini.audiosocket import connection as subject
from ari_gemini.audiosocket.connection import Connection, EndReason, MediaEnd

CALL = UUID("00112233-4455-6677-8899-aabbccddeeff")
BY_US = MediaEnd(EndReason.CLOSED_BY_US)


def message(kind, payload=b""):
    return struct.pack(">BH", kind, len(payload)) + payload


def frame(number, samples=160):
    """PCM that says which frame it is."""
    return struct.pack("<h", number) * samples


async def gone(connection):
    async with asyncio.timeout(30):
        await connection.wait_closed()
    return connection.end


# From Asterisk.


async def test_a_whole_call(door):
    peer, connection, sink = await door.call()
    assert connection.identified
    assert connection.uuid == CALL
    assert connection.peer_host == "127.0.0.1"
    assert connection.peer == f"127.0.0.1:{peer.writer.get_extra_info('sockname')[1]}"
    assert (connection.rate, connection.rate_known) == (8000, False)
    for number in range(3):
        peer.send(message(0x10, frame(number)))
    peer.send(message(0x03, b"5") + message(0x77, b"?") + message(0x03, b"") + message(0x00))
    assert await sink.until(5) == [
        ("audio", frame(0)),
        ("audio", frame(1)),
        ("audio", frame(2)),
        ("digit", "5"),
        ("ended", MediaEnd(EndReason.HANGUP)),
    ]
    assert await gone(connection) == MediaEnd(EndReason.HANGUP)
    assert await peer.receive_to_the_end() == b""
    assert (connection.rate, connection.rate_known) == (8000, True)
    stats = connection.stats
    assert (stats.messages_in, stats.audio_bytes_in, stats.digits_in) == (8, 960, 1)
    assert (stats.unknown_in, stats.malformed_in, stats.dropped_in) == (1, 1, 0)
    assert len(sink.ends) == 1
    assert door.owner.gone == [connection]


@pytest.mark.parametrize(("kind", "rate"), [(0x10, 8000), (0x12, 16000), (0x13, 24000), (0x18, 192000)])
async def test_the_rate_is_what_asterisk_sends_first(door, kind, rate):
    peer, connection, sink = await door.call()
    peer.send(message(kind, bytes(rate // 25)))
    await sink.until(1)
    assert (connection.rate, connection.rate_known, sink.rates) == (rate, True, {rate})
    assert connection.write_audio(b"\x01\x02" * 50)
    assert await peer.receive(103) == message(kind, b"\x01\x02" * 50)


async def test_a_change_of_rate_ends_the_connection(door):
    peer, connection, sink = await door.call()
    peer.send(message(0x10, frame(1)) + message(0x12, frame(2)) + message(0x10, frame(3)))
    end = await sink.until_ended()
    assert end.reason is EndReason.PROTOCOL
    assert "8000 to 16000" in end.detail
    assert sink.got[:-1] == [("audio", frame(1))]
    assert await gone(connection) is end


async def test_an_error_message_ends_the_call_with_its_code(door):
    peer, connection, sink = await door.call()
    peer.send(message(0xFF, b"\x02"))
    end = await sink.until_ended()
    assert (end.reason, end.code) == (EndReason.ERROR, 2)
    assert "forward" in str(end)
    assert await gone(connection) is end


async def test_close_by_asterisk_is_an_ending_like_a_hangup(door):
    peer, connection, sink = await door.call()
    peer.send(message(0x10, frame(1)))
    await peer.close()
    assert await sink.until(2) == [("audio", frame(1)), ("ended", MediaEnd(EndReason.EOF))]
    await gone(connection)
    assert len(sink.ends) == 1


async def test_half_close_closes_everything(door):
    peer, connection, sink = await door.call()
    peer.half_close()
    assert await sink.until_ended() == MediaEnd(EndReason.EOF)
    assert await peer.receive_to_the_end() == b""
    await gone(connection)
    assert not connection.write_audio(frame(1))


async def test_reset_is_typed_and_later_writes_are_harmless(door, caplog):
    peer, connection, sink = await door.call()
    peer.reset()
    end = await sink.until_ended()
    assert end.reason is EndReason.RESET
    assert end.detail
    assert [connection.write_audio(frame(i)) for i in range(20)] == [False] * 20
    connection.hangup()
    connection.close()
    connection.abort()
    assert await gone(connection) is end
    assert len(sink.ends) == 1
    assert connection.stats.messages_out == 0
    assert not caplog.records


async def test_writing_into_a_connection_that_is_being_reset_is_harmless(door, caplog):
    peer, connection, sink = await door.call()
    peer.reset()
    while not sink.ends:
        connection.write_audio(frame(1))
        await asyncio.sleep(0)
    assert await gone(connection) == sink.ends[0]
    assert len(sink.ends) == 1
    assert not caplog.records


# Before there is a sink.


async def test_late_sink_gets_everything_in_order(door):
    peer, connection = await door.identified()
    peer.send(message(0x10, frame(1)) + message(0x03, b"7") + message(0x10, frame(2)) + message(0x03, b"#"))
    await door.until(lambda: connection.stats.messages_in == 5)
    sink = door.sink()
    connection.attach(sink)
    assert sink.got == [("audio", frame(1)), ("digit", "7"), ("audio", frame(2)), ("digit", "#")]
    peer.send(message(0x10, frame(3)))
    assert (await sink.until(5))[-1] == ("audio", frame(3))
    with pytest.raises(RuntimeError, match="already"):
        connection.attach(door.sink())


async def test_only_the_last_second_waits_for_a_sink(door):
    peer, connection = await door.identified()
    for number in range(120):
        peer.send(message(0x10, frame(number)))
    await door.until(lambda: connection.stats.messages_in == 121)
    assert connection.stats.dropped_in == 70
    sink = door.sink()
    connection.attach(sink)
    assert sink.got == [("audio", frame(number)) for number in range(70, 120)]


async def test_attaching_at_once_takes_the_rest_of_the_same_bytes(door):
    sink = door.sink()
    door.owner.on_identified = lambda connection: connection.attach(sink)
    peer, _ = await door.dial()
    peer.send(message(0x01, CALL.bytes) + message(0x10, frame(1)) + message(0x03, b"1"))
    assert await sink.until(2) == [("audio", frame(1)), ("digit", "1")]


async def test_attaching_to_what_is_over(door):
    peer, connection = await door.identified()
    peer.send(message(0x10, frame(1)) + message(0x00))
    await gone(connection)
    sink = door.sink()
    connection.attach(sink)
    assert sink.got == [("ended", MediaEnd(EndReason.HANGUP))]


async def test_a_sink_that_hangs_up_gets_nothing_more(door):
    peer, connection = await door.identified()
    peer.send(message(0x10, frame(1)) + message(0x10, frame(2)))
    await door.until(lambda: connection.stats.messages_in == 3)
    sink = door.sink()
    noted, sink.audio = sink.audio, lambda pcm, rate: (noted(pcm, rate), connection.hangup())
    connection.attach(sink)
    assert sink.got == [("audio", frame(1)), ("ended", BY_US)]


async def test_a_sink_that_hangs_up_in_the_middle_of_a_read(door):
    peer, connection, sink = await door.call()
    noted, sink.digit = sink.digit, lambda digit: (noted(digit), connection.abort())
    peer.send(message(0x03, b"1") + message(0x03, b"2") + message(0x00))
    assert await gone(connection) == BY_US
    assert sink.got == [("digit", "1"), ("ended", BY_US)]


async def test_a_sink_that_raises_ends_its_own_connection_only(door):
    loop = asyncio.get_running_loop()
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    other_peer, _, other = await door.call()
    peer, connection, sink = await door.call()

    def broken(pcm, rate):
        raise ZeroDivisionError("sink")

    sink.audio = broken
    peer.send(message(0x10, frame(1)))
    end = await sink.until_ended()
    assert end.reason is EndReason.DEFECT
    assert "ZeroDivisionError" in end.detail
    assert await gone(connection) is end
    assert [type(error) for error in told] == [ZeroDivisionError]
    other_peer.send(message(0x10, frame(2)))
    assert await other.until(1) == [("audio", frame(2))]


# Peers that say the wrong thing, or nothing.


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x16\x03\x01", "kind 0x16"),
        (b"GET / HTTP/1.1\r\n\r\n", "kind 0x47"),
        (b"\x00\x00\x00", "kind 0x00"),
        (message(0x10, bytes(320)), "kind 0x10"),
        (message(0x01, bytes(15)), "UUID of 15"),
        (message(0x01, bytes(17)), "UUID of 17"),
        (b"\x01\x00\x00", "UUID of 0"),
    ],
)
async def test_garbage_before_the_uuid_closes_at_once(door, data, says):
    peer, connection = await door.dial()
    peer.send(data)
    end = await gone(connection)
    assert end.reason is EndReason.PROTOCOL
    assert says in end.detail
    assert await peer.receive_to_the_end() == b""
    assert not connection.identified
    with pytest.raises(RuntimeError):
        _ = connection.uuid
    assert door.owner.ready.empty()


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x00\x10", message(0x01, CALL.bytes)[:-1]])
async def test_no_uuid_in_time(door, data):
    door.uuid_timeout = 0.05
    peer, connection = await door.dial()
    peer.send(data)
    end = await gone(connection)
    assert (end.reason, end.detail) == (EndReason.NO_UUID, "no UUID within 0.05 s")
    assert await peer.receive_to_the_end() == b""
    assert door.owner.ready.empty()


async def test_dribbling_does_not_prolong_the_time(door):
    door.uuid_timeout = 0.1
    peer, connection = await door.dial()
    dribble = iter(message(0x01, CALL.bytes)[:-1])
    while connection.end is None:
        if (byte := next(dribble, None)) is not None:
            peer.send(bytes([byte]))
        await asyncio.sleep(0.005)
    assert (await gone(connection)).reason is EndReason.NO_UUID


async def test_the_uuid_stops_the_clock(door):
    peer, connection = await door.dial()
    clock = connection._timer
    peer.identify()
    await door.owner.ready.get()
    assert clock.cancelled()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (message(0x01, CALL.bytes), "a second UUID"),
        (message(0x10, bytes(319)), "audio of 319 bytes"),
    ],
)
async def test_fault_in_mid_call_comes_after_what_was_good(door, data, says):
    peer, connection, sink = await door.call()
    peer.send(message(0x10, frame(1)) + message(0x03, b"1") + data + message(0x10, frame(2)))
    got = await sink.until(3)
    assert got[:2] == [("audio", frame(1)), ("digit", "1")]
    assert len(got) == 3
    assert sink.ends[0].reason is EndReason.PROTOCOL
    assert says in sink.ends[0].detail
    assert await gone(connection) is sink.ends[0]


async def test_a_burst_of_less_than_ten_seconds_is_no_flood(door):
    peer, connection, sink = await door.call()
    await peer.send_all(message(0x10, frame(1)) * 490)
    await sink.until(490)
    assert connection.end is None


@pytest.mark.parametrize(
    ("unit", "at_once"),
    [
        (message(0x10, bytes(320)), 500),
        (message(0x10, bytes(2)), 5000),
        (message(0x03, b"1"), 5000),
        (message(0x42), 5000),
        (message(0x10), 5000),
    ],
    ids=["audio", "crumbs", "digits", "unknown", "empty"],
)
async def test_flood(door, unit, at_once):
    peer, connection, sink = await door.call()
    await peer.send_all(unit * (2_000_000 // len(unit)))
    end = await sink.until_ended()
    assert end.reason is EndReason.FLOOD
    assert await gone(connection) is end
    assert connection.stats.messages_in > at_once
    # one slice more is read before it is seen; what real time adds is far less than the credit itself
    assert connection.stats.messages_in <= 2 * at_once + subject.SLICE_BYTES // len(unit)


async def test_credit_comes_back_with_time(door):
    _, connection, _ = await door.call()
    connection._credit = -5.0
    then = connection._refilled
    assert not connection._refill(then + 3.9)  # 5 s cost 4 s at 1.25 times real time
    assert connection._refill(then + 4.1)
    assert connection._refill(then + 1000.0)
    assert connection._credit == subject.STALL_SECONDS


# To Asterisk.


async def test_what_is_written_arrives(door):
    peer, connection, _ = await door.call()
    for number in range(10):
        assert connection.write_audio(frame(number))
    expected = b"".join(message(0x10, frame(number)) for number in range(10))
    assert await peer.receive(len(expected)) == expected
    assert (connection.stats.messages_out, connection.stats.audio_bytes_out) == (10, 3200)


async def test_audio_of_another_rate_than_the_peers_says_so(door):
    peer, connection, _ = await door.call()
    assert connection.write_audio(frame(1, 320), 16000)
    assert await peer.receive(643) == message(0x12, frame(1, 320))
    with pytest.raises(ValueError, match="11025"):
        connection.write_audio(frame(1), 11025)
    with pytest.raises(ValueError, match="319"):
        connection.write_audio(bytes(319))
    with pytest.raises(ValueError, match="0 bytes"):
        connection.write_audio(b"")


async def test_a_peer_that_never_reads_costs_bounded_memory(door):
    peer, connection, _ = await door.call()
    peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.writer.transport.pause_reading()
    written = dropped = most = 0
    while dropped < 2000:
        for _ in range(10):
            sent = connection.write_audio(frame(1))
            written, dropped = written + sent, dropped + (not sent)
            most = max(most, connection._transport.get_write_buffer_size())
        await asyncio.sleep(0)
    assert (connection.stats.messages_out, connection.stats.dropped_out) == (written, dropped)
    assert most <= (subject.UNSENT_MESSAGES + 1) * 323
    assert connection.end is None
    connection.abort()
    assert await gone(connection) == BY_US


async def test_dropping_never_cuts_a_message_in_two(door, monkeypatch):
    monkeypatch.setattr(subject, "LINGER_SECONDS", 30.0)
    peer, connection, _ = await door.call()
    peer.writer.transport.pause_reading()
    while connection.stats.dropped_out < 50:
        connection.write_audio(frame(connection.stats.messages_out % 30000))
        await asyncio.sleep(0)
    peer.writer.transport.resume_reading()
    connection.hangup()
    data = await peer.receive_to_the_end()
    assert data.endswith(message(0x00))
    sent = [message(0x10, frame(number % 30000)) for number in range(connection.stats.messages_out)]
    assert data == b"".join(sent) + message(0x00)


# Our own ending.


@pytest.mark.parametrize("then_close", ["close", "half_close", "reset"])
async def test_hangup_says_so_after_what_was_written(door, then_close, monkeypatch):
    monkeypatch.setattr(subject, "LINGER_SECONDS", 30.0)
    peer, connection, sink = await door.call()
    connection.write_audio(frame(1))
    connection.hangup()
    assert sink.got == [("ended", BY_US)]
    peer.send(message(0x10, frame(2)) * 50)  # Asterisk goes on until it has read the hangup
    assert await peer.receive_to_the_end() == message(0x10, frame(1)) + b"\x00\x00\x00"
    if then_close == "close":
        await peer.close()
    else:
        getattr(peer, then_close)()
    assert await gone(connection) == BY_US
    assert len(sink.ends) == 1
    assert not connection.write_audio(frame(3))
    assert connection.stats.messages_out == 1


async def test_hangup_ends_even_when_the_peer_does_nothing(door, monkeypatch):
    monkeypatch.setattr(subject, "LINGER_SECONDS", 0.05)
    _, connection, _ = await door.call()
    connection.hangup()
    assert await gone(connection) == BY_US


async def test_hangup_ends_even_when_the_peer_never_reads(door, monkeypatch):
    monkeypatch.setattr(subject, "LINGER_SECONDS", 0.05)
    peer, connection, _ = await door.call()
    peer.writer.transport.pause_reading()
    while connection.stats.dropped_out < 20:
        connection.write_audio(frame(1))
        await asyncio.sleep(0)
    connection.hangup()
    assert await gone(connection) == BY_US


async def test_close_says_nothing(door, monkeypatch):
    monkeypatch.setattr(subject, "LINGER_SECONDS", 30.0)
    peer, connection, sink = await door.call()
    connection.write_audio(frame(1))
    connection.close()
    connection.hangup()  # too late
    assert await peer.receive_to_the_end() == message(0x10, frame(1))
    await peer.close()
    assert await gone(connection) == BY_US
    assert sink.got == [("ended", BY_US)]


async def test_abort_is_at_once(door):
    peer, connection, sink = await door.call()
    connection.abort()
    connection.abort()
    assert sink.got == [("ended", BY_US)]
    assert await gone(connection) == BY_US
    assert await peer.receive_to_the_end() == b""


async def test_abort_cuts_a_hangup_short(door):
    _, connection, sink = await door.call()
    connection.hangup()
    connection.abort()
    assert await gone(connection) == BY_US
    assert len(sink.ends) == 1


async def test_refusing_hangs_up_with_the_reason(door):
    door.owner.on_identified = lambda connection: connection.refuse("no call expects it")
    peer, _ = await door.dial()
    peer.send(message(0x01, CALL.bytes) + message(0x10, frame(1)))
    assert await peer.receive_to_the_end() == b"\x00\x00\x00"
    await peer.close()
    connection = await door.owner.ready.get()
    assert await gone(connection) == MediaEnd(EndReason.REFUSED, "no call expects it")
    assert connection.stats.audio_bytes_in == 0


async def test_refused_on_connecting(door):
    door.owner.refusal = "not in allow_from"
    peer, connection = await door.dial()
    peer.identify()
    assert await gone(connection) == MediaEnd(EndReason.REFUSED, "not in allow_from")
    assert await peer.receive_to_the_end() == b""
    assert door.owner.ready.empty()


async def test_waiting_can_be_cancelled_and_shared(door):
    _, connection, _ = await door.call()
    waiters = [asyncio.ensure_future(connection.wait_closed()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    connection.abort()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None, None]
    await connection.wait_closed()


# The socket.


async def test_the_socket_is_tuned_for_voice(door):
    _, connection, _ = await door.call()
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * subject.SEND_BUFFER_BYTES
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == subject.DEAD_PEER_MS


async def test_nothing_is_left_of_a_connection(door):
    for _ in range(5):
        peer, connection, sink = await door.call()
        peer.send(message(0x10, frame(1)) + message(0x00))
        await sink.until_ended()
        await gone(connection)
        await peer.close()
    assert len(door.owner.gone) == 5
    assert connection._timer is None
    del connection, sink, peer
    door.owner.gone.clear()
    door.connections.clear()
    door.peers.clear()
    await asyncio.sleep(0)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is Connection]


async def test_the_end_reads_well():
    assert str(MediaEnd(EndReason.HANGUP)) == "hangup"
    assert str(MediaEnd(EndReason.PROTOCOL, "a second UUID")) == "protocol: a second UUID"
