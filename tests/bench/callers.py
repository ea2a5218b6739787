"""Callers that always talk: N AudioSocket connections, one frame each every 20 ms; times what comes back."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from typing import cast

import numpy as np
import uvloop

FRAME = b"\x10\x01\x40" + (8000 * np.sin(2 * np.pi * 400 * np.arange(160) / 8000)).astype("<i2").tobytes()
SILENCE = b"\x10\x01\x40" + bytes(320)


class Caller(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.buffer = b""
        self.times: list[float] = []
        self.speech_frames = 0
        self.sent = 0
        self.measuring = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(b"\x01\x00\x10" + uuid.uuid4().bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        buffer = self.buffer + data
        whole = len(buffer) // 323 * 323
        for at in range(0, whole, 323):
            if self.measuring:
                self.times.append(now)
            self.speech_frames += buffer[at : at + 323] != SILENCE
        self.buffer = buffer[whole:]

    def talk(self) -> None:
        self.transport.write(FRAME)
        self.sent += 1


async def talk(callers: list[Caller], seconds: float) -> None:
    """Every caller on his own phase of the 20 ms, as on a real exchange."""
    loop = asyncio.get_running_loop()
    groups = [callers[i::10] for i in range(10)]
    start = loop.time()
    for tick in range(int(seconds * 500)):
        await asyncio.sleep(max(0.0, start + tick * 0.002 - loop.time()))
        for caller in groups[tick % 10]:
            caller.talk()


async def main(port: int, count: int, warmup: float, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    callers: list[Caller] = []
    for _ in range(count):
        _, caller = await loop.create_connection(Caller, "127.0.0.1", port)
        callers.append(caller)
    await talk(callers, warmup)
    print("measuring", flush=True)
    for caller in callers:
        caller.measuring = True
    await talk(callers, seconds)
    for caller in callers:
        caller.measuring = False
    print("measured", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    gaps = np.concatenate([np.diff(caller.times) for caller in callers]) * 1000
    report = {
        "sent_frames": sum(caller.sent for caller in callers),
        "speech_frames": sum(caller.speech_frames for caller in callers),
        "frames": int(sum(len(caller.times) for caller in callers)),
        "gap_p50": float(np.percentile(gaps, 50)),
        "gap_p99": float(np.percentile(gaps, 99)),
        "gap_p999": float(np.percentile(gaps, 99.9)),
        "gap_max": float(gaps.max()),
        "lost_connections": sum(caller.lost for caller in callers),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
