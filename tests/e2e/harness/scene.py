"""A service between a real Asterisk with phones and a simulated Gemini, the network between in our hands.

::

    phones ── Asterisk ──────────────── the service ── gemini_line (Freezer) ── simulated Gemini
                  └──── ari_line (Freezer) ──┘ ││
                                               │└── a function over HTTP that answers when told
                                               └── Redis, where the calls' states are, if wanted
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bot import WAY_A, Bot, running
from support.freezer import Freezer
from support.redis_server import RedisServer

from ari_gemini.simulator.gemini_connection import SimulatedSession
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.gemini_record import Said
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import Scenario, ScriptTurn

from .align import align
from .arrival import Arrival, arrival, as_the_model_gets_it, unlike
from .asterisk import Asterisk
from .phone import Phone
from .sound import RATE, Samples, silence
from .tap import Way

PATIENCE = 40.0
"""Seconds that the longest of the faults may take to be over."""
SLOW = "look_up"
"""The function that answers when the test lets it."""
ANSWER = ("opening_hours", "order_status")
"""What the model says to a question: 5.7 s, of which the most has been sent after 1.5 s."""
SCENARIO = Scenario(turns=(ScriptTurn(on="text", say=("done",)), ScriptTurn(say=ANSWER)))
_TELEPHONE_BAND = (300.0, 3400.0)
_MICROPHONE_SECONDS = 40.0
_ON_ITS_WAY = 0.4
"""Seconds before the end of a call in which a sound may still be on its way to the model."""


class SlowFunction:
    """An HTTP server that answers ``GET /CALLER`` when told to."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        """Callers on whose behalf it has been asked."""
        self._go: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._server: asyncio.Server | None = None

    def answer(self, caller: str) -> None:
        """Answer this caller's question now, or when it comes."""
        self._go[caller].set()

    async def start(self) -> str:
        """Listen; returns the URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def stop(self) -> None:
        """Stop listening."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            caller = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().strip("/")
            self.asked.add(caller)
            await self._go[caller].wait()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
                b"Connection: close\r\n\r\n{}"
            )
            await writer.drain()
        writer.close()


class Scene:
    """Everything that a fault can befall."""

    def __init__(
        self,
        asterisk: Asterisk,
        bot: Bot,
        gemini_line: Freezer,
        ari_line: Freezer,
        *,
        slow: SlowFunction,
        redis: RedisServer | None,
    ) -> None:
        self.asterisk = asterisk
        self.bot = bot
        self.gemini_line = gemini_line
        self.ari_line = ari_line
        self.slow = slow
        self.redis = redis


INSTRUCTIONS = "You speak with caller {caller_number}."
"""By them a connection of the model is known to be this caller's."""


def instructions(session: SimulatedSession) -> str:
    """What the model of this connection was told; the caller's number is in it."""
    parts = (session.setup or {}).get("systemInstruction", {}).get("parts", ())
    return "".join(part.get("text", "") for part in parts)


@asynccontextmanager
async def staged(
    asterisk: Asterisk,
    scenario: Scenario = SCENARIO,
    *,
    environ: Mapping[str, str] | None = None,
    simulator: Mapping[str, Any] | None = None,
    ways: bool = True,
    with_redis: bool = False,
    only_ends: bool = False,
    **calls: str,
) -> AsyncIterator[Scene]:
    """A service with its default settings. Leaving checks that nothing is left of any call, if ``ways``."""
    slow = SlowFunction()
    async with contextlib.AsyncExitStack() as stack:
        redis = None
        if with_redis:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            redis = stack.enter_context(RedisServer(directory))
        url = await slow.start()
        stack.push_async_callback(slow.stop)
        gemini_line = await stack.enter_async_context(Freezer())
        ari_line = await stack.enter_async_context(Freezer((asterisk.address, 8088)))
        slow_function = {
            "description": "Looks something up.",
            "url": url + "{caller}",
            "parameters": {"caller": {"type": "string"}},
        }
        settings = {
            "ARI_GEMINI__GEMINI__BASE_URL": "ws://{}:{}".format(*gemini_line.address),
            "ARI_GEMINI__ARI__URL": "http://{}:{}".format(*ari_line.address),
            "ARI_GEMINI__AGENTS__DEFAULT__INSTRUCTIONS": INSTRUCTIONS,
            "ARI_GEMINI__AGENTS__DEFAULT__TOOLS": json.dumps([SLOW]),
            "ARI_GEMINI__TOOLS": json.dumps({"named": {SLOW: slow_function}}),
            **(in_redis(redis) if redis is not None else {}),
            **(environ or {}),
        }
        bot = await stack.enter_async_context(
            running(asterisk, scenario, simulator=simulator, environ=settings, only_ends=only_ends, **calls)
        )
        gemini_line.target = ("127.0.0.1", bot.gemini.port)
        yield Scene(asterisk, bot, gemini_line, ari_line, slow=slow, redis=redis)
        if ways:
            await asterisk.empty(10.0)
            await bot.idle()


def in_redis(redis: RedisServer) -> dict[str, str]:
    """Settings of a service that keeps the calls' states there."""
    return {"ARI_GEMINI__STATE__STORE": "redis", "ARI_GEMINI_STATE_URL": redis.url}


class Caller:
    """Somebody at a phone who is never quite silent, and what he says and hears."""

    def __init__(self, gemini: GeminiSimulator, phone: Phone, way: str = WAY_A) -> None:
        self.gemini = gemini
        self.phone = phone
        self.way = way
        self.struck = 0.0
        """When (CLOCK_MONOTONIC) the fault befell this call."""
        self.asked = 0.0
        """When the caller began his last sentence."""
        self._seed = int(phone.number)
        self._up = 0.0
        self._down = 0.0

    @property
    def sessions(self) -> list[SimulatedSession]:
        """The model's connections of this call, oldest first; those refused in the setup are among them."""
        mine = f"caller {self.phone.number}."
        return [session for session in self.gemini.sessions if mine in instructions(session)]

    @property
    def session(self) -> SimulatedSession:
        """The newest connection that was set up."""
        return self._standing[-1]

    @property
    def _standing(self) -> list[SimulatedSession]:
        return [s for s in self.sessions if s.record.count("setup_complete")]

    @property
    def said(self) -> list[Said]:
        """All that the model said in this call, oldest first."""
        return [said for session in self.sessions for said in session.said]

    async def begin(self) -> None:
        """Dial, and hear the greeting out."""
        await self.phone.dial(self.way, self._microphone(silence(0)))
        self._up = (await self.phone.established(20.0)).time
        await until(lambda: bool(self._standing), lambda: "no session for this caller")
        await self.session.wait_for("turn_complete", timeout=20)
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until the model has been silent for 0.3 s."""
        await self.phone.tap.wait_quiet(Way.TO_PHONE, packets=15, timeout=PATIENCE)

    async def say(self, name: str) -> float:
        """Begin to say a phrase; returns when its first audible packet left."""
        spoken = np.frombuffer(phrase(name).pcm, "<i2").astype(np.int16)
        loud = asyncio.ensure_future(self.phone.tap.wait_loud(Way.FROM_PHONE))
        await self.phone.say(self._microphone(spoken))
        self.asked = (await loud).time
        return self.asked

    async def answer(self, after: float) -> Said:
        """Wait until the model has said something whole that began after that time, and it has been heard."""

        def whole() -> list[Said]:
            record = self.session.record
            if record.count("turn_complete") < record.count("turn_start"):
                return []
            return [said for said in self.said if said.complete and said.at > after]

        await until(lambda: bool(whole()), lambda: f"no answer; {self.told()}")
        await self.quiet()
        return whole()[-1]

    async def ask(self, name: str) -> Said:
        """Say a phrase and hear out the answer."""
        return await self.answer(await self.say(name))

    async def finish(self) -> None:
        """Hang up."""
        self._down = time.monotonic()
        await self.phone.hang_up()
        await self.phone.closed()

    def heard(self, said: Said) -> float:
        """How well (1.0: exactly) this is found in what the phone recorded; once the call is over."""
        sound = np.frombuffer(bytes(said.pcm), "<i2").astype(np.int16)
        return align(self.phone.heard(), sound, reference_rate=24000, band=_TELEPHONE_BAND).correlation

    def arrival(self) -> Arrival:
        """What of the caller's sound came to the model, from the phone's wire to the connections."""
        packets = [p for p in self.phone.tap.packets(Way.FROM_PHONE, since=self._up - 1.0) if len(p.pcm)]
        sent = as_the_model_gets_it(np.concatenate([p.pcm for p in packets]))
        counted = sum(len(p.pcm) for p in packets if p.time <= self._down - _ON_ITS_WAY) * 2
        received = [np.frombuffer(bytes(s.heard.pcm), "<i2").astype(np.int16) for s in self.sessions]
        return arrival(sent, received, until=counted)

    def told(self) -> str:
        """The connections so far, for a failed test's message."""
        lines = []
        for s in self.sessions:
            kinds = [kind for kind in s.record.kinds() if kind not in ("audio", "empty")]
            lines.append(f"#{s.number} conversation {s.conversation} {kinds[-10:]} closed {s.closed}")
        return "; ".join(lines)

    def _microphone(self, spoken: Samples) -> Samples:
        self._seed += 10_000
        rest = silence(max(1.0, _MICROPHONE_SECONDS - len(spoken) / RATE))
        return unlike(np.concatenate([spoken, rest]), seed=self._seed)


async def until(condition: Callable[[], bool], what: Callable[[], str], timeout: float = PATIENCE) -> None:
    """Wait until it holds; fails with ``what()`` when it does not come to that."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what())
        await asyncio.sleep(0.01)


def phone_directory(work: Path, number: str) -> Path:
    """Where a phone of this run keeps its files: a new directory."""
    directory = work / f"{number}-{time.monotonic_ns()}"
    directory.mkdir(parents=True)
    return directory
