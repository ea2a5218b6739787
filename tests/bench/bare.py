"""``bare``: the least code that does a bridge's work, to measure the service against.

No control, no logging, no turns, no interruption, no errors, no limits: AudioSocket in, 8 to 16 kHz, base64,
one WebSocket message per frame; JSON and base64 back, 24 to 8 kHz, one clock of 20 ms for all calls. Nothing
here is fit for a caller.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import socket
import sys
from typing import cast

import uvloop
from websockets.asyncio.client import connect

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler

HEADER = b"\x10\x01\x40"
SILENCE = HEADER + bytes(320)
PREFIX = '{"realtimeInput":{"audio":{"mimeType":"audio/pcm;rate=16000","data":"'
SUFFIX = '"}}}'


class Bare(asyncio.Protocol):
    def __init__(self, url: str, calls: set[Bare]) -> None:
        self.url = url
        self.calls = calls
        self.buffer = b""
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.playout = bytearray()
        self.up = Resampler(AudioFormat(8000), AudioFormat(16000))
        self.down = Resampler(AudioFormat(24000), AudioFormat(8000))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.task = asyncio.create_task(self.run())
        self.calls.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.discard(self)
        self.task.cancel()

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data
        at = 0
        while len(buffer) - at >= 3:
            length = buffer[at + 1] << 8 | buffer[at + 2]
            if len(buffer) - at < 3 + length:
                break
            if buffer[at] == 0x10:
                self.queue.put_nowait(buffer[at + 3 : at + 3 + length])
            at += 3 + length
        self.buffer = buffer[at:]

    async def run(self) -> None:
        async with connect(self.url, compression=None, ping_interval=None) as model:
            await model.send('{"setup":{"model":"models/gemini-3.8-live"}}')
            await model.recv()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.send(model))
                async for message in model:
                    content = json.loads(message).get("serverContent", {})
                    for part in content.get("modelTurn", {}).get("parts", ()):
                        self.playout += self.down.process(binascii.a2b_base64(part["inlineData"]["data"]))

    async def send(self, model) -> None:
        while True:
            pcm = self.up.process(await self.queue.get())
            await model.send(PREFIX + binascii.b2a_base64(pcm, newline=False).decode() + SUFFIX)

    def tick(self) -> None:
        if len(self.playout) >= 320:
            self.transport.write(HEADER + self.playout[:320])
            del self.playout[:320]
        else:
            self.transport.write(SILENCE)


async def main(port: int, url: str) -> None:
    loop = asyncio.get_running_loop()
    calls: set[Bare] = set()
    await loop.create_server(lambda: Bare(url, calls), "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    due = loop.time()
    while True:
        due += 0.020
        await asyncio.sleep(max(0.0, due - loop.time()))
        for call in calls:
            call.tick()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
