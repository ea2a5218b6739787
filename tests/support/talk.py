"""A call that stands, in virtual time, for tests of what becomes of it when its sessions come and go."""

from __future__ import annotations

import asyncio
import struct

import numpy as np

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.call.agent import Agent
from ari_gemini.errors import Cause
from ari_gemini.realtime.events import AudioDelta
from ari_gemini.realtime.session import Resume

HANDLE = Resume("h-1")
SILENCE = bytes(320)


def tone(frames: int, level: int = 8000) -> bytes:
    return (level * np.sin(np.arange(160 * frames) * 0.3)).astype("<i2").tobytes()


def speech(ms: int) -> AudioDelta:
    return AudioDelta(struct.pack("<h", 4000) * (24 * ms), 24000)


def resampled(pcm: bytes) -> bytes:
    return Resampler(AudioFormat(8000), AudioFormat(16000)).process(pcm)


class Talk:
    """A call that stands, with a handle to resume with, in time that passes when nothing else is to do."""

    def __init__(self, rig) -> None:
        self.rig = rig
        self.now = asyncio.get_running_loop().time

    async def up(
        self, *, greeting: str = "", agent: Agent | None = None, handle: Resume | None = HANDLE, **settings
    ):
        self.rig.agents = {"default": agent or Agent(greeting=greeting)}
        session = await self.rig.up(**settings)
        session.resume = handle
        return session

    async def next(self, count: int = 2):
        """The session with that number."""
        async with asyncio.timeout(60):
            while len(self.rig.sessions) < count:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)  # it is in use
        return self.rig.sessions[count - 1]

    async def say(self, pcm: bytes) -> None:
        """The caller's sound, in real time."""
        for at in range(0, len(pcm), 320):
            self.rig.call.audio(pcm[at : at + 320], 8000)
            await asyncio.sleep(0.02)

    async def end(self) -> None:
        self.rig.call.end(Cause.CALLER_HANGUP)
        assert (await self.rig.done()).cause is Cause.CALLER_HANGUP


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
