"""The harness itself: the instruments against known signals, then Asterisk and phones without the service."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from harness.align import align
from harness.asterisk import PHONES, SHIPPED, Asterisk, AsteriskError
from harness.jail import FETCH
from harness.phone import PhoneMaker
from harness.sound import (
    RATE,
    alaw_table,
    level_dbfs,
    read_wav,
    resample,
    silence,
    speechlike,
    ulaw_table,
    write_wav,
)
from harness.tap import Way, _parse

SPEECH = speechlike(2.0)


# --- sound


def test_g711_tables_decode_the_values_of_the_recommendation() -> None:
    ulaw, alaw = ulaw_table(), alaw_table()
    assert [int(ulaw[octet]) for octet in (0x80, 0x00, 0xFF, 0x7F, 0xF0)] == [32124, -32124, 0, 0, 120]
    assert [int(alaw[octet]) for octet in (0xAA, 0x2A, 0xD5, 0x55, 0x80)] == [32256, -32256, 8, -8, 5504]
    assert len(set(ulaw.tolist())) == 255  # both zeros are one
    assert len(set(alaw.tolist())) == 256


def test_wav_survives_the_disk_and_a_header_that_was_never_finished(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    write_wav(path, SPEECH)
    samples, rate = read_wav(path)
    assert rate == RATE
    assert np.array_equal(samples, SPEECH)
    unfinished = bytearray(path.read_bytes())
    unfinished[40:44] = bytes(4)
    path.write_bytes(unfinished)
    assert np.array_equal(read_wav(path)[0], SPEECH)


def test_level_is_relative_to_full_scale() -> None:
    assert level_dbfs(np.full(160, -32768, np.int16)) == pytest.approx(0.0)
    assert level_dbfs(speechlike(5.0, level=-23.0)) == pytest.approx(-23.0, abs=0.1)
    assert level_dbfs(silence(1.0)) == level_dbfs(silence(0.0)) == -100.0


# --- align


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.123456, 1.50003])
@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_align_finds_delay_and_gain_to_a_fraction_of_a_sample(delay: float, gain: float) -> None:
    whole = int(delay * 48000)
    fine = np.concatenate([np.zeros(whole), resample(SPEECH, RATE, 48000) * gain, np.zeros(48000)])
    match = align(resample(fine.astype(np.int16), 48000), SPEECH)
    assert match.correlation > 0.999
    assert match.delay == pytest.approx(whole / 48000, abs=2e-6)
    assert match.gain == pytest.approx(gain, rel=0.01)


def test_align_sees_through_codec_and_rate() -> None:
    said = speechlike(2.0, 24000)
    heard = np.concatenate([silence(0.777), resample(said, 24000), silence(0.2)])
    table = ulaw_table().astype(np.int64)
    nearest = np.abs(table[None, :] - heard[:, None].astype(np.int64)).argmin(axis=1)
    match = align(table[nearest].astype(np.int16), said, reference_rate=24000)
    assert match.correlation > 0.999
    assert match.delay == pytest.approx(0.777, abs=1e-5)


def test_align_is_not_fooled() -> None:
    other = speechlike(2.0, seed=2)
    assert align(np.concatenate([silence(1.0), other]), SPEECH).correlation < 0.5
    assert align(silence(3.0), SPEECH).correlation == 0.0
    half = SPEECH.copy()
    half[: len(half) // 2] = 0
    assert align(half, SPEECH).correlation < 0.9
    dropped = np.concatenate([SPEECH[:8000], SPEECH[8160:]])
    assert align(dropped, SPEECH).correlation < 0.9


# --- tap


def _datagram(payload: bytes) -> bytes:
    udp = struct.pack(">HHHH", 10000, 10002, 8 + len(payload), 0) + payload
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\1" * 4, b"\2" * 4) + udp


def test_tap_reads_rtp_and_nothing_else() -> None:
    rtp = struct.pack(">BBHII", 0x80, 0x80, 7, 160, 99) + bytes([0x80]) * 160
    packet = _parse(_datagram(rtp), 1.5, Way.TO_PHONE)
    assert packet is not None
    assert (packet.time, packet.sequence, packet.timestamp, packet.marker, packet.ssrc) == (
        1.5,
        7,
        160,
        True,
        99,
    )
    assert packet.pcm.tolist() == [32124] * 160
    assert packet.level == pytest.approx(-0.17, abs=0.01)
    event = _parse(
        _datagram(struct.pack(">BBHII", 0x80, 101, 8, 160, 99) + b"\x0b\x8a\x05\x00"), 1.5, Way.TO_PHONE
    )
    assert event is not None
    assert event.digit == "#"
    assert _parse(_datagram(struct.pack(">BBHI", 0x80, 200, 6, 99) + bytes(20)), 1.5, Way.TO_PHONE) is None
    assert _parse(_datagram(b"SIP/2.0 200 OK\r\nVia: x"), 1.5, Way.TO_PHONE) is None


# --- fetch


def test_fetch_says_in_one_line_why_it_cannot_run() -> None:
    who = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*who, "bash", "-s", "--"], input=FETCH.read_text(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr == "fetch: the real Asterisk needs root (chroot and network namespaces)\n"


@pytest.mark.asterisk
def test_fetch_has_nothing_to_do_the_second_time() -> None:
    done = subprocess.run([str(FETCH)], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"fetch: Asterisk 22\.\S+ is ready in \S+\n", done.stdout)


# --- Asterisk


def _shipped_modules() -> set[str]:
    return set(re.findall(r"^load = (\S+)$", (SHIPPED / "modules.conf").read_text(), re.MULTILINE))


@pytest.mark.asterisk
async def test_every_module_of_our_list_runs(asterisk: Asterisk) -> None:
    shown = (await asterisk.cli("module show")).splitlines()
    running = {line.split()[0] for line in shown if " Running " in line}
    assert _shipped_modules() - running == set()


HARMLESS = (
    # The distribution's own users.conf, which we neither use nor touch.
    "users.conf is deprecated",
)


@pytest.mark.asterisk
async def test_the_shipped_files_load_without_a_complaint_beside_another_asterisk(
    asterisk: Asterisk, tmp_path: Path
) -> None:
    second = Asterisk(tmp_path / "second")
    try:
        second.start()
        assert (await second.ari("GET", "asterisk/info"))["config"]["max_channels"] == 500
        complaints = [line for line in second.log() if re.search(r"\] (WARNING|ERROR)\[", line)]
    finally:
        second.close()
    assert [line for line in complaints if not any(known in line for known in HARMLESS)] == []
    assert await asterisk.channels() == []


@pytest.mark.asterisk
async def test_without_a_password_in_local_nobody_controls_calls(tmp_path: Path) -> None:
    closed = Asterisk(tmp_path / "closed", local={"ari.conf": ""})
    try:
        closed.start()
        for password in ("", closed.password):
            closed.password = password
            with pytest.raises(AsteriskError, match=" 401 "):
                await closed.ari("GET", "channels")
    finally:
        closed.close()


@pytest.mark.asterisk
async def test_the_example_of_local_files_opens_nothing_until_it_is_edited(tmp_path: Path) -> None:
    example = {path.name: path.read_text() for path in (SHIPPED / "local.example").iterdir()}
    asterisk = Asterisk(tmp_path / "example", local=example)
    try:
        # Everything as in the example, the addresses excepted: the default ones may be taken on this machine.
        sip = f"[transport-udp](+)\nbind = {asterisk.sip_address}:5060\n"
        asterisk.write_local("pjsip.conf", sip + example["pjsip.conf"])
        asterisk.start()
        with pytest.raises(AsteriskError, match=" 401 "):
            await asterisk.ari("GET", "channels")
        assert "1001" in await asterisk.cli("pjsip show endpoints")
    finally:
        asterisk.close()


@pytest.mark.asterisk
async def test_a_killed_asterisk_comes_back_on_the_same_address(asterisk: Asterisk) -> None:
    before = asterisk.pid
    asterisk.kill()
    with pytest.raises(OSError, match="refused"):
        await asterisk.channels()
    await asterisk.restart()
    assert asterisk.pid != before
    assert await asterisk.channels() == []


_DOOMED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from harness.asterisk import Asterisk
asterisk = Asterisk(Path(sys.argv[2]))
asterisk.start()
print(asterisk.pid, asterisk._network.interface, flush=True)
time.sleep(600)
"""


@pytest.mark.asterisk
async def test_nothing_outlives_a_test_run_that_is_killed(tmp_path: Path) -> None:
    run = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _DOOMED,
        str(FETCH.parent),
        str(tmp_path / "doomed"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert run.stdout is not None
    pid, interface = (await run.stdout.readline()).decode().split()
    asterisk, wire = Path("/proc") / pid, Path("/sys/class/net") / interface
    assert asterisk.exists()
    assert wire.exists()
    run.send_signal(signal.SIGKILL)
    await run.wait()
    async with asyncio.timeout(20):
        while asterisk.exists() or wire.exists():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


# --- phones


@pytest.mark.asterisk
@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_a_phone_hears_its_own_echo(asterisk: Asterisk, phone: PhoneMaker, codec: str) -> None:
    alice = await phone("1001", codec=codec)
    await alice.dial("600")
    await alice.established()
    said = await alice.say(SPEECH)
    first = await alice.tap.wait_loud(Way.FROM_PHONE)
    assert first.time > said
    await alice.tap.wait_loud(Way.TO_PHONE)
    await alice.tap.wait_quiet(Way.TO_PHONE, packets=25)
    await alice.hang_up()
    await alice.closed()
    await asterisk.empty()
    assert align(alice.sent(), SPEECH).correlation > 0.999
    assert align(alice.heard(), SPEECH).correlation >= 0.99
    for way in Way:
        match = align(alice.tap.sound(way), SPEECH)
        assert match.correlation >= 0.99
        assert match.gain == pytest.approx(1.0, abs=0.01)
    loudest = alice.tap.last_loud(Way.TO_PHONE)
    assert loudest is not None
    assert loudest.time > first.time


@pytest.mark.asterisk
async def test_the_tap_sees_fifty_packets_a_second_each_way(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone()
    await alice.dial("600")
    await alice.established()
    first = await alice.tap.wait(lambda p: p.way is Way.TO_PHONE)
    await alice.tap.wait(lambda p: p.way is Way.TO_PHONE and p.timestamp - first.timestamp >= 2 * RATE)
    for way in Way:
        packets = alice.tap.packets(way)
        assert {b.timestamp - a.timestamp for a, b in itertools.pairwise(packets)} == {160}
        assert {len(p.pcm) for p in packets} == {160}
        assert alice.tap.lost(way) == 0
        rate = (len(packets) - 1) / (packets[-1].time - packets[0].time)
        assert rate == pytest.approx(50, rel=0.1)
        assert sum(alice.tap.gaps(way)) == pytest.approx(packets[-1].time - packets[0].time)
    assert alice.tap.dropped() == 0


@pytest.mark.asterisk
async def test_a_hangup_from_either_side_leaves_no_channel(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone()
    await alice.dial("601")
    await alice.established()
    assert len(await asterisk.channels()) == 1
    await alice.hang_up()
    await alice.closed()
    await asterisk.empty()

    await alice.dial("601")
    await alice.established()
    channel = (await asterisk.channels())[0]
    assert channel["caller"] == {"name": "Phone 1001", "number": "1001"}
    await asterisk.ari("DELETE", f"channels/{channel['id']}")
    await alice.closed()
    await asterisk.empty()

    await alice.dial("604")
    await alice.ringing()
    await alice.hang_up()
    await alice.closed()
    await asterisk.empty()


@pytest.mark.asterisk
async def test_digits_go_both_ways(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone()
    await alice.dial("603")
    await alice.established()
    assert await alice.received_digits(3) == "15#"
    assert alice.reported_digits().startswith("1")
    await alice.hang_up()
    await alice.closed()

    await alice.dial("600")
    await alice.established()
    await alice.tap.wait(lambda p: p.way is Way.TO_PHONE)
    await alice.press("42*")
    assert await alice.received_digits(3) == "42*"
    assert alice.reported_digits() == "42*"


@pytest.mark.asterisk
async def test_several_phones_talk_at_once_and_can_be_called(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice, bob = await phone("1001"), await phone("1002", register=True, answer="auto")
    bob.forget()
    await asterisk.ari(
        "POST", "channels", endpoint="PJSIP/1002", context="from-internal", extension="600", priority="1"
    )
    await bob.established()
    await alice.dial("600")
    await alice.established()
    await asyncio.gather(alice.say(SPEECH), bob.say(speechlike(2.0, seed=2)))
    await asyncio.gather(*(p.tap.wait_loud(Way.TO_PHONE) for p in (alice, bob)))
    await asyncio.gather(*(p.tap.wait_quiet(Way.TO_PHONE, packets=25) for p in (alice, bob)))
    assert align(alice.tap.sound(Way.TO_PHONE), SPEECH).correlation >= 0.99
    assert align(bob.tap.sound(Way.TO_PHONE), speechlike(2.0, seed=2)).correlation >= 0.99
    assert {alice.address, bob.address, asterisk.sip_address} & {"127.0.0.1"} == set()


@pytest.mark.asterisk
async def test_twenty_callers_without_sip_at_once(asterisk: Asterisk) -> None:
    said = np.concatenate([SPEECH, silence(30)])
    callers = await asyncio.gather(*(asterisk.call("600", said, caller=PHONES[n]) for n in range(20)))
    assert len(await asterisk.channels()) == 40
    async with asyncio.timeout(20):
        while min(caller.seconds for caller in callers) < 2.04:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    assert all([await caller.up() for caller in callers])
    await asyncio.gather(*(caller.hang_up() for caller in callers))
    await asterisk.empty()
    # MixMonitor, which records them, leaves sound out when the machine is busy: one that is not exact has
    # heard something all the same. Exact sound is measured with phones.
    matches = [align(caller.heard(), SPEECH) for caller in callers]
    exact = [match for match in matches if match.correlation >= 0.99]
    assert len(exact) >= 10
    assert [match for match in exact if abs(match.gain - 1) > 0.01] == []
    assert [caller for caller in callers if level_dbfs(caller.heard()) < -50.0] == []


# --- the shipped dialplan, with nobody to take the call


@pytest.mark.asterisk
async def test_way_a_without_the_service_is_refused_so_that_it_can_be_routed_elsewhere(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    alice = await phone()
    await alice.dial("700")
    assert (await alice.closed()).param == "503 Service Unavailable"


@pytest.mark.asterisk
async def test_way_b_without_the_service_plays_the_congestion_tone(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    alice = await phone()
    await asterisk.set_global("ARI_GEMINI_AUDIOSOCKET", f"{asterisk.address}:9")
    await alice.dial("701")
    await alice.established()
    await alice.tap.wait_loud(Way.TO_PHONE)


@pytest.mark.asterisk
@pytest.mark.parametrize("way", ["700", "701"])
async def test_people_take_over_where_the_operator_named_some(
    asterisk: Asterisk, phone: PhoneMaker, way: str
) -> None:
    alice = await phone()
    await asterisk.set_global("ARI_GEMINI_AUDIOSOCKET", f"{asterisk.address}:9")
    await asterisk.cli("dialplan add extension s,1,Goto,from-internal,603,1 into ari-gemini-human")
    try:
        await alice.dial(way)
        await alice.established()
        assert await alice.received_digits(3) == "15#"
    finally:
        await asterisk.cli("dialplan remove context ari-gemini-human")


@pytest.mark.asterisk
async def test_way_b_dials_the_service_and_goes_on_when_it_hangs_up(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    heard = asyncio.get_running_loop().create_future()
    end = asyncio.Event()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = await reader.readexactly(19)
        frame = await reader.readexactly(323)
        heard.set_result((opening, frame))
        while not end.is_set():
            writer.write(b"\x10\x01\x40" + bytes(320))
            await reader.readexactly(323)
        writer.write(b"\x00\x00\x00")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(service, asterisk.address, 0) as server:
        port = server.sockets[0].getsockname()[1]
        await asterisk.set_global("ARI_GEMINI_AUDIOSOCKET", f"{asterisk.address}:{port}")
        alice = await phone()
        await alice.dial("701")
        await alice.established()
        opening, frame = await heard
        channel = (await asterisk.channels())[0]
        assert opening[:3] == b"\x01\x00\x10"
        assert frame[:3] == b"\x10\x01\x40"
        assert channel["dialplan"]["app_name"] == "AudioSocket"
        assert channel["dialplan"]["app_data"] == f"{uuid.UUID(bytes=opening[3:])},{asterisk.address}:{port}"
        variable = await asterisk.ari(
            "GET", f"channels/{channel['id']}/variable", variable="ARI_GEMINI_AGENT"
        )
        assert variable == {"value": "default"}
        end.set()
        await alice.closed()
        await asterisk.empty()
