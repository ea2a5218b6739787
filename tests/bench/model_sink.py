"""A model that always talks and always listens: takes every frame, sends 40 ms of sound every 40 ms.

    python tests/bench/model_sink.py PORT [TOOL API_PORT]

With TOOL it also calls that function, again whenever it is answered; the HTTP server behind it stands at
API_PORT.
"""

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
API_SECONDS = 5.0
ENVELOPE = len('{"realtimeInput":{"audio":{"mimeType":"audio/pcm;rate=16000","data":""}}}')


def speech_message() -> bytes:
    """One server message with CHUNK_MS of a loud tone, 24 kHz: no sample of it becomes silence on the way."""
    time = np.arange(24000 * CHUNK_MS // 1000) / 24000
    pcm = (9000 * np.sin(2 * np.pi * 500 * time) + 12000).astype("<i2").tobytes()
    data = base64.b64encode(pcm).decode()
    part = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": data}}
    return json.dumps({"serverContent": {"modelTurn": {"role": "model", "parts": [part]}}}).encode()


class Sink:
    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.tools_called = 0
        self.tools_answered = 0
        self.message = speech_message()
        self.heard_bytes = 0
        self.said_ms = 0
        self.talking = True

    async def session(self, connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(b'{"setupComplete":{}}')
        if self.tool:
            await self.call(connection)
        talk = asyncio.create_task(self.talk(connection))
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                if isinstance(message, str) and message.startswith(AUDIO_MARK):
                    padding = message.count("=", len(message) - 6)
                    self.heard_bytes += (len(message) - ENVELOPE - padding) * 3 // 4
                elif '"toolResponse"' in message:
                    self.tools_answered += '"status":200' in message
                    await self.call(connection)
        talk.cancel()

    async def call(self, connection: ServerConnection) -> None:
        self.tools_called += 1
        call = {"id": f"call_{self.tools_called}", "name": self.tool, "args": {}}
        await connection.send(json.dumps({"toolCall": {"functionCalls": [call]}}).encode())

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


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(API_SECONDS)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
    writer.close()


async def main(port: int, tool: str, api_port: int) -> None:
    sink = Sink(tool)
    api = await asyncio.start_server(answer, "127.0.0.1", api_port, backlog=1024) if tool else None
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def command() -> None:
        line = sys.stdin.readline().strip()
        if line == "hush":
            sink.talking = False
        elif line == "report":
            names = ("heard_bytes", "said_ms", "tools_answered")
            print(json.dumps({name: getattr(sink, name) for name in names}), flush=True)
        else:
            stop.set()

    loop.add_reader(sys.stdin, command)
    async with serve(sink.session, "127.0.0.1", port, compression=None, ping_interval=None, backlog=1024):
        print("ready", flush=True)
        await stop.wait()
    if api is not None:
        api.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *(sys.argv[2:3] or [""]), *map(int, sys.argv[3:4] or [0])))
