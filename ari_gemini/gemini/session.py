"""One Gemini Live session: the WebSocket after it was opened, from the setup to the close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from structlog.typing import FilteringBoundLogger
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.errors import MalformedMessage, SessionDropped, SessionError, SessionUnavailable
from ari_gemini.gemini import protocol
from ari_gemini.gemini.closes import close_error, one_line
from ari_gemini.gemini.decoder import Counts, Decoder
from ari_gemini.gemini.dial import CLOSE_TIMEOUT, dial
from ari_gemini.gemini.keepalive import Keepalive
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.setup_message import encode_setup
from ari_gemini.gemini.tokens import Token, TokenSource, open_with_token
from ari_gemini.gemini.trail import Trail
from ari_gemini.gemini.values import DEFAULT_RATE
from ari_gemini.realtime.events import AudioDelta, Event
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.realtime.session import (
    Capabilities,
    HistoryTurn,
    RealtimeSession,
    Resume,
    SessionSettings,
)

_MAX_EARLY = 64
"""Events that may come before the setup is confirmed; the service sends none, so more is no Live API."""
_PROTOCOL_CODES = {1002, 1007, 1009}
"""Close codes by which our own WebSocket layer says that the peer broke the protocol (RFC 6455, 7.4.1)."""
_NO_CLOSE_FRAME = 1006
MAX_PATIENCE = 40.0
"""Longest silence, s, that a session learns to bear: pongs 30 s late have been reported."""

log: FilteringBoundLogger = structlog.get_logger(__name__)


async def open_session(
    settings: GeminiSettings,
    session: SessionSettings,
    *,
    resume: Resume | None = None,
    history: Sequence[HistoryTurn] = (),
    before_setup: Callable[[], Awaitable[Resume | None]] | None = None,
    tokens: TokenSource | None = None,
) -> GeminiSession:
    """Connect, send the setup, and wait until the service has confirmed it; nothing else is sent before.

    ``resume`` goes on with the session that it came from. Without it the model is given ``history``, and
    generates nothing from that. ``before_setup`` is awaited when the connection stands: a session is resumed
    only after its former connection has ended, and a handle that came until then, which it returns, is newer
    than that of ``resume``. Takes at most ``connect_timeout`` and ``setup_timeout``
    together, and that. ``tokens``: a token takes the place of the key, and a session is resumed with the one
    that it was begun with while that is good; minting may take ``connect_timeout`` again. Raises
    SessionError, SetupRefused before anything is opened when the settings cannot work with the model.
    Cancelling closes the socket.
    """
    handle = None if resume is None else resume.handle
    seed = () if resume is not None else history
    setup = encode_setup(settings, session, handle, seeded=bool(seed))

    async def attempt(token: Token | None) -> GeminiSession:
        opened = GeminiSession(await dial(settings, token), settings, resume, token)
        try:
            newest = None if before_setup is None else await before_setup()
            if handle is not None and newest is not None and newest.handle != handle:
                opened._decoder.handle = newest.handle
                await opened._set_up(encode_setup(settings, session, newest.handle, seeded=False), ())
            else:
                await opened._set_up(setup, seed)
        except BaseException:  # whatever it is, cancelling included: no socket is left behind, and it goes on
            opened._abort()
            raise
        return opened

    if tokens is None:
        return await attempt(None)
    return await open_with_token(tokens, setup, None if resume is None else resume.credential, attempt)


class GeminiSession(RealtimeSession):
    """A conversation with Gemini Live. Made by ``open_session``.

    Senders and ``receive`` may run in different tasks. When the connection is gone, each of them raises the
    SessionError that says why. The session never reconnects: ``resume`` is what a next one goes on from.
    """

    def __init__(
        self,
        websocket: ClientConnection,
        settings: GeminiSettings,
        resumed: Resume | None,
        token: Token | None,
    ) -> None:
        family = settings.family
        override = settings.audio_during_tools
        self._capabilities = Capabilities(
            input_format=AudioFormat(settings.input_rate),
            output_format=AudioFormat(DEFAULT_RATE),
            resumption=True,
            audio_during_tools=family.audio_during_tools if override is None else override,
        )
        self._websocket = websocket
        self._settings = settings
        self._family = family
        self._resumed = resumed is not None
        self._credential = None if token is None else token.credential
        self._decoder = Decoder(None if resumed is None else resumed.handle)
        self._audio_prefix = protocol.audio_prefix(settings.input_rate)
        self._early: list[Event] = []
        self._trail = Trail()
        self._now = asyncio.get_running_loop().time
        self._sent = 0
        self._arrived = 0
        interval = settings.ping_interval
        self._lost_after = max(settings.lost_after, 0.0 if resumed is None else resumed.patience)
        self._keepalive = (
            None if interval is None else Keepalive(websocket, interval, self._lost_after, lambda: self._sent)
        )
        self._guarding: asyncio.Task[None] | None = None
        self._lost = False
        self._closing = False
        self._told = False
        self._malformed_worth_a_line = 1

    @property
    def capabilities(self) -> Capabilities:
        """What this session takes and gives."""
        return self._capabilities

    @property
    def resume(self) -> Resume | None:
        """The newest handle, with what belongs to it; also after this session has ended.

        After a silent loss it asks for twice the patience: if the loss was only the service's slowness, the
        next session must not be lost by the same.
        """
        handle = self._decoder.handle
        if handle is None:
            return None
        patience = min(2 * self._lost_after, MAX_PATIENCE) if self._lost else self._lost_after
        return Resume(handle, self._credential, patience)

    @property
    def resumed(self) -> bool:
        """It goes on from a former session."""
        return self._resumed

    @property
    def sent(self) -> int:
        """Messages that the socket has taken, the setup included."""
        return self._sent

    @property
    def confirmed(self) -> int:
        """So many of them have arrived: a pong or the closing handshake says so.

        All of them where no pings are sent: nobody knows, and few are lost with a connection.
        """
        return self._sent if self._keepalive is None else max(self._arrived, self._keepalive.confirmed)

    @property
    def counts(self) -> Counts:
        """What came in and what of it was of no use; the object lives on with the session."""
        return self._decoder.counts

    async def send_audio(self, pcm: bytes) -> None:
        """Send caller audio, 16-bit little-endian mono at ``settings.input_rate``.

        Waits while the socket does not take it. Cancelling leaves a message either sent or unsent, never
        half sent. Raises SessionError when the session is over.
        """
        self._trail.audio_sent += 1
        await self._send(protocol.encode_audio(self._audio_prefix, pcm))

    async def send_audio_end(self) -> None:
        """Say that the caller's audio pauses, so that the turn can end without silence being sent.

        Cancelling and errors as in ``send_audio``; so with all senders.
        """
        await self._send_noted("audioStreamEnd", protocol.AUDIO_STREAM_END)

    async def send_text(self, text: str) -> None:
        """Send text as user input; the model answers it."""
        await self._send_noted("text", protocol.encode_text(text))

    async def greet(self, instruction: str) -> None:
        """Have the model speak first, as ``instruction`` says, the way ``settings.greeting_via`` names."""
        via = self._settings.greeting_via or self._family.greeting
        if via == "text":
            await self._send_noted("greeting", protocol.encode_text(instruction))
        else:
            await self._send_noted("greeting", protocol.encode_client_content(instruction))

    async def send_tool_results(self, results: Sequence[FunctionResult]) -> None:
        """Answer function calls, in one message. Ids of cancelled calls must not be among them."""
        names = " ".join(result.name for result in results)
        await self._send_noted(f"toolResponse {names}", protocol.encode_tool_results(self._family, results))

    async def receive(self) -> Sequence[Event]:
        """Wait for the next message and return its events, possibly none.

        Cancelling loses nothing. Raises SessionError when the session is over, MalformedMessage among them:
        after that one the session may be closed and resumed.
        """
        if self._early:
            events, self._early = self._early, []
            return events
        return await self._receive()

    async def close(self) -> None:
        """End the session with a close frame, within 1 s. Idempotent; raises nothing but its cancellation."""
        self._closing = True
        if self._guarding is not None:
            self._guarding.cancel()
        sent = self._sent
        await self._hang_up()
        if self._websocket.protocol.close_rcvd_then_sent is False:
            self._arrived = sent  # the answer to our close frame, which stood behind all of it
        if self._guarding is not None:
            await asyncio.wait([self._guarding])

    # Setup

    async def _set_up(self, setup: bytes, seed: Sequence[HistoryTurn]) -> None:
        limit = self._settings.setup_timeout
        try:
            async with asyncio.timeout(limit):
                await self._send_noted("setup", setup)
                while not self._decoder.setup_complete:
                    self._early += await self._receive()
                    if len(self._early) > _MAX_EARLY:
                        raise MalformedMessage("the model talks without having confirmed the setup")
                if seed:
                    await self._send_noted("history", protocol.encode_history(self._family, seed))
        except TimeoutError as exc:
            error = SessionUnavailable(f"{self._settings.host} did not confirm the setup within {limit:g} s")
            self._tell(error)
            raise error from exc
        model, family = self._settings.model, self._family.name
        log.info("= session open", model=model, family=family, resumed=self._resumed)
        if self._keepalive is not None:
            self._guarding = asyncio.create_task(self._guard(self._keepalive))

    def _abort(self) -> None:
        self._websocket.transport.abort()

    # Messages

    async def _send_noted(self, what: str, message: bytes) -> None:
        self._trail.note(self._now(), ">", f"{what} {len(message)} B")
        log.debug(f"> {what}", bytes=len(message))
        await self._send(message)

    async def _send(self, message: bytes) -> None:
        try:
            await self._websocket.send(message, text=True)
        except ConnectionClosed as exc:
            raise self._ended(exc) from exc
        self._sent += 1

    async def _receive(self) -> list[Event]:
        try:
            data = await self._websocket.recv()
        except ConnectionClosed as exc:
            raise self._ended(exc) from exc
        if self._keepalive is not None:
            self._keepalive.heard = True
        try:
            events = self._decoder.decode(data)
        except MalformedMessage as exc:
            self._tell(exc)
            raise
        if len(events) == 1 and type(events[0]) is AudioDelta:
            self._trail.audio_received += 1
        else:
            self._note_received(events, len(data))
        return events

    def _note_received(self, events: list[Event], size: int) -> None:
        what = " ".join(type(event).__name__ for event in events) or "nothing"
        self._trail.note(self._now(), "<", what)
        log.debug(f"< {what}", bytes=size)
        unknown = self._decoder.take_unknown()
        if unknown:
            log.info("< unknown keys", keys=unknown)
        malformed = self._decoder.counts.malformed
        if malformed >= self._malformed_worth_a_line:
            self._malformed_worth_a_line = 2 * malformed  # a babbling server must not fill the log
            log.warning("< malformed parts skipped", count=malformed)

    # The end

    async def _guard(self, keepalive: Keepalive) -> None:
        """Give the connection up when it is lost."""
        if await keepalive.silence():
            self._lost = True
            # A close frame that arrives after all frees the handle, which a silent loss keeps locked.
            await self._hang_up()

    async def _hang_up(self) -> None:
        """Close within CLOSE_TIMEOUT; behind a full socket the close frame alone would wait for ever."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._websocket.close()
        except TimeoutError:
            log.debug("! close frame not answered")
        finally:
            self._abort()  # does nothing after a clean close

    def _ended(self, exc: ConnectionClosed) -> SessionError:
        """Why the connection is gone; the first time it is also logged with the last messages."""
        error = self._why(exc)
        if not self._closing:
            self._tell(error)
        return error

    def _why(self, exc: ConnectionClosed) -> SessionError:
        if self._closing:
            return SessionError("the session was closed from here")
        if self._lost:
            return SessionDropped(f"nothing came from the model for {self._lost_after:g} s")
        if exc.rcvd is None and exc.sent is not None and exc.sent.code in _PROTOCOL_CODES:
            why = one_line(exc.sent.reason)
            return MalformedMessage(f"the model broke the WebSocket protocol: {why}", exc.sent.code)
        code, reason = (_NO_CLOSE_FRAME, "") if exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason)
        reason = self._settings.redact(reason)
        established = self._decoder.setup_complete
        return close_error(code, reason, established=established, resumed=self._resumed)

    def _tell(self, error: SessionError) -> None:
        if not self._told:
            self._told = True
            retry, last = error.retry.value, self._trail.lines(self._now())
            log.warning("! session lost", reason=str(error), code=error.code, retry=retry, last=last)
