"""What went over the wire between a phone and Asterisk, packet by packet.

The tap is a packet socket on this machine's end of the phone's veth pair. Each packet carries the time at
which the kernel saw it (SO_TIMESTAMPNS, packet(7)), whenever the test comes round to reading it: a busy event
loop does not blur the measurement. The kernel stamps in CLOCK_REALTIME; times are handed out in
CLOCK_MONOTONIC, the clock of ``time.monotonic()`` and of ``loop.time()``, by the offset between both clocks
taken when the packet is read (a step of the wall clock between stamp and reading
would show; slewing does not matter).

There is no thread: packets wait in the kernel (32 MB, minutes of one call) until a method asks for them.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

import numpy as np

from .sound import RATE, SILENCE_DBFS, Samples, alaw_table, level_dbfs, ulaw_table

# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800
_PACKET_OUTGOING = 4
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_UDP = 17
_BUFFER = 32 << 20

PCMU, PCMA, TELEPHONE_EVENT = 0, 8, 101
"""Payload types: RFC 3551, table 4; 101 is what both Asterisk and baresip give telephone-event (RFC 4733)."""
_TABLES = {PCMU: ulaw_table(), PCMA: alaw_table()}
_DIGITS = "0123456789*#ABCD"


class Way(Enum):
    """The direction of a packet, as the phone sees it."""

    TO_PHONE = "to_phone"
    FROM_PHONE = "from_phone"


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet. ``time``: CLOCK_MONOTONIC seconds. ``level``: dBFS of ``pcm`` (empty for an event)."""

    time: float
    way: Way
    sequence: int
    timestamp: int
    payload_type: int
    marker: bool
    ssrc: int
    payload: bytes
    pcm: Samples = field(repr=False)
    level: float

    @property
    def digit(self) -> str | None:
        """The digit of a telephone-event packet (RFC 4733, section 3.2), else None."""
        if self.payload_type != TELEPHONE_EVENT or len(self.payload) < 4 or self.payload[0] >= len(_DIGITS):
            return None
        return _DIGITS[self.payload[0]]


class RtpTap:
    """Listens on ``interface`` from construction to ``close``. Usable as a context manager."""

    def __init__(self, interface: str) -> None:
        self._packets: list[Packet] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        # Outgoing packets are shown to sockets of ETH_P_ALL only.
        self._socket.bind((interface, _ETH_P_ALL))

    def close(self) -> None:
        """Stop listening. What was heard stays readable."""
        if self._socket.fileno() >= 0:
            self._drain()
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def packets(self, way: Way, *, since: float = 0.0, until: float = float("inf")) -> list[Packet]:
        """The RTP packets of one direction seen so far, in order of arrival, between two moments."""
        self._drain()
        return [p for p in self._packets if p.way is way and since <= p.time <= until]

    def dropped(self) -> int:
        """Packets the kernel had no room for since this was last asked; 0 unless a test runs for minutes."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("II", raw)[1])

    async def wait(self, wanted: Callable[[Packet], bool], timeout: float = 10.0) -> Packet:
        """The first packet from now on that is ``wanted``. Raises TimeoutError after ``timeout`` seconds.

        Cancelling stops the waiting only.
        """
        loop = asyncio.get_running_loop()
        self._drain()
        seen = len(self._packets)
        found: asyncio.Future[Packet] = loop.create_future()

        def look() -> None:
            nonlocal seen
            self._drain()
            for packet in self._packets[seen:]:
                if not found.done() and wanted(packet):
                    found.set_result(packet)
            seen = len(self._packets)

        loop.add_reader(self._socket, look)
        try:
            async with asyncio.timeout(timeout):
                return await found
        finally:
            loop.remove_reader(self._socket)

    async def wait_loud(self, way: Way, *, above: float = -45.0, timeout: float = 10.0) -> Packet:
        """The first packet from now on whose sound is louder than ``above`` dBFS."""
        return await self.wait(lambda p: p.way is way and p.level > above, timeout)

    async def wait_quiet(
        self, way: Way, *, below: float = -45.0, packets: int = 10, timeout: float = 10.0
    ) -> None:
        """Until ``packets`` packets in a row are quieter than ``below`` dBFS."""
        run = 0

        def enough(packet: Packet) -> bool:
            nonlocal run
            if packet.way is way and len(packet.pcm):
                run = run + 1 if packet.level < below else 0
            return run >= packets

        await self.wait(enough, timeout)

    def last_loud(self, way: Way, *, above: float = -45.0, since: float = 0.0) -> Packet | None:
        """The last packet so far whose sound is louder than ``above`` dBFS."""
        loud = [p for p in self.packets(way, since=since) if p.level > above]
        return loud[-1] if loud else None

    def gaps(self, way: Way, *, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Seconds between one voice packet's time and the next one's."""
        times = [p.time for p in self.packets(way, since=since, until=until) if len(p.pcm)]
        return [b - a for a, b in itertools.pairwise(times)]

    def lost(self, way: Way) -> int:
        """Sequence numbers missing from the newest stream of that direction."""
        packets = self.packets(way)
        numbers = [p.sequence for p in packets if p.ssrc == packets[-1].ssrc] if packets else []
        if not numbers:
            return 0
        return ((numbers[-1] - numbers[0]) & 0xFFFF) + 1 - len(set(numbers))

    def digits(self, way: Way, *, since: float = 0.0) -> str:
        """The RFC 4733 digits completed in that direction, each once, in order.

        An event is known by its RTP timestamp and complete with its first packet that has the end bit set.
        """
        done: dict[tuple[int, int], str] = {}
        for packet in self.packets(way, since=since):
            if packet.digit is not None and packet.payload[1] & 0x80:
                done.setdefault((packet.ssrc, packet.timestamp), packet.digit)
        return "".join(done.values())

    def sound(self, way: Way, *, since: float = 0.0, until: float = float("inf")) -> Samples:
        """What that direction said in its newest stream (8 kHz), each packet placed by its RTP timestamp.

        Silence stands where the timestamps leave room: lost packets, or a sender that paused.
        """
        voice = [p for p in self.packets(way, since=since, until=until) if len(p.pcm)]
        voice = [p for p in voice if p.ssrc == voice[-1].ssrc]
        if not voice:
            return np.zeros(0, np.int16)
        places = [(p.timestamp - voice[0].timestamp) & 0xFFFFFFFF for p in voice]
        if max(places) > 3600 * RATE:
            raise ValueError("RTP timestamps jump by more than an hour")
        out = np.zeros(max(place + len(p.pcm) for place, p in zip(places, voice, strict=True)), np.int16)
        for place, packet in zip(places, voice, strict=True):
            out[place : place + len(packet.pcm)] = packet.pcm
        return out

    def _drain(self) -> None:
        if self._socket.fileno() < 0:
            return
        offset = time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()
        while True:
            try:
                data, control, _, address = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            if address[1] != _ETH_P_IP or not control:
                continue
            seconds, nanoseconds = struct.unpack("qq", control[0][2])
            way = Way.TO_PHONE if address[2] == _PACKET_OUTGOING else Way.FROM_PHONE
            packet = _parse(data, seconds + nanoseconds / 1e9 - offset, way)
            if packet is not None:
                self._packets.append(packet)


def _parse(ip: bytes, at: float, way: Way) -> Packet | None:
    """The RTP packet (RFC 3550, section 5.1) inside an IPv4 packet; None for all else, RTCP and SIP too."""
    header = (ip[0] & 15) * 4
    if ip[9] != _UDP or len(ip) < header + 20:
        return None
    length = struct.unpack_from(">H", ip, header + 4)[0]
    rtp = ip[header + 8 : header + length]
    if len(rtp) < 12 or rtp[0] >> 6 != 2 or 192 <= rtp[1] <= 223:
        return None
    first, second, sequence, timestamp, ssrc = struct.unpack_from(">BBHII", rtp)
    payload = rtp[12 + 4 * (first & 15) :]
    table = _TABLES.get(second & 0x7F)
    pcm = table[np.frombuffer(payload, np.uint8)] if table is not None else np.zeros(0, np.int16)
    level = level_dbfs(pcm) if len(pcm) else SILENCE_DBFS
    return Packet(at, way, sequence, timestamp, second & 0x7F, bool(second & 0x80), ssrc, payload, pcm, level)
