"""One WebSocket of the simulated service: carries a conversation's frames, lets tests watch it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from websockets.exceptions import ConnectionClosed

from ari_gemini.errors import AriGeminiError
from ari_gemini.simulator.gemini_access import Admission
from ari_gemini.simulator.gemini_link import Link
from ari_gemini.simulator.gemini_memory import INTERNAL_ERROR, HandleBook
from ari_gemini.simulator.gemini_outbox import Outbox
from ari_gemini.simulator.gemini_record import ClientMessage, Event, Heard, Said, SessionRecord
from ari_gemini.simulator.gemini_schema import RefusalError
from ari_gemini.simulator.gemini_session import Conversation
from ari_gemini.simulator.scenario import Scenario

Tap = Callable[[int, str, "str | bytes"], None]
"""Sees every frame: the connection's number, "<" from the client or ">" to it, the frame."""


class SessionGoneError(AriGeminiError):
    """The session ended before what was waited for had happened."""


@dataclass(frozen=True, slots=True)
class SimulatorClock:
    """The simulator's time, s: it runs ``speed`` times as fast as ``time.monotonic()``, from ``epoch`` on."""

    speed: float
    epoch: float

    def now(self) -> float:
        """What time it is."""
        return (time.monotonic() - self.epoch) * self.speed

    def wall(self, moment: float) -> float:
        """That moment in ``time.monotonic()``."""
        return self.epoch + moment / self.speed


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a simulator hands to each of its connections."""

    scenario: Scenario
    book: HandleBook
    clock: SimulatorClock
    tap: Tap | None
    keep_sound: bool


class SimulatedSession:
    """One connection to the simulated service, for tests to watch and to steer.

    The steering methods act at once and are ignored while the session is not open.
    """

    def __init__(
        self, link: Link, number: int, around: Surroundings, version: str, admit: Admission | RefusalError
    ) -> None:
        self.number = number
        """Counts the simulator's connections from 1."""
        request = link.request
        self.path = request.path if request is not None else ""
        """Of the upgrade request, query included."""
        self.headers: Mapping[str, str] = request.headers if request is not None else {}
        """Of the upgrade request; names in any case."""
        self.record = SessionRecord(around.clock.wall, around.keep_sound)
        self.record.on_event(self._tell_waiters)
        self.failure: Exception | None = None
        """A defect of the simulator itself that ended the session."""
        self._link = link
        self._clock = around.clock
        self._tap = around.tap
        self._outbox = Outbox(link, self._sent, self._overrun)
        self._refusal = admit if isinstance(admit, RefusalError) else None
        self._conversation = Conversation(
            around.scenario,
            around.book,
            self._outbox,
            self.record,
            number=number,
            version=version,
            admit=None if isinstance(admit, RefusalError) else admit,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[tuple[str, int, asyncio.Future[Event]]] = []

    @property
    def setup(self) -> Mapping[str, Any] | None:
        """The client's setup in its own spelling, or None before it came."""
        return self.record.setup

    @property
    def address(self) -> tuple[str, int]:
        """The client's end: host and port, for a test that has a proxy in between."""
        host, port = self._link.remote_address[:2]
        return str(host), int(port)

    @property
    def conversation(self) -> int | None:
        """Which conversation this connection carries, 1 being the simulator's first; None until it is open.

        A connection that resumes a former one has the former's.
        """
        memory = self._conversation.memory
        return None if memory is None else memory.number

    @property
    def resumed(self) -> bool:
        """It goes on from a former connection."""
        return self.record.count("resumed") > 0

    @property
    def history(self) -> list[tuple[str, str]]:
        """What the client told in clientContent on this connection: (role, text), in order."""
        bodies = [message.body for message in self.record.messages if message.kind == "clientContent"]
        turns = [turn for body in bodies for turn in body.get("turns", ())]
        return [
            (turn.get("role", ""), "".join(part.get("text", "") for part in turn.get("parts", ())))
            for turn in turns
        ]

    @property
    def heard(self) -> Heard:
        """The caller's sound."""
        return self.record.heard

    @property
    def said(self) -> Sequence[Said]:
        """The model's utterances, oldest first."""
        return self.record.said

    @property
    def events(self) -> Sequence[Event]:
        """Everything that happened, oldest first."""
        return self.record.events

    @property
    def messages(self) -> Sequence[ClientMessage]:
        """The client's messages other than audio and setup, oldest first."""
        return self.record.messages

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason of the end, None while it lasts; 1006 when there was no close frame."""
        return self.record.closed

    async def wait_for(self, kind: str, *, count: int = 1, timeout: float = 10.0) -> Event:
        """The ``count``-th event of this kind since the connection began, now or when it happens.

        Raises TimeoutError after ``timeout`` seconds, SessionGoneError once the session has ended without it.
        """
        if self.record.count(kind) >= count:
            kept = self.record.of(kind)
            return next((event for event in kept if event.number == count), kept[-1])
        if self.closed is not None:
            raise self._gone(kind)
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        entry = (kind, count, future)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            seen = ", ".join(self.record.kinds()[-12:])
            raise TimeoutError(f"no {kind} ({count}) within {timeout:g} s; last: {seen}") from None
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def wait_next(self, kind: str, *, timeout: float = 10.0) -> Event:
        """The next event of this kind. Raises as ``wait_for``."""
        return await self.wait_for(kind, count=self.record.count(kind) + 1, timeout=timeout)

    async def wait_closed(self, *, timeout: float = 10.0) -> tuple[int, str]:
        """Code and reason of the end. Raises TimeoutError after ``timeout`` seconds."""
        await self.wait_for("closed", timeout=timeout)
        return self.closed or (1006, "")

    def interrupt(self) -> None:
        """Interrupt as if the caller had spoken: toolCallCancellation, ``interrupted``, turnComplete."""
        self._steer(self._conversation.interrupt)

    def cancel_tools(self) -> None:
        """Send a toolCallCancellation for every open call."""
        self._steer(self._conversation.cancel_tools)

    def go_away(self, seconds: float) -> None:
        """Send goAway, and close 1008 in ``seconds`` of the simulator's time if the client has not."""
        self._steer(lambda now: self._conversation.go_away(seconds, now))

    def disconnect(self, code: int = 1011, reason: str = INTERNAL_ERROR) -> None:
        """Close with this code and reason."""
        self._steer(lambda now: self._conversation.close(code, reason, now))

    def cut(self) -> None:
        """Reset the TCP connection without a close frame."""
        self._steer(self._conversation.abort)

    def say(self, *names: str) -> None:
        """Say these phrases, after the reply in progress if there is one.

        Raises ConfigError for a phrase that is not the model's.
        """
        self._steer(lambda now: self._conversation.say(names, now))

    def call_tool(
        self, name: str, args: Mapping[str, Any] | None = None, *, then: Sequence[str] = ()
    ) -> None:
        """Call this function (one the setup declares), and say ``then`` once it is answered."""
        self._steer(lambda now: self._conversation.call(name, args or {}, then, now))

    def stall(self, times: int = 1) -> None:
        """Leave the next ``times`` turns of the caller, or texts, without any answer."""
        self._steer(lambda now: self._conversation.stall(times, now))

    def refuse_resumption(
        self, seconds: float = math.inf, code: int = 1011, reason: str = INTERNAL_ERROR
    ) -> None:
        """Refuse to resume this session from now on, for so many seconds of the simulator's time.

        It works after the connection's end, too.
        """
        self._conversation.refuse_resumption(self._clock.now() + seconds, RefusalError(code, reason))

    def lose_handles(self) -> None:
        """Kill this session's handles: a resumption is refused 1008. It works after the end, too."""
        self._conversation.lose_handles()

    def slow_pongs(self, seconds: float) -> None:
        """Answer pings this many (real) seconds late from now on."""
        self._link.pong_delay = seconds

    async def run(self) -> None:
        """Serve the connection until it ends. Cancelling ends it without a close frame."""
        writer = asyncio.create_task(self._outbox.empty())
        try:
            self._guard(lambda now: self._conversation.connected(now, self._refusal))
            while True:
                frame = await self._link.recv()
                if self._tap is not None:
                    self._tap(self.number, "<", frame)
                self._guard(partial(self._conversation.receive, frame))
        except ConnectionClosed:
            pass
        finally:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
            self._ended()

    def _sent(self, frame: str | bytes) -> None:
        if self._tap is not None:
            self._tap(self.number, ">", frame)

    def _overrun(self) -> None:
        self.record.note("overrun", self._clock.now())

    def _steer(self, act: Callable[[float], None]) -> None:
        """Let the conversation act, and see to its next due time."""
        act(self._clock.now())
        self._set_timer()

    def _guard(self, act: Callable[[float], None]) -> None:
        """The same where nobody would see a defect of the simulator: it ends the session, ``stop`` tells."""
        try:
            self._steer(act)
        except Exception as defect:  # noqa: BLE001  # a stalled simulator would blame the client
            self.failure = defect
            self._conversation.close(1011, INTERNAL_ERROR, self._clock.now())

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._conversation.agenda.next_at
        if due is not None:
            loop = asyncio.get_running_loop()
            wait = max(0.0, self._clock.wall(due) - time.monotonic())
            self._timer = loop.call_later(wait, self._guard, self._conversation.tick)

    def _ended(self) -> None:
        now = self._clock.now()
        self._conversation.disconnected(now)
        self._set_timer()
        code, reason, by = _ending(self._link)
        self.record.closed = (code, reason)
        self.record.note("closed", now, code=code, reason=reason, by=by)
        for kind, _, future in self._waiters:
            if not future.done():
                future.set_exception(self._gone(kind))

    def _gone(self, kind: str) -> SessionGoneError:
        code, reason = self.closed or (1006, "")
        return SessionGoneError(f"the session ended ({code} {reason}) without {kind}")

    def _tell_waiters(self, event: Event) -> None:
        for kind, count, future in self._waiters:
            if kind == event.kind and event.number >= count and not future.done():
                future.set_result(event)


def _ending(link: Link) -> tuple[int, str, str]:
    """Code, reason, and who closed: service, client, or network when there was no close frame."""
    protocol = link.protocol
    received = protocol.close_rcvd
    if received is not None and protocol.close_rcvd_then_sent is not False:
        return received.code, received.reason, "client"
    if protocol.close_sent is not None:
        return protocol.close_sent.code, protocol.close_sent.reason, "service"
    return 1006, "", "network"
