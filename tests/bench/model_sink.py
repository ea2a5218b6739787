"""A model that always talks and always listens: takes every frame, sends 40 ms of sound every 40 ms."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys

import numpy as np
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

CHUNK_MS = 40
AUDIO_MARK = '{"realtimeInput":{"audio"'
ENVELOPE = len('{"realtimeInput":{"audio":{"mimeType":"audio/pcm;rate=16000","data":""}}}')


def speech_message() -> bytes:
    """One server message with CHUNK_MS of a loud tone, 24 kHz: no sample of it becomes silence on the way."""
    time = np.arange(24000 * CHUNK_MS // 1000) / 24000
    pcm = (9000 * np.sin(2 * np.pi * 500 * time) + 12000).astype("<i2").tobytes()
    data = base64.b64encode(pcm).decode()
    part = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": data}}
    return json.dumps({"serverContent": {"modelTurn": {"role": "model", "parts": [part]}}}).encode()


class Sink:
    def __init__(self) -> None:
        self.message = speech_message()
        self.heard_bytes = 0
        self.said_ms = 0
        self.talking = True

    async def session(self, connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(b'{"setupComplete":{}}')
        talk = asyncio.create_task(self.talk(connection))
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                if isinstance(message, str) and message.startswith(AUDIO_MARK):
                    padding = message.count("=", len(message) - 6)
                    self.heard_bytes += (len(message) - ENVELOPE - padding) * 3 // 4
        talk.cancel()

    async def talk(self, connection: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        ending = b'{"serverContent":{"generationComplete":true}}'
        with contextlib.suppress(ConnectionClosed):
            while self.talking:
                await connection.send(self.message)
                self.said_ms += CHUNK_MS
                due += CHUNK_MS / 1000
                await asyncio.sleep(max(0.0, due - loop.time()))
            await connection.send(ending)


async def main(port: int) -> None:
    sink = Sink()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def command() -> None:
        line = sys.stdin.readline().strip()
        if line == "hush":
            sink.talking = False
        elif line == "report":
            print(json.dumps({"heard_bytes": sink.heard_bytes, "said_ms": sink.said_ms}), flush=True)
        else:
            stop.set()

    loop.add_reader(sys.stdin, command)
    async with serve(sink.session, "127.0.0.1", port, compression=None, ping_interval=None, backlog=1024):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
